"""A small client for exactly one unary call over the Unix socket, for `get`, `panic` and `lock`.

Starting gRPC costs several times as much as the rest of a `get`, and a shell script pays for it on
every call. So this package writes and reads the few hundred bytes of HTTP/2 of one call by hand.
`panic` and `lock` use it as well, because it gets through to a flooded daemon (see `ending`). It
understands only what the daemon sends. If something legal but unknown comes, it raises `HandOver`,
and the ordinary command does the job with gRPC. If something illegal comes, it ends the call.

A hand-over before the request is sent costs nothing. After it, there may be a second lease: the
daemon may have issued one with the answer that was not understood. That lease belongs to the same
process tree, holds the same keys under the same grant, appears in `leases` and expires. So nobody
gets more than before, except that a grant with limited uses loses one more. Backpack's daemon never
sends anything that leads there; only another server would.
"""

from backpack_client.failures import Failure


class HandOver(Exception):  # noqa: N818 - not an error: it tells the caller to use gRPC
    """The fast path does not know this: let the ordinary command do the job.

    The message says what it met, for tests and debuggers.
    """


def malformed(what: str) -> Failure:
    """Make the failure for an answer that breaks the protocol.

    Args:
        what: the broken rule, in a few words, without any received text.
    """
    return Failure(
        f"the program at the socket is not a backpack daemon: {what}",
        reason="protocol",
        hint="see BACKPACK_SOCKET; client and daemon may be of different versions",
    )

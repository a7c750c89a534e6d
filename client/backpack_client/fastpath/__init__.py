"""A small client for exactly one unary call over the Unix socket, for `get`, `panic` and `lock`.

Starting gRPC costs several times what the rest of a `get` does, and a shell script pays that on
every call. So the few hundred bytes of HTTP/2 that one call is are written and read by hand here,
and nowhere else. `panic` and `lock` are called this way since it gets through to a daemon that is
flooded (see `ending`). It understands what the daemon sends and nothing more: legal things that it
does not know raise `HandOver`, upon which the ordinary command does the job with gRPC, and things
that are not legal end the call.

A hand-over before the request is sent costs nothing. One after it may leave a second lease: the
daemon may have issued one for the answer that was not understood. That lease belongs to the same
process tree, holds the same keys under the same grant, is seen in `leases` and ends by itself, so
nobody gets what he would not have got; of a grant with limited uses it takes one more. The daemon
itself never sends anything that leads there: only a server of another make does.
"""

from backpack_client.failures import Failure


class HandOver(Exception):  # noqa: N818 - not an error: the sign to let gRPC do it
    """The fast path does not know this: let the ordinary command do the job.

    The message says what it was, for tests and debuggers.
    """


def malformed(what: str) -> Failure:
    """Make the failure for an answer that breaks the protocol.

    Args:
        what: which rule was broken, in a few words; nothing of what came in.
    """
    return Failure(
        f"what answers at the socket is not a backpack daemon: {what}",
        reason="protocol",
        hint="see BACKPACK_SOCKET; client and daemon may be of different versions",
    )

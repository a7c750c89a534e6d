"""gRPC over the Unix socket by hand: what `get`, `panic`, `lock` and agents call, without grpc.

A connection carries one call and is closed after it. That suits them: a lease belongs to a process
tree, not to a connection. Operator authority does belong to one, so whoever has it uses grpc.

`hpack`, `http2` and `messages` do no I/O: bytes in, values out. `conversation` makes one call for
`get`; `blocking` and `asynchronous` make those of the APIs. Every `get` imports all but these two,
so they import nothing that costs.

A call that was refused or cut off raises `Ended`; what breaks the protocol, or is not known here,
is a Failure. Nothing is asked twice: a second GetKeys would be a second lease.
"""

from backpack_client.failures import Failure, from_status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class Unknown(Failure):
    """What came is legal, and not known here. The daemon never sends such a thing."""

    def __init__(self, what: str) -> None:
        """Say what it was, in a few words; nothing of what came in."""
        super().__init__(
            f"the daemon answers in a way that this client does not know: {what}",
            reason="protocol",
            hint="client and daemon may be of different versions: see backpack-client status",
        )


class Ended(Exception):  # noqa: N818 - the end of a call, as the daemon or the connection gave it
    """A call ended without an answer.

    Attributes:
        status: the gRPC status by its canonical name, such as "NOT_FOUND".
        message: the status message.
        facts: what the daemon told besides, by its names on the wire, such as `backpack-reason`.
    """

    def __init__(self, status: str, message: str, facts: "Mapping[str, str] | None" = None) -> None:
        super().__init__(status)
        self.status = status
        self.message = message
        self.facts = dict(facts or {})

    def failure(self, known: "Mapping[str, str]") -> Failure:
        """Turn it into what a person or a program is told.

        Args:
            known: what the caller knows besides, such as `backpack-names`; what the daemon told
                goes before it.
        """
        reason = self.facts.get("backpack-reason", "")
        return from_status(self.status, reason, self.message, {**known, **self.facts})


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


def lost() -> Ended:
    """Make the end of a call whose connection was closed under it."""
    return Ended("CANCELLED", "the daemon closed the connection before it answered")


def late() -> Ended:
    """Make the end of a call that was given no more time."""
    return Ended("DEADLINE_EXCEEDED", "the daemon did not answer in time")

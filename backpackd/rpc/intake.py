"""Tells the door of every request that the server takes up."""

from collections.abc import Callable

import grpc

from backpackd.ports import MARK


class Intake(grpc.GenericRpcHandler):
    """Looks at each request first, and leaves it to the handlers after it.

    The server asks its handlers once for every request that comes off its line, also for one whose
    connection has closed meanwhile and whose method is never called.
    """

    def __init__(self, arrived: Callable[[str], None]) -> None:
        """Say who is told.

        Args:
            arrived: given the mark of the connection that the request came on.
        """
        self._arrived = arrived

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> None:
        """Tell of a request, and handle it not."""
        metadata = handler_call_details.invocation_metadata or ()
        marks = [value for name, value in metadata if name == MARK and isinstance(value, str)]
        if marks:
            # The door's is the last one: it stands at the end of the request's headers.
            self._arrived(marks[-1])

"""The command line's connection: the Python API, and the calls that only an operator at work needs.

Those are of `slot_calls` and `backup_calls`, each with its own way of being carried out.
"""

from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING

from backpack_client.api import Backpack, Watch
from backpack_client.calls.call import Answer, Call
from backpack_client.channel import RpcError

if TYPE_CHECKING:
    from google.protobuf.message import Message


class Connection(Backpack):
    """A connection to the daemon that carries any call out."""

    def follow(self, call: Call[Answer]) -> Watch[Answer]:
        """Carry out a call that streams, one response at a time."""
        return Watch(call, self._open(passphrase=call.passphrase), self._failure_of)

    def send(self, call: Call[Answer], more: Iterable["Message"]) -> Answer:
        """Carry out a call that takes a stream: its own request, then these."""
        serialize = type(call.request).SerializeToString
        channel = self._open(passphrase=call.passphrase)
        stream = channel.stream_unary(call.method, serialize, call.parse)
        try:
            return call.read(stream(chain([call.request], more)))
        except RpcError as error:
            raise self._failure_of(error, call) from None

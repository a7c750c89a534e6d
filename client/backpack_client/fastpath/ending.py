"""The two calls that end everything, `Panic` and `Lock`, without gRPC.

They must get through even if other calls do not. A flood keeps the daemon's queue of new
connections full. `address.connect` waits for a place in this queue. gRPC would give the attempt up,
and start the next one much later.
"""

from contextlib import closing

from backpack_client.address import connect
from backpack_client.wire import Ended, conversation, messages
from backpack_client.wire.messages import Message, decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from backpack_client.wire.messages import Table

PANIC = "/backpack.v1.Vault/Panic"
LOCK = "/backpack.v1.Vault/Lock"
# How long to wait for a connection, and then for the answer, in seconds.
_PATIENCE = 60


def panic(path: str) -> tuple[int, int]:
    """End every lease and request and lock the vault.

    Args:
        path: the daemon's socket.

    Returns:
        How many leases and how many requests ended.

    Raises:
        Unknown: the answer is not known here; to ask again does no harm.
        Failure: the daemon is not there, or did not answer.
    """
    ended = _call(path, PANIC, messages.PANIC_RESPONSE)
    return ended.leases_ended, ended.requests_ended


def lock(path: str) -> int:
    """Lock the vault.

    Args:
        path: the daemon's socket.

    Returns:
        How many leases of the caller's process tree ended.

    Raises:
        Unknown: the answer is not known here; to ask again does no harm.
        Failure: the daemon is not there, or did not answer.
    """
    ended: int = _call(path, LOCK, messages.LOCK_RESPONSE).leases_ended
    return ended


def _call(path: str, method: str, response: "Table") -> Message:
    try:
        with closing(connect(path, patience=float(_PATIENCE))) as connection:
            return decode(response, conversation.call(connection, method, b"", _PATIENCE))
    except Ended as ended:
        raise ended.failure({}) from None

"""The two calls that end everything, `Panic` and `Lock`, without gRPC.

They must get through even if other calls do not. A flood keeps the daemon's queue of new
connections full. `address.connect` waits for a place in this queue. gRPC would give the attempt up,
and start the next one much later.
"""

from contextlib import closing

from backpack_client.address import connect
from backpack_client.fastpath import messages, unary

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
        HandOver: the answer is not known here; asking again does no harm.
        Failure: the daemon is not there, or did not answer.
    """
    counts = _call(path, PANIC)
    return counts.get(1, 0), counts.get(2, 0)


def lock(path: str) -> int:
    """Lock the vault.

    Args:
        path: the daemon's socket.

    Returns:
        How many leases of the caller's process tree ended.

    Raises:
        HandOver: the answer is not known here; asking again does no harm.
        Failure: the daemon is not there, or did not answer.
    """
    return _call(path, LOCK).get(1, 0)


def _call(path: str, method: str) -> dict[int, int]:
    with closing(connect(path, patience=float(_PATIENCE))) as connection:
        return messages.decode_counts(unary.call(connection, method, b"", _PATIENCE, {}))

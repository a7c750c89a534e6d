"""What a connected process has to be at the moment of a call, beyond what attestation reads.

Both checks are of the process as it is now. What it was when it connected says who it is, and not
what has become of it since.
"""

from backpackd.core.errors import NotProtectedError, UserChangedError
from backpackd.ports import Peer

_ROOT = 0


def check_user(peer: Peer) -> None:
    """Raise unless the process still runs as the user that the kernel gave at connect.

    A process that has executed a setuid program keeps its pid, and its child may hold the
    connection. Nothing is given under the name of a process that is somebody else's by now.

    Raises:
        UserChangedError: it runs as another user.
    """
    uid = peer.process.uid()
    # One that has ended is found out by what attests it, with a word of its own.
    if uid is not None and uid != peer.uid:
        raise user_changed()


def check_protected(peer: Peer) -> None:
    """Raise unless other processes of the peer's user are kept out of it.

    They could read the passphrase in its memory, or take the descriptor of a connection that has
    operator authority (pidfd_getfd(2)). That is checked here, where authority is given and used,
    so that no client in whatever language can forget it. Root's processes can do all of that to
    any process, so for peers of uid 0 it would mean nothing.

    Raises:
        NotProtectedError: they can read it now, or could when it connected.
    """
    if peer.uid == _ROOT:
        return
    # For good: what was taken meanwhile stays taken when the process closes itself again.
    peer.exposed = peer.exposed or peer.process.readable_by(peer.uid)
    if peer.exposed:
        raise NotProtectedError(
            "other programs of this user can read the calling process and take its connection: "
            "call prctl(PR_SET_DUMPABLE, 0), with no debugger attached, then connect again and "
            "send the passphrase there"
        )


def may_have_authority(peer: Peer) -> bool:
    """Tell whether both checks let a peer pass."""
    try:
        check_user(peer)
        check_protected(peer)
    except (NotProtectedError, UserChangedError):
        return False
    return True


def user_changed() -> UserChangedError:
    """Make the error for a call whose process runs as another user by now."""
    return UserChangedError(
        "the process that connected runs as another user by now: connect from a process that "
        "keeps its user"
    )

"""What a connected process must be at the moment of a call, beyond what attestation reads.

Both checks look at the process as it is now. Its state at connect says who it is, but not what it
has become since.
"""

from backpackd.core.errors import NotProtectedError, UserChangedError
from backpackd.ports import Peer

_ROOT = 0


def check_user(peer: Peer) -> None:
    """Raise unless the process still runs as the user that the kernel reported at connect.

    A process that executes a setuid program keeps its pid, and its child may have the
    connection. Nothing is handed out for a process that now belongs to another user.

    Raises:
        UserChangedError: it runs as another user.
    """
    uid = peer.process.uid()
    # If the process has ended, its attestation will report that with a clearer error.
    if uid is not None and uid != peer.uid:
        raise user_changed()


def check_protected(peer: Peer) -> None:
    """Raise unless the peer is protected from other processes of its user.

    Those could read the passphrase in its memory, or take the descriptor of a connection that
    has operator authority (pidfd_getfd(2)). This is checked here, where authority is given and
    used, so that no client in any language can omit it. Root's processes can do all of this to
    any process, so the check would mean nothing for peers of uid 0.

    Raises:
        NotProtectedError: they can read it now, or could when it connected.
    """
    if peer.uid == _ROOT:
        return
    # Forever: what was taken stays taken, even if the process protects itself again.
    peer.exposed = peer.exposed or peer.process.readable_by(peer.uid)
    if peer.exposed:
        raise NotProtectedError(
            "other programs of this user can read the calling process and take its connection: "
            "call prctl(PR_SET_DUMPABLE, 0), with no debugger attached, then connect again and "
            "send the passphrase there"
        )


def may_have_authority(peer: Peer) -> bool:
    """Return whether a peer passes both checks."""
    try:
        check_user(peer)
        check_protected(peer)
    except (NotProtectedError, UserChangedError):
        return False
    return True


def user_changed() -> UserChangedError:
    """Create the error for a call whose process now runs as another user."""
    return UserChangedError(
        "the process that connected now runs as another user: connect from a process that "
        "keeps its user"
    )

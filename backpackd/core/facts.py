"""What the kernel says about a caller, and the root of its process tree.

Facts only: nothing here reads a process. Anything that a process can say of itself (its arguments,
its working directory, the reason that it gives) is a claim, is named so, and decides nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process of this boot, not merely its number.

    Attributes:
        pid: the process id in the daemon's pid namespace.
        start: when it started: clock ticks since boot on Linux (proc_pid_stat(5), field 22),
            microseconds since the epoch on macOS.
        unique: the inode of its pidfd where the kernel gives every process its own (pidfs, Linux
            6.9 and newer); else 0. Two processes never share one within a boot.
    """

    pid: int
    start: int
    unique: int = 0


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """What was read of one process while it was pinned.

    Attributes:
        id: which process this is.
        parent: its parent's pid at that moment; 0 for none in this namespace.
        session: its session id.
        terminal: its controlling terminal's device number; 0 for none.
        uid: its effective uid.
        executable: absolute path of what it runs; None when the kernel does not tell, which is a
            normal state and never matches a selector.
        unit: the systemd unit it runs in; None outside of one.
        manager: True for pid 1 and for the user's own service manager.
        name: what the process calls itself (a claim).
    """

    id: ProcessId
    parent: int
    session: int
    terminal: int
    uid: int
    executable: str | None = None
    unit: str | None = None
    manager: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True)
class PeerFacts:
    """A caller: the process that connected and its ancestors.

    Attributes:
        uid: the uid that the kernel gave for the connection.
        gid: the gid that the kernel gave for the connection.
        chain: the process itself first, then its parent, and so on up to pid 1 or to what cannot
            be seen.
        digests: SHA-256 of what processes of the chain run, lowercase hex, of those that could be
            read. By process: the same path may name another file in another mount namespace. None:
            nothing needed them when the facts were read.
        root_at: where in `chain` the root is because that process runs as an agent of its own;
            None: where `root_index` finds it.
    """

    uid: int
    gid: int
    chain: tuple[ProcessFacts, ...]
    digests: Mapping[ProcessId, str] | None = None
    root_at: int | None = None

    @property
    def process(self) -> ProcessFacts:
        """The process that connected."""
        return self.chain[0]

    @property
    def root(self) -> ProcessFacts:
        """The root of the caller's process tree, the thing that consent is given to."""
        if self.root_at is not None:
            return self.chain[self.root_at]
        return self.chain[root_index(self.chain)]

    @property
    def tree(self) -> tuple[ProcessFacts, ...]:
        """The part of the chain that lies in the tree that the kernel's facts alone make.

        The caller up to and with the root that `root_index` finds: an agent that is a root of its
        own stays in the tree that it was started in, and so does what it starts, on terminals of
        their own too. This is for permission, and names the root that a prohibition is recorded
        for. Whom a prohibition reaches is a matter of all of `chain`, since a process can move the
        end of its tree inwards (decision 0011).
        """
        end = root_index(self.chain)
        if self.root_at is not None:
            end = max(end, self.root_at + root_index(self.chain[self.root_at :]))
        return self.chain[: end + 1]

    @property
    def origin(self) -> ProcessFacts:
        """The root that no process has chosen: the outermost of `tree`."""
        return self.tree[-1]

    @property
    def outermost(self) -> int:
        """Where in `chain` the outermost process is that is neither a manager nor another uid's."""
        return _outermost(self.chain)


def root_index(chain: tuple[ProcessFacts, ...]) -> int:
    """Find the root of the process tree in a chain of ancestors.

    In the outermost session that has a controlling terminal it is the highest process that is not
    the session's leader: an agent started from a shell is one tree, with all the sessions,
    terminals and shells that it opens inside, and the shell itself is never swept in. Where only
    the leader stands in the chain, it is the process just below it. Without any terminal it is the
    highest process below pid 1 or the user's service manager.

    Processes of another uid at the top of the chain count as managers, too. Otherwise every job of
    cron, and every command over ssh without a terminal, would be in one tree, under the daemon that
    started them all.

    A part of a chain, cut off above the caller, has its root no further up than the whole chain:
    what cannot be seen makes trees smaller, never larger.

    Args:
        chain: at least one process, the caller first, each one's parent next.

    Returns:
        The index of the root in `chain`. A caller that has only managers above it, or that leads
        the terminal's session itself, is its own root.
    """
    top = _outermost(chain)
    index = next((i for i in range(top, -1, -1) if chain[i].terminal), top)
    # More than one step where a leader started the next one, as `exec script` in a shell does.
    while index > 0 and _leads_terminal(chain, index):
        index -= 1
    return index


def _outermost(chain: tuple[ProcessFacts, ...]) -> int:
    """Find the outermost process of a chain that only managers and other uids stand above."""
    top = len(chain) - 1
    while top > 0 and (chain[top].manager or chain[top].uid != chain[0].uid):
        top -= 1
    return top


def _leads_terminal(chain: tuple[ProcessFacts, ...], index: int) -> bool:
    """Tell whether a process is the leader of a terminal's session, or its shell in other ways.

    `su -` on Linux and `login` on macOS stay in the session as another uid, and the shell that they
    start does not lead it. It stands in for the leader, also where its parent cannot be seen.
    """
    process = chain[index]
    if not process.terminal:
        return False
    if process.id.pid == process.session:
        return True
    if index + 1 < len(chain):
        above = chain[index + 1]
        return above.uid != process.uid and above.session == process.session
    return process.parent > 1 or (process.parent == 1 and process.session == 1)

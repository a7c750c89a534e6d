"""The kernel's facts about a caller, and the root of its process tree.

Facts only: nothing here reads a process. Everything that a process can say about itself (its
arguments, its working directory, its reason) is a claim, is named so, and decides nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, unique

from backpackd.core.process_roles import HOOKS, SHELLS, STARTERS, is_one_of, is_program


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


@unique
class Answer(Enum):
    """What the kernel says when it is asked what a process runs.

    Each is an answer of its own. None of them means that nothing has changed since another one was
    given: an unknown program is not the known program that ran before.
    """

    NAMED = "named"
    """An absolute path that names the file."""
    UNNAMED = "unnamed"
    """A file without a path: deleted, in memory only, on an unreachable mount, or not UTF-8."""
    HIDDEN = "hidden"
    """Not for this user to know: the process is undumpable, or another user's."""
    NOTHING = "nothing"
    """No program: the first thread has ended, or the process is the kernel's own."""
    ENDED = "ended"
    """The process is not there any more: it runs nothing, and never will again."""


@dataclass(frozen=True, slots=True)
class Image:
    """Which program a process runs, as far as the kernel tells: to notice that it has changed.

    Attributes:
        answer: what the kernel said; the rest is 0 unless it named or opened the file.
        device: of the file that is executed, also where no path names it any more.
        inode: of that file.
        layout: where code and stack begin (proc_pid_stat(5), fields 26 and 28). The kernel draws
            both at each exec, so another run of the same interpreter has others. A process can
            write what it likes there: a difference refuses, and no equality allows.
    """

    answer: Answer = Answer.NOTHING
    device: int = 0
    inode: int = 0
    layout: tuple[int, int] = (0, 0)


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
        manager: True for pid 1 where that is an init system, and for the service manager of the
            user.
        name: what the process calls itself (a claim).
        image: which program it runs; never compared with a selector.
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
    image: Image = Image()


@dataclass(frozen=True, slots=True)
class PeerFacts:
    """A caller: the process that connected and its ancestors.

    Attributes:
        uid: the uid that the kernel gave for the connection. It decides whose a process of the
            chain is: the uids in the chain are read now, and a setuid program changes them.
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
        return self.chain[root_index(self.chain, self.uid)]

    @property
    def hooked(self) -> ProcessFacts | None:
        """The shell of a terminal for which the root works as a hook; None: the root is no hook.

        A grant to the root would end with it in a moment, so hints offer the shell. That is wider,
        and names of programs decide it: nothing but a hint may be made of it.
        """
        index = self.root_at if self.root_at is not None else root_index(self.chain, self.uid)
        shell = index + 1
        if shell == len(self.chain) or not _leads_terminal(self.chain, shell, self.uid):
            return None
        # A shell forks for `$(direnv export bash)`, and may wait for the program there.
        while index > 0 and _is_fork(self.chain[index], self.chain[shell]):
            index -= 1
        process = self.chain[index]
        is_hook = is_one_of(HOOKS, process.executable, process.name)
        return self.chain[shell] if is_hook and self.chain[shell].uid == self.uid else None

    @property
    def user_changed(self) -> bool:
        """Whether the process that connected runs as another user by now."""
        return self.process.uid != self.uid

    @property
    def tree(self) -> tuple[ProcessFacts, ...]:
        """The part of the chain that lies in the tree that the kernel's facts alone make.

        The caller up to and with the root that `origin_index` finds: an agent that is a root of its
        own stays in the tree that it was started in, and so does what it starts, on terminals of
        their own too. This is for permission, and names the root that a prohibition is recorded
        for. Whom a prohibition reaches is a matter of all of `chain`, since a process can move the
        end of its tree inwards (decision 0011).
        """
        end = origin_index(self.chain, self.uid)
        if self.root_at is not None:
            end = max(end, self.root_at + origin_index(self.chain[self.root_at :], self.uid))
        return self.chain[: end + 1]

    @property
    def origin(self) -> ProcessFacts:
        """The root that no process has chosen: the outermost of `tree`."""
        return self.tree[-1]

    @property
    def outermost(self) -> int:
        """Where in `chain` the outermost process is that is neither a manager nor another uid's.

        What stands right below the user's own service manager counts, whatever uid it has by now.
        """
        return _outermost(self.chain, self.uid)


def root_index(chain: tuple[ProcessFacts, ...], uid: int) -> int:
    """Find the root of the process tree in a chain of ancestors: what consent is proposed for.

    It is the process that `origin_index` finds, or the next one below it that runs as the peer's
    uid and is neither a shell that leads a terminal's session nor a program that starts what people
    open (`core.process_roles`). A process of root's may start the programs of everybody (`sudo
    sshd`), and a terminal multiplexer those of a whole login: one approval must not cover them.

    Args:
        chain: at least one process, the caller first, each one's parent next.
        uid: the peer's, as the kernel gave it for the connection.

    Returns:
        The index of the root in `chain`.
    """
    index = origin_index(chain, uid)
    while index > 0 and (
        chain[index].uid != uid or _leads_terminal(chain, index, uid) or _is_starter(chain[index])
    ):
        index -= 1
    return index


def origin_index(chain: tuple[ProcessFacts, ...], uid: int) -> int:
    """Find the outermost process that the caller's tree reaches to: what prohibitions are for.

    In the outermost session that has a controlling terminal it is the highest process, and not the
    session's leader where that is a shell: an agent started from a shell is one tree, with all the
    sessions, terminals and shells that it opens inside, and the shell itself is never swept in. An
    agent that leads the session itself (`exec`, a pane of a terminal multiplexer, a container with
    a terminal) is the root of what it starts. Without any terminal it is the highest process below
    pid 1 or the user's service manager.

    Processes of another uid at the top of the chain count as managers, too. Otherwise every job of
    cron, and every command over ssh without a terminal, would be in one tree, under the daemon that
    started them all.

    A process inside that runs as another uid by now stays in the tree. Otherwise an agent could
    execute `su` and leave behind what was refused to it.

    A part of a chain, cut off above the caller, has its root no further up than the whole chain:
    what cannot be seen makes trees smaller, never larger.

    Args:
        chain: as for `root_index`.
        uid: as for `root_index`.

    Returns:
        The index in `chain`. A caller that has only managers above it, or that leads the terminal's
        session itself, is its own root.
    """
    top = _outermost(chain, uid)
    index = next((i for i in range(top, -1, -1) if chain[i].terminal), top)
    # More than one step where a shell started the next one on a terminal of its own.
    while index > 0 and _leads_terminal(chain, index, uid):
        index -= 1
    return index


def _outermost(chain: tuple[ProcessFacts, ...], uid: int) -> int:
    """Find the outermost process of a chain that only managers and other uids stand above.

    The uid is the peer's, and not that of the process as it is now: one that has executed `su`
    since it connected would make root's services its own, up to the ssh server.
    """
    top = len(chain) - 1
    while top > 0 and (chain[top].manager or chain[top].uid != uid):
        if chain[top].manager and chain[top].uid == uid and chain[top].id.pid != 1:
            # What the user's own service manager has started is the user's, also when it has
            # executed a setuid program since.
            return top - 1
        top -= 1
    return top


def _leads_terminal(chain: tuple[ProcessFacts, ...], index: int, uid: int) -> bool:
    """Tell whether a process is the shell that leads a terminal's session, or stands in for it.

    `su -` on Linux and `login` on macOS stay in the session as another uid, and the shell that they
    start does not lead it. It stands in for the leader, also where its parent cannot be seen.

    A program that is no shell and starts nothing for people is an agent, leader or not.
    """
    process = chain[index]
    if not process.terminal or (
        process.uid == uid and is_program(process.executable, process.name)
    ):
        return False
    if process.id.pid == process.session:
        return True
    if index + 1 < len(chain):
        above = chain[index + 1]
        return above.uid != uid and process.uid == uid and above.session == process.session
    return process.parent > 1 or (process.parent == 1 and process.session == 1)


def _is_starter(process: ProcessFacts) -> bool:
    return is_one_of(STARTERS, process.executable, process.name)


def _is_fork(process: ProcessFacts, shell: ProcessFacts) -> bool:
    """Tell whether a process is a shell's fork that has executed nothing since."""
    return (
        process.image.answer is Answer.NAMED
        and process.image == shell.image
        and is_one_of(SHELLS, process.executable, process.name)
    )

"""Which program a real process runs, whose it is, and who can read it, whatever it does."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from backpackd.adapters.processes import pinned, procfs
from backpackd.adapters.processes.linux import LinuxProcesses, open_process
from backpackd.core.peer_facts import Answer, ProcessId
from real_processes import NOBODY, WAITING, Start, attest, python

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

IN_MEMORY = """
import os, shutil
fd = os.memfd_create("sh")
with open("/bin/sh", "rb") as source, os.fdopen(fd, "wb", closefd=False) as target:
    shutil.copyfileobj(source, target)
os.execv(f"/proc/self/fd/{fd}", ["sh", "-c", "echo ready; read line"])
"""


def test_a_program_in_memory_has_no_path_and_is_a_file_of_its_own(start: Start) -> None:
    facts = attest(start(sys.executable, "-c", IN_MEMORY)).process
    assert facts.executable is None
    assert facts.image.answer is Answer.UNNAMED
    assert facts.image.inode not in (0, Path("/bin/sh").stat().st_ino)


def test_an_unlinked_program_is_the_same_file_without_a_path(start: Start, tmp_path: Path) -> None:
    program = tmp_path / "program"
    shutil.copy("/bin/sh", program)
    pid = start(program, "-c", "echo ready; read line")
    before = attest(pid).process.image
    program.unlink()
    after = attest(pid).process.image
    assert (before.answer, after.answer) == (Answer.NAMED, Answer.UNNAMED)
    assert (before.device, before.inode) == (after.device, after.inode)


def test_another_file_at_the_same_path_is_another_program(start: Start, tmp_path: Path) -> None:
    program, other = tmp_path / "program", tmp_path / "other"
    shutil.copy("/bin/sh", program)
    shutil.copy("/bin/sh", other)
    again = (
        f"echo ready; read line; mv {other} {program}; exec {program} -c 'echo ready; read line'"
    )
    child = subprocess.Popen(
        [program, "-c", again], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child:
        assert child.stdout.readline() == "ready\n"
        before = attest(child.pid).process
        child.stdin.write("go\n")
        child.stdin.flush()
        assert child.stdout.readline() == "ready\n"
        after = attest(child.pid).process
        child.kill()
    assert before.executable == after.executable == str(program)
    assert before.image.inode != after.image.inode


def test_another_run_of_the_same_interpreter_has_another_layout(start: Start) -> None:
    if Path("/proc/sys/kernel/randomize_va_space").read_text().strip() == "0":
        pytest.skip("needs a kernel that randomizes where programs lie")
    child = subprocess.Popen(
        ["/bin/sh", "-c", "echo ready; read line; exec /bin/sh -c 'echo ready; read line'"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child:
        assert child.stdout.readline() == "ready\n"
        before, again = attest(child.pid).process, attest(child.pid).process
        child.stdin.write("go\n")
        child.stdin.flush()
        assert child.stdout.readline() == "ready\n"
        after = attest(child.pid).process
        child.kill()
    assert before.image == again.image
    assert (before.id, before.executable) == (after.id, after.executable)
    assert (before.image.device, before.image.inode) == (after.image.device, after.image.inode)
    assert before.image.layout != after.image.layout


UNDUMPABLE = f"import os; os.setresgid(*[{NOBODY}] * 3); os.setresuid(*[{NOBODY}] * 3)"
"""Becomes another user, by which the kernel closes a process as prctl(2) does."""


def test_what_a_process_hides_from_its_user_is_hidden_and_not_nothing(start: Start) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to start processes of another user")
    hidden = start(*python(UNDUMPABLE))
    up, told = os.pipe()
    if (reader := os.fork()) == 0:
        try:
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            facts = attest(hidden).process
            os.write(
                told, f"{facts.image.answer.name} {facts.executable} {facts.image.inode}".encode()
            )
        finally:
            os._exit(0)
    os.close(told)
    os.waitpid(reader, 0)
    with os.fdopen(up) as answer:
        assert answer.read() == "HIDDEN None 0"


def test_whether_others_can_read_a_process_is_told_by_the_kernel(start: Start) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to start processes of another user")
    child = subprocess.Popen(
        ["/bin/sh", "-c", "echo ready; read line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        user=NOBODY,
    )
    assert child.stdout is not None
    with child, closing(open_process(child.pid)) as process:
        assert child.stdout.readline() == "ready\n"
        assert process.uid() == NOBODY
        assert process.readable_by(NOBODY)
        assert not process.readable_by(NOBODY - 1)
        child.kill()
    with closing(open_process(start(*python(UNDUMPABLE)))) as process:
        assert process.uid() == NOBODY
        assert not process.readable_by(NOBODY)


SEIZES = """
    import ctypes
    # PTRACE_SEIZE (ptrace(2)): the tracer is this thread, until it ends.
    assert ctypes.CDLL(None).ptrace(0x4206, {}, 0, 0) == 0
"""
TWO_THREADS = f"""
    import threading
    {UNDUMPABLE}
    threading.Thread(target=threading.Event().wait).start()
"""


@pytest.mark.parametrize("which", [0, -1], ids=["its first thread", "another thread"])
def test_a_closed_process_that_is_traced_counts_as_readable(start: Start, which: int) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to start processes of another user and trace them")
    pid = start(*python(TWO_THREADS))
    thread = sorted(int(one.name) for one in Path(f"/proc/{pid}/task").iterdir())[which]
    with closing(open_process(pid)) as process:
        assert not process.readable_by(NOBODY)
        tracer = start(*python(SEIZES.format(thread)))
        traced = process.readable_by(NOBODY)
        # First of all: nobody else can wait for what it traces.
        os.kill(tracer, signal.SIGKILL)
        os.waitid(os.P_PID, tracer, os.WEXITED | os.WNOWAIT)
        assert traced
        assert not process.readable_by(NOBODY)


def test_a_process_with_too_many_threads_to_look_at_counts_as_readable(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to start processes of another user")
    with closing(open_process(start(*python(TWO_THREADS)))) as process:
        monkeypatch.setattr(pinned, "_MOST_THREADS", 2)
        assert not process.readable_by(NOBODY)
        monkeypatch.setattr(pinned, "_MOST_THREADS", 1)
        assert process.readable_by(NOBODY)


def test_a_process_that_has_ended_counts_as_readable_and_as_nobodys(start: Start) -> None:
    pid = start(*python(""))
    with closing(open_process(pid)) as process:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert process.uid() is None
        assert process.readable_by(os.geteuid())


def test_a_process_that_changes_its_user_after_it_connected_is_seen_to(start: Start) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user")
    facts = attest(start(*python(UNDUMPABLE)), 0)
    assert facts.user_changed
    assert not attest(os.getpid(), os.geteuid()).user_changed


def test_what_lives_and_cannot_be_read_is_not_said_to_have_ended(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = attest(start(*python(""))).process.id
    with closing(LinuxProcesses()) as processes:
        assert not processes.ended(identity)
        assert processes.ended(ProcessId(identity.pid, identity.start - 1, identity.unique + 1))

        def unreadable(pid: int) -> procfs.ProcessFiles:
            raise PermissionError(pid)

        monkeypatch.setattr(procfs.ProcessFiles, "open", unreadable)
        assert not processes.ended(identity)


def test_a_process_in_a_namespace_of_its_users_own_is_not_closed_by_closing_itself(
    start: Start,
) -> None:
    # The user that made the namespace may attach to everything in it (user_namespaces(7)).
    python3 = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    unshare = shutil.which("unshare")
    if os.geteuid() != 0 or python3 is None or unshare is None:
        pytest.skip("needs root, unshare, and a Python for all users")
    become = f"import os; os.setresgid(*[{NOBODY}] * 3); os.setresuid(*[{NOBODY}] * 3)"
    closed = "import ctypes; assert ctypes.CDLL(None).prctl(4, 0, 0, 0, 0) == 0"
    command = [unshare, "--user", "--map-root-user", python3, "-c", WAITING, closed]
    pid = start(sys.executable, "-c", f"{become}; os.execv({unshare!r}, {command!r})")
    with closing(open_process(pid)) as process:
        assert process.uid() == NOBODY
        assert process.readable_by(NOBODY)

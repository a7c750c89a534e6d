"""Attacks on the reading of /proc, with real processes."""

import ctypes
import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from backpackd.adapters.processes import linux, process_reader, procfs
from backpackd.adapters.processes.linux import LinuxProcesses, open_process
from backpackd.core.errors import LimitError, ProcessGoneError
from descriptors import descriptors
from real_processes import NOBODY, Start, attest, python

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", [") R 1 1 1", "a b", "x\ny (z) S 1", ")))) 0 0"])
def test_a_process_cannot_change_its_parent_by_its_name(start: Start, name: str) -> None:
    pid = start(*python(f"open('/proc/self/comm', 'w').write({name!r})"))
    facts = attest(pid).process
    assert (facts.parent, facts.session, facts.name) == (os.getpid(), os.getsid(0), name)


def test_an_executable_that_was_deleted_is_unknown(start: Start, tmp_path: Path) -> None:
    program = tmp_path / "program"
    shutil.copy("/bin/sh", program)
    pid = start(program, "-c", "echo ready; read line")
    assert attest(pid).process.executable == str(program)
    program.unlink()
    assert attest(pid).process.executable is None


def test_an_executable_in_place_of_a_deleted_one_has_no_digest(
    start: Start, tmp_path: Path
) -> None:
    program = tmp_path / "program"
    shutil.copy("/bin/sh", program)
    pid = start(program, "-c", "echo ready; read line")
    identity = attest(pid).process.id
    assert LinuxProcesses().digest(identity, str(program)) is not None
    program.unlink()
    shutil.copy("/bin/cat", program)
    assert LinuxProcesses().digest(identity, str(program)) is None


def test_an_executable_whose_name_says_deleted_is_unknown(start: Start, tmp_path: Path) -> None:
    program = tmp_path / "program (deleted)"
    shutil.copy("/bin/sh", program)
    assert attest(start(program, "-c", "echo ready; read line")).process.executable is None


def test_an_executable_whose_path_is_not_text_is_unknown(start: Start, tmp_path: Path) -> None:
    program = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    shutil.copy("/bin/sh", program)
    assert attest(start(program, "-c", "echo ready; read line")).process.executable is None


def test_an_executable_larger_than_the_limit_has_no_digest(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = attest(start(*python(""))).process
    monkeypatch.setattr(linux, "_DIGEST_LIMIT", 4096)
    assert LinuxProcesses().digest(facts.id, facts.executable or "") is None


@pytest.mark.parametrize(("owner", "mode"), [(0, 0o775), (0, 0o757), (NOBODY, 0o755)])
def test_the_digest_of_a_file_that_the_user_can_write_is_not_remembered(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: int, mode: int
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to make files of root and of another user")
    program = tmp_path / "program"
    shutil.copy("/bin/sh", program)
    os.chown(program, owner, 0)
    program.chmod(mode)
    processes = LinuxProcesses()
    facts = attest(start(program, "-c", "echo ready; read line")).process
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    assert processes.digest(facts.id, str(program)) is not None
    assert processes._digests == {}


def test_a_daemon_of_root_remembers_no_digest(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = attest(start("/bin/sh", "-c", "echo ready; read line")).process
    processes = LinuxProcesses()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert processes.digest(facts.id, facts.executable or "") is not None
    assert processes._digests == {}


def test_the_digest_of_a_file_that_only_root_can_write_is_remembered(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = attest(start("/bin/sh", "-c", "echo ready; read line")).process
    assert facts.executable is not None
    if Path(facts.executable).stat().st_uid != 0:
        pytest.skip("needs a shell that belongs to root")
    processes = LinuxProcesses()
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    first = processes.digest(facts.id, facts.executable)
    assert list(processes._digests.values()) == [first]
    assert processes.digest(facts.id, facts.executable) == first


def test_the_uid_is_told_of_an_undumpable_process_of_another_user(start: Start) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to start a process of another user")
    undumpable = f"""
        import ctypes, os
        os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
        os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
        assert ctypes.CDLL(None).prctl(4, 0, 0, 0, 0) == 0
    """
    facts = attest(start(*python(undumpable)), NOBODY)
    assert facts.process.uid == NOBODY
    assert facts.root == facts.process


def test_a_peer_whose_first_thread_has_ended_is_attested(start: Start) -> None:
    ended = """
        import ctypes, os, sys, threading
        def stay():
            print("ready", flush=True)
            sys.stdin.read()
            os._exit(0)
        threading.Thread(target=stay).start()
        ctypes.CDLL(None).pthread_exit(None)
    """
    pid = start(*python(ended))
    facts = attest(pid).process
    assert (facts.id.pid, facts.parent) == (pid, os.getpid())


def test_a_process_that_calls_itself_systemd_is_no_manager(start: Start) -> None:
    pid = start(*python("open('/proc/self/comm', 'w').write('systemd')"))
    facts = attest(pid).process
    assert (facts.name, facts.manager) == ("systemd", False)


class TestWalk:
    def test_a_chain_ends_at_its_limit(self, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        pid = start(*python(""))
        monkeypatch.setattr(linux, "_CHAIN_LIMIT", 2)
        assert [facts.id.pid for facts in attest(pid).chain] == [pid, os.getpid()]

    def test_ancestors_that_keep_changing_end_in_a_refusal(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pid = start(*python(""))
        monkeypatch.setattr(LinuxProcesses, "_read_kept", lambda *_: None)
        monkeypatch.setattr(process_reader.ProcessReader, "has_parent", lambda *_: False)
        with pytest.raises(ProcessGoneError):
            attest(pid)

    def test_a_peer_that_ends_while_it_is_read_is_refused(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pid = start(*python(""))
        read = procfs.ProcessFiles.read_unit

        def end_and_read(files: procfs.ProcessFiles) -> str | None:
            if files.pid == pid:
                os.kill(pid, signal.SIGKILL)
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            return read(files)

        monkeypatch.setattr(procfs.ProcessFiles, "read_unit", end_and_read)
        with pytest.raises(ProcessGoneError):
            attest(pid)

    def test_a_peer_that_cannot_be_read_is_refused(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pid = start(*python(""))

        def hidden(_: int) -> procfs.ProcessFiles:
            raise PermissionError

        monkeypatch.setattr(procfs.ProcessFiles, "open", hidden)
        with pytest.raises(ProcessGoneError):
            attest(pid)

    def test_a_hidden_ancestor_ends_the_chain(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pid = start(*python(""))
        read = procfs.ProcessFiles.read_uid

        def hide(files: procfs.ProcessFiles) -> int:
            if files.pid == os.getppid():
                raise FileNotFoundError
            return read(files)

        monkeypatch.setattr(procfs.ProcessFiles, "read_uid", hide)
        assert [facts.id.pid for facts in attest(pid).chain] == [pid, os.getpid()]


class TestKernel:
    def test_this_machine_is_not_degraded_where_its_kernel_is_new(self) -> None:
        release = tuple(int(part) for part in os.uname().release.split(".")[:2])
        assert (LinuxProcesses().degraded() == "") == (release >= (6, 9))

    def test_what_an_older_kernel_lacks_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(linux, "_pidfds_are_unique", lambda: False)
        monkeypatch.setattr(linux, "_peers_come_pinned", lambda: False)
        processes = LinuxProcesses()
        assert "SO_PEERPIDFD" in processes.degraded()
        assert "pidfs" in processes.degraded()
        process, identity = processes.pin(os.getpid())
        assert identity.unique == 0
        process.close()

    def test_a_thread_is_not_a_process(self, start: Start) -> None:
        threaded = """
            import threading, sys
            threading.Thread(target=sys.stdin.read, daemon=True).start()
        """
        pid = start(*python(threaded))
        threads = [int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()]
        thread = next(number for number in threads if number != pid)
        with pytest.raises(ProcessGoneError):
            open_process(thread)

    def test_a_zombie_cannot_be_held(self, start: Start) -> None:
        pid = start(*python(""))
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(ProcessGoneError):
            open_process(pid)

    def test_a_descriptor_that_was_given_back_is_not_asked_again(self) -> None:
        process = open_process(os.getpid())
        number = process._fd
        process.close()
        # The lowest free number is given out next: the same one.
        assert os.eventfd(0) == number
        assert not process.alive()
        os.close(number)

    @pytest.mark.parametrize("pid", [0, -1, 2**31, 2**80])
    def test_a_number_that_is_no_pid_is_no_process(self, pid: int) -> None:
        with pytest.raises(ProcessGoneError):
            open_process(pid)


def test_where_proc_hides_other_users_the_chain_ends_at_them() -> None:
    unshare = shutil.which("unshare")
    if os.geteuid() != 0 or unshare is None:
        pytest.skip("needs root and unshare, from util-linux")
    code = f"""
        import os, subprocess, sys
        from backpackd.adapters.processes.linux import LinuxProcesses, open_process
        mount = ["mount", "-t", "proc", "-o", "hidepid=2", "proc", "/proc"]
        if subprocess.run(mount, check=False).returncode != 0:
            sys.exit(77)
        os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
        os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
        assert not os.path.exists("/proc/1")
        facts = LinuxProcesses().attest(open_process(os.getpid()), os.getuid(), os.getgid())
        assert [f.id.pid for f in facts.chain] == [os.getpid()], facts
        assert facts.root.id.pid == os.getpid()
        print("done")
    """
    done = subprocess.run(
        [
            unshare,
            "--mount",
            "--propagation",
            "private",
            sys.executable,
            "-c",
            textwrap.dedent(code),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=REPOSITORY,
    )
    if done.returncode == 77:
        pytest.skip("needs the right to mount /proc")
    assert done.stdout == "done\n", done.stderr


def test_the_name_of_a_process_is_text_whatever_it_is(start: Start) -> None:
    pid = start(*python("open('/proc/self/comm', 'wb').write(b'\\xff\\xfe')"))
    name = attest(pid).process.name
    assert name.encode("utf-8")


def test_a_library_call_that_changes_the_name_changes_no_other_fact(start: Start) -> None:
    pid = start(*python(""))
    process = open_process(pid)
    before = LinuxProcesses().attest(process, os.geteuid(), 0)
    assert ctypes.CDLL(None).prctl(15, b"systemd", 0, 0, 0) == 0
    try:
        after = LinuxProcesses().attest(process, os.geteuid(), 0)
    finally:
        Path("/proc/self/comm").write_text(before.chain[1].name)
        process.close()
    assert after.chain[1].name == "systemd"
    assert after.root.id == before.root.id


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_to_run_out_of_descriptors_is_a_limit_and_to_fail_otherwise_is_not(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = LinuxProcesses()
    held, own = processes.pin(os.getpid())
    held.close()

    def exhausted(*_: object) -> int:
        raise OSError(number, "injected")

    monkeypatch.setattr(os, "pidfd_open", exhausted)
    looks: list[Callable[[], object]] = [
        lambda: processes.pin(own.pid),
        lambda: processes.hold(own),
        lambda: processes.ended(own),
    ]
    for look in looks:
        with pytest.raises(LimitError):
            look()
    number = errno.ENOMEM
    for look in looks:
        with pytest.raises(OSError, match="injected"):
            look()


def test_only_the_very_process_is_held() -> None:
    processes = LinuxProcesses()
    held, own = processes.pin(os.getpid())
    held.close()
    processes.hold(own).close()
    before = descriptors()
    with pytest.raises(ProcessGoneError):
        processes.hold(replace(own, start=own.start + 1))
    assert descriptors() == before

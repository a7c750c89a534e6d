"""Attacks on the reading of /proc, with real processes."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backpackd.adapters.processes import linux, procfs
from backpackd.adapters.processes.linux import LinuxProcesses, open_process
from backpackd.core.errors import ProcessGoneError
from backpackd.core.facts import PeerFacts

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

REPOSITORY = Path(__file__).resolve().parents[2]
NOBODY = 65534

# A child that does what it is told by code on its arguments, says so, and waits to be ended.
WAITING = "import sys; exec(sys.argv[1]); print('ready', flush=True); sys.stdin.read()"

Start = Callable[..., int]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a command that prints a line when it is ready, and end it after the test."""
    running: list[subprocess.Popen[str]] = []

    def _start(*command: str | Path) -> int:
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        running.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        return child.pid

    yield _start
    for child in running:
        child.kill()
        child.communicate()


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", WAITING, textwrap.dedent(code))


def attest(pid: int, uid: int | None = None) -> PeerFacts:
    process = open_process(pid)
    try:
        return LinuxProcesses().attest(process, os.geteuid() if uid is None else uid, 0)
    finally:
        process.close()


STAT_AFTER_NAME = b"S 7 8 9 34816 8 4194304 " + b"0 " * 12 + b"4711 1000 10\n"


class TestStat:
    @pytest.mark.parametrize(
        "name",
        [
            b"plain",
            b"two words",
            b"",
            b")",
            b") R 1 1 1",
            b"a\nb) S 1 (c",
            b"(((",
            b"\xff\xfe) 0",
            b") R 1 1 1 0 -1 0\n",
        ],
    )
    def test_no_name_passes_for_the_fields_after_it(self, name: bytes) -> None:
        stat = procfs.parse_stat(b"5 (" + name + b") " + STAT_AFTER_NAME, 5)
        assert stat == (name, 7, 9, 34816, 4711)

    @pytest.mark.parametrize(
        "line",
        [
            b"",
            b"\n",
            b"5 (sh\n",
            b"6 (sh) " + STAT_AFTER_NAME,
            b"55 (sh) " + STAT_AFTER_NAME,
            b"5 (sh) " + STAT_AFTER_NAME[:-1],
            b"5 (sh) S 7 8 9 34816\n",
            b"5 (sh) " + STAT_AFTER_NAME.replace(b"4711", b"soon"),
            b"5 (sh) " + STAT_AFTER_NAME.replace(b" 7 ", b" -1 "),
            b"5 (sh) " + STAT_AFTER_NAME.replace(b"7 8 9", b"7 8 -1"),
            b"5 (sh) " + STAT_AFTER_NAME.replace(b"4711", b"4_711"),
        ],
    )
    def test_a_line_of_another_form_is_no_process(self, line: bytes) -> None:
        with pytest.raises(ProcessLookupError):
            procfs.parse_stat(line, 5)


class TestUnit:
    @pytest.mark.parametrize(
        ("path", "unit"),
        [
            ("/system.slice/cron.service", "cron.service"),
            ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
            ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope"),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/agent.service",
                "agent.service",
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/app-a\\x2db@1.service",
                "app-a\\x2db@1.service",
            ),
            ("/user.slice/user-1000.slice/user@1000.service/init.scope", "init.scope"),
            ("/user.slice/user-1000.slice/user@1000.service", "user@1000.service"),
            ("/system.slice/_cgroup.service", "cgroup.service"),
            ("/", None),
            ("/system.slice", None),
            ("/container/agent.service", None),
            ("/../../system.slice/agent.service", None),
            ("/system.slice/agent.service (deleted)", None),
            ("/system.slice/agent .service", None),
            ("/system.slice/\x1b[2Jagent.service", None),
        ],
    )
    def test_the_unit_is_the_one_that_the_manager_made(self, path: str, unit: str | None) -> None:
        assert procfs.parse_unit(f"0::{path}\n".encode()) == unit

    @pytest.mark.parametrize(
        "below",
        ["backup.service", "payload/backup.service", "user@1.service/backup.service"],
    )
    def test_a_unit_stays_itself_whatever_cgroups_it_makes(self, below: str) -> None:
        path = f"0::/system.slice/agent.service/{below}\n"
        assert procfs.parse_unit(path.encode()) == "agent.service"

    def test_only_the_unified_hierarchy_counts(self) -> None:
        text = b"1:name=systemd:/system.slice/backup.service\n0::/system.slice/agent.service\n"
        assert procfs.parse_unit(text) == "agent.service"
        assert procfs.parse_unit(b"1:name=0::/system.slice/backup.service\n") is None

    def test_two_unified_lines_are_none(self) -> None:
        text = b"0::/system.slice/a.service\n0::/system.slice/b.service\n"
        assert procfs.parse_unit(text) is None


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


def test_the_digest_of_a_file_that_the_user_can_write_is_not_remembered(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program"
    shutil.copy("/bin/sh", program)
    program.chmod(0o777)
    processes = LinuxProcesses()
    facts = attest(start(program, "-c", "echo ready; read line")).process
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    assert processes.digest(facts.id, str(program)) is not None
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
        monkeypatch.setattr(linux, "_has_parent", lambda *_: False)
        with pytest.raises(ProcessGoneError):
            attest(pid)

    def test_a_peer_that_ends_while_it_is_read_is_refused(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pid = start(*python(""))
        read = procfs.read_unit

        def end_and_read(of: int) -> str | None:
            if of == pid:
                os.kill(pid, signal.SIGKILL)
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            return read(of)

        monkeypatch.setattr(procfs, "read_unit", end_and_read)
        with pytest.raises(ProcessGoneError):
            attest(pid)

    def test_a_peer_that_cannot_be_read_is_refused(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pid = start(*python(""))

        def hidden(_: int) -> procfs.StatFile:
            raise PermissionError

        monkeypatch.setattr(procfs.StatFile, "open", hidden)
        with pytest.raises(ProcessGoneError):
            attest(pid)

    def test_a_hidden_ancestor_ends_the_chain(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pid = start(*python(""))
        read = procfs.read_uid

        def hide(of: int) -> int:
            if of == os.getppid():
                raise FileNotFoundError
            return read(of)

        monkeypatch.setattr(procfs, "read_uid", hide)
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

    @pytest.mark.parametrize("pid", [0, -1, 2**31, 2**80])
    def test_a_number_that_is_no_pid_is_no_process(self, pid: int) -> None:
        with pytest.raises(ProcessGoneError):
            open_process(pid)


# Runs as pid 1 of a pid namespace of its own, where it decides which pid comes next.
RECYCLING = """
import os, signal, sys
from pathlib import Path
from backpackd.adapters.processes import linux, procfs
from backpackd.adapters.processes.linux import LinuxProcesses
from backpackd.core.errors import ProcessGoneError

def child(pid=None, then=signal.pause):
    if pid is not None:
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
    forked = os.fork()
    if forked == 0:
        then()
        os._exit(0)
    assert pid in (None, forked), (pid, forked)
    return forked

def end(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

processes = LinuxProcesses()
"""


def run_in_pid_namespace(code: str) -> None:
    users = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs unshare, from util-linux")
    command = [unshare, *users, "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to make a pid namespace")
    done = subprocess.run(
        [*command, sys.executable, "-c", RECYCLING + textwrap.dedent(code)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=REPOSITORY,
    )
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["done"]), done.stderr


class TestRecycledPid:
    def test_a_recycled_pid_is_another_process(self) -> None:
        run_in_pid_namespace("""
            first = child(300)
            pinned, identity = processes.pin(300)
            executable = processes.attest(pinned, 0, 0).process.executable
            assert processes.digest(identity, executable)
            end(300)
            child(300)
            assert not pinned.alive()
            try:
                processes.attest(pinned, 0, 0)
            except ProcessGoneError:
                pass
            else:
                raise AssertionError("a recycled pid was attested")
            again, other = processes.pin(300)
            assert other != identity
            assert processes.digest(identity, executable) is None
            assert processes.digest(other, executable)
            print("done")
        """)

    def test_a_recycled_pid_within_one_tick_is_another_process(self) -> None:
        run_in_pid_namespace("""
            if processes._unique:
                seen = {}
                for _ in range(200):
                    child(300)
                    pinned, identity = processes.pin(300)
                    pinned.close()
                    end(300)
                    assert identity not in seen
                    seen[identity] = identity.start
                assert len(set(seen.values())) < len(seen), "no two within one tick"
            print("done")
        """)

    def test_a_recycled_pid_of_an_ancestor_is_not_in_the_chain(self) -> None:
        run_in_pid_namespace("""
            up, told = os.pipe()

            def parent():
                os.write(told, b"%d" % child())
                signal.pause()

            child(300, parent)
            peer = int(os.read(up, 20))
            pinned, _ = processes.pin(peer)
            assert [f.id.pid for f in processes.attest(pinned, 0, 0).chain] == [peer, 300, 1]

            opened = procfs.StatFile.open
            recycled = []

            def recycle_and_open(pid):
                if pid == 300 and not recycled:
                    end(300)
                    recycled.append(child(300))
                return opened(pid)

            procfs.StatFile.open = recycle_and_open
            assert [f.id.pid for f in processes.attest(pinned, 0, 0).chain] == [peer, 1]
            assert recycled == [300]
            print("done")
        """)

    def test_a_pid_recycled_between_two_readings_of_an_ancestor_is_not_in_the_chain(self) -> None:
        run_in_pid_namespace("""
            up, told = os.pipe()

            def parent():
                os.write(told, b"%d" % child())
                signal.pause()

            child(300, parent)
            peer = int(os.read(up, 20))
            pinned, _ = processes.pin(peer)
            read = procfs.read_executable
            recycled = []

            def recycle_and_read(pid):
                if pid == 300 and not recycled:
                    end(300)
                    recycled.append(child(300))
                return read(pid)

            procfs.read_executable = recycle_and_read
            assert [f.id.pid for f in processes.attest(pinned, 0, 0).chain] == [peer, 1]
            assert recycled == [300]
            print("done")
        """)

    def test_a_manager_is_told_by_its_parent_its_user_and_its_name(self) -> None:
        run_in_pid_namespace("""
            up, told = os.pipe()

            def named(name, uid=0):
                def run():
                    Path("/proc/self/comm").write_text(name)
                    os.setuid(uid)
                    os.write(told, b"%d\\n" % child())
                    signal.pause()
                return run

            for name, uid, peer_uid, manager in [
                ("systemd", 0, 0, True),
                ("systemd", 0, 1000, False),
                ("systemd2", 0, 0, False),
            ]:
                above = child(then=named(name, uid))
                peer = int(os.read(up, 20))
                pinned, _ = processes.pin(peer)
                facts = processes.attest(pinned, peer_uid, 0)
                assert facts.chain[1].id.pid == above
                assert facts.chain[1].manager is manager, name
                assert facts.root.id.pid == (peer if manager else above)
            print("done")
        """)

    def test_a_proc_of_another_namespace_is_refused(self) -> None:
        run_in_pid_namespace("""
            from backpackd.core.errors import TroubleError
            libc = __import__("ctypes").CDLL(None, use_errno=True)
            CLONE_NEWPID = 0x20000000
            assert libc.unshare(CLONE_NEWPID) == 0
            if (inner := os.fork()) == 0:
                try:
                    LinuxProcesses()
                except TroubleError:
                    os._exit(0)
                os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1]) == 0
            print("done")
        """)


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

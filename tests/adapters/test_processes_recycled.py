"""A pid that comes to mean another process, for real, in pid namespaces of the tests' own."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

REPOSITORY = Path(__file__).resolve().parents[2]

# Runs as pid 1 of a pid namespace of its own, where it decides which pid comes next.
RECYCLING = """
import os, signal, sys
from pathlib import Path
from backpackd.adapters.processes import linux, procfs
from backpackd.adapters.processes.linux import LinuxProcesses
from backpackd.core.errors import ProcessGoneError

# An init system, so that its children are roots of trees of their own.
Path("/proc/self/comm").write_text("init")

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

            processes.close()
            opened = procfs.ProcessFiles.open
            recycled = []

            def recycle_and_open(pid):
                if pid == 300 and not recycled:
                    end(300)
                    recycled.append(child(300))
                return opened(pid)

            procfs.ProcessFiles.open = recycle_and_open
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
            read = procfs.ProcessFiles.read_executable
            recycled = []

            def recycle_and_read(files):
                if files.pid == 300 and not recycled:
                    end(300)
                    recycled.append(child(300))
                return read(files)

            procfs.ProcessFiles.read_executable = recycle_and_read
            assert [f.id.pid for f in processes.attest(pinned, 0, 0).chain] == [peer, 1]
            assert recycled == [300]
            print("done")
        """)

    def test_a_recycled_pid_whose_files_are_kept_is_another_process(self) -> None:
        run_in_pid_namespace("""
            child(300)
            pinned, first = processes.pin(300)
            assert processes.attest(pinned, 0, 0).process.id == first
            end(300)
            child(300)
            pinned, second = processes.pin(300)
            assert processes.attest(pinned, 0, 0).process.id == second != first
            print("done")
        """)

    def test_an_ancestor_whose_files_are_kept_is_not_in_the_chain_once_it_is_recycled(self) -> None:
        run_in_pid_namespace("""
            up, told = os.pipe()

            def parent():
                os.write(told, b"%d" % child())
                signal.pause()

            child(300, parent)
            peer = int(os.read(up, 20))
            pinned, _ = processes.pin(peer)
            assert [f.id.pid for f in processes.attest(pinned, 0, 0).chain] == [peer, 300, 1]
            end(300)
            child(300)
            assert [f.id.pid for f in processes.attest(pinned, 0, 0).chain] == [peer, 1]
            print("done")
        """)

    def test_a_kept_ancestor_recycled_between_two_readings_is_not_in_the_chain(self) -> None:
        run_in_pid_namespace("""
            up, told = os.pipe()

            def parent():
                os.write(told, b"%d" % child())
                signal.pause()

            for when in ("read_uid", "read_stat"):
                child(300, parent)
                peer = int(os.read(up, 20))
                pinned, _ = processes.pin(peer)
                assert [f.id.pid for f in processes.attest(pinned, 0, 0).chain] == [peer, 300, 1]
                read = getattr(procfs.ProcessFiles, when)
                recycled = []

                def recycle_and_read(files):
                    if files.pid == 300 and not recycled:
                        end(300)
                        recycled.append(child(300))
                    return read(files)

                setattr(procfs.ProcessFiles, when, recycle_and_read)
                assert [f.id.pid for f in processes.attest(pinned, 0, 0).chain] == [peer, 1]
                assert recycled == [300]
                setattr(procfs.ProcessFiles, when, read)
                end(300)
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
                # To a peer of another uid, what runs as root is a service of root's.
                assert facts.root.id.pid == (peer if manager or peer_uid else above)
                other = processes.attest(pinned, peer_uid + 1, 0)
                assert other.chain[1].manager is False
                assert processes.attest(pinned, peer_uid, 0) == facts
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

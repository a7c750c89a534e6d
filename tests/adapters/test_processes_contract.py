"""What every implementation of the processes port holds to, on real processes and in memory."""

import asyncio
import os
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator

import pytest

from backpackd.adapters.processes.linux import LinuxProcesses, PidfdProcess
from backpackd.adapters.processes.memory import MemoryProcesses
from backpackd.adapters.processes.portable import PortableProcesses
from backpackd.core.errors import ProcessGoneError
from backpackd.ports import Processes
from descriptors import descriptors

NOBODYS_PID = 2**22 + 1  # one more than the kernel ever gives out (proc_sys_kernel(5), pid_max)


class World(ABC):
    """Makes processes for the implementation under test."""

    processes: Processes

    @abstractmethod
    def spawn(self) -> int:
        """Start a process below this one and give its pid."""

    @abstractmethod
    def end(self, pid: int) -> None:
        """End a process; when this returns, it has ended."""

    @abstractmethod
    def exec(self, pid: int) -> None:
        """Let a process run another program; when this returns, it does."""

    @abstractmethod
    def parent_of_spawned(self) -> int:
        """Give the pid of the parent of what `spawn` starts."""

    @abstractmethod
    def close(self) -> None:
        """End what still runs."""


class RealWorld(World):
    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def spawn(self) -> int:
        child = subprocess.Popen(
            ["sh", "-c", "echo ready; read line; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._running[child.pid] = child
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        return child.pid

    def end(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        # Left as a zombie: whoever reaps a peer takes its time.
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    def exec(self, pid: int) -> None:
        child = self._running[pid]
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"go\nhello\n")
        child.stdin.flush()
        assert child.stdout.readline() == b"hello\n"

    def parent_of_spawned(self) -> int:
        return os.getpid()

    def close(self) -> None:
        for child in self._running.values():
            child.kill()
            child.communicate()


class MemoryWorld(World):
    def __init__(self) -> None:
        self._memory = MemoryProcesses()
        self.processes: Processes = self._memory
        self._memory.add(100, uid=os.geteuid(), executable="/usr/bin/python3")
        self._next = 100

    def spawn(self) -> int:
        self._next += 1
        self._memory.add(self._next, parent=100, uid=os.geteuid(), executable="/bin/sh")
        return self._next

    def end(self, pid: int) -> None:
        self._memory.kill(pid)

    def exec(self, pid: int) -> None:
        self._memory.exec(pid, "/bin/cat")

    def parent_of_spawned(self) -> int:
        return 100

    def close(self) -> None:
        self._memory.kill(100)


class FileOfPidfd:
    """Stands in for kqueue, so that the portable implementation runs on Linux."""

    def __init__(self, pid: int) -> None:
        try:
            self._fd = os.pidfd_open(pid)
        except OSError as error:
            raise ProcessGoneError("gone") from error

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture(params=["linux", "portable", "memory"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "memory":
        world: World = MemoryWorld()
    elif request.param == "linux":
        if sys.platform != "linux":
            pytest.skip("needs Linux")
        world = RealWorld(LinuxProcesses())
    else:
        watch = {"watch": FileOfPidfd} if sys.platform == "linux" else {}
        world = RealWorld(PortableProcesses(**watch))
    yield world
    world.close()


class TestProcessesContract:
    def test_a_pinned_process_is_alive_under_its_pid(self, world: World) -> None:
        pid = world.spawn()
        process, identity = world.processes.pin(pid)
        assert (process.pid, identity.pid, process.alive()) == (pid, pid, True)
        process.close()

    def test_a_process_that_is_not_there_cannot_be_pinned(self, world: World) -> None:
        with pytest.raises(ProcessGoneError):
            world.processes.pin(NOBODYS_PID)

    def test_a_process_that_has_ended_cannot_be_pinned(self, world: World) -> None:
        pid = world.spawn()
        world.end(pid)
        with pytest.raises(ProcessGoneError):
            world.processes.pin(pid)

    def test_a_pinned_process_that_ends_is_not_alive(self, world: World) -> None:
        pid = world.spawn()
        process, _ = world.processes.pin(pid)
        world.end(pid)
        assert not process.alive()
        process.close()

    def test_a_process_that_was_let_go_is_not_known_to_be_alive(self, world: World) -> None:
        process, _ = world.processes.pin(world.spawn())
        process.close()
        process.close()
        assert not process.alive()

    async def test_everybody_who_asked_is_told_of_the_end_in_order(self, world: World) -> None:
        pid = world.spawn()
        process, _ = world.processes.pin(pid)
        told: list[str] = []
        done = asyncio.Event()
        process.on_exit(lambda: told.append("first"))
        process.on_exit(lambda: told.append("second"))
        process.on_exit(done.set)
        world.end(pid)
        await asyncio.wait_for(done.wait(), 30)
        assert told == ["first", "second"]
        process.close()

    async def test_who_asks_after_the_end_is_told_too(self, world: World) -> None:
        pid = world.spawn()
        process, _ = world.processes.pin(pid)
        world.end(pid)
        for _ in range(2):
            done = asyncio.Event()
            process.on_exit(done.set)
            await asyncio.wait_for(done.wait(), 30)
        process.close()

    async def test_nobody_is_told_after_the_process_was_let_go(self, world: World) -> None:
        pid = world.spawn()
        process, _ = world.processes.pin(pid)
        other, _ = world.processes.pin(pid)
        told: list[str] = []
        done = asyncio.Event()
        process.on_exit(lambda: told.append("told"))
        process.close()
        other.on_exit(done.set)
        world.end(pid)
        await asyncio.wait_for(done.wait(), 30)
        assert told == []
        other.close()

    async def test_a_callback_that_lets_go_keeps_the_others_from_coming(self, world: World) -> None:
        pid = world.spawn()
        process, _ = world.processes.pin(pid)
        other, _ = world.processes.pin(pid)
        told: list[str] = []
        done = asyncio.Event()
        process.on_exit(process.close)
        process.on_exit(lambda: told.append("told"))
        other.on_exit(lambda: None)
        other.on_exit(lambda: None)
        other.on_exit(done.set)
        world.end(pid)
        await asyncio.wait_for(done.wait(), 30)
        assert told == []
        other.close()

    async def test_a_signal_reaches_the_process_that_is_held(self, world: World) -> None:
        process, _ = world.processes.pin(world.spawn())
        assert process.signal(signal.SIGCONT)
        process.close()

    def test_a_process_that_has_ended_or_was_let_go_is_not_signalled(self, world: World) -> None:
        pid = world.spawn()
        process, _ = world.processes.pin(pid)
        other, _ = world.processes.pin(pid)
        other.close()
        assert not other.signal(signal.SIGTERM)
        world.end(pid)
        assert not process.signal(signal.SIGTERM)
        process.close()

    def test_a_process_that_the_system_keeps_from_this_user_is_not_signalled(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise PermissionError

        if isinstance(world, MemoryWorld):
            return  # nobody refuses there
        process, _ = world.processes.pin(world.spawn())
        for name in ("signal.pidfd_send_signal", "os.kill"):
            monkeypatch.setattr(name, refuse)
        assert not process.signal(signal.SIGCONT)
        monkeypatch.undo()
        process.close()

    def test_a_chain_goes_from_the_peer_from_parent_to_parent(self, world: World) -> None:
        pid = world.spawn()
        process, identity = world.processes.pin(pid)
        facts = world.processes.attest(process, 7, 8)
        assert (facts.uid, facts.gid) == (7, 8)
        assert facts.process.id == identity
        assert facts.chain[1].id.pid == world.parent_of_spawned()
        for child, parent in zip(facts.chain, facts.chain[1:], strict=False):
            assert child.parent == parent.id.pid
        process.close()

    def test_the_uid_of_a_process_is_told(self, world: World) -> None:
        process, _ = world.processes.pin(world.spawn())
        assert world.processes.attest(process, 7, 8).process.uid == os.geteuid()
        process.close()

    def test_a_peer_that_has_ended_is_not_attested(self, world: World) -> None:
        pid = world.spawn()
        process, _ = world.processes.pin(pid)
        world.end(pid)
        with pytest.raises(ProcessGoneError):
            world.processes.attest(process, 0, 0)
        process.close()

    def test_a_process_has_one_identity_and_no_other_has_it(self, world: World) -> None:
        first, second = world.spawn(), world.spawn()
        pins = [world.processes.pin(pid) for pid in (first, first, second)]
        assert pins[0][1] == pins[1][1]
        assert pins[0][1] != pins[2][1]
        for process, _ in pins:
            process.close()

    def test_running_another_program_changes_the_executable_alone(self, world: World) -> None:
        pid = world.spawn()
        process, identity = world.processes.pin(pid)
        before = world.processes.attest(process, 0, 0).process
        world.exec(pid)
        after = world.processes.attest(process, 0, 0).process
        assert before.id == after.id == identity
        assert before.executable is not None
        assert after.executable is not None
        assert before.executable != after.executable
        process.close()

    def test_running_another_program_is_another_image(self, world: World) -> None:
        pid = world.spawn()
        process, _ = world.processes.pin(pid)
        before = world.processes.attest(process, 0, 0).process.image
        assert world.processes.attest(process, 0, 0).process.image == before
        world.exec(pid)
        assert world.processes.attest(process, 0, 0).process.image != before
        process.close()

    def test_what_has_ended_is_known_to_have_ended(self, world: World) -> None:
        pid = world.spawn()
        process, identity = world.processes.pin(pid)
        assert not world.processes.ended(identity)
        assert world.processes.ended(type(identity)(pid, identity.start - 1, identity.unique))
        world.end(pid)
        assert world.processes.ended(identity)
        process.close()

    def test_the_user_that_a_process_runs_as_is_told_while_it_lives(self, world: World) -> None:
        pid = world.spawn()
        process, _ = world.processes.pin(pid)
        assert process.uid() == os.geteuid()
        world.end(pid)
        assert process.uid() is None
        process.close()

    def test_a_digest_is_that_of_the_attested_executable(self, world: World) -> None:
        pid = world.spawn()
        process, identity = world.processes.pin(pid)
        shell = world.processes.attest(process, 0, 0).process.executable or ""
        before = world.processes.digest(identity, shell)
        if isinstance(world.processes, PortableProcesses):
            assert before is None
        else:
            assert len(bytes.fromhex(before or "")) == 32
        world.exec(pid)
        assert world.processes.digest(identity, shell) is None
        process.close()

    def test_another_process_with_the_pid_has_no_digest(self, world: World) -> None:
        pid = world.spawn()
        process, identity = world.processes.pin(pid)
        executable = world.processes.attest(process, 0, 0).process.executable or ""
        earlier = type(identity)(pid, identity.start - 1, identity.unique)
        assert world.processes.digest(earlier, executable) is None
        process.close()

    def test_what_has_ended_has_no_digest(self, world: World) -> None:
        pid = world.spawn()
        process, identity = world.processes.pin(pid)
        executable = world.processes.attest(process, 0, 0).process.executable or ""
        world.end(pid)
        assert world.processes.digest(identity, executable) is None
        process.close()

    def test_a_boot_has_one_name(self, world: World) -> None:
        assert world.processes.boot_id() == world.processes.boot_id() != ""


def test_no_descriptor_stays_open_after_pinning_and_attesting() -> None:
    processes = LinuxProcesses()

    def once() -> None:
        process, identity = processes.pin(os.getpid())
        facts = processes.attest(process, os.geteuid(), os.getegid())
        processes.digest(identity, facts.process.executable or "")
        process.close()

    once()
    before = descriptors()
    once()
    assert descriptors() <= before


async def test_a_callback_that_fails_does_not_keep_the_others_from_coming() -> None:
    told: list[object] = []

    def fail() -> None:
        raise KeyError

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(type(context["exception"])))
    child = await asyncio.create_subprocess_exec("cat", stdin=subprocess.PIPE)
    process = PidfdProcess(child.pid, os.pidfd_open(child.pid))
    done = asyncio.Event()
    process.on_exit(fail)
    process.on_exit(done.set)
    child.kill()
    await asyncio.wait_for(done.wait(), 30)
    await child.wait()
    assert told == [KeyError]
    process.close()

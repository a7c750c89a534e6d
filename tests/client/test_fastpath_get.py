"""The arguments of a plain `get`, and the whole command as a process."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from backpack_client import __main__ as entry
from backpack_client.fastpath import get, output
from backpack_client.wire import hpack
from backpack_proto.v1 import leases_pb2

COMMAND = [sys.executable, "-m", "backpack_client", "get"]


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
    )


def answer(name: str, value: bytes) -> bytes:
    """Lay out all that a server says to a request for one key."""
    key = leases_pb2.LeasedKey(name=name, value=value)
    message = leases_pb2.GetKeysResponse(keys=[key]).SerializeToString()
    body = b"\0" + len(message).to_bytes(4, "big") + message
    headers = hpack.encode([(":status", "200"), ("content-type", "application/grpc")])
    return b"".join(
        (
            frame(4),
            frame(1, 4, 1, headers),
            *(frame(0, 0, 1, body[at : at + 16384]) for at in range(0, len(body), 16384)),
            frame(1, 5, 1, hpack.encode([("grpc-status", "0")])),
        )
    )


class Daemon:
    """A server that says the same to everybody, and keeps what it was told."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "s")
        self.says = answer("A", b"value")
        self.told = bytearray()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            with connection:
                try:
                    start = connection.recv(65536)
                    if start == b"stop":
                        return
                    self.told += start
                    connection.sendall(self.says)
                    while data := connection.recv(65536):
                        self.told += data
                except OSError:
                    continue

    def stop(self) -> None:
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(self.path)
            last.sendall(b"stop")
        self.thread.join()
        self.listener.close()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    yield daemon
    daemon.stop()


def run(
    daemon: Daemon, *arguments: str | bytes, shell: str = '"$@"'
) -> subprocess.CompletedProcess[bytes]:
    """Run the command through a shell line in which "$@" is the command."""
    return subprocess.run(
        ["/bin/sh", "-c", shell, "sh", *COMMAND, *arguments],
        env={**os.environ, "BACKPACK_SOCKET": daemon.path},
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "names", "form", "options"),
    [
        (["A"], ["A"], output.PLAIN, {}),
        (["A", "B", "--json"], ["A", "B"], output.JSON, {}),
        (["--export", "A"], ["A"], output.EXPORT, {}),
        (["--ttl", "1h", "A"], ["A"], output.PLAIN, {"--ttl": "1h"}),
        (
            ["A", "--ttl=1h", "--wait", "5", "--reason=a=b"],
            ["A"],
            output.PLAIN,
            {"--ttl": "1h", "--wait": "5", "--reason": "a=b"},
        ),
        (["A", "--reason", "-x"], ["A"], output.PLAIN, {"--reason": "-x"}),
    ],
)
def test_the_plain_form_is_taken_apart(
    arguments: list[str], names: list[str], form: str, options: dict[str, str]
) -> None:
    parsed = get.parse(arguments)
    assert parsed is not None
    assert (parsed.names, parsed.form, parsed.options) == (names, form, options)


@pytest.mark.parametrize(
    "arguments",
    [
        *([], ["--json"], ["A", "--help"], ["-h"], ["A", "--ttl"], ["A", "--"], ["--", "A"]),
        *(["A", "--json", "--export"], ["A", "--json", "--json"], ["A", "--ttl=1", "--ttl=2"]),
        *(["A", "--tt=1"], ["A", "-"], ["A", "--json=yes"], ["A", "--unknown", "x"]),
    ],
)
def test_anything_else_is_left_to_the_full_command(arguments: list[str]) -> None:
    assert get.parse(arguments) is None


@pytest.mark.parametrize(
    "arguments",
    [
        ["A B"],
        ["1A"],
        ["A", "--ttl", "soon"],
        ["A", "--wait", "61m"],
        ["A", "B"],
        ["A", "--reason=\udcff"],
    ],
)
def test_what_cannot_be_asked_is_a_usage_failure_before_anybody_is_asked(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BACKPACK_SOCKET", "/nonexistent/s")
    parsed = get.parse(arguments)
    assert parsed is not None
    assert get.run(parsed) == 2
    assert capsys.readouterr().out == ""


def test_without_a_daemon_it_says_how_to_start_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BACKPACK_SOCKET", str(tmp_path / "none"))
    parsed = get.parse(["A"])
    assert parsed is not None
    assert get.run(parsed) == 7
    out, err = capsys.readouterr()
    assert out == ""
    assert "run: backpack-client start" in err


def test_the_command_prints_the_value_and_nothing_else(daemon: Daemon) -> None:
    done = run(daemon, "A")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"value\n", b"")


def test_a_value_never_reaches_the_socket_in_the_place_of_a_closed_output(daemon: Daemon) -> None:
    done = run(daemon, "A", shell='"$@" >&-')
    assert done.returncode == 1
    assert b"standard output is closed" in done.stderr
    assert b"value" not in daemon.told


@pytest.mark.parametrize("shell", ['"$@" 2>&-', '"$@" <&- 2>&-'])
def test_closed_descriptors_besides_do_no_harm(shell: str, daemon: Daemon) -> None:
    done = run(daemon, "A", shell=shell)
    assert (done.returncode, done.stdout) == (0, b"value\n")


def test_a_failure_with_standard_error_closed_still_has_its_exit_code(daemon: Daemon) -> None:
    daemon.says = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    done = run(daemon, "A", shell='"$@" 2>&-')
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"backpack-client" not in daemon.told.partition(b"\0\0\0\0\x03\x0a\x01A")[2]


def test_a_reader_that_goes_away_ends_it_quietly(daemon: Daemon) -> None:
    daemon.says = answer("A", b"v" * 1000000)
    done = run(daemon, "A", shell='{ "$@"; echo $? >&2; } | :')
    assert done.stderr == b"1\n"


@pytest.mark.parametrize("typed", [b"A\x1b[2J\xff", b"A=sk-live-1"])
def test_what_can_be_no_name_is_not_repeated(daemon: Daemon, typed: bytes) -> None:
    done = run(daemon, typed)
    assert done.returncode == 2
    assert done.stderr.startswith(b"backpack-client: not a key name\n")
    assert typed[1:] not in done.stderr
    assert (b"never given on the command line" in done.stderr) is (b"=" in typed)


def test_an_interrupt_ends_it_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(arguments: get.Arguments) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["backpack-client", "get", "A"])
    monkeypatch.setattr(get, "run", interrupted)
    assert entry.main() == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "arguments", [["get", "A", "--lock", "agent.lock"], ["get", "--help"], ["status"], []]
)
def test_what_the_fast_path_does_not_do_goes_to_the_full_command_as_it_came(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def full(arguments: list[str]) -> int:
        seen.append(arguments)
        return 42

    monkeypatch.setitem(sys.modules, "backpack_client.cli.main", SimpleNamespace(main=full))
    monkeypatch.setattr(sys, "argv", ["backpack-client", *arguments])

    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == 42
    assert seen == [arguments]


def test_a_failure_that_nobody_reads_still_has_its_exit_code(daemon: Daemon) -> None:
    daemon.says = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    done = run(daemon, "A", shell='"$@" 2>/dev/full')
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")


def test_a_get_of_an_agent_with_a_lock_is_for_the_full_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BACKPACK_AGENT_LOCK", str(tmp_path / "agent.lock"))
    assert get.parse(["A"]) is None
    monkeypatch.delenv("BACKPACK_AGENT_LOCK")
    assert get.parse(["A"]) is not None
    assert get.parse(["A", "--lock", "agent.lock"]) is None

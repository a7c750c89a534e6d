"""Prompting and printing. Prompts are tested on a real pseudo-terminal."""

import ctypes
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backpack_client import process_protection
from backpack_client.console import terminal, values
from backpack_client.failures import Failure
from pseudo_terminal import Terminal, read_screen
from sandboxes import unshared

MARK = "marker-of-a-value"


@pytest.fixture(autouse=True)
def _dumpable_as_before() -> Iterator[None]:
    """Undo what protects a short-lived command, so that this test process stays as it was."""
    libc = ctypes.CDLL(None)
    before = libc.prctl(3, 0, 0, 0, 0)
    yield
    libc.prctl(4, before, 0, 0, 0)


def private(path: Path, data: bytes, mode: int = 0o600) -> str:
    path.write_bytes(data)
    path.chmod(mode)
    return str(path)


def python(code: str) -> Terminal:
    return Terminal(["-c", code])


ASK = """
import sys
from backpack_client.console import terminal, values
from backpack_client.failures import Failure
try:
    print(repr({call}))
except Failure as failure:
    print(failure.reason)
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_a_passphrase_is_asked_for_without_echo() -> None:
    with python(ASK.format(call='terminal.passphrase("passphrase", None)')) as at:
        at.expect(b"passphrase: ")
        assert not termios.tcgetattr(at.screen)[3] & termios.ECHO
        at.type(MARK.encode() + b"\n")
        code, output = at.end()
        assert (code, output) == (0, f"b'{MARK}'\n".encode())
        assert MARK.encode() not in at.shown


def test_the_echo_is_back_after_the_prompt_is_interrupted() -> None:
    ask = ASK.format(call='terminal.passphrase("passphrase", None)')
    with python("import os; os.write(9, b'begun'); os.read(9, 10)" + ask) as at:
        at.expect(b"begun")
        before = termios.tcgetattr(at.screen)
        at.type(b"on\n")
        at.expect(b"passphrase: ")
        at.type(b"half of it\x03")
        code, output = at.end()
        assert (code, output) == (130, b"")
        assert termios.tcgetattr(at.screen) == before


def test_a_new_passphrase_is_asked_for_twice_until_both_are_the_same() -> None:
    with python(ASK.format(call='terminal.new_passphrase("new", None)')) as at:
        for again in (b"another long one\n", b"a rather long one\n"):
            at.expect(b"new (at least 12 characters): ")
            at.type(b"a rather long one\n")
            at.expect(b"new (once more): ")
            at.type(again)
        _, output = at.end()
    assert output.endswith(b"b'a rather long one'\n")


def test_a_passphrase_that_is_too_short_is_not_asked_for_once_more() -> None:
    with python(ASK.format(call='terminal.new_passphrase("new", None)')) as at:
        for _ in range(3):
            at.expect(b"new (at least 12 characters): ")
            at.type("\u00e4".encode() * 11 + b"\n")
        _, output = at.end()
        assert b"once more" not in at.shown
    assert output.endswith(b"not-chosen\n")


WRONG = "Failure('wrong passphrase: it opens no slot of this vault', reason='wrong-passphrase')"
CHECK = f"lambda p: (_ for _ in ()).throw({WRONG}) if p != b'right' else 0"
CHECKED = f"terminal.right_passphrase('p', None, {CHECK})"


def test_a_wrong_passphrase_that_was_typed_is_asked_for_again() -> None:
    with python(ASK.format(call=CHECKED)) as at:
        for typed in (b"wrong\n", b"wrong\n", b"right\n"):
            at.expect(b"p: ")
            at.type(typed)
        _, output = at.end()
    assert output == b"backpack-client: wrong passphrase\n" * 2 + b"b'right'\n"


def test_after_three_wrong_passphrases_nobody_is_asked_again() -> None:
    with python(ASK.format(call=CHECKED)) as at:
        for _ in range(3):
            at.expect(b"p: ")
            at.type(b"wrong\n")
        _, output = at.end()
    assert output.endswith(b"wrong-passphrase\n")


def test_a_wrong_passphrase_from_a_file_is_tried_once(tmp_path: Path) -> None:
    tried: list[bytes] = []

    def check(given: bytes) -> None:
        tried.append(given)
        raise Failure("wrong passphrase", reason="wrong-passphrase")

    with pytest.raises(Failure):
        terminal.right_passphrase("p", private(tmp_path / "p", b"x"), check)
    assert tried == [b"x"]


def test_an_end_of_file_at_the_prompt_is_no_passphrase() -> None:
    with python(ASK.format(call='terminal.passphrase("passphrase", None)')) as at:
        at.expect(b"passphrase: ")
        at.type(b"\x04")
        _, output = at.end()
    assert output == b"nothing-typed\n"


def test_without_a_terminal_the_hint_names_the_option() -> None:
    code = ASK.format(call='terminal.passphrase("passphrase", None)').replace(
        "print(failure.reason)", "print(failure.hint)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
    )
    assert "--passphrase-file" in done.stdout


def test_the_process_is_undumpable_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    monkeypatch.setattr(process_protection, "make_undumpable", lambda: order.append("undumpable"))
    path = private(tmp_path / "p", b"x\n")
    real_open = os.open

    def opening(name: str, flags: int) -> int:
        order.append("open")
        return real_open(name, flags)

    monkeypatch.setattr(os, "open", opening)
    terminal.passphrase("passphrase", path)
    terminal.new_passphrase("passphrase", path)
    values.value("K", path)
    values.file_bytes(path, 100)
    assert order == ["undumpable", "open"] * 4


@pytest.mark.skipif(sys.platform != "linux", reason="reads the flag with prctl(2)")
def test_undumpable_means_that_the_kernel_says_so() -> None:
    process_protection.make_undumpable()
    assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 0


@pytest.mark.parametrize(
    ("data", "passphrase"),
    [(b"p\n", b"p"), (b"p\r\n", b"p"), (b"p", b"p"), (b" p \n", b" p "), (b"p\n\n", b"p\n")],
)
def test_one_line_end_of_a_passphrase_file_is_dropped(
    tmp_path: Path, data: bytes, passphrase: bytes
) -> None:
    assert terminal.passphrase("passphrase", private(tmp_path / "p", data)) == passphrase


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o666])
def test_a_passphrase_file_that_others_can_read_or_write_is_refused(
    tmp_path: Path, mode: int
) -> None:
    path = private(tmp_path / "p", MARK.encode(), mode)
    with pytest.raises(Failure, match="by others") as caught:
        terminal.passphrase("passphrase", path)
    assert "chmod 600" in caught.value.hint


def test_a_secret_of_roots_that_all_may_read_is_given_as_standard_input(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    # A file of root's with mode 0644 on every system, as the secrets of containers are.
    with pytest.raises(Failure, match="by others") as caught:
        terminal.passphrase("passphrase", "/etc/passwd")
    assert "chmod" not in caught.value.hint
    assert caught.value.hint.endswith("--passphrase-file - < /etc/passwd")


def test_a_secret_on_a_read_only_mount_is_given_as_standard_input(tmp_path: Path) -> None:
    path = private(tmp_path / "a secret", b"seven quiet otters", 0o444)
    code = (
        "import subprocess, sys\n"
        "from backpack_client.console import terminal\n"
        "from backpack_client.failures import Failure\n"
        "path = sys.argv[1]\n"
        "mount = lambda *words: subprocess.run(['mount', *words], check=True)\n"
        "mount('--bind', path, path)\n"
        "mount('-o', 'remount,bind,ro', path)\n"
        "try:\n"
        "    terminal.passphrase('passphrase', path)\n"
        "except Failure as failure:\n"
        "    print(failure.hint)\n"
        "sys.stdin = open(path)\n"
        "print(terminal.passphrase('passphrase', '-'))\n"
    )
    command = [*unshared("--mount"), sys.executable, "-c", code, path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    hint, read = done.stdout.splitlines()
    assert hint.endswith(f"--passphrase-file - < '{path}'")
    assert "chmod" not in hint
    assert read == "b'seven quiet otters'"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_a_passphrase_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = private(tmp_path / "p", b"x")
    os.chown(path, 65534, 65534)
    with pytest.raises(Failure, match="65534"):
        terminal.passphrase("passphrase", path)


def test_a_directory_or_device_is_no_passphrase_file(tmp_path: Path) -> None:
    for path in (str(tmp_path), "/dev/null", "/dev/zero"):
        with pytest.raises(Failure, match="not a file"):
            terminal.passphrase("passphrase", path)


@pytest.mark.parametrize("data", [b"", b"\n", b"x" * 1025, b"x" * 100_000])
def test_an_empty_or_oversized_passphrase_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(Failure):
        terminal.passphrase("passphrase", private(tmp_path / "p", data))


def test_a_passphrase_comes_through_a_pipe_that_a_shell_opened() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"from a pipe\n")
    os.close(writing)
    assert terminal.passphrase("passphrase", f"/dev/fd/{reading}") == b"from a pipe"
    os.close(reading)


def test_a_file_that_is_not_there_is_a_usage_failure(tmp_path: Path) -> None:
    with pytest.raises(Failure) as caught:
        terminal.passphrase("passphrase", str(tmp_path / "none"))
    assert caught.value.exit_code == 2


def test_only_one_thing_comes_from_standard_input() -> None:
    terminal.check_standard_input("-", "file", None)
    with pytest.raises(Failure) as caught:
        terminal.check_standard_input("-", None, "-")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"v\n", b"v"),
        (b"v\r\n", b"v"),
        (b"v", b"v"),
        (b"v\r", b"v\r"),
        (b"v \n", b"v "),
        (b"one\ntwo\n", b"one\ntwo\n"),
        (b"v\n\n", b"v\n\n"),
        (b"\xff\xfe\n", b"\xff\xfe\n"),
        (b"x" * 65536, b"x" * 65536),
        (b"x" * 65536 + b"\n", b"x" * 65536),
    ],
)
def test_only_a_single_line_of_text_loses_its_line_end(
    tmp_path: Path, data: bytes, value: bytes
) -> None:
    assert values.value("K", private(tmp_path / "v", data, 0o644)) == value


@pytest.mark.parametrize("data", [b"", b"\n", b"x" * (65536 + 3)])
def test_an_empty_or_oversized_value_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(Failure):
        values.value("K", private(tmp_path / "v", data))


MARK_OF_UTF_8 = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    "read",
    [
        lambda path: terminal.passphrase("passphrase", path),
        lambda path: terminal.new_passphrase("passphrase", path),
        lambda path: values.value("K", path),
        values.legacy_key,
        lambda path: values.file_bytes(path, 100),
    ],
)
def test_a_byte_order_mark_is_left_out_of_every_file_and_said(
    read: Callable[[str], bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = private(tmp_path / "f", MARK_OF_UTF_8 + "\u00e4b".encode())
    assert read(path) == "\u00e4b".encode()
    assert "byte-order mark" in capsys.readouterr().err
    wide = private(tmp_path / "wide", "ab".encode("utf-16"))
    with pytest.raises(Failure, match="UTF-16"):
        read(wide)
    bytes_alone = private(tmp_path / "bytes", MARK_OF_UTF_8 + b"\xff")
    assert read(bytes_alone) == MARK_OF_UTF_8 + b"\xff"


def test_a_passphrase_that_is_nothing_but_a_mark_is_empty(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="empty"):
        terminal.passphrase("passphrase", private(tmp_path / "p", MARK_OF_UTF_8 + b"\n"))


@pytest.mark.parametrize(
    "data", [MARK_OF_UTF_8 + b"v\n", b"v\n", "v".encode("utf-16"), b"\xff\xfe\n"]
)
def test_with_exact_every_byte_of_a_value_is_kept(tmp_path: Path, data: bytes) -> None:
    assert values.value("K", private(tmp_path / "v", data), exact=True) == data


def test_a_line_end_that_is_left_out_of_a_value_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values.value("K", private(tmp_path / "v", b"v\n"))
    assert "line end" in capsys.readouterr().err
    values.value("K", private(tmp_path / "v", b"v"))
    values.value("K", private(tmp_path / "v", b"v\nw\n"))
    assert capsys.readouterr().err == ""


def test_what_came_from_outside_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "a\x1b[2Jb\u202ec"
    terminal.say(hostile)
    terminal.print_lines([hostile])
    terminal.print_table(["H"], [[hostile + "\n"]])
    terminal.print_json({"k": hostile})
    out, err = capsys.readouterr()
    for text in (out, err):
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert len(err.splitlines()) == 1


def test_a_table_is_aligned_text_where_output_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    terminal.print_table(["NAME", "B"], [["K", "1"], ["LONGER", ""]])
    assert capsys.readouterr().out == "NAME    B\nK       1\nLONGER\n"


def test_a_table_is_boxed_on_a_terminal() -> None:
    code = (
        'from backpack_client.console import terminal; terminal.print_table(["NAME"], [["[red]K"]])'
    )
    pid, screen = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", code])
    shown = b""
    while more := read_screen(screen):
        shown += more
    os.close(screen)
    os.waitpid(pid, 0)
    assert "\u2502".encode() in shown
    assert b"[red]K" in shown

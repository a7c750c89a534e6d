"""Characters that the locale does not know end no command: paths are bytes, and output forgives."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from daemons import PASSPHRASE, RunningDaemon

REASON = "\u65e5\u672c\u8a9e \u2028 \U0001f511"


@pytest.fixture(scope="module")
def latin_1(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Make a locale of ISO 8859-1, and return the variables that choose it."""
    if shutil.which("localedef") is None or not Path("/usr/share/i18n/charmaps").is_dir():
        pytest.skip("needs localedef and its character maps (Debian: locales)")
    place = tmp_path_factory.mktemp("locales")
    name = "de_DE.ISO-8859-1"
    made = [  # It warns of what the map lacks, and makes the locale all the same.
        "localedef",
        "--force",
        "-i",
        "de_DE",
        "-f",
        "ISO-8859-1",
        str(place / name),
    ]
    subprocess.run(made, capture_output=True, check=False)
    assert (place / name / "LC_CTYPE").exists()
    return {"LOCPATH": str(place), "LC_ALL": name}


def run(
    *arguments: str | bytes, environ: dict[str, str] | None = None, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "backpack_client", *arguments],
        env={**os.environ, **(environ or {})},
        input=stdin,
        capture_output=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("form", [["--all"], ["--all", "--json"]])
def test_a_reason_in_any_script_ends_no_listing(
    daemon: RunningDaemon, latin_1: dict[str, str], tmp_path: Path, form: list[str]
) -> None:
    operator = daemon.operator()
    operator.put("K", b"v")
    socket = {"BACKPACK_SOCKET": str(daemon.socket)}
    asked = run("get", "K", "--wait", "0", "--reason", REASON, environ=socket)
    assert asked.returncode == 6, asked.stderr
    passphrase = tmp_path / "p"
    passphrase.write_bytes(PASSPHRASE)
    passphrase.chmod(0o600)
    for locale in (latin_1, {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "cp1252"}):
        done = run(
            "requests", *form, "--passphrase-file", str(passphrase), environ={**socket, **locale}
        )
        assert done.returncode == 0, done.stderr
        assert b"\\u65e5" in done.stdout


def test_a_home_of_any_bytes_works_in_any_locale(latin_1: dict[str, str], tmp_path: Path) -> None:
    for name in ("m\u00fcller".encode(), b"m\xfcller", b"50%2f"):
        place = tmp_path / os.fsdecode(name)
        place.mkdir(0o700)
        user = os.fsencode(place)
        environ = {
            "PATH": os.environ["PATH"].encode(),
            "HOME": user,
            "BACKPACK_HOME": user + b"/home",
            "BACKPACK_SOCKET": user + b"/run/s.sock",
            **{key: value.encode() for key, value in latin_1.items()},
        }

        def client(*arguments: str, stdin: bytes = b"") -> bytes:
            done = subprocess.run(
                [sys.executable, "-m", "backpack_client", *arguments],
                env=environ,  # noqa: B023 - called in this round
                input=stdin,
                capture_output=True,
                timeout=100,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        try:
            client("init", "--passphrase-file", "-", stdin=PASSPHRASE)
            assert (place / "home" / "vault.db").exists()
            client("status")
            client("list", "--all", "--passphrase-file", "-", stdin=PASSPHRASE)
        finally:
            client("stop")


@pytest.mark.parametrize(
    "arguments",
    [
        ["get", b"K\xff"],
        ["get", "K", "--reason", b"\xff"],
        ["put", b"\xff"],
        ["list", b"--\xff"],
        [b"\xff"],
        ["import", b"/nowhere/\xff"],
        ["put", "K", "--value-file", b"/nowhere/\xff"],
        ["agent", "show", "--lock", b"/nowhere/\xff"],
        ["grant", "K", "--to", b"exe:/\xff"],
        ["--socket", b"/nowhere/\xff", "status"],
        ["audit", "blame", b"\xff"],
    ],
)
def test_an_argument_of_other_bytes_is_refused_in_one_sentence(
    arguments: list[str | bytes], latin_1: dict[str, str], tmp_path: Path
) -> None:
    for locale in ({}, latin_1, {"PYTHONIOENCODING": "ascii"}):
        done = run(*arguments, environ={"BACKPACK_SOCKET": str(tmp_path / "none"), **locale})
        assert done.returncode in (1, 2, 7), done.stderr
        assert b"Traceback" not in done.stderr
        assert done.stderr.startswith(b"backpack-client: ")

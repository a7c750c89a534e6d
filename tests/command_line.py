"""Runs the client's command line for tests: in this process, with what it prints taken apart."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from backpack_client import process_protection
from backpack_client.cli.main import main

PASSPHRASE = "seven quiet otters"


@dataclass(frozen=True)
class Ran:
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


def runner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Run:
    """Make a function that runs one command.

    In its arguments, `PASS` becomes `--passphrase-file` and a file with the right passphrase.
    Standard input is what is given as `stdin`, through a pipe; None: /dev/null.
    """
    # It would also protect the test's own process, which later tests look into.
    monkeypatch.setattr(process_protection, "make_undumpable", lambda: None)
    right = tmp_path / "passphrase"
    right.write_text(PASSPHRASE + "\n")
    right.chmod(0o600)

    def run(*arguments: str, stdin: bytes | None = b"") -> Ran:
        argv: list[str] = []
        for argument in arguments:
            argv += ["--passphrase-file", str(right)] if argument == "PASS" else [argument]
        if stdin is None:
            reading = os.open(os.devnull, os.O_RDONLY)
        else:
            reading, writing = os.pipe()
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(stdin)
        capfd.readouterr()
        with os.fdopen(reading) as standard_input, monkeypatch.context() as patch:
            patch.setattr("sys.stdin", standard_input)
            code = main(argv)
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return run

"""The question that `run` asks in its own terminal: only what was shown is approved."""

import os
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from backpack_client.cli import inline
from backpack_client.failures import Failure
from backpack_client.model import Process, Request


def process(pid: int, executable: str) -> Process:
    return Process(pid, executable, "", False, True, True, "")


SHOWN = Request(
    "K7QF",
    ("K",),
    (process(os.getpid(), "/usr/bin/python3"), process(7, "/usr/bin/bash")),
    "",
    datetime(2030, 1, 1, tzinfo=UTC),
    1,
    revision=1,
)


class Daemon:
    """Shows one request, and approves no other revision of it."""

    def __init__(self, now: Request) -> None:
        self.listed = SHOWN
        self.now = now
        self.approved: list[int] = []

    def requests(self) -> list[Request]:
        return [self.listed]

    def authorize(self, _: bytes) -> None:
        """Take any passphrase."""

    def approve(self, _: str, *, revision: int) -> None:
        self.listed = self.now
        if revision != self.now.revision:
            raise Failure("it has changed", reason="request-changed")
        self.approved.append(revision)


@pytest.fixture(autouse=True)
def _typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backpack_client.terminal.right_passphrase", lambda *_: b"")


def ask(now: Request) -> list[int]:
    daemon: Any = Daemon(now)
    inline.ask(daemon, "K7QF")
    return list(daemon.approved)


def test_what_was_shown_is_approved() -> None:
    assert ask(SHOWN) == [1]


def test_that_this_process_hides_itself_for_the_passphrase_is_no_change() -> None:
    hidden = process(os.getpid(), "")
    assert ask(replace(SHOWN, chain=(hidden, SHOWN.chain[1]), revision=2)) == [2]


@pytest.mark.parametrize(
    "chain",
    [
        (process(os.getpid(), ""), process(7, "/usr/bin/python3")),
        (process(os.getpid(), "/usr/bin/other"), SHOWN.chain[1]),
    ],
    ids=["above", "itself"],
)
def test_any_other_change_is_not_approved(chain: tuple[Process, ...]) -> None:
    with pytest.raises(Failure) as caught:
        ask(replace(SHOWN, chain=chain, revision=2))
    assert caught.value.reason == "request-changed"

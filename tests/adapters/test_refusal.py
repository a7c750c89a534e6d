"""Why the system refused something: one sentence, by the error."""

import errno
import os

import pytest

from backpackd.adapters.refusal import is_forbidden, why


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EPERM, "allow it there"),
        (errno.ENOSYS, "allow it there"),
        (errno.EAFNOSUPPORT, "RestrictAddressFamilies="),
        (errno.EMFILE, "LimitNOFILE="),
        (errno.ENFILE, "ulimit -n"),
        (errno.ENOSPC, "make room"),
        (errno.EDQUOT, "make room"),
        (errno.EROFS, "see who took it away"),
        (errno.ENOENT, "see who took it away"),
    ],
)
def test_an_error_is_told_with_what_helps(number: int, remedy: str) -> None:
    said = why(OSError(number, "not what is shown"), "see who took it away")
    assert said.startswith(f"{os.strerror(number).lower()}: ")
    assert remedy in said


def test_an_error_that_nothing_helps_against_is_told_alone() -> None:
    assert why(OSError(errno.ENOENT, "")) == "no such file or directory"
    assert "mount it so that it can be written to" in why(OSError(errno.EROFS, ""))
    assert why(OSError("without a number")) == os.strerror(errno.EIO).lower()


@pytest.mark.parametrize(
    ("number", "forbidden"), [(errno.EPERM, True), (errno.ENOSYS, True), (errno.EACCES, False)]
)
def test_a_sandbox_is_told_from_a_missing_permission(number: int, *, forbidden: bool) -> None:
    assert is_forbidden(OSError(number, "")) is forbidden

"""Carries out the calls about the audit log on an open connection, response by response.

A log may be long: what is read is handed on as it comes.
"""

from collections.abc import Generator
from datetime import datetime

from backpack_client.api import Backpack, Watch
from backpack_client.calls import audit as audit_calls
from backpack_client.calls.audit import AuditEntry, Verifying


def entries(
    backpack: Backpack,
    *,
    key: str = "",
    pid: int | None = None,
    events: tuple[str, ...] = (),
    since: datetime | None = None,
    until: datetime | None = None,
    newest: int = 0,
) -> Generator[AuditEntry, None, None]:
    """Read entries, oldest first. Needs operator authority.

    Raises:
        Failure: the authority has ended, or the vault was locked.
    """
    call = audit_calls.show(
        key=key, pid=pid, events=events, since=since, until=until, newest=newest
    )
    with Watch(call, backpack._open(), backpack._failure_of) as responses:  # noqa: SLF001 - one API in two files
        for response in responses:
            yield from response


def verify(backpack: Backpack, expected_head: str = "") -> Generator[Verifying, None, None]:
    """Verify the log; the last answer holds the verdict. Works while the vault is locked.

    Raises:
        Failure: a usage failure; what is expected is no head of a log.
    """
    call = audit_calls.verify(expected_head)
    with Watch(call, backpack._open(), backpack._failure_of) as responses:  # noqa: SLF001 - as above
        yield from responses


def head(backpack: Backpack) -> str:
    """Tell the end of the log, to be kept elsewhere; empty while there is none."""
    return backpack._invoke(audit_calls.head())  # noqa: SLF001 - as above

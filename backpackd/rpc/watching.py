"""Streams that need operator authority end when it ends."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from backpackd.application.callers.operators import Operators
from backpackd.application.vault.vault import Session
from backpackd.ports import Connection

_Result = TypeVar("_Result")


async def while_authorized(
    operators: Operators,
    connection: Connection,
    session: Session,
    waiting: Coroutine[Any, Any, _Result],
) -> _Result:
    """Wait for something as long as a connection has operator authority.

    A lock ends the authority and the wait at the same time, and nothing comes after it. What
    happened until then, the lock included, is still reported to a connection that had authority.

    Raises:
        NotAuthorizedError: the authority ended first.
    """
    task = asyncio.ensure_future(waiting)
    try:
        while not task.done():
            if not _locked(session):
                operators.require(connection)
            # The wait has an end even without a timeout, because a lock of the vault ends it.
            await asyncio.wait([task], timeout=operators.remaining(connection) or None)
        if not _locked(session):
            operators.require(connection)
        return task.result()
    finally:
        task.cancel()


def _locked(session: Session) -> bool:
    return session.over

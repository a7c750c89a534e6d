"""What streams that need operator authority share: they end with it."""

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
    """Wait for something for as long as a connection has operator authority.

    A lock ends authority and what is waited for in one moment, and nothing comes after it: what
    was to be told up to then, the lock included, is still told to who had authority until then.

    Raises:
        NotAuthorizedError: the authority ended first.
    """
    task = asyncio.ensure_future(waiting)
    try:
        while not task.done():
            if not _locked(session):
                operators.require(connection)
            # A locked vault ends what is waited for, so it is no wait without a bound.
            await asyncio.wait([task], timeout=operators.remaining(connection) or None)
        if not _locked(session):
            operators.require(connection)
        return task.result()
    finally:
        task.cancel()


def _locked(session: Session) -> bool:
    return session.over

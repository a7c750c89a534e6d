"""The three states of a vault. This table has every change of the state."""

from enum import Enum, unique

from backpackd.core.errors import (
    AlreadyInitializedError,
    BackpackError,
    LockedError,
    UninitializedError,
)


@unique
class State(Enum):
    """What a vault can be."""

    UNINITIALIZED = "uninitialized"
    LOCKED = "locked"
    UNLOCKED = "unlocked"


@unique
class Event(Enum):
    """What can happen to it."""

    INIT = "init"
    UNLOCK = "unlock"
    LOCK = "lock"


_TABLE: dict[State, dict[Event, State]] = {
    State.UNINITIALIZED: {Event.INIT: State.UNLOCKED, Event.LOCK: State.UNINITIALIZED},
    State.LOCKED: {Event.UNLOCK: State.UNLOCKED, Event.LOCK: State.LOCKED},
    State.UNLOCKED: {Event.UNLOCK: State.UNLOCKED, Event.LOCK: State.LOCKED},
}


def after(state: State, event: Event) -> State:
    """Return the state that an event leads to.

    Raises:
        AlreadyInitializedError: a second `INIT`.
        UninitializedError: anything else that needs a vault where there is none.
    """
    try:
        return _TABLE[state][event]
    except KeyError:
        raise unfit(state, event) from None


def unfit(state: State, event: Event) -> BackpackError:
    """Say why an event does not fit a state."""
    if event is Event.INIT:
        return AlreadyInitializedError("there is a vault already; to use it, unlock it")
    assert state is State.UNINITIALIZED
    return UninitializedError("there is no vault yet: make one with init")


def require_unlocked(state: State) -> None:
    """Raise unless the vault is unlocked.

    Raises:
        LockedError: it is locked.
        UninitializedError: there is none.
    """
    if state is State.LOCKED:
        raise LockedError("the vault is locked: unlock it first")
    if state is State.UNINITIALIZED:
        raise unfit(state, Event.UNLOCK)

from itertools import product

import pytest

from backpackd.core.errors import (
    AlreadyInitializedError,
    BackpackError,
    LockedError,
    UninitializedError,
)
from backpackd.core.vault.states import Event, State, after, require_unlocked

LEGAL = {
    (State.UNINITIALIZED, Event.INIT): State.UNLOCKED,
    (State.UNINITIALIZED, Event.LOCK): State.UNINITIALIZED,
    (State.LOCKED, Event.UNLOCK): State.UNLOCKED,
    (State.LOCKED, Event.LOCK): State.LOCKED,
    (State.UNLOCKED, Event.UNLOCK): State.UNLOCKED,
    (State.UNLOCKED, Event.LOCK): State.LOCKED,
}
ILLEGAL: dict[tuple[State, Event], type[BackpackError]] = {
    (State.UNINITIALIZED, Event.UNLOCK): UninitializedError,
    (State.LOCKED, Event.INIT): AlreadyInitializedError,
    (State.UNLOCKED, Event.INIT): AlreadyInitializedError,
}


def test_every_state_has_an_answer_to_every_event() -> None:
    assert LEGAL.keys() | ILLEGAL.keys() == set(product(State, Event))


@pytest.mark.parametrize(("state", "event"), LEGAL)
def test_a_legal_transition_leads_where_the_table_says(state: State, event: Event) -> None:
    assert after(state, event) is LEGAL[state, event]


@pytest.mark.parametrize(("state", "event"), ILLEGAL)
def test_an_illegal_transition_is_refused(state: State, event: Event) -> None:
    with pytest.raises(ILLEGAL[state, event]):
        after(state, event)


def test_an_unlocked_vault_is_fit_for_work() -> None:
    require_unlocked(State.UNLOCKED)


def test_a_locked_vault_is_not_fit_for_work() -> None:
    with pytest.raises(LockedError):
        require_unlocked(State.LOCKED)


def test_a_vault_that_is_not_there_is_not_fit_for_work() -> None:
    with pytest.raises(UninitializedError):
        require_unlocked(State.UNINITIALIZED)

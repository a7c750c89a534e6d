"""Recovery codes: written once, typed again by people who err."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpackd.core.errors import InvalidRequestError
from backpackd.core.slots import recovery_code

SECRET = bytes(range(16))
CODE = recovery_code.encode(SECRET)


@given(st.binary(min_size=16, max_size=16))
def test_a_code_gives_back_what_it_holds(secret: bytes) -> None:
    assert recovery_code.decode(recovery_code.encode(secret).encode()) == secret


def test_a_code_is_six_groups_of_five_without_letters_that_look_like_others() -> None:
    groups = CODE.split("-")
    assert [len(group) for group in groups] == [5] * 6
    assert not set("ILOU") & set(CODE)


@pytest.mark.parametrize(
    "typed",
    [
        CODE.lower(),
        CODE.replace("-", " "),
        CODE.replace("-", ""),
        f"  {CODE}\n",
        CODE.replace("0", "O").replace("1", "l"),
        CODE.replace("0", "o").replace("1", "I").replace("V", "u"),
        CODE.replace("-", "\N{EN DASH}"),
    ],
)
def test_a_code_is_read_as_people_type_it(typed: str) -> None:
    assert recovery_code.decode(typed.encode()) == SECRET


@pytest.mark.parametrize("place", range(30))
def test_one_wrong_character_is_found(place: int) -> None:
    symbols = CODE.replace("-", "")
    other = "7" if symbols[place] != "7" else "8"
    typed = symbols[:place] + other + symbols[place + 1 :]
    assert recovery_code.parse(typed.encode()) is None


@pytest.mark.parametrize("place", range(29))
def test_two_characters_that_changed_places_are_found(place: int) -> None:
    symbols = list(recovery_code.encode(b"\x9f\x31\x07\xe5" * 4).replace("-", ""))
    if symbols[place] == symbols[place + 1]:
        return
    symbols[place], symbols[place + 1] = symbols[place + 1], symbols[place]
    assert recovery_code.parse("".join(symbols).encode()) is None


@pytest.mark.parametrize(
    "typed", [b"", CODE[:-1].encode(), CODE.encode() + b"7", b"\xff" * 30, b"7" * 30, b"Z" * 300]
)
def test_what_is_no_code_is_refused_without_repeating_it(typed: bytes) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        recovery_code.decode(typed)
    assert caught.value.reason == "invalid-recovery-code"
    assert CODE[:-1] not in caught.value.message


@given(st.binary(max_size=300))
def test_any_bytes_are_a_code_or_none(typed: bytes) -> None:
    found = recovery_code.parse(typed)
    assert found is None or len(found) == recovery_code.SIZE

"""What the live screen of requests shows and what its keys do, with an integer for a clock."""

import re
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from backpack_client.cli.consent import request_view
from backpack_client.cli.consent.request_screen import LOOK_SECONDS, RequestScreen
from backpack_client.console import screen
from backpack_client.console.screen import Screen
from backpack_client.failures import Failure
from backpack_client.model import Process, Request


def process(pid: int, **changes: Any) -> Process:
    fields = {
        "pid": pid,
        "executable": f"/bin/p{pid}",
        "unit": "",
        "proposed_root": False,
        "in_tree": False,
        "may_be_root": True,
        "claimed_command": "",
    }
    return Process(**{**fields, **changes})


def request(code: str = "AAAA", **changes: Any) -> Request:
    chain = (
        process(66, in_tree=True),
        process(65, in_tree=True, proposed_root=True, claimed_command="agent"),
        process(64),
        process(1, may_be_root=False),
    )
    fields = {
        "code": code,
        "names": ("K",),
        "chain": chain,
        "claimed_reason": "why",
        "asked_at": datetime(2030, 1, 1, tzinfo=UTC),
        "waiting": 1,
    }
    return Request(**{**fields, **changes})


class Operator:
    """Notes what is answered."""

    def __init__(self) -> None:
        self.given: list[tuple[Any, ...]] = []
        self.revisions: list[int] = []
        self.trouble: Failure | None = None

    def approve(
        self, code: str, *, once: bool = False, root: int | None = None, revision: int = 0
    ) -> int:
        if self.trouble is not None:
            raise self.trouble
        self.given.append(("approve", code, once, root))
        self.revisions.append(revision)
        return root or 0

    def deny(self, code: str) -> None:
        self.given.append(("deny", code))


class Shown(SimpleNamespace):
    """A screen with two requests that have been looked at."""

    operator: Operator
    screen: RequestScreen
    now: float

    def text(self, height: int = 40, width: int = 200) -> str:
        return "\n".join(self.screen.lines(width, height))

    def press(self, *keys: str) -> None:
        for key in keys:
            # As at a terminal, where the screen is drawn before a key is read.
            self.text()
            self.screen.press(key)

    def look(self) -> None:
        self.now += LOOK_SECONDS


@pytest.fixture
def shown() -> Shown:
    shown = Shown(operator=Operator(), now=0.0)
    shown.screen = RequestScreen(shown.operator, lambda: shown.now)
    shown.screen.told([request("AAAA"), request("BBBB")])
    shown.look()
    return shown


@pytest.mark.parametrize(
    ("key", "given"),
    [
        ("a", ("approve", "AAAA", False, 65)),
        ("o", ("approve", "AAAA", True, 65)),
        ("d", ("deny", "AAAA")),
    ],
)
def test_one_key_answers_the_chosen_request(
    shown: Shown, key: str, given: tuple[object, ...]
) -> None:
    shown.press(key)
    assert shown.operator.given == [given]
    assert "AAAA" not in shown.text().splitlines()[2]


def test_another_request_is_chosen_by_arrows_and_letters(shown: Shown) -> None:
    shown.press("down")
    shown.look()
    shown.press("d", "x")
    assert shown.operator.given == [("deny", "BBBB")]


def test_a_second_key_right_after_an_answer_answers_nothing(shown: Shown) -> None:
    shown.press("a", "a")
    assert [given[1] for given in shown.operator.given] == ["AAAA"]
    assert "look at it" in shown.text()


def test_a_key_meant_for_a_request_that_went_away_does_not_answer_the_next(shown: Shown) -> None:
    shown.screen.told([request("BBBB")])
    shown.press("a")
    assert shown.operator.given == []


def test_a_request_that_comes_up_before_the_others_does_not_move_the_choice(shown: Shown) -> None:
    shown.screen.told([request("CCCC"), request("AAAA"), request("BBBB")])
    shown.press("a")
    assert shown.operator.given == [("approve", "AAAA", False, 65)]


def test_another_root_can_be_picked_and_what_is_shown_is_approved(shown: Shown) -> None:
    shown.press("r")
    assert "64 (root, picked by you) /bin/p64" in shown.text()
    assert "65 (root as proposed) /bin/p65" in shown.text()
    assert "WIDER than proposed" in shown.text()
    shown.press("a")
    assert shown.operator.given == [("approve", "AAAA", False, 64)]


def test_only_what_may_be_root_is_ever_picked(shown: Shown) -> None:
    roots = []
    for _ in range(6):
        shown.press("r")
        roots.append(request_view.possible_roots(request())[0])
        assert "1 (root" not in [line.strip("* `-") for line in shown.text().splitlines()]
    assert request_view.possible_roots(request()) == [65, 64, 66]


def test_the_daemons_refusal_is_shown_and_the_screen_goes_on(shown: Shown) -> None:
    shown.operator.trouble = Failure("it was answered", reason="no-such-request")
    shown.press("a")
    assert "AAAA: it was answered" in shown.text()


@pytest.mark.parametrize("reason", ["not-authorized", "locked", "no-daemon"])
def test_what_the_screen_cannot_go_on_with_is_raised(shown: Shown, reason: str) -> None:
    shown.operator.trouble = Failure("no", reason=reason)
    with pytest.raises(Failure):
        shown.press("a")


def test_q_ends_it_with_and_without_requests(shown: Shown) -> None:
    assert shown.screen.press("q")
    shown.screen.told([])
    assert shown.screen.press("q")
    assert not shown.screen.press("a")


def test_claims_are_marked_as_claims(shown: Shown) -> None:
    assert "claims  to need it for: why" in shown.text()
    assert "65 (root) /bin/p65  [claims: agent]" in shown.text()


def test_a_path_cannot_pass_for_the_mark_of_the_root(shown: Shown) -> None:
    chain = (process(66, proposed_root=True), process(65, executable="/tmp/65 (root) /bin/agent"))
    lines = request_view.describe(request(chain=chain), 66)
    marked = [line for line in lines if "(root) /bin/p66" in line]
    assert len(marked) == 1
    assert any(line.lstrip("* `-").startswith("65 /tmp/65 (root)") for line in lines)


def test_however_deep_the_caller_nests_the_root_and_the_keys_stay_in_sight(shown: Shown) -> None:
    inner = tuple(process(pid) for pid in range(1000, 1060))
    chain = (*inner, process(65, proposed_root=True), process(1, may_be_root=False))
    shown.screen.told([request("AAAA", chain=chain, names=("KEY_OF_IT",))])
    lines = shown.text(24).splitlines()
    assert len(lines) <= 24
    assert any("65 (root)" in line for line in lines)
    assert any(line.startswith("keys    KEY_OF_IT") for line in lines)
    assert any(line.startswith("a approve") for line in lines)


def test_many_requests_are_shown_around_the_chosen_one(shown: Shown) -> None:
    shown.screen.told([request(f"A{number:03}") for number in range(40)])
    for _ in range(20):
        shown.press("j")
    assert "> A020" in shown.text()
    assert len(shown.text(24).splitlines()) <= 24


HARMLESS = (*(f"HARMLESS_{number:02}" for number in range(12)), "PROD_DB")
LONG = tuple(f"{'N' * 125}_{number:02}" for number in range(64))


class SizedScreen(Screen):
    """The real drawing, onto a terminal of a given size that keeps what was drawn."""

    def __init__(self, width: int, height: int) -> None:
        self.dimensions = width, height
        self.written = ""

    def size(self) -> tuple[int, int]:
        return self.dimensions

    def _write(self, text: str) -> None:
        self.written = text

    def rows(self, view: RequestScreen) -> list[str]:
        """Draw a view, and return what stands in each row."""
        self.draw(view.lines(*self.dimensions))
        rows = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", self.written).split("\r\n")
        assert len(rows) <= self.dimensions[1]
        assert all(len(row) <= self.dimensions[0] for row in rows)
        return rows


def whole(row: str) -> bool:
    return not row.endswith("...")


@pytest.mark.parametrize("size", [(80, 24), (80, 9), (40, 24), (200, 300)])
@pytest.mark.parametrize("names", [("K",), HARMLESS, LONG], ids=["one key", "13 keys", "64 long"])
@pytest.mark.parametrize("depth", [0, 40, 600])
@pytest.mark.parametrize("key", ["a", "o"])
def test_what_is_approved_is_on_the_screen_or_nothing_is(
    shown: Shown, size: tuple[int, int], names: tuple[str, ...], depth: int, key: str
) -> None:
    inner = tuple(process(pid) for pid in range(1000, 1000 + depth))
    outer = tuple(process(pid) for pid in range(5000, 5000 + depth))
    root = process(65, proposed_root=True, executable="/opt/" + "x" * 100, claimed_command="agent")
    shown.screen.told([request("AAAA", names=names, chain=(*inner, root, *outer))])
    shown.look()
    at = SizedScreen(*size)
    rows = at.rows(shown.screen)
    shown.screen.press(key)
    text = "".join(row.removeprefix("    | ").removeprefix("        ") + " " for row in rows)
    joined = text.replace(" ", "")
    everything = (
        all(name in joined for name in names)
        and f"65(root)/opt/{'x' * 100}" in joined
        and "approvefor:process65anditsdescendants,untilprocess65ends" in joined
    )
    small = "screentoosmall" in joined
    assert [given[0] for given in shown.operator.given] == ["approve"] * everything
    assert small is not everything
    if small:
        assert "useapproveAAAA" in joined
        shown.screen.press("d")
        assert shown.operator.given == [("deny", "AAAA")]


def test_thirteen_keys_are_all_shown_on_an_ordinary_terminal(shown: Shown) -> None:
    shown.screen.told([request("AAAA", names=HARMLESS)])
    shown.look()
    at = SizedScreen(80, 24)
    rows = at.rows(shown.screen)
    assert all(any(name in row and whole(row) for row in rows[3:]) for name in HARMLESS)
    shown.screen.press("a")
    assert len(shown.operator.given) == 1
    assert any("AAAA approved for the tree" in row and whole(row) for row in at.rows(shown.screen))


def test_a_root_that_was_picked_but_not_drawn_yet_is_not_approved(shown: Shown) -> None:
    shown.text()
    shown.screen.press("r")
    shown.screen.press("a")
    assert shown.operator.given == []


def test_what_has_changed_has_to_be_looked_at_again(shown: Shown) -> None:
    changed = (process(66), process(65, proposed_root=True, executable="/usr/bin/python3"))
    shown.screen.told([request("AAAA", chain=changed, revision=2), request("BBBB")])
    shown.press("a")
    assert shown.operator.given == []
    shown.look()
    shown.press("a")
    assert shown.operator.given == [("approve", "AAAA", False, 65)]
    assert shown.operator.revisions == [2]


def test_a_screen_that_was_made_smaller_takes_no_key_before_it_is_drawn_again(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = SizedScreen(80, 24)
    pressed = [["a"], ["q"]]

    def press() -> list[str]:
        keys = pressed.pop(0)
        if keys == ["a"]:
            at.dimensions = (80, 3)
        return keys

    monkeypatch.setattr(at, "fileno", lambda: 7)
    monkeypatch.setattr(at, "pressed", press)
    monkeypatch.setattr("select.select", lambda *_: ([7], [], []))
    feed: Any = SimpleNamespace(fileno=lambda: 8)
    assert screen._follow(at, feed, shown.screen)
    assert shown.operator.given == []


def test_every_key_is_named_wherever_a_request_is_laid_out() -> None:
    lines = request_view.describe(request(names=LONG), 65)
    for name in LONG:
        assert any(name in line and len(line) < 200 for line in lines)


def test_the_root_is_not_pushed_away_by_those_above_it() -> None:
    chain = (process(65, proposed_root=True), *(process(pid) for pid in range(1000, 1600)))
    lines = request_view.describe(request(chain=chain), 65)
    (root,) = [line for line in lines if line.style == request_view.ROOT]
    assert root.index("65 (root)") < 40

"""The live screen of `requests --watch`: which request is chosen, and what each key does.

It does not know a terminal or a daemon: lines go out, keys come in, and answers are callables. So
tests of the rules below need only an integer as a clock.

1. A request is chosen by its code, never by its place in the list.
2. An answer counts only for a request that has been chosen on the screen for a moment. Otherwise a
   key press meant for a request that just went away would answer the next one. A program could
   arrange for that.
3. An approval is for the root that is shown, by its pid.
4. A request is approved only if these are on the screen: every key, the whole line of the root, and
   the line that says whom the approval is for. Other lines give way to them. If they do not fit,
   only denying counts.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from backpack_client.cli.consent import request_view
from backpack_client.cli.session import count
from backpack_client.console.line_folding import NARROWEST
from backpack_client.console.screen import Line, columns, folded
from backpack_client.failures import Failure
from backpack_client.model import Request

LOOK_SECONDS = 0.7
_LISTED = 6
_KEYS = "a approve for the tree   o once   r other root   d deny   j/k choose   q quit"
_TOO_SMALL = "screen too small: make it larger, or use approve"
_NEEDED = (0, 0)
_NOTE = (1, 0)
_FACT = 2
_FOR_THE_LOOP = frozenset({"not-authorized", "locked", "uninitialized", "no-daemon"})


class Answers(Protocol):
    """Gives answers; `Backpack` implements it."""

    def approve(
        self, code: str, *, once: bool = False, root: int | None = None, revision: int = 0
    ) -> int:
        """Allow a request."""

    def deny(self, code: str) -> None:
        """Refuse a request."""


class RequestScreen:
    """Shows the pending requests, one of them chosen."""

    def __init__(self, answers: Answers, clock: Callable[[], float] = time.monotonic) -> None:
        self._answers = answers
        self._clock = clock
        self._requests: Sequence[Request] = ()
        self._code = ""
        self._chosen_at = 0.0
        self._roots: dict[str, int] = {}
        self._note = ""
        self._drawn: tuple[Request, int] | None = None

    def told(self, news: Sequence[Request]) -> None:
        """Take in the pending requests."""
        before = [each.code for each in self._requests]
        shown = self._chosen()
        self._requests = news
        codes = [each.code for each in news]
        self._roots = {code: pid for code, pid in self._roots.items() if code in codes}
        if self._code not in codes:
            at = before.index(self._code) if self._code in before else 0
            self._choose(codes[min(at, len(codes) - 1)] if codes else "")
            return
        chosen = self._chosen()
        if shown is not None and chosen is not None and not _same_question(shown, chosen):
            # A key press meant for the old request must not approve the changed one.
            self._chosen_at = self._clock()
            self._note = "this request has changed: look again"

    def lines(self, width: int, height: int) -> list[str]:
        """Lay the screen out: the list, the chosen request, the keys."""
        headline = Line(f"{count(len(self._requests), 'request')} waiting", "bold")
        chosen = self._chosen()
        self._drawn = None
        if chosen is None:
            lines = [headline, "", "nothing to answer; new requests appear here", ""]
            lines += folded(self._note, width)
            return [*lines, *[""] * max(0, height - len(lines) - 1), Line("q quit", "dim")]
        root = self._root(chosen)
        facts = _facts(chosen, root, width)
        layout = [_Placed(headline, (5, 0)), *_blank(), *self._list(chosen), *_blank(), *facts]
        layout += _blank()
        scope = f"approve for: {request_view.scope(chosen, root)}"
        layout += _needed(folded(scope, width))
        note = [_Placed(each, _NOTE) for each in folded(self._note, width)]
        keys = _needed(folded(Line(_KEYS, "dim"), width))
        below = [*note, *keys] if self._note else [*_blank(), *keys]
        if columns(width) >= NARROWEST and _needs(layout + below) <= height:
            self._drawn = chosen, root
            return _fitted([*layout, *below], height)
        warning = _needed(folded(Line(f"{_TOO_SMALL} {chosen.code}", "bold"), width))
        below = [*warning, *below]
        above = _fitted(layout, max(0, height - _needs(below)))
        return [*above, *_fitted(below, height)]

    def _list(self, chosen: Request) -> "list[_Placed]":
        at = self._requests.index(chosen)
        first = max(0, min(at - _LISTED // 2, len(self._requests) - _LISTED))
        placed = []
        for place, each in enumerate(self._requests[first : first + _LISTED], first):
            summary = request_view.summary(each)
            if each is chosen:
                placed.append(_Placed(Line(f"> {summary}", "chosen"), _NEEDED))
            else:
                placed.append(_Placed(Line(f"  {summary}"), (4, abs(place - at))))
        if len(self._requests) > len(placed):
            placed.append(_Placed(Line(f"  {at + 1} of {len(self._requests)}", "dim"), (4, 0)))
        return placed

    def press(self, key: str) -> bool:
        """Act on a key; return True to end the screen.

        Raises:
            Failure: operator authority has ended, the vault is locked or the daemon is gone.
        """
        if key in ("q", "Q"):
            return True
        chosen = self._chosen()
        if chosen is None:
            return False
        self._note = ""
        if key in ("j", "down", "k", "up"):
            self._move(chosen, 1 if key in ("j", "down") else -1)
        elif key == "r":
            self._next_root(chosen)
        elif key in ("a", "o", "d"):
            self._answer(chosen, key)
        return False

    def _answer(self, chosen: Request, key: str) -> None:
        if self._clock() - self._chosen_at < LOOK_SECONDS:
            self._note = "this request has just appeared: look at it, then press again"
            return
        root = self._root(chosen)
        if key != "d" and not self._is_drawn(chosen, root):
            # If the screen is too small, the layout says so.
            self._note = "nothing was approved: look at it, then press again" if self._drawn else ""
            return
        try:
            if key == "d":
                self._answers.deny(chosen.code)
                done = "denied"
            else:
                approved = self._answers.approve(
                    chosen.code, once=key == "o", root=root or None, revision=chosen.revision
                )
                done = f"approved {'once' if key == 'o' else 'for the tree'} of process {approved}"
        except Failure as failure:
            if failure.reason in _FOR_THE_LOOP:
                raise
            self._note = f"{chosen.code}: {failure.message}"
            return
        # Remove it here at once: a second key press must not answer it again.
        self.told([each for each in self._requests if each is not chosen])
        self._note = f"{chosen.code} {done}: {request_view.some(chosen.names)}"

    def _is_drawn(self, chosen: Request, root: int) -> bool:
        if self._drawn is None:
            return False
        drawn, drawn_root = self._drawn
        return _same_question(drawn, chosen) and drawn_root == root

    def _move(self, chosen: Request, step: int) -> None:
        at = self._requests.index(chosen) + step
        self._choose(self._requests[max(0, min(at, len(self._requests) - 1))].code)

    def _next_root(self, chosen: Request) -> None:
        roots = request_view.possible_roots(chosen)
        if not roots:
            return
        at = roots.index(self._root(chosen)) if self._root(chosen) in roots else -1
        self._roots[chosen.code] = roots[(at + 1) % len(roots)]

    def _choose(self, code: str) -> None:
        if code != self._code:
            self._code = code
            self._chosen_at = self._clock()

    def _chosen(self) -> Request | None:
        return next((each for each in self._requests if each.code == self._code), None)

    def _root(self, request: Request) -> int:
        return self._roots.get(request.code) or request_view.proposed_root(request)


def _same_question(one: Request, other: Request) -> bool:
    return (one.code, one.names, one.chain) == (other.code, other.names, other.chain)


@dataclass(frozen=True, slots=True)
class _Placed:
    """A line of the layout.

    Attributes:
        line: what is drawn.
        rank: the line with the greatest rank gives way first if there is no room.
    """

    line: str
    rank: tuple[int, int]


def _needed(lines: Iterable[str]) -> list[_Placed]:
    return [_Placed(line, _NEEDED) for line in lines]


def _needs(layout: Iterable[_Placed]) -> int:
    return sum(placed.rank == _NEEDED for placed in layout)


def _blank() -> list[_Placed]:
    return [_Placed("", (6, 0))]


def _facts(request: Request, root: int, width: int) -> list[_Placed]:
    """Lay the keys and the processes out; outer processes give way before inner ones."""
    placed = []
    for at, line in enumerate(request_view.describe(request, root, columns(width))):
        rank = (_FACT, -at) if line else (6, 0)
        if line.style in (request_view.KEYS, request_view.ROOT):
            rank = _NEEDED
        placed += [_Placed(each, rank) for each in folded(line, width)]
    return placed


def _fitted(layout: list[_Placed], height: int) -> list[str]:
    """Leave out lines that do not fit, and say where processes were left out."""
    kept = _kept(layout, height)
    left_out = [
        at for at, placed in enumerate(layout) if placed.rank[0] == _FACT and at not in kept
    ]
    if left_out:
        mark = _Placed(Line("    ...", "dim"), _NOTE)
        layout = [*layout[: left_out[0]], mark, *layout[left_out[0] :]]
        kept = _kept(layout, height)
    return [layout[at].line for at in sorted(kept)]


def _kept(layout: list[_Placed], height: int) -> set[int]:
    return set(sorted(range(len(layout)), key=lambda at: (layout[at].rank, at))[:height])

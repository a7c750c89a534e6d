"""The live screen of `requests --watch`: which request is chosen, and what each key does.

It knows no terminal and no daemon: lines go out, keys come in, and answers are callables. So the
rules below can be tested with an integer for a clock.

1. A request is chosen by its code, never by its place in the list.
2. An answer counts only for a request that has stood chosen on the screen for a moment. Otherwise a
   key meant for a request that just went away would answer the one that took its place, and a
   program could arrange for that.
3. What is approved is the root that is shown, by its pid.
"""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from backpack_client.cli import request_view
from backpack_client.cli.session import count
from backpack_client.failures import Failure
from backpack_client.model import Request
from backpack_client.screen import Line

LOOK_SECONDS = 0.7
_LISTED = 6
_KEYS = "a approve for the tree   o once   r other root   d deny   j/k choose   q quit"
_FOR_THE_LOOP = frozenset({"not-authorized", "locked", "uninitialized", "no-daemon"})


class Answers(Protocol):
    """What answers are given with; `Backpack` has it."""

    def approve(self, code: str, *, once: bool = False, root: int | None = None) -> int:
        """Allow a request."""

    def deny(self, code: str) -> None:
        """Refuse a request."""


class RequestScreen:
    """The pending requests, one of them chosen."""

    def __init__(self, answers: Answers, clock: Callable[[], float] = time.monotonic) -> None:
        self._answers = answers
        self._clock = clock
        self._requests: Sequence[Request] = ()
        self._code = ""
        self._chosen_at = 0.0
        self._roots: dict[str, int] = {}
        self._note = ""

    def told(self, news: Sequence[Request]) -> None:
        """Take in the pending requests."""
        before = [each.code for each in self._requests]
        self._requests = news
        codes = [each.code for each in news]
        self._roots = {code: pid for code, pid in self._roots.items() if code in codes}
        if self._code not in codes:
            at = before.index(self._code) if self._code in before else 0
            self._choose(codes[min(at, len(codes) - 1)] if codes else "")

    def lines(self, width: int, height: int) -> list[str]:  # noqa: ARG002 - cut by the screen
        """Lay the screen out: the list, the chosen request, the keys."""
        lines: list[str] = [Line(f"{count(len(self._requests), 'request')} waiting", "bold"), ""]
        chosen = self._chosen()
        if chosen is None:
            lines += ["nothing to answer; requests show up here", "", self._note]
            return [*lines, *[""] * max(0, height - len(lines) - 1), Line("q quit", "dim")]
        at = self._requests.index(chosen)
        first = max(0, min(at - _LISTED // 2, len(self._requests) - _LISTED))
        shown = self._requests[first : first + _LISTED]
        lines += [
            Line(
                f"{'>' if each is chosen else ' '} {request_view.summary(each)}",
                "chosen" if each is chosen else "",
            )
            for each in shown
        ]
        if len(self._requests) > len(shown):
            lines.append(Line(f"  {at + 1} of {len(self._requests)}", "dim"))
        root = self._root(chosen)
        below = [
            "",
            Line(f"approve for: {request_view.scope(chosen, root)}"),
            self._note,
            Line(_KEYS, "dim"),
        ]
        facts = request_view.describe(chosen, root)
        room = height - len(lines) - len(below) - 1
        return [*lines, "", *_fitted(facts, len(chosen.chain), room), *below]

    def press(self, key: str) -> bool:
        """Act on a key; True: the screen is to end.

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
            self._note = "this request has only just come up: look at it, then press again"
            return
        root = self._root(chosen)
        try:
            if key == "d":
                self._answers.deny(chosen.code)
                done = "denied"
            else:
                approved = self._answers.approve(chosen.code, once=key == "o", root=root or None)
                done = f"approved {'once' if key == 'o' else 'for the tree'} of process {approved}"
        except Failure as failure:
            if failure.reason in _FOR_THE_LOOP:
                raise
            self._note = f"{chosen.code}: {failure.message}"
            return
        # Gone from here at once: a second key must not answer it again.
        self.told([each for each in self._requests if each is not chosen])
        self._note = f"{chosen.code} {done}: {' '.join(chosen.names)}"

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


def _fitted(facts: list[str], processes: int, room: int) -> list[str]:
    """Drop what does not fit, never the root: a caller nests as deep as it likes."""
    if len(facts) <= room:
        return facts
    head, chain = facts[:-processes], facts[-processes:]
    root = [line for line in chain if request_view.is_root_line(line)]
    left = max(1, room - len(head) - len(root) - 1)
    tail = [line for line in chain[-left:] if line not in root]
    return [*head, *root, Line("    ...", "dim"), *tail]

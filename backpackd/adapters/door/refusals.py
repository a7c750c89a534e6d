"""Logs one line for each refusal, with a bound: equal refusals are counted, not repeated.

It decides what is logged and when. It owns no timer, so its caller must call `flush`.
"""

import logging

EVERY_SECONDS = 10.0
"""How often equal refusals are summed up in one line."""

_KINDS = 64
_OTHERS = "connections for further reasons"


class Refusals:
    """Counts refusals by what was refused.

    The texts come from the door's own code and hold numbers at most. How many different ones are
    told apart is bounded all the same: a process that can change its uid makes a new text with
    every uid.
    """

    def __init__(self, log: logging.Logger) -> None:
        """Write to `log`, at warning level."""
        self._log = log
        self._since: dict[str, float] = {}
        self._uncounted: dict[str, int] = {}

    @property
    def pending(self) -> bool:
        """True while `flush` has something to forget or to log."""
        return bool(self._since)

    def note(self, what: str, now: float) -> None:
        """Log `refused` and `what`, or count it when the same was logged a moment ago.

        Args:
            what: what was refused and why, in our own words.
            now: seconds on any clock that does not go back.
        """
        if what not in self._since and len(self._since) >= _KINDS:
            what = _OTHERS
        if what in self._since:
            self._uncounted[what] = self._uncounted.get(what, 0) + 1
            return
        self._since[what] = now
        self._log.warning("refused %s", what)

    def flush(self, now: float) -> None:
        """Log counts of at least `EVERY_SECONDS`, and forget refusals that did not recur."""
        due = [what for what, since in self._since.items() if now - since >= EVERY_SECONDS]
        for what in due:
            count = self._uncounted.pop(what, 0)
            if count:
                self._since[what] = now
                self._log.warning("refused %s, %d more times", what, count)
            else:
                del self._since[what]

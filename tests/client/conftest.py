"""What tests of the Python API share."""

import pytest

from backpack_client.held import HeldKeys


@pytest.fixture
def renewed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a lease of less than a minute renewed at once, not when half of it is over."""
    plan = HeldKeys._plan

    def sooner(self: HeldKeys, now: float) -> None:
        plan(self, now)
        if self._info.remaining_seconds < 60:
            self._renew_at = now

    monkeypatch.setattr(HeldKeys, "_plan", sooner)

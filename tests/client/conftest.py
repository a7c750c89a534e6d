"""What tests of the Python API share."""

import pytest

from backpack_client.handles.lease_values import LeaseValues


@pytest.fixture
def renewed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a lease of less than a minute renewed at once, not when half of it is over."""
    plan = LeaseValues._plan

    def sooner(self: LeaseValues, now: float) -> None:
        plan(self, now)
        if self._info.remaining_seconds < 60:
            self._renew_at = now

    monkeypatch.setattr(LeaseValues, "_plan", sooner)

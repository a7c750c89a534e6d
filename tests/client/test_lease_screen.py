"""What the live table of leases shows on terminals of different widths."""

from datetime import UTC, datetime

import pytest

from backpack_client.cli.keys.lease_screen import LeaseScreen
from backpack_client.console.screen import columns
from backpack_client.model import LeaseEvent, LeaseInfo

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ID = "0123456789abcdef" * 2


def shown(width: int, *names: str, kind: str = "issued") -> list[str]:
    lease = LeaseInfo(
        id=ID,
        names=names or ("K",),
        holder_pid=4_194_303,
        grant_ids=(),
        issued_at=NOW,
        expires_at=NOW,
        max_expires_at=NOW,
        remaining_seconds=899,
    )
    screen = LeaseScreen(lambda: 0.0)
    screen.told(LeaseEvent(kind, lease, "expired" if kind == "ended" else ""))
    return [line[: columns(width)] for line in screen.lines(width, 24)]


@pytest.mark.parametrize("names", [("K",), ("ANTHROPIC_API_KEY",), ("OPENAI_API_KEY",) * 64])
def test_an_ordinary_terminal_shows_when_each_lease_ends(names: tuple[str, ...]) -> None:
    header, row = shown(80, *names)[2:4]
    assert header.endswith("ENDS IN")
    assert row[header.index("ENDS IN") :] == "14m 59s"
    assert row.startswith("01234567  ")
    assert names[0][:5] in row


def test_a_wide_terminal_shows_all_of_the_id_and_the_keys() -> None:
    row = shown(200, "A_KEY", "B_KEY")[3]
    assert f"{ID}  A_KEY B_KEY  tree:4194303" in row


def test_an_ordinary_terminal_shows_why_a_lease_ended() -> None:
    assert any(
        line.startswith("01234567") and line.endswith("expired")
        for line in shown(80, *("ANTHROPIC_API_KEY",) * 64, kind="ended")
    )

"""The limits on agent locks that the protocol names are those that are enforced."""

from pathlib import Path

import pytest

from backpack_client.calls import agents as agent_calls
from backpack_client.cli.agents import agent_files
from backpack_client.console import inputs
from backpack_client.files import lockfiles
from backpackd.application.access import access
from backpackd.application.agents import identities
from backpackd.application.callers import worker
from backpackd.core.agentlock import content
from backpackd.core.vault import trust

PROTOCOL = (Path(__file__).resolve().parents[1] / "docs" / "protocol.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("what", "limit"),
    [
        ("lock file", f"{content.MAX_DOCUMENT >> 20} MiB"),
        ("accepted authors, known agent locks", f"{trust.MAX_AUTHORS}, {trust.MAX_LOCKS}"),
        (
            "label of an author, claimed path of a lock",
            f"{trust.MAX_LABEL}, {trust.MAX_PATH} characters",
        ),
        ("old master key", f"{identities.MAX_LEGACY_KEY} bytes"),
        ("agent locks of one process tree that wait to be opened", str(worker.MOST_WAITING)),
    ],
)
def test_a_limit_in_the_protocol_is_the_one_that_is_enforced(what: str, limit: str) -> None:
    assert f"\n| {what} | {limit} |\n" in PROTOCOL


def test_the_client_keeps_to_the_daemons_limits() -> None:
    assert lockfiles.SIZE_LIMIT == content.MAX_DOCUMENT
    assert agent_files.MOST_KEYS == access.MOST_NAMES
    assert agent_calls.PATH_LIMIT == trust.MAX_PATH
    assert inputs.PASSPHRASE_LIMIT == identities.MAX_LEGACY_KEY

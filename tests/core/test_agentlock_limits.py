"""The numbers and reasons in docs/agent-lock.md are those of the code."""

import re
from pathlib import Path

from backpackd.core.agentlock import content, header, history, legacy, locks
from backpackd.core.agentlock.errors import LockFileError
from backpackd.core.sealing import identity

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "agent-lock.md").read_text(encoding="utf-8")
FLAT = " ".join(TEXT.split())
CODE = "".join(
    path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "backpackd" / "core" / "agentlock").glob("*.py"))
)


def test_the_formats_document_names_every_reason_and_no_other() -> None:
    raised = set(re.findall(r'reason="([a-z-]+)"', CODE)) - {"invalid-iterations"}
    raised |= {kind.reason for kind in LockFileError.__subclasses__()}
    documented = set(re.findall(r"`(lock-[a-z-]+|not-a-[a-z]+|wrong-[a-z-]+)`", TEXT))
    assert documented == raised


def test_the_limits_of_the_formats_document_are_those_of_the_code() -> None:
    said = [
        f"A file is at most {content.MAX_DOCUMENT // 2**20} MiB",
        f"1 to {content.MAX_RECIPIENTS} recipients",
        f"At most {content.MAX_CREDENTIALS} credentials",
        f"credentials and {content.MAX_CREDENTIALS_BYTES // 1024} KiB",
        f"any object, at most {content.MAX_PERSONALITY_BYTES // 1024} KiB",
        f"any object, at most {content.MAX_MEMORY_BYTES // 1024} KiB",
        f"more than {content.MAX_DEPTH} deep",
        f"more than {content.MAX_INTEGER_BITS} bits",
        f"from {legacy.MIN_ITERATIONS:,} to {legacy.MAX_ITERATIONS:,} are taken",
        f"The iterations are {legacy.DEFAULT_ITERATIONS:,}",
    ]
    assert [one for one in said if one not in FLAT] == []


def test_the_sizes_in_the_formats_document_are_those_of_the_code() -> None:
    line = len(identity.generate().public.text)
    said = [
        f"The line has {line} characters",
        f"base64 of {identity.PUBLIC_SIZE} bytes",
        f"base64 of {header.WRAP_SIZE} bytes",
        f"base64 of {identity.SIGNATURE_SIZE} bytes",
        f"| public identity | {identity.PUBLIC_SIZE} |",
        f"`lock_id` | {locks.LOCK_ID_SIZE} random bytes",
    ]
    assert [one for one in said if one not in FLAT] == []
    assert history.MOST == 2**53 - 1
    assert "from 1 to 2^53 - 1" in FLAT

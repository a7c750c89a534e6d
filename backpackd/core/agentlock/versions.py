"""The outermost of a lock file, the same for every version: is it one, and of which."""

from typing import Any

from backpackd.core.agentlock import strictjson
from backpackd.core.agentlock.content import MAX_DOCUMENT
from backpackd.core.agentlock.errors import LockFileError
from backpackd.core.agentlock.strictjson import StrictJsonError

LEGACY = "1.0"
CURRENT = "2.0"


def version_of(document: bytes) -> str:
    """Return the version that a file says it is of, `LEGACY` or `CURRENT`.

    Raises:
        LockFileError: it is not a lock file, or of a version that is unknown here.
    """
    return str(load(document)["version"])


def load(document: bytes) -> dict[str, Any]:
    """Return a lock file as plain data, of which size, JSON and version were checked.

    Raises:
        LockFileError: `lock-too-large`, `lock-not-json`, `lock-shape` or `lock-version`.
    """
    # Before anything is parsed: the file may come from any repository.
    if len(document) > MAX_DOCUMENT:
        raise LockFileError(
            f"the file is larger than {MAX_DOCUMENT // 1024} KiB, which no agent.lock is",
            reason="lock-too-large",
        )
    try:
        data = strictjson.loads(document, fractions=False)
    except StrictJsonError as error:
        raise LockFileError(
            "the file is not JSON as an agent.lock has it (a conflict of a merge, or half a "
            "file?): restore it from version control",
            reason="lock-not-json",
        ) from error
    if not isinstance(data, dict) or not isinstance(data.get("version"), str):
        raise LockFileError(
            "the file is JSON, but not an agent.lock: it names no version", reason="lock-shape"
        )
    if data["version"] not in (LEGACY, CURRENT):
        raise LockFileError(
            "the file is an agent.lock of a version that this program does not know: "
            "use a newer program",
            reason="lock-version",
        )
    return data

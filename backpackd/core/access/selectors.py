"""Selectors: whom a grant is given to. Strict parsing and pure matching.

`tree:` names one live process and its descendants and is the strong one. The others are
conveniences that hold against accidents: in same-uid mode hostile code of the user can arrange to
match them (by LD_PRELOAD, a bind mount, a move between cgroups), so they are worth no more than
`uid:`. What the kernel does not tell never matches.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from backpackd.core.errors import InvalidRequestError
from backpackd.core.peer_facts import PeerFacts, ProcessFacts, ProcessId

_MAX_PATH = 4096
_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
# systemd.unit(5): letters, digits and ":-_.\@", with a suffix that names the type.
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,240}\.(service|scope|slice)", re.ASCII)
_MAX_PID = 2**31 - 1
_MAX_ID = 2**32 - 2
"""The largest uid; the one above means "none" to chown(2)."""


@dataclass(frozen=True, slots=True)
class Selector:
    """A parsed selector.

    Attributes:
        kind: `tree`, `uid`, `exe`, `sha256` or `unit`.
        value: what stands behind the colon, in its one canonical form.
        process: for `tree`, the very process; None until it was looked up.
        boot_id: for `tree`, the boot in which that process runs.
    """

    kind: str
    value: str
    process: ProcessId | None = None
    boot_id: str | None = None

    @property
    def text(self) -> str:
        """The selector as it is written: `kind:value`."""
        return f"{self.kind}:{self.value}"


def parse(text: str) -> Selector:
    """Parse a selector.

    Returns:
        The selector; a `tree:` has no process yet, since looking it up is not done here.

    Raises:
        InvalidRequestError: not of a known form (`invalid-selector`).
    """
    kind, colon, value = text.partition(":")
    if colon and _well_formed(kind, value):
        return Selector(kind, value)
    raise InvalidRequestError(
        "a grant is given to tree:PID, uid:N, exe:/absolute/path, sha256:HEX (64 lowercase digits) "
        "or unit:NAME.service",
        reason="invalid-selector",
    )


def _well_formed(kind: str, value: str) -> bool:
    match kind:
        case "tree":
            return bool(_NUMBER.fullmatch(value)) and 0 < int(value) <= _MAX_PID
        case "uid":
            return bool(_NUMBER.fullmatch(value)) and int(value) <= _MAX_ID
        case "exe":
            # The length first, so that the rest is short work.
            return (
                value.startswith("/")
                and len(value) <= _MAX_PATH
                and value.isprintable()
                and all(part not in {"", ".", ".."} for part in value.split("/")[1:])
            )
        case "sha256":
            return bool(_DIGEST.fullmatch(value))
        case "unit":
            return bool(_UNIT.fullmatch(value))
        case _:
            return False


def matches(selector: Selector, facts: PeerFacts, boot_id: str) -> bool:
    """Return whether a permission that a selector gives reaches a caller.

    `tree` looks at the caller and all its ancestors; `exe` and `sha256` at the part of them that
    lies in the caller's process tree, since the process that asks is usually a small tool of the
    agent; `unit` at the caller itself.
    """
    return _meets(selector, facts, boot_id, facts.tree, facts.chain[:1])


def concerns(selector: Selector, facts: PeerFacts, boot_id: str) -> bool:
    """Return whether a prohibition that a selector names reaches a caller.

    It looks at all ancestors. Where the tree ends is up to the caller: a terminal of its own is
    enough to move that. Nor does it stop at managers and other users' processes: a process that
    executes a setuid program, or calls itself `systemd`, looks like one.
    """
    return _meets(selector, facts, boot_id, facts.chain, facts.chain)


def _meets(
    selector: Selector,
    facts: PeerFacts,
    boot_id: str,
    running: Sequence[ProcessFacts],
    placed: Sequence[ProcessFacts],
) -> bool:
    """Return whether a selector meets a caller.

    Args:
        selector: which.
        facts: the caller.
        boot_id: of the running system.
        running: of which processes it matters what they run.
        placed: of which processes it matters in which unit they are.
    """
    match selector.kind:
        case "tree":
            return selector.boot_id == boot_id and any(
                process.id == selector.process for process in facts.chain
            )
        case "uid":
            return facts.uid == int(selector.value)
        case "exe":
            return any(process.executable == selector.value for process in running)
        case "sha256":
            digests = facts.digests or {}
            return any(digests.get(process.id) == selector.value for process in running)
        case "unit":
            return any(process.unit == selector.value for process in placed)
        case _:
            return False

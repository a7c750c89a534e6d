"""How entries of the audit log look: on one line, at length, and as JSON.

Text from outside is escaped where it is printed, in `terminal`. Claims of a process about itself
are in quotes.
"""

from typing import TYPE_CHECKING

from backpack_client.cli.session import local_time, milliseconds
from backpack_client.console.line_folding import cut, width

if TYPE_CHECKING:
    from backpack_client.calls.audit import Actor, AuditEntry
    from backpack_client.console.styled import Part

DAMAGED = "damaged"
"""The event of an entry that cannot be read. The daemon sends it whatever was asked for."""
ACT = "operator-act"

_STYLES = {
    **dict.fromkeys(("allowed", "withheld", "approved"), "green"),
    **dict.fromkeys(
        ("granted", "ungranted", "revoked", "policy-changed", "older-accepted", ACT), "yellow"
    ),
    **dict.fromkeys(
        (
            DAMAGED,
            "damage-found",
            "denied",
            "foreign-user",
            "not-recorded",
            "panic",
            "refused",
            "wrong-passphrase",
        ),
        "red",
    ),
}
_TIME, _EVENT, _KEYS, _PROCESS = 19, 16, 14, 22
"""The usual widths of the columns of a line. Longer text moves the rest."""
_GAP = "  "
_TITLE = 12


def line(entry: "AuditEntry", what_for: str, columns: int | None) -> list["Part"]:
    """Lay an entry out on one line.

    Args:
        entry: the entry.
        what_for: the last column, see `what_for`.
        columns: how wide the line may be; keys and process then get a share each, so that neither
            pushes the other out. None: as wide as necessary.

    Returns:
        Text and style of each column.
    """
    if entry.event == DAMAGED:
        return [
            ("".ljust(_TIME) + _GAP, ""),
            (DAMAGED.ljust(_EVENT) + _GAP, _STYLES[DAMAGED]),
            (f"entry {entry.number} cannot be read", ""),
        ]
    event = entry.event if entry.count <= 1 else f"{entry.event} x{entry.count}"
    keys, process = " ".join(entry.names), _processes(entry.actor)
    if columns is not None:
        share = columns - _TIME - _EVENT - 2 * len(_GAP)
        keys = cut(keys, max(_KEYS, share // 3))
        process = cut(process, max(_PROCESS, share // 2))
    return [
        (local_time(entry.at) + _GAP, "dim"),
        (_padded(event, _EVENT), _STYLES.get(entry.event, "")),
        (_padded(keys, _KEYS), "bold"),
        (_padded(process, _PROCESS), ""),
        (what_for, ""),
    ]


def what_for(entry: "AuditEntry") -> str:
    """Describe in a few words why something happened and what it was for."""
    parts = [entry.reason, _claim(entry.claimed_reason)]
    # A zero means no limit, or nothing of the kind.
    details = sorted(entry.details.items())
    parts += [f"{name}={told}" for name, told in details if told not in {"", "0"}]
    return " ".join(filter(None, parts))


def basis(entry: "AuditEntry") -> str:
    """Describe the grants of a handout, its lease, and its claimed purpose."""
    if entry.event == ACT:
        return f"by the operator: {entry.reason}"
    by = f"by {' '.join(entry.grant_ids) or 'the policy'}"
    return " ".join(filter(None, [by, f"lease {entry.lease_id}", _claim(entry.claimed_reason)]))


def long(entry: "AuditEntry") -> list[list["Part"]]:
    """Lay an entry out at length: a title, then one fact on each line."""
    style = _STYLES.get(entry.event, "")
    if entry.event == DAMAGED:
        return [[(f"entry {entry.number}{_GAP}", "dim"), ("damaged: it cannot be read", style)]]
    times = f" x{entry.count}" if entry.count > 1 else ""
    facts = [("time", local_time(entry.at)), ("keys", " ".join(entry.names))]
    facts += _facts(entry.actor)
    facts += [
        ("reason", entry.reason),
        ("claimed for", _claim(entry.claimed_reason)),
        ("lease", entry.lease_id),
        ("grants", " ".join(entry.grant_ids)),
        *sorted(entry.details.items()),
        ("generation", str(entry.generation or "")),
    ]
    return [
        [(f"entry {entry.number}{_GAP}", "dim"), (entry.event + times, style)],
        *([(f"    {name.ljust(_TITLE)}{_GAP}", "dim"), (told, "")] for name, told in facts if told),
    ]


def document(entry: "AuditEntry") -> dict[str, object]:
    """Write an entry for JSON."""
    actor = entry.actor
    return {
        "number": entry.number,
        "event": entry.event,
        "at_ms": milliseconds(entry.at),
        "actor": None
        if actor is None
        else {
            "uid": actor.uid,
            "pid": actor.pid,
            "executable": actor.executable,
            "root_pid": actor.root_pid,
            "root_executable": actor.root_executable,
            "unit": actor.unit,
            "terminal": actor.terminal,
            "connection": actor.connection,
            "claimed_command": actor.claimed_command,
        },
        "names": list(entry.names),
        "lease_id": entry.lease_id,
        "grant_ids": list(entry.grant_ids),
        "reason": entry.reason,
        "count": entry.count,
        "details": dict(entry.details),
        "claimed_reason": entry.claimed_reason,
        "generation": entry.generation,
    }


def _processes(actor: "Actor | None") -> str:
    """Name a process and the agent that it belongs to, each by its program's last name and pid."""
    if actor is None:
        return "the daemon"
    process = _short(actor.executable, actor.pid)
    if actor.root_pid in {0, actor.pid}:
        return process
    return f"{process} of {_short(actor.root_executable, actor.root_pid)}"


def _short(executable: str, pid: int) -> str:
    return f"{executable.rpartition('/')[2] or '?'}[{pid}]"


def _facts(actor: "Actor | None") -> list[tuple[str, str]]:
    if actor is None:
        return [("process", "the daemon itself")]
    root = f"{actor.root_pid} {actor.root_executable or '(program unknown)'}"
    return [
        ("process", f"{actor.pid} {actor.executable or '(program unknown)'}"),
        ("of agent", root if actor.root_pid else ""),
        ("claims to be", _claim(actor.claimed_command)),
        ("user", str(actor.uid)),
        ("unit", actor.unit),
        ("connection", actor.connection),
    ]


def _claim(claimed: str) -> str:
    return f'"{claimed}"' if claimed else ""


def _padded(text: str, columns: int) -> str:
    return text + " " * max(0, columns - width(text)) + _GAP

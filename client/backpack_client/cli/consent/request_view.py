"""Lays a request out for the person who answers it: as a tree of processes, with claims marked.

It does not know a terminal. The code that prints the lines escapes them.
"""

from collections.abc import Sequence

from backpack_client.cli.session import count, seconds_until
from backpack_client.console.screen import Line
from backpack_client.durations import format_duration
from backpack_client.model import Process, Request

ROOT = "root"
"""The style of the line of the root."""
KEYS = "bold"
"""The style of the lines of the keys."""
_COLUMNS = 72
_NOW = {"hidden": "(hidden now) was ", "ended": "(ended) was "}
_NAMED = 3
_DEEPEST = 8


def proposed_root(request: Request) -> int:
    """Find the pid of the root that the daemon proposes; 0 if it proposes none."""
    return next((each.pid for each in request.chain if each.proposed_root), 0)


def possible_roots(request: Request) -> list[int]:
    """List the pids that may be root, from the proposed one outwards, then the inner ones."""
    pids = [each.pid for each in request.chain if each.may_be_root]
    proposed = proposed_root(request)
    at = pids.index(proposed) if proposed in pids else 0
    return pids[at:] + pids[:at]


def summary(request: Request) -> str:
    """Describe in one line the keys, the process that asks, and how long it has waited."""
    age = format_duration(-seconds_until(request.asked_at))
    waiting = f", {count(request.waiting, 'call')} waiting" if request.waiting else ""
    asker = _program(request.chain[0]) if request.chain else "(nobody)"
    return f"{request.code}  {some(request.names)}  for {asker}  ({age} ago{waiting})"


def some(names: Sequence[str]) -> str:
    """Name the first few keys and the number of the others, which are shown elsewhere."""
    more = len(names) - _NAMED
    return f"{' '.join(names[:_NAMED])}{f' and {more} more' if more > 0 else ''}"


def packed(start: str, names: Sequence[str], columns: int = _COLUMNS) -> list[str]:
    """Name every key, on as many lines as necessary: no approved key is ever cut off.

    Args:
        start: how the first line begins.
        names: of the keys.
        columns: how long a line may become; only a name that is longer than that makes it longer.
    """
    lines = [start + names[0]] if names else [start]
    for name in names[1:]:
        if len(lines[-1]) + 1 + len(name) <= columns:
            lines[-1] += f" {name}"
        else:
            lines.append(f"        {name}")
    return lines


def describe(request: Request, root: int, columns: int = _COLUMNS) -> list[Line]:
    """Lay a request out: the keys, the claims, and the processes from the outermost to the caller.

    Args:
        request: the request.
        root: the pid of the process whose tree is to be allowed.
        columns: how long the lines of the keys may become.
    """
    lines = [Line(line, KEYS) for line in packed("keys    ", request.names, columns)]
    if request.claimed_reason:
        lines.append(Line(f"claims  to need it for: {request.claimed_reason}"))
    lines.append(Line(""))
    inside = False
    for depth, process in enumerate(reversed(request.chain)):
        is_root = process.pid == root
        inside = inside or is_root
        lines.append(_process(process, depth, is_root=is_root, inside=inside))
    return lines


def scope(request: Request, root: int) -> str:
    """Describe what an approval for the tree allows, and whether it is wider than proposed."""
    text = f"process {root} and its descendants, until process {root} ends"
    pids = [each.pid for each in request.chain]
    proposed = proposed_root(request)
    if root in pids and proposed in pids and pids.index(root) > pids.index(proposed):
        return f"WIDER than proposed ({proposed}): {text}"
    return text


def _process(process: Process, depth: int, *, is_root: bool, inside: bool) -> Line:
    # Before the path: a directory's name could imitate such a mark after it.
    mark = ""
    if is_root:
        mark = "(root) " if process.proposed_root else "(root, picked by you) "
    elif process.proposed_root:
        mark = "(root as proposed) "
    # Bounded: otherwise a deeply nested process would push its own line off the screen.
    branch = f"{'  ' * (min(depth, _DEEPEST) - 1)}`- " if depth else ""
    unit = f"  in {process.unit}" if process.unit and is_root else ""
    claim = f"  [claims: {process.claimed_command}]" if process.claimed_command else ""
    return Line(
        f"{'*' if inside else ' '} {branch}{process.pid} {mark}{_program(process)}{unit}{claim}",
        ROOT if is_root else "" if inside else "dim",
    )


def _program(process: Process) -> str:
    if process.now == "unnamed":
        return "(program without a path: deleted, or in memory only)"
    if not process.executable:
        return "(program unknown)"
    # Before the path, like the marks. The path is an old one: what runs now is unknown.
    return f"{_NOW.get(process.now, '')}{process.executable}"

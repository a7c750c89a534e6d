"""How a request is shown to the person who answers it: as a tree of processes, claims marked.

Lays out lines and knows no terminal; whoever prints them escapes them.
"""

from backpack_client.cli.session import count, seconds_until
from backpack_client.durations import format_duration
from backpack_client.model import Process, Request
from backpack_client.screen import Line

ROOT = "root"
"""The style of the line of the root."""


def proposed_root(request: Request) -> int:
    """Find the pid of the root as the daemon proposes it; 0 where it proposes none."""
    return next((each.pid for each in request.chain if each.proposed_root), 0)


def possible_roots(request: Request) -> list[int]:
    """List the pids that may be root, from the proposed one outwards, then the inner ones."""
    pids = [each.pid for each in request.chain if each.may_be_root]
    proposed = proposed_root(request)
    at = pids.index(proposed) if proposed in pids else 0
    return pids[at:] + pids[:at]


def summary(request: Request) -> str:
    """Say in one line what is asked, by whom and for how long it has waited."""
    age = format_duration(-seconds_until(request.asked_at))
    waiting = f", {count(request.waiting, 'call')} waiting" if request.waiting else ""
    asker = _program(request.chain[0]) if request.chain else "(nobody)"
    return f"{request.code}  {' '.join(request.names)}  for {asker}  ({age} ago{waiting})"


def describe(request: Request, root: int) -> list[str]:
    """Lay a request out: the keys, the claims, and the processes from the outermost to the caller.

    Args:
        request: the request.
        root: the pid of the process whose tree is to be allowed.
    """
    lines = [Line(f"keys    {' '.join(request.names)}", "bold")]
    if request.claimed_reason:
        lines.append(Line(f"claims  to need it for: {request.claimed_reason}"))
    lines.append(Line(""))
    inside = False
    for depth, process in enumerate(reversed(request.chain)):
        is_root = process.pid == root
        inside = inside or is_root
        lines.append(_process(process, depth, is_root=is_root, inside=inside))
    return list(lines)


def is_root_line(line: str) -> bool:
    """Tell whether a line of `describe` is the one of the root."""
    return isinstance(line, Line) and line.style == ROOT


def scope(request: Request, root: int) -> str:
    """Say what an approval for the tree allows, and whether it is wider than proposed."""
    text = f"process {root} and its descendants, until process {root} ends"
    pids = [each.pid for each in request.chain]
    proposed = proposed_root(request)
    if root in pids and proposed in pids and pids.index(root) > pids.index(proposed):
        return f"WIDER than proposed ({proposed}): {text}"
    return text


def _process(process: Process, depth: int, *, is_root: bool, inside: bool) -> Line:
    # Before the path: whoever names a directory could write such a mark behind it.
    mark = ""
    if is_root:
        mark = "(root) " if process.proposed_root else "(root, picked by you) "
    elif process.proposed_root:
        mark = "(root as proposed) "
    branch = f"{'  ' * (depth - 1)}`- " if depth else ""
    unit = f"  in {process.unit}" if process.unit and is_root else ""
    claim = f"  [claims: {process.claimed_command}]" if process.claimed_command else ""
    return Line(
        f"{'*' if inside else ' '} {branch}{process.pid} {mark}{_program(process)}{unit}{claim}",
        ROOT if is_root else "" if inside else "dim",
    )


def _program(process: Process) -> str:
    return process.executable or "(program unknown)"

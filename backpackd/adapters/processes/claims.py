"""What processes say of themselves: their command lines. For people to look at, never to decide."""

from pathlib import Path

from backpackd.core.peer_facts import PeerFacts

_LONGEST = 4096


def claimed_commands(facts: PeerFacts) -> dict[int, str]:
    """See `ports.Processes`: from /proc/PID/cmdline (proc_pid_cmdline(5)).

    A pid may be another process's by now; that makes the claim of another process out of it, and a
    process can write into its own what it likes in any case.
    """
    commands = {}
    for process in facts.chain:
        try:
            with Path(f"/proc/{process.id.pid}/cmdline").open("rb") as file:
                words = file.read(_LONGEST).rstrip(b"\0").split(b"\0")
        except OSError:
            continue
        commands[process.id.pid] = b" ".join(words).decode("utf-8", "replace")
    return commands

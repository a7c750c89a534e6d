"""Reads claims of processes: their command lines. They are for people, and decide nothing."""

from pathlib import Path

from backpackd.core.peer_facts import PeerFacts

_LONGEST = 4096


def claimed_commands(facts: PeerFacts) -> dict[int, str]:
    """See `ports.Processes`: from /proc/PID/cmdline (proc_pid_cmdline(5)).

    The pid may have been reused: then it is the claim of another process. A process can write any
    text into its own command line in any case.
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

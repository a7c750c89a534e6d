"""The command line on real daemons: one person's vault each, sharing lock files."""

import json

from command_line import Ran, Run
from daemons import RunningDaemon


class Vault:
    """One person's vault: a daemon, and the command line that talks to it."""

    def __init__(self, running: RunningDaemon, run: Run) -> None:
        self.daemon = running
        self._run = run
        running.operator()

    def __call__(self, *arguments: str, stdin: bytes = b"") -> Ran:
        return self._run("--socket", str(self.daemon.socket), *arguments, stdin=stdin)

    def ok(self, *arguments: str, stdin: bytes = b"") -> Ran:
        """Run a command that must succeed."""
        done = self(*arguments, stdin=stdin)
        assert done.code == 0, done.err
        return done

    def shown(self, *arguments: str) -> dict[str, object]:
        """Return what `agent show --json` tells."""
        document: dict[str, object] = json.loads(self.ok("agent", "show", "--json", *arguments).out)
        return document

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint of its identity."""
        told: dict[str, str] = json.loads(self.ok("identity", "--json").out)
        return told["fingerprint"]

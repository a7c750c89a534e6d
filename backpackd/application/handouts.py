"""What was revealed, to whom and when: for the report after a panic.

In memory, each entry sealed under the master key, so a locked daemon holds no names. The newest ten
thousand since the daemon began; the audit log will keep them for good.
"""

import asyncio
import secrets
from collections import deque
from dataclasses import dataclass

from backpackd.application.vault import Session
from backpackd.core import canonical
from backpackd.core.canonical import context
from backpackd.core.facts import PeerFacts
from backpackd.core.render import render
from backpackd.core.sealing import SALT_SIZE, open_sealed, seal

MOST = 10_000
_KIND = "handout"
_PATH_LIMIT = 256
_BATCH = 100


@dataclass(frozen=True, slots=True)
class HandoutEntry:
    """One value or several that left the daemon.

    Attributes:
        at_ms: Unix time in milliseconds.
        names: the keys.
        pid: of the process that asked.
        executable: what it ran, escaped; empty when unknown.
        root_pid: of the root of its process tree.
        root_executable: what that ran, escaped; empty when unknown.
        lease_id: the lease.
    """

    at_ms: int
    names: tuple[str, ...]
    pid: int
    executable: str
    root_pid: int
    root_executable: str
    lease_id: str


class Handouts:
    """The newest handouts."""

    def __init__(self) -> None:
        self._sealed: deque[bytes] = deque(maxlen=MOST)

    def note(
        self,
        session: Session,
        *,
        at_ms: int,
        names: tuple[str, ...],
        facts: PeerFacts,
        lease_id: str,
    ) -> None:
        """Remember a handout; called before its values leave."""
        data = {
            "at": at_ms,
            "executable": render(facts.process.executable or "", limit=_PATH_LIMIT),
            "lease": lease_id,
            "names": list(names),
            "pid": facts.process.id.pid,
            "root": facts.root.id.pid,
            "root_executable": render(facts.root.executable or "", limit=_PATH_LIMIT),
        }
        with session.open_master() as master:
            self._sealed.append(
                seal(
                    master,
                    canonical.encode(data),
                    kind=_KIND,
                    bound_to=context(session.vault_id),
                    salt=secrets.token_bytes(SALT_SIZE),
                )
            )

    async def list(self, session: Session) -> list[HandoutEntry]:
        """Open the entries, oldest first.

        Raises:
            LockedError: the vault was locked meanwhile.
        """
        entries = []
        for place, sealed in enumerate(list(self._sealed)):
            if place % _BATCH == 0:
                # Others are served in between: a panic must not wait for ten thousand entries.
                await asyncio.sleep(0)
            with session.open_master() as master:
                opened = open_sealed(master, sealed, kind=_KIND, bound_to=context(session.vault_id))
            found = canonical.members(
                canonical.decode(opened),
                at=int,
                executable=str,
                lease=str,
                names=list,
                pid=int,
                root=int,
                root_executable=str,
            )
            entries.append(
                HandoutEntry(
                    found["at"],
                    tuple(found["names"]),
                    found["pid"],
                    found["executable"],
                    found["root"],
                    found["root_executable"],
                    found["lease"],
                )
            )
        return entries

"""Whole applications on fakes that open agent locks: one `AgentWorld` for each person's vault."""

import json
from typing import Any

from backpackd.application.agents.agents import Agents
from backpackd.application.agents.identities import Identities
from backpackd.application.agents.lock_verification import Given, LockVerification, Opening
from backpackd.application.agents.migration import Migration
from backpackd.application.callers.worker import Worker
from backpackd.core.agentlock.content import Credential
from backpackd.ports import Connection
from fakes import World


class AgentWorld(World):
    """A vault, with an operator's connection and one of an ordinary process."""

    operator: Connection
    agent: Connection

    def __init__(self) -> None:
        super().__init__()
        self.bench = Worker()
        self.identities = Identities(self.vault)
        self.verification = LockVerification(
            self.vault, self.identities, self.operators, self.bench, self.audit_log
        )
        self.migration = Migration(self.verification, self.keys)
        self.agents = Agents(self.verification, self.migration)

    async def begun(self) -> "AgentWorld":
        """Make the vault and the two connections."""
        await self.unlocked()
        self.operator, self.agent = self.connect(), self.connect()
        self.operators.admit(self.operator)
        return self

    async def lock(
        self,
        *,
        personality: dict[str, Any] | None = None,
        memory: dict[str, Any] | None = None,
        **embedded: bytes,
    ) -> bytes:
        """Make a lock that needs the stored key K and embeds these values."""
        written = await self.agents.create(
            self.operator,
            credentials={
                "K": Credential(),
                **{name: Credential(v) for name, v in embedded.items()},
            },
            personality=json.dumps(personality or {"tone": "dry"}).encode(),
            memory=json.dumps(memory or {}).encode(),
        )
        return written.document

    async def edited(self, document: bytes, **personality: Any) -> bytes:
        """Change the personality of a lock."""
        fresh = json.dumps(personality).encode()
        given = Given(document)
        return (await self.agents.edit(self.operator, given, personality=fresh)).document

    async def opened(self, document: bytes, *, operator: bool = False, path: str = "") -> Opening:
        """Open a lock, as an ordinary process unless said otherwise."""
        connection = self.operator if operator else self.agent
        return await self.agents.open(connection, Given(document, path))

    async def text(self) -> str:
        """Return the public identity as a teammate is given it."""
        return (await self.identities.own(self.vault.session())).public.text

    async def spoken(self) -> str:
        """Return the fingerprint of the identity."""
        return (await self.identities.own(self.vault.session())).public.spoken

    async def shared_with(self, other: "AgentWorld", document: bytes, *, trust: bool) -> bytes:
        """Add another vault as recipient, which trusts this one where that is said."""
        written = await self.agents.add_recipient(
            self.operator, Given(document), await other.text()
        )
        if trust:
            given = Given(written.document)
            await other.agents.trust(other.operator, given, await self.spoken(), "a teammate")
        return written.document

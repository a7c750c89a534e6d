"""Agents and their locks, and the vault's identity, for asyncio."""

from backpack_client.agent_model import Identity
from backpack_client.aio.connection import Connection
from backpack_client.calls import agents as calls
from backpack_client.handles.agent import AsyncAgent


class AgentMethods(Connection):
    """Agents and their locks, and the vault's identity."""

    async def identity(self) -> Identity:
        """Return the vault's public identity, which others need to share a lock with it."""
        return await self.call(calls.identity())

    def agent(self, lock: str | None = None) -> AsyncAgent:
        """Make an agent to be opened with `async with`; see `Backpack.agent`."""
        return AsyncAgent(self.call, lock)

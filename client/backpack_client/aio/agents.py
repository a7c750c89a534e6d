"""Agents and their locks, and the vault's identity, for asyncio."""

from backpack_client.agent_model import Identity
from backpack_client.agents import AsyncAgent
from backpack_client.aio.connection import Connection
from backpack_client.calls import agents as calls
from backpack_client.calls.call import Answer, Call, OnWait


class AgentMethods(Connection):
    """Agents and their locks, and the vault's identity."""

    async def call(self, call: Call[Answer], on_wait: OnWait | None = None) -> Answer:
        """Carry out a call of `calls.agents` or `calls.run`; see `Backpack.call`."""
        return await self._invoke(call, on_wait)

    async def identity(self) -> Identity:
        """Ask for the vault's public identity: what somebody needs to share a lock with it."""
        return await self._invoke(calls.identity())

    def agent(self, lock: str | None = None) -> AsyncAgent:
        """Make an agent to be opened with `async with`; see `Backpack.agent`."""
        return AsyncAgent(self._invoke, lock)

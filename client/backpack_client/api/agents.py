"""Agents and their locks, and the vault's identity, as blocking calls."""

from backpack_client.agent_model import Identity
from backpack_client.api.connection import Connection
from backpack_client.calls import agents as calls
from backpack_client.handles.agent import Agent


class AgentMethods(Connection):
    """Agents and their locks, and the vault's identity."""

    def identity(self) -> Identity:
        """Return the vault's public identity, which others need to share a lock with it."""
        return self.call(calls.identity())

    def agent(self, lock: str | None = None) -> Agent:
        """Open the lock of an agent: its personality and its memory.

        Args:
            lock: the file; None: the lock that `run` has started this agent with, or `agent.lock`
                here or above.
        """
        return Agent(self.call, lock)

"""Agents and their locks, and the vault's identity, as blocking calls."""

from backpack_client.agent_model import Identity
from backpack_client.agents import Agent
from backpack_client.api.connection import Connection
from backpack_client.calls import agents as calls
from backpack_client.calls.call import Answer, Call, OnWait


class AgentMethods(Connection):
    """Agents and their locks, and the vault's identity."""

    def call(self, call: Call[Answer], on_wait: OnWait | None = None) -> Answer:
        """Carry out a call of `calls.agents` or `calls.run`.

        Args:
            call: the call, which takes and gives lock files as bytes.
            on_wait: called with the request's code when waiting for a person begins.
        """
        return self._invoke(call, on_wait)

    def identity(self) -> Identity:
        """Ask for the vault's public identity: what somebody needs to share a lock with it."""
        return self._invoke(calls.identity())

    def agent(self, lock: str | None = None) -> Agent:
        """Open the lock of an agent: its personality and its memory.

        Args:
            lock: the file; None: the one that `run` has started this agent with, else `agent.lock`
                here or above.
        """
        return Agent(self._invoke, lock)

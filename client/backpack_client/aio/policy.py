"""The policy, to be awaited."""

from backpack_client.aio.connection import Connection
from backpack_client.calls import policy as calls
from backpack_client.model import Policies, Policy


class PolicyMethods(Connection):
    """The policy."""

    async def policy(self) -> Policies:
        """Ask for the policy, as sealed and as in force. Needs operator authority."""
        return await self.call(calls.get_policy())

    async def set_policy(self, policy: Policy) -> None:
        """Replace the sealed policy. Needs operator authority."""
        await self.call(calls.set_policy(policy))

"""The policy, as blocking calls."""

from backpack_client.api.connection import Connection
from backpack_client.calls import policy as calls
from backpack_client.model import Policies, Policy


class PolicyMethods(Connection):
    """The policy."""

    def policy(self) -> Policies:
        """Ask for the policy, as sealed and as in force. Needs operator authority."""
        return self.call(calls.get_policy())

    def set_policy(self, policy: Policy) -> None:
        """Replace the sealed policy. Needs operator authority."""
        self.call(calls.set_policy(policy))

"""The blocking Python API: `Backpack`, and the leases and watches that it makes.

`calls` has requests and answers, `handles.lease_values` decides when a lease is renewed, and
`channel` opens the connection. Nothing here prompts or prints.
"""

from backpack_client.api.agents import AgentMethods
from backpack_client.api.audit import AuditMethods
from backpack_client.api.backup import BackupMethods
from backpack_client.api.grants import GrantMethods
from backpack_client.api.keys import KeyMethods
from backpack_client.api.lease import Lease
from backpack_client.api.leases import LeaseMethods
from backpack_client.api.policy import PolicyMethods
from backpack_client.api.requests import RequestMethods
from backpack_client.api.slots import SlotMethods
from backpack_client.api.vault import VaultMethods
from backpack_client.api.watch import Watch
from backpack_client.calls.call import OnWait

__all__ = ["Backpack", "Lease", "OnWait", "Watch"]


class Backpack(
    VaultMethods,
    KeyMethods,
    LeaseMethods,
    GrantMethods,
    RequestMethods,
    PolicyMethods,
    AgentMethods,
    SlotMethods,
    BackupMethods,
    AuditMethods,
):
    """A connection to the daemon.

    Operator authority (`authorize`) belongs to this connection. Another object, in this process or
    elsewhere, does not share it. Threads may share one object. It connects with the first call, or
    when it is entered.

    Every method raises Failure, which says what failed and what to do next, and has an exit code
    and a stable `reason` for programs.
    """

"""The Python API for asyncio: `AsyncBackpack`, and the leases and watches that it makes.

It has the same methods as `api`, to be awaited; see there. It does not prompt or print.
"""

from backpack_client.aio.agents import AgentMethods
from backpack_client.aio.audit import AuditMethods
from backpack_client.aio.backup import BackupMethods
from backpack_client.aio.grants import GrantMethods
from backpack_client.aio.keys import KeyMethods
from backpack_client.aio.lease import AsyncLease
from backpack_client.aio.leases import LeaseMethods
from backpack_client.aio.policy import PolicyMethods
from backpack_client.aio.requests import RequestMethods
from backpack_client.aio.slots import SlotMethods
from backpack_client.aio.vault import VaultMethods
from backpack_client.aio.watch import AsyncWatch
from backpack_client.calls.call import OnWait

__all__ = ["AsyncBackpack", "AsyncLease", "AsyncWatch", "OnWait"]


class AsyncBackpack(
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
    """A connection to the daemon, for one event loop.

    Operator authority (`authorize`) belongs to this connection. Another object, in this process or
    elsewhere, does not share it. Tasks may share one object. It connects with the first call, or
    when it is entered.

    Every method raises Failure, which says what failed and what to do next, and has an exit code
    and a stable `reason` for programs.
    """

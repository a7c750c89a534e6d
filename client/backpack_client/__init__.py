"""Backpack's thin client: lease keys from the daemon, in a few lines of Python.

    from backpack_client import Backpack

    with Backpack() as backpack, backpack.lease("OPENAI_API_KEY", reason="summarise inbox") as keys:
        call(api_key=keys["OPENAI_API_KEY"])

Names load on first use. Importing the package costs nothing, so the command line's fast path, which
is part of it, pays for neither grpc nor protobuf.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from backpack_client.agent_model import Identity as Identity
    from backpack_client.agent_model import LockInfo as LockInfo
    from backpack_client.aio import AsyncBackpack as AsyncBackpack
    from backpack_client.aio import AsyncLease as AsyncLease
    from backpack_client.aio import AsyncWatch as AsyncWatch
    from backpack_client.api import Backpack as Backpack
    from backpack_client.api import Lease as Lease
    from backpack_client.api import Watch as Watch
    from backpack_client.failures import Failure as Failure
    from backpack_client.handles.agent import Agent as Agent
    from backpack_client.handles.agent import AsyncAgent as AsyncAgent
    from backpack_client.handles.lease_values import Values as Values
    from backpack_client.launch.key_descriptor import handed_keys as handed_keys
    from backpack_client.model import Deleted as Deleted
    from backpack_client.model import DenyRule as DenyRule
    from backpack_client.model import Grant as Grant
    from backpack_client.model import KeyEntry as KeyEntry
    from backpack_client.model import LeaseEvent as LeaseEvent
    from backpack_client.model import LeaseInfo as LeaseInfo
    from backpack_client.model import Panicked as Panicked
    from backpack_client.model import Policies as Policies
    from backpack_client.model import Policy as Policy
    from backpack_client.model import PolicyDefault as PolicyDefault
    from backpack_client.model import PolicyListing as PolicyListing
    from backpack_client.model import Process as Process
    from backpack_client.model import Protection as Protection
    from backpack_client.model import Request as Request
    from backpack_client.model import Revealed as Revealed
    from backpack_client.model import Stored as Stored
    from backpack_client.model import VaultState as VaultState
    from backpack_client.model import VaultStatus as VaultStatus

__version__ = "0.1.0"

_HOMES = {
    "Agent": "handles.agent",
    "AsyncAgent": "handles.agent",
    "AsyncBackpack": "aio",
    "AsyncLease": "aio",
    "AsyncWatch": "aio",
    "Backpack": "api",
    "Deleted": "model",
    "DenyRule": "model",
    "Failure": "failures",
    "Grant": "model",
    "Identity": "agent_model",
    "KeyEntry": "model",
    "Lease": "api",
    "LeaseEvent": "model",
    "LeaseInfo": "model",
    "LockInfo": "agent_model",
    "Panicked": "model",
    "Policies": "model",
    "Policy": "model",
    "PolicyDefault": "model",
    "PolicyListing": "model",
    "Process": "model",
    "Protection": "model",
    "Request": "model",
    "Revealed": "model",
    "Stored": "model",
    "Values": "handles.lease_values",
    "VaultState": "model",
    "VaultStatus": "model",
    "Watch": "api",
    "handed_keys": "launch.key_descriptor",
}

__all__ = [
    "Agent",
    "AsyncAgent",
    "AsyncBackpack",
    "AsyncLease",
    "AsyncWatch",
    "Backpack",
    "Deleted",
    "DenyRule",
    "Failure",
    "Grant",
    "Identity",
    "KeyEntry",
    "Lease",
    "LeaseEvent",
    "LeaseInfo",
    "LockInfo",
    "Panicked",
    "Policies",
    "Policy",
    "PolicyDefault",
    "PolicyListing",
    "Process",
    "Protection",
    "Request",
    "Revealed",
    "Stored",
    "Values",
    "VaultState",
    "VaultStatus",
    "Watch",
    "handed_keys",
]


def __getattr__(name: str) -> object:
    """Load a name from the module that defines it, on first use."""
    from importlib import import_module  # noqa: PLC0415 - only programs that use a name pay for it

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """List the names that can be imported from here."""
    return sorted([*globals(), *__all__])

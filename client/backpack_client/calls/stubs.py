"""What only the full package has: the generated messages, protobuf, grpc. Loaded on first use.

Agents do without, so `import backpack_client` and their calls never touch these, whatever versions
of grpc and protobuf an agent's environment has.
"""

from importlib import import_module
from types import ModuleType
from typing import Any

from backpack_client.failures import full_package_needed


def load(module: str) -> ModuleType:
    """Import a module of the full package.

    Raises:
        Failure: it, or what it stands on, is not installed or too old (`full-package-needed`).
    """
    try:
        return import_module(module)
    except Exception:  # noqa: BLE001 - an old grpc or protobuf raises exceptions of its own kinds
        raise full_package_needed() from None


class Stubs:
    """One of the generated modules: its names are attributes, and asking for one loads it."""

    def __init__(self, name: str) -> None:
        """Name it, such as `grants_pb2`."""
        self._module = f"backpack_proto.v1.{name}"

    def __getattr__(self, name: str) -> Any:
        """Give what the module has under this name."""
        return getattr(load(self._module), name)

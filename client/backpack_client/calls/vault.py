"""The calls of the service Vault: its state, unlocking, operator authority, panic."""

from __future__ import annotations

import os
from datetime import datetime
from typing import TYPE_CHECKING

from backpack_client.calls.call import PACKAGE, Call, read_nothing
from backpack_client.calls.fields import moment, moment_or_none, passphrase_bytes
from backpack_client.calls.stubs import Stubs
from backpack_client.model import Panicked, Protection, VaultState, VaultStatus

if TYPE_CHECKING:
    from backpack_proto.v1 import vault_pb2
else:
    vault_pb2 = Stubs("vault_pb2")


def status() -> Call[VaultStatus]:
    """Ask for the state of daemon and vault."""
    return Call(
        PACKAGE + "Vault/Status",
        vault_pb2.StatusRequest(),
        vault_pb2.StatusResponse.FromString,
        _read_status,
    )


def init(passphrase: str | bytes, *, recovery: bool = False) -> Call[str]:
    """Make a new vault; the answer is the recovery code."""
    return Call(
        PACKAGE + "Vault/Init",
        vault_pb2.InitRequest(passphrase=passphrase_bytes(passphrase), recovery=recovery),
        vault_pb2.InitResponse.FromString,
        lambda response: str(response.recovery_code),
        passphrase=True,
    )


def unlock(passphrase: str | bytes, *, accept_older: bool = False) -> Call[None]:
    """Load the master key."""
    return Call(
        PACKAGE + "Vault/Unlock",
        vault_pb2.UnlockRequest(passphrase=passphrase_bytes(passphrase), accept_older=accept_older),
        vault_pb2.UnlockResponse.FromString,
        read_nothing,
        passphrase=True,
    )


def lock() -> Call[int]:
    """Drop the master key; the answer is the number of leases that ended with it."""
    return Call(
        PACKAGE + "Vault/Lock",
        vault_pb2.LockRequest(),
        vault_pb2.LockResponse.FromString,
        lambda response: int(response.leases_ended),
    )


def authorize(passphrase: str | bytes) -> Call[datetime]:
    """Give the connection operator authority; the answer is its end."""
    return Call(
        PACKAGE + "Vault/Authorize",
        vault_pb2.AuthorizeRequest(passphrase=passphrase_bytes(passphrase)),
        vault_pb2.AuthorizeResponse.FromString,
        lambda response: moment(response.authorized_until_ms),
        passphrase=True,
    )


def change_passphrase(current: str | bytes, replacement: str | bytes) -> Call[None]:
    """Replace the passphrase."""
    request = vault_pb2.ChangePassphraseRequest(
        current=passphrase_bytes(current), replacement=passphrase_bytes(replacement)
    )
    return Call(
        PACKAGE + "Vault/ChangePassphrase",
        request,
        vault_pb2.ChangePassphraseResponse.FromString,
        read_nothing,
        passphrase=True,
    )


def panic() -> Call[Panicked]:
    """End every lease and request, and lock the vault."""
    return Call(
        PACKAGE + "Vault/Panic",
        vault_pb2.PanicRequest(),
        vault_pb2.PanicResponse.FromString,
        lambda response: Panicked(response.leases_ended, response.requests_ended),
    )


def _read_status(response: vault_pb2.StatusResponse) -> VaultStatus:
    states = {
        vault_pb2.VAULT_STATE_UNINITIALIZED: VaultState.UNINITIALIZED,
        vault_pb2.VAULT_STATE_LOCKED: VaultState.LOCKED,
        vault_pb2.VAULT_STATE_UNLOCKED: VaultState.UNLOCKED,
    }
    return VaultStatus(
        state=states.get(response.state, VaultState.UNKNOWN),
        daemon_version=response.daemon_version,
        daemon_pid=response.daemon_pid,
        supervised=response.supervised,
        started_at=moment(response.started_at_ms),
        protections=tuple(
            Protection(protection.name, protection.on, protection.detail)
            for protection in response.protections
        ),
        leases_of_tree=response.leases_of_tree,
        tree_pid=response.tree_pid,
        authorized_until=moment_or_none(response.authorized_until_ms),
        slot_kinds=tuple(response.slot_kinds),
        recovery_drilled_at=moment_or_none(response.recovery_drilled_at_ms),
        audit_broken_at=moment_or_none(response.audit_broken_at_ms),
        home=os.fsdecode(response.home),
    )

"""All methods, and the rules of each: one row for every method of a service.

`calls` enforces the rows in one place. Services repeat none of these checks, and the daemon does
not start if a method has no row. A test compares the table in docs/protocol.md with this one.
`sizes` has the longest requests.
"""

from dataclasses import dataclass
from enum import Enum


class Caller(Enum):
    """Who may call a method."""

    ANYONE = "anyone"
    """Every process of the user. The answer is about its own process tree only."""
    OPERATOR = "the operator"
    """Connections with operator authority."""
    OPERATOR_FOR_ALL = "anyone; the operator for `all`"
    """Every process of the user for its own tree; with `all` set in the request, the operator."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one method.

    Attributes:
        caller: who may call it.
        locked: whether it answers while the vault is locked or does not exist yet.
        secret: whether requests carry a passphrase, a recovery code or values.
        use: whether a successful call counts as a use of the vault, which delays locking.
        stays_open: whether a call stays open as long as its caller likes.
        review: whether deadlines are reviewed after it.
    """

    caller: Caller = Caller.ANYONE
    locked: bool = False
    secret: bool = False
    use: bool = False
    stays_open: bool = False
    review: bool = False


_ANYONE, _OPERATOR, _FOR_ALL = Caller.ANYONE, Caller.OPERATOR, Caller.OPERATOR_FOR_ALL

METHODS: dict[str, Rules] = {
    # Vault
    "backpack.v1.Vault.Status": Rules(locked=True),
    "backpack.v1.Vault.Init": Rules(locked=True, secret=True, review=True),
    "backpack.v1.Vault.Unlock": Rules(locked=True, secret=True, review=True),
    "backpack.v1.Vault.Lock": Rules(locked=True),
    "backpack.v1.Vault.Panic": Rules(locked=True),
    "backpack.v1.Vault.Authorize": Rules(secret=True, use=True),
    "backpack.v1.Vault.ChangePassphrase": Rules(secret=True, use=True),
    # Slots
    "backpack.v1.Slots.ListSlots": Rules(_OPERATOR, use=True),
    "backpack.v1.Slots.AddSlot": Rules(_OPERATOR, secret=True, use=True),
    "backpack.v1.Slots.RemoveSlot": Rules(_OPERATOR, use=True),
    "backpack.v1.Slots.RotateMasterKey": Rules(_OPERATOR, use=True),
    "backpack.v1.Slots.Recover": Rules(locked=True, secret=True, review=True),
    "backpack.v1.Slots.DrillRecovery": Rules(locked=True, secret=True),
    # Backup
    "backpack.v1.Backup.ExportKeys": Rules(_OPERATOR, secret=True, use=True),
    "backpack.v1.Backup.ImportKeys": Rules(_OPERATOR, secret=True, use=True),
    # Keys
    "backpack.v1.Keys.PutKeys": Rules(_OPERATOR, secret=True, use=True),
    "backpack.v1.Keys.ListKeys": Rules(_FOR_ALL, use=True),
    "backpack.v1.Keys.DeleteKeys": Rules(_OPERATOR, use=True),
    # Leases
    "backpack.v1.Leases.GetKeys": Rules(use=True),
    "backpack.v1.Leases.RenewLease": Rules(),
    "backpack.v1.Leases.RevokeLeases": Rules(),
    "backpack.v1.Leases.ListLeases": Rules(_FOR_ALL),
    "backpack.v1.Leases.WatchLeases": Rules(_FOR_ALL, stays_open=True),
    "backpack.v1.Leases.ListHandouts": Rules(_OPERATOR),
    # Requests
    "backpack.v1.Requests.ListRequests": Rules(_FOR_ALL),
    "backpack.v1.Requests.WatchRequests": Rules(_FOR_ALL, stays_open=True),
    "backpack.v1.Requests.ApproveRequest": Rules(_OPERATOR, use=True),
    "backpack.v1.Requests.DenyRequest": Rules(_OPERATOR, use=True),
    # Grants
    "backpack.v1.Grants.AddGrant": Rules(_OPERATOR, use=True),
    "backpack.v1.Grants.ListGrants": Rules(_FOR_ALL),
    "backpack.v1.Grants.RemoveGrant": Rules(_OPERATOR, use=True),
    # Policy
    "backpack.v1.Policy.GetPolicy": Rules(_OPERATOR),
    "backpack.v1.Policy.SetPolicy": Rules(_OPERATOR),
    # Audit
    "backpack.v1.Audit.ShowAudit": Rules(_OPERATOR),
    "backpack.v1.Audit.VerifyAudit": Rules(locked=True),
    "backpack.v1.Audit.GetAuditHead": Rules(locked=True),
    # Agents
    "backpack.v1.Agents.Identity": Rules(),
    "backpack.v1.Agents.CreateLock": Rules(_OPERATOR, secret=True, use=True),
    "backpack.v1.Agents.OpenLock": Rules(secret=True, use=True),
    "backpack.v1.Agents.EditLock": Rules(_OPERATOR, secret=True, use=True),
    "backpack.v1.Agents.UpdateMemory": Rules(use=True),
    "backpack.v1.Agents.MigrateLock": Rules(_OPERATOR, secret=True, use=True),
    "backpack.v1.Agents.RewrapLock": Rules(_OPERATOR, use=True),
    "backpack.v1.Agents.AddRecipient": Rules(_OPERATOR, use=True),
    "backpack.v1.Agents.RemoveRecipient": Rules(_OPERATOR, use=True),
    "backpack.v1.Agents.TrustLock": Rules(_OPERATOR, use=True),
    "backpack.v1.Agents.ListTrusted": Rules(_OPERATOR),
    "backpack.v1.Agents.Forget": Rules(_OPERATOR, use=True),
    # Standard gRPC services
    "grpc.health.v1.Health.Check": Rules(locked=True),
    "grpc.health.v1.Health.Watch": Rules(locked=True, stays_open=True),
    "grpc.reflection.v1.ServerReflection.ServerReflectionInfo": Rules(locked=True, stays_open=True),
    "grpc.reflection.v1alpha.ServerReflection.ServerReflectionInfo": Rules(
        locked=True, stays_open=True
    ),
}

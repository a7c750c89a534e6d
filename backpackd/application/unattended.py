"""Unlocks without a person: once, when the daemon starts, with a key that is ready for it.

This gives no operator authority. If the key does not fit, the vault stays locked.
"""

from collections.abc import Callable

from backpackd.application.audit.audit_log import AuditLog
from backpackd.application.vault.vault import Vault
from backpackd.core.errors import (
    BackpackError,
    DamageError,
    HomeError,
    InvalidRequestError,
    WrongPassphraseError,
)
from backpackd.core.peer_facts import ProcessId
from backpackd.core.slots import slot_secrets
from backpackd.core.vault.states import State


async def unlock_unattended(
    vault: Vault,
    audit_log: AuditLog,
    kind: str,
    key: Callable[[], bytes | None],
    tree: ProcessId,
) -> str:
    """Unlock a locked vault with a key of one kind, if there is one.

    Args:
        vault: the vault.
        audit_log: records a key that does not fit, and damage.
        kind: `file` or `environment`.
        key: reads the key as it is kept; None: there is none.
        tree: the daemon's own, for the stretching.

    Returns:
        The result, for the log; empty if there was nothing to do.
    """
    if vault.state is not State.LOCKED or kind not in vault.slot_kinds:
        return ""
    try:
        found = key()
        if found is None:
            return f"the vault has a slot of the kind {kind}, and there is no key for it"
        await vault.unlock(slot_secrets.without_marks(found), tree, by=None, kinds={kind})
        # No log, no lease: a vault whose log cannot be used is locked again by now.
        await audit_log.ready()
    except (BackpackError, HomeError) as error:
        if isinstance(error, WrongPassphraseError | InvalidRequestError):
            audit_log.note(audit_log.own_event("wrong-passphrase", details={"kind": kind}))
        elif isinstance(error, DamageError):
            audit_log.note(audit_log.own_event("damage-found", reason=error.reason))
        # `str` of our errors is the message, which contains no key.
        return f"not unlocked by {kind}: {error}"
    return f"unlocked by {kind}: every program of yours can open this vault"

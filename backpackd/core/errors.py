"""All errors, split by whose fault they are.

Every error names a canonical gRPC status, a stable `reason` that programs may rely on, and a
message that says what failed and what to do. Errors hold facts, never values, and never the text
of a request. This file does not know gRPC: `backpackd.rpc` maps statuses and sends reasons.
"""

from enum import Enum, unique
from typing import ClassVar


@unique
class Status(Enum):
    """The canonical gRPC status codes that Backpack uses, by their names."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    DATA_LOSS = "DATA_LOSS"
    UNAVAILABLE = "UNAVAILABLE"


class BackpackError(Exception):
    """Root of every error that reaches a caller.

    Attributes:
        status: the canonical status code.
        reason: a stable word in kebab case, sent as `backpack-reason`.
        message: lowercase; what failed and what to do about it.
        retry_after: seconds after which trying again makes sense; None if waiting does not help.
        facts: further trailing metadata, name to text, that a client may show.
    """

    status: ClassVar[Status]
    reason: str = "error"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        retry_after: float | None = None,
        facts: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or type(self).reason
        self.retry_after = retry_after
        self.facts = facts or {}


class CallerError(BackpackError):
    """The request itself is at fault: sending it again will not help."""

    status = Status.INVALID_ARGUMENT


class InvalidRequestError(CallerError):
    """The request does not have the form that the API describes."""

    status = Status.INVALID_ARGUMENT
    reason = "invalid-request"


class UnimplementedError(CallerError):
    """The daemon has no such method, or does not support a feature that the call uses."""

    status = Status.UNIMPLEMENTED
    reason = "no-such-method"


class KeyUnknownError(CallerError):
    """A key is not stored; only for callers who may know this."""

    status = Status.NOT_FOUND
    reason = "no-such-key"


class CredentialUnknownError(CallerError):
    """A credential to remove is not in the agent's lock."""

    status = Status.NOT_FOUND
    reason = "no-such-credential"


class LeaseUnknownError(CallerError):
    """A lease has ended, never existed, or belongs to another tree."""

    status = Status.NOT_FOUND
    reason = "no-such-lease"


class GrantUnknownError(CallerError):
    """A grant has ended or never existed."""

    status = Status.NOT_FOUND
    reason = "no-such-grant"


class SlotUnknownError(CallerError):
    """No slot has this id, or more than one begins with it."""

    status = Status.NOT_FOUND
    reason = "no-such-slot"


class ProcessUnknownError(CallerError):
    """A process that the request names is not running."""

    status = Status.NOT_FOUND
    reason = "no-such-process"


class KeyExistsError(CallerError):
    """A key is already stored, and the request does not replace it."""

    status = Status.ALREADY_EXISTS
    reason = "key-exists"


class TrustUnknownError(CallerError):
    """An author was not accepted, or a lock is not known."""

    status = Status.NOT_FOUND
    reason = "not-trusted"


class ServiceUnknownError(CallerError):
    """The health service was asked about a service that does not exist."""

    status = Status.NOT_FOUND
    reason = "no-such-service"


class RequestUnknownError(CallerError):
    """A request for approval was answered, has ended, or never existed."""

    status = Status.NOT_FOUND
    reason = "no-such-request"


class StateError(BackpackError):
    """The vault, or the object of the call, is not in the state that the call needs."""

    status = Status.FAILED_PRECONDITION


class LockedError(StateError):
    """The vault is locked."""

    reason = "locked"


class UninitializedError(StateError):
    """There is no vault yet."""

    reason = "uninitialized"


class AlreadyInitializedError(StateError):
    """There is a vault already."""

    reason = "already-initialized"


class LastSlotError(StateError):
    """Without this slot, nobody could authorize."""

    reason = "last-slot"


class MemoryChangedError(StateError):
    """The memory in a lock is not the memory that the caller has read."""

    reason = "memory-changed"


class RequestChangedError(StateError):
    """The processes that ask differ from what the person was shown."""

    reason = "request-changed"


class AuthorityError(BackpackError):
    """The caller has not shown who it is, or what it may do."""

    status = Status.UNAUTHENTICATED


class PeerUnknownError(AuthorityError):
    """The kernel does not say who is connected, or its answer no longer holds."""

    reason = "peer-unknown"


class UserChangedError(AuthorityError):
    """The process that connected now runs as another user."""

    reason = "user-changed"


class NotProtectedError(AuthorityError):
    """Other processes of the caller's user can read its memory and take its connection."""

    reason = "not-protected"


class WrongPassphraseError(AuthorityError):
    """No slot opens with this passphrase."""

    reason = "wrong-passphrase"


class NotAuthorizedError(AuthorityError):
    """The call needs operator authority on this connection."""

    reason = "not-authorized"


class DeniedError(BackpackError):
    """No grant covers the request, or a rule forbids it."""

    status = Status.PERMISSION_DENIED
    reason = "no-grant"


class LockRefusedError(BackpackError):
    """An unknown author signed an agent lock; the operator must accept it first."""

    status = Status.PERMISSION_DENIED
    reason = "unknown-author"


class LockSteppedBackError(LockRefusedError):
    """An agent lock is older than one that was seen."""

    reason = "lock-stepped-back"


class LockForkedError(LockRefusedError):
    """An agent lock was changed in two ways, and the other one was seen."""

    reason = "lock-forked"


class LockNamesError(LockRefusedError):
    """An agent lock embeds values under names that the operator has not accepted for it."""

    reason = "lock-names"


class WaitingError(BackpackError):
    """Nobody has answered a request for approval in time; it may still be answered."""

    status = Status.DEADLINE_EXCEEDED
    reason = "waiting-for-approval"


class LimitError(BackpackError):
    """A limit is reached; the message says which."""

    status = Status.RESOURCE_EXHAUSTED
    reason = "limit"


class ThrottledError(LimitError):
    """Too many wrong passphrases from this process tree: wait first."""

    reason = "throttled"


class DamageError(BackpackError):
    """Stored data is not what was sealed. Nothing is repaired and nothing overwritten."""

    status = Status.DATA_LOSS
    reason = "vault-damaged"


class BackupError(BackpackError):
    """A backup is not what was written. Nothing is taken from it."""

    status = Status.DATA_LOSS
    reason = "backup-damaged"


class TroubleError(BackpackError):
    """Something outside of the daemon failed: trying again later may help."""

    status = Status.UNAVAILABLE
    reason = "unavailable"


class StoreError(TroubleError):
    """The store could not do what was asked; its old state is intact."""

    reason = "store-failed"


class DiskFullError(StoreError):
    """There was no room; the old state is intact."""

    status = Status.RESOURCE_EXHAUSTED
    reason = "disk-full"


class RevocationNotKeptError(TroubleError):
    """The keys are revoked, but a restarted daemon would not know it."""

    reason = "revocation-not-kept"


class ShuttingDownError(TroubleError):
    """The daemon is stopping."""

    reason = "shutting-down"


class ProcessGoneError(Exception):
    """A process ended, or its pid was reused. This error never leaves the daemon."""


class HomeError(Exception):
    """The home or the socket cannot be used as it is: the daemon says why and does not start."""

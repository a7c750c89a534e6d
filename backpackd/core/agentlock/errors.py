"""Errors of an agent.lock, and of content for one.

Reading and opening any bytes ends in a result or in a `LockFileError`. Its reason says which check
failed. Its message says what that means and what to do, and never holds anything of the file.
"""

from backpackd.core.errors import BackpackError, CallerError, Status


class LockFileError(BackpackError):
    """The file is not an agent.lock, or not as its author and its recipients left it."""

    status = Status.DATA_LOSS
    reason = "lock-damaged"


class WrongRecipientError(LockFileError):
    """The file is intact, but wrapped to others."""

    status = Status.FAILED_PRECONDITION
    reason = "not-a-recipient"


class WrongLegacyKeyError(LockFileError):
    """No layer of a version 1 file opens with the key string."""

    status = Status.UNAUTHENTICATED
    reason = "wrong-legacy-key"


class LockContentError(CallerError):
    """Content to be sealed has a wrong form, or is larger than a lock holds."""

    status = Status.INVALID_ARGUMENT
    reason = "invalid-lock-content"


class RecipientsError(CallerError):
    """The requested recipients cannot be recipients of this lock."""

    status = Status.INVALID_ARGUMENT
    reason = "invalid-recipients"

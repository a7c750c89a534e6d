"""What can be wrong with an agent.lock, and with what is to be put into one.

Whatever bytes are handed in as a file, reading and opening them ends in a result or in a
`LockFileError`. Its reason says which check failed; its message says what that means and what to
do, and never holds anything of the file.
"""

from backpackd.core.errors import BackpackError, CallerError, Status


class LockFileError(BackpackError):
    """The file is not an agent.lock, or not as its author and its recipients left it."""

    status = Status.DATA_LOSS
    reason = "lock-damaged"


class WrongRecipientError(LockFileError):
    """The file is whole, and wrapped to others."""

    status = Status.FAILED_PRECONDITION
    reason = "not-a-recipient"


class WrongLegacyKeyError(LockFileError):
    """No layer of a version 1 file opens with the key string."""

    status = Status.UNAUTHENTICATED
    reason = "wrong-legacy-key"


class LockContentError(CallerError):
    """What is to be sealed is not of the form, or larger than a lock holds."""

    status = Status.INVALID_ARGUMENT
    reason = "invalid-lock-content"


class RecipientsError(CallerError):
    """The recipients asked for cannot be the recipients of this lock."""

    status = Status.INVALID_ARGUMENT
    reason = "invalid-recipients"

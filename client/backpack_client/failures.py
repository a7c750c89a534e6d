"""Failures of a client, for a person or a script: message, exit code, next step.

One table turns the daemon's errors (`backpack-reason` and the gRPC status) into failures, for the
command line, the Python API and the fast path. Nothing here talks to a daemon or prints.
Every `get` imports it, so it imports nothing that Python has not already loaded.
"""

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_LOCKED = 3
EXIT_NO_SUCH_KEY = 4
EXIT_DENIED = 5
EXIT_WAITING = 6
EXIT_NO_DAEMON = 7
EXIT_WRONG_PASSPHRASE = 8
EXIT_UNVOUCHED = 9

MESSAGE_LIMIT = 1024
_NAME_LIMIT = 128
_NAMES_SHOWN = 8
_NUMBER_DIGITS = 12
_CODE_LIMIT = 16

START_HINT = "run: backpack-client start"
NO_ANSWER_HINT = (
    "it may be very busy: try again; or something has stopped its process: kill -CONT PID lets it "
    "go on (its pid is in backpackd.lock in its home)"
)
UNLOCK_HINT = "run: backpack-client unlock"
INIT_HINT = "run: backpack-client init"
KEY_NAME_HINT = "a letter or _, then up to 127 letters, digits, _, . and -"
VALUES_HINT = "values are never given on the command line: put asks for them, or --value-file"

# From a reason to exit code and next step. A reason that is not listed uses its status, below.
_BY_REASON = {
    "invalid-request": (EXIT_USAGE, ""),
    "invalid-selector": (EXIT_USAGE, "see: backpack-client grant --help"),
    "invalid-pattern": (EXIT_USAGE, "see: backpack-client grant --help"),
    "invalid-policy": (EXIT_USAGE, "see: backpack-client policy set --help"),
    "invalid-root": (EXIT_USAGE, "see the request's processes: backpack-client requests --all"),
    "weak-passphrase": (EXIT_FAILED, "choose a longer passphrase that nobody would guess"),
    "no-such-key": (EXIT_NO_SUCH_KEY, "store it with: backpack-client put NAME"),
    "no-such-credential": (EXIT_NO_SUCH_KEY, "see what is in it: backpack-client agent show"),
    "no-such-lease": (EXIT_FAILED, "see live leases: backpack-client leases"),
    "no-such-grant": (EXIT_FAILED, "see all grants: backpack-client grants --all"),
    "no-such-process": (EXIT_FAILED, ""),
    "no-such-slot": (EXIT_FAILED, "see all slots: backpack-client slots"),
    "last-slot": (EXIT_FAILED, "see: backpack-client add-slot --help"),
    "invalid-recovery-code": (EXIT_USAGE, ""),
    "no-such-method": (EXIT_FAILED, "client and daemon differ: see backpack-client status"),
    "no-such-service": (EXIT_FAILED, "client and daemon differ: see backpack-client status"),
    "compression": (EXIT_FAILED, "send messages with the encoding identity"),
    "no-such-request": (EXIT_FAILED, "see pending requests: backpack-client requests --all"),
    "request-changed": (EXIT_FAILED, "look at it again: backpack-client requests --all"),
    "key-exists": (EXIT_FAILED, "to give it a new value, add --replace"),
    "not-built": (EXIT_FAILED, "this version of the daemon does not do that yet"),
    "locked": (EXIT_LOCKED, UNLOCK_HINT),
    "uninitialized": (EXIT_LOCKED, INIT_HINT),
    "already-initialized": (EXIT_FAILED, UNLOCK_HINT),
    "peer-unknown": (EXIT_DENIED, "call again, from a process that runs until the answer comes"),
    "wrong-passphrase": (EXIT_WRONG_PASSPHRASE, ""),
    "not-protected": (
        EXIT_DENIED,
        "from a program of your own: see docs/protocol.md, on passphrases",
    ),
    "user-changed": (EXIT_DENIED, "call again, from a process that still runs as your user"),
    "not-authorized": (EXIT_DENIED, "this needs the passphrase: type it, or add --passphrase-file"),
    "no-grant": (EXIT_DENIED, ""),
    "denied-by-rule": (EXIT_DENIED, "a rule of the policy forbids it, whatever is granted"),
    "refused-by-operator": (
        EXIT_DENIED,
        "do not ask again; the operator can still allow it: backpack-client grant --help",
    ),
    "unknown-author": (EXIT_DENIED, "look at it first: backpack-client agent trust"),
    "not-trusted": (
        EXIT_FAILED,
        "see accepted authors and known locks: backpack-client agent trust --list",
    ),
    "lock-stepped-back": (EXIT_DENIED, "look at it first: backpack-client agent trust"),
    "lock-forked": (EXIT_DENIED, "look at it first: backpack-client agent trust"),
    "lock-names": (EXIT_DENIED, "look at them first: backpack-client agent trust"),
    "legacy-lock": (EXIT_DENIED, "migrate it: backpack-client agent migrate FILE"),
    "legacy-key-needed": (EXIT_FAILED, "migrate it: backpack-client agent migrate FILE"),
    "not-a-recipient": (
        EXIT_DENIED,
        "its author can add you: send them the output of backpack-client identity",
    ),
    "wrong-legacy-key": (EXIT_WRONG_PASSPHRASE, ""),
    "memory-changed": (EXIT_FAILED, "nothing was overwritten: read it again"),
    "waiting-for-approval": (EXIT_WAITING, ""),
    "limit": (EXIT_FAILED, ""),
    "request-too-large": (EXIT_USAGE, "ask for less at a time"),
    "too-slow": (EXIT_FAILED, "start it again"),
    # Not 8: the passphrase was not tried, and a script must not treat it as wrong.
    "throttled": (EXIT_FAILED, "wait, then try again"),
    "vault-damaged": (
        EXIT_FAILED,
        "nothing was repaired or overwritten: put a backup of the vault in its place",
    ),
    "vault-stepped-back": (
        EXIT_FAILED,
        "if you put back the older copy yourself: backpack-client unlock --accept-older-vault",
    ),
    "backup-damaged": (EXIT_FAILED, "nothing was taken from it"),
    "unavailable": (EXIT_FAILED, "try again"),
    "revocation-not-kept": (EXIT_FAILED, "see the daemon's log, then revoke again"),
    "store-failed": (EXIT_FAILED, "nothing was changed: see the daemon's log"),
    "disk-full": (EXIT_FAILED, "nothing was changed: make room, then try again"),
    "shutting-down": (EXIT_NO_DAEMON, START_HINT),
}

_BY_STATUS = {
    "INVALID_ARGUMENT": (EXIT_USAGE, "invalid-request", ""),
    "FAILED_PRECONDITION": (EXIT_FAILED, "failed-precondition", ""),
    "PERMISSION_DENIED": (EXIT_DENIED, "denied", ""),
    "UNAUTHENTICATED": (EXIT_DENIED, "unauthenticated", ""),
    # Without a reason it is the deadline of the call: the daemon is stopped, or much too busy.
    "DEADLINE_EXCEEDED": (EXIT_NO_DAEMON, "no-answer", NO_ANSWER_HINT),
    "UNIMPLEMENTED": (
        EXIT_FAILED,
        "unimplemented",
        "client and daemon may be of different versions: see backpack-client status",
    ),
    "INTERNAL": (EXIT_FAILED, "internal", "the daemon's log says more"),
    # gRPC's own status for calls that were in progress when a server stopped.
    "CANCELLED": (EXIT_NO_DAEMON, "no-daemon", "see whether it runs: backpack-client status"),
    # Without a reason it comes from gRPC itself, which reached no daemon.
    "UNAVAILABLE": (EXIT_NO_DAEMON, "no-daemon", START_HINT),
}


class Failure(Exception):  # noqa: N818 - users of the API read this word
    """A failure for the caller, with the next step.

    Attributes:
        message: lowercase; what failed. Printable, on one line.
        exit_code: what a command ends with, one of the EXIT constants.
        reason: a stable word in kebab case for programs.
        hint: what to do next, lowercase, one or more lines; empty when there is nothing to say.
    """

    def __init__(
        self, message: str, *, exit_code: int = EXIT_FAILED, reason: str = "failed", hint: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.reason = reason
        self.hint = hint

    def render(self) -> str:
        """Lay the failure out for standard error: the message, then the indented hint."""
        lines = [f"backpack-client: {self.message}"]
        lines.extend(f"  {line}" for line in self.hint.splitlines())
        return "\n".join(lines) + "\n"


def usage(message: str, hint: str = "see: backpack-client --help") -> Failure:
    """Make the failure for arguments or settings of a wrong form."""
    return Failure(message, exit_code=EXIT_USAGE, reason="usage", hint=hint)


def not_one(what: str, given: str, hint: str) -> Failure:
    """Make the failure for an argument that cannot be the expected name or id.

    The message never shows the argument: it may be a value that was typed by mistake, which would
    then be on the screen and in every log of standard error.

    Args:
        what: the expected kind, such as "a key name".
        given: the argument, or the relevant part of it.
        hint: describes the expected form.
    """
    return usage(f"not {what}", hint=f"{hint}\n{VALUES_HINT}" if "=" in given else hint)


def not_a_key_name(given: str) -> Failure:
    """Make the failure for an argument that cannot be the name of a key; it is not shown."""
    return not_one("a key name", given, KEY_NAME_HINT)


def no_daemon(path: str, why: str) -> Failure:
    """Make the failure for a socket at which nobody answers.

    Args:
        path: the socket's path.
        why: the obstacle, in a few words.
    """
    return Failure(
        f"no daemon at {printable(path, 256)}: {why}",
        exit_code=EXIT_NO_DAEMON,
        reason="no-daemon",
        hint=START_HINT,
    )


def full_package_needed() -> Failure:
    """Make the failure for what the package without dependencies does not have."""
    return Failure(
        "this needs the full package, with its grpcio, protobuf and click",
        reason="full-package-needed",
        hint="install backpackd in the place of backpack-client\n"
        "without it there are what agents call, and the commands get, panic and lock",
    )


def is_forbidden(error: OSError) -> bool:
    """Tell whether an error is the one that sandboxes answer a system call with."""
    return error.errno in (errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT)


def sockets_forbidden(error: OSError) -> Failure:
    """Make the failure for a sandbox in which the daemon cannot be connected to."""
    return Failure(
        f"this sandbox forbids Unix sockets: {os.strerror(error.errno or 0).lower()}",
        exit_code=EXIT_NO_DAEMON,
        reason="sockets-forbidden",
        hint="allow them or hand keys over with run, from outside of it: "
        "backpack-client run --key NAME -- PROGRAM",
    )


def of_system(error: OSError) -> Failure:
    """Make the failure for an error of the system that nothing else explains.

    What a command reads and writes has failures of its own, which name the file.
    """
    why = os.strerror(error.errno or 0).lower()
    if is_forbidden(error):
        return Failure(
            f"the system refused what this command needs: {why}",
            reason="refused",
            hint="a sandbox forbids it: allow it there, or run the command outside",
        )
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return Failure(
            f"this process can open nothing more: {why}",
            reason="no-descriptors",
            hint="raise the limit on open files (ulimit -n), or close some",
        )
    hint = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return Failure(f"cannot read or write: {why}", reason="io-failed", hint=hint)


def no_thread() -> Failure:
    """Make the failure for a thread that the system refuses."""
    return Failure(
        "the system refused a thread",
        reason="refused",
        hint="raise the limit on processes (ulimit -u), or let the sandbox allow clone and clone3",
    )


def from_status(code_name: str, reason: str, message: str, facts: "Mapping[str, str]") -> Failure:
    """Turn the status of a failed call into a failure.

    Text from the daemon is not trusted on a terminal: the message is escaped. Text for a command
    line that somebody may copy is checked piece by piece.

    Args:
        code_name: the gRPC status by its canonical name, such as "NOT_FOUND".
        reason: the trailing metadata `backpack-reason`; empty if there was none.
        message: the status message.
        facts: trailing metadata by its names on the wire, such as `backpack-tree-pid`. A client
            adds `backpack-names`, the requested names, separated by spaces.

    Returns:
        The failure. For a reason that this version does not know, the status decides.
    """
    if code_name == "CANCELLED" and message in ("", code_name):
        message = "the daemon ended the call before it answered"
    exit_code, word, hint = _BY_STATUS.get(code_name, (EXIT_FAILED, "failed", ""))
    if reason in _BY_REASON:
        exit_code, hint = _BY_REASON[reason]
    elif reason and code_name == "UNAVAILABLE":
        # A daemon did answer, with a reason that only a newer client knows.
        exit_code, hint = EXIT_FAILED, ""
    elif reason and code_name == "DEADLINE_EXCEEDED":
        exit_code, hint = EXIT_WAITING, ""
    if reason == "no-grant":
        hint = _grant_hint(facts)
    elif reason == "waiting-for-approval":
        hint = _grant_hint(facts)
        if not _is_of_hook(facts):
            # What a hook of a shell has asked for is gone with it.
            hint = f"to approve it: {_approve_line(facts)}\n{hint}"
    elif reason == "no-such-key":
        hint = _put_hint(facts) or hint
    elif reason == "throttled":
        hint = _wait_hint(facts) or hint
    shown = printable(message, MESSAGE_LIMIT) or f"the daemon answered {printable(code_name, 64)}"
    return Failure(shown, exit_code=exit_code, reason=printable(reason, 64) or word, hint=hint)


def printable(text: str, limit: int) -> str:
    """Make foreign text safe for one line of a terminal.

    It escapes everything that is not printable. Control characters and newlines could move the
    cursor or forge a line. Format characters could reorder the text (bidirectional overrides) or
    hide in it.

    Args:
        text: any text.
        limit: the largest number of characters to show.
    """
    cut = text[:limit]
    shown = cut if cut.isprintable() else "".join(map(_escape, cut))
    return shown if len(text) <= limit else shown + "..."


def _escape(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    if code <= 0xFF:  # noqa: PLR2004 - two hex digits
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004 - four


def _grant_hint(facts: "Mapping[str, str]") -> str:
    names = facts.get("backpack-names", "").split(" ")
    # People copy this line into a shell: leave out a name that could carry shell text.
    if len(names) > _NAMES_SHOWN or not all(map(is_key_name, names)):
        names = ["NAME..."]
    line = f"backpack-client grant {' '.join(names)} --to"
    uid = _number(facts, "backpack-uid")
    every = f"or for every program of yours: {line} uid:{os.geteuid() if uid is None else uid}"
    pid = _number(facts, "backpack-tree-pid")
    if pid == os.getpid():
        # At a shell's prompt, this command is the whole tree, and ends in a moment.
        return f"to allow it for an agent that runs: {line} tree:PID (the agent's pid)\n{every}"
    if _is_of_hook(facts):
        return (
            "a hook of your shell (such as direnv) runs this, and may end in a moment; to allow "
            f"it for the shell, process {pid}, and all that you start in it: {line} tree:{pid}\n"
            f"{every}"
        )
    if pid is None:
        return f"to allow it for one process and its descendants: {line} tree:PID\n{every}"
    return f"to allow it for process {pid} and its descendants: {line} tree:{pid}\n{every}"


def _is_of_hook(facts: "Mapping[str, str]") -> bool:
    """Tell whether what is offered is a shell, and not the root, which is a hook of that shell."""
    tree, root = _number(facts, "backpack-tree-pid"), _number(facts, "backpack-root-pid")
    return tree is not None and root is not None and tree != root


def waiting_notice(code: str) -> str:
    """Describe how to approve the request that a call waits for.

    Args:
        code: from the daemon.

    Returns:
        A line for standard error; empty if it is not a code that a person could type.
    """
    if not is_code(code):
        return ""
    line = _approve_line({"backpack-request-code": code})
    return f"waiting for approval: in another terminal, run: {line}\n"


def is_code(text: str) -> bool:
    """Return whether a text can be the code of a request: ASCII letters and digits."""
    return 0 < len(text) <= _CODE_LIMIT and text.isascii() and text.isalnum()


def _approve_line(facts: "Mapping[str, str]") -> str:
    code = facts.get("backpack-request-code", "")
    # People copy it into a shell, so it may hold nothing else.
    return f"backpack-client approve {code if is_code(code) else 'CODE'}"


def _put_hint(facts: "Mapping[str, str]") -> str:
    asked = facts.get("backpack-names", "").split(" ")
    missing = facts.get("backpack-missing", "").split(" ")
    # People copy it into a shell: so only requested names that have the form of a name.
    names = [name for name in missing if name in asked and is_key_name(name)]
    return "\n".join(f"store it with: backpack-client put {name}" for name in names)


def _wait_hint(facts: "Mapping[str, str]") -> str:
    delay = _number(facts, "backpack-retry-after-ms")
    return "" if delay is None else f"wait {max(1, -(-delay // 1000))} s, then try again"


def _number(facts: "Mapping[str, str]", key: str) -> int | None:
    text = facts.get(key, "")
    if text.isascii() and text.isdecimal() and len(text) <= _NUMBER_DIGITS:
        return int(text)
    return None


def is_key_name(name: str) -> bool:
    """Return whether a name is a valid key name: [A-Za-z_][A-Za-z0-9_.-]{0,127}."""
    return (
        0 < len(name) <= _NAME_LIMIT
        and name.isascii()
        and (name[0].isalpha() or name[0] == "_")
        and name.replace("_", "a").replace(".", "a").replace("-", "a").isalnum()
    )

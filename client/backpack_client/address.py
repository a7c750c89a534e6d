"""Where the daemon's socket and home are, and a connection to a daemon that can be trusted.

The daemon has its own copy of the rule for both places, because neither side may import the other.
This module checks only who is at the other end: it refuses another user's fake daemon. It does not
speak the protocol. Every `get` imports it, so it imports nothing slow: `_socket` instead of
`socket`, strings instead of `pathlib`.
"""

# ruff: noqa: PTH100, PTH103, PTH110, PTH116, PTH119, PTH120
# pathlib would cost a third of the whole command's time.

import _socket
import errno
import os
import stat
import sys
import time

from backpack_client.failures import (
    EXIT_NO_DAEMON,
    NO_ANSWER_HINT,
    Failure,
    is_forbidden,
    no_daemon,
    of_system,
    printable,
    sockets_forbidden,
    usage,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SOCKET_NAME = "backpackd.sock"
LOCK_NAME = "backpackd.lock"
VAULT_NAME = "vault.db"
CONNECT_PATIENCE = 5.0

_PROFILE_LIMIT = 32
_PATH_BYTES = 4200
# sun_path of unix(7) holds 108 bytes on Linux, 104 on macOS, the closing zero byte included.
_PATH_LIMIT = 107 if sys.platform == "linux" else 103
_RETRY_EVERY = 0.01
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
# _CS_DARWIN_USER_TEMP_DIR of confstr(3) on macOS.
_CS_DARWIN_USER_TEMP_DIR = 65537
# SOL_LOCAL and LOCAL_PEERCRED of unix(4) on macOS; struct xucred of sys/ucred.h is 76 bytes.
_SOL_LOCAL = 0
_LOCAL_PEERCRED = 1
_XUCRED_SIZE = 76


def socket_path(environ: "Mapping[str, str]", explicit: str | None = None) -> str:
    """Find the path of the daemon's socket.

    Args:
        environ: the environment; BACKPACK_SOCKET, BACKPACK_PROFILE, XDG_RUNTIME_DIR and HOME count.
            An empty variable counts as unset.
        explicit: a path from the command line, which takes precedence.

    Returns:
        An absolute path, the first of these that applies: BACKPACK_SOCKET;
        `backpack[-PROFILE]/backpackd.sock` in XDG_RUNTIME_DIR; on macOS, the same in the user's
        temp directory; the same in /run/user/UID; `.backpack[-PROFILE]/run/backpackd.sock` in the
        user's home. If nothing is there, the socket that a daemon noted in the home.

    Raises:
        Failure: a usage failure; BACKPACK_PROFILE or BACKPACK_SOCKET has a wrong form.
    """
    name = _profiled("backpack", environ)
    if explicit:
        return os.path.abspath(explicit)
    given = environ.get("BACKPACK_SOCKET", "")
    if given:
        return _absolute("BACKPACK_SOCKET", given)
    usual = _usual_socket(name, environ)
    if os.path.exists(usual):
        return usual
    # A daemon that was started with other variables listens elsewhere.
    noted = _read_private(f"{home_path(environ)}/{LOCK_NAME}").split("\n")[1:2]
    return noted[0] if noted and noted[0][:1] == "/" and os.path.exists(noted[0]) else usual


def _usual_socket(name: str, environ: "Mapping[str, str]") -> str:
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    # The XDG specification says: a relative path here is invalid, ignore it.
    if runtime.startswith("/"):
        return f"{runtime.rstrip('/')}/{name}/{SOCKET_NAME}"
    if sys.platform == "darwin":
        temporary = os.confstr(_CS_DARWIN_USER_TEMP_DIR) or _user_home(environ)
        return f"{temporary.rstrip('/')}/{name}/{SOCKET_NAME}"
    # Without the variable (cron, su, a program that passes few variables) it is there all the same.
    runtime = f"/run/user/{os.getuid()}"
    try:
        if os.stat(runtime).st_uid == os.getuid():
            return f"{runtime}/{name}/{SOCKET_NAME}"
    except OSError:
        pass
    return f"{_user_home(environ)}/.{name}/run/{SOCKET_NAME}"


def home_path(environ: "Mapping[str, str]") -> str:
    """Find the directory of the vault and the configuration.

    Args:
        environ: the environment; BACKPACK_HOME, BACKPACK_PROFILE, XDG_DATA_HOME and HOME count.
            An empty variable counts as unset.

    Returns:
        An absolute path: BACKPACK_HOME; the choice that `init` recorded; or `backpack[-PROFILE]` in
        the platform's directory for user data.

    Raises:
        Failure: a usage failure; BACKPACK_PROFILE or BACKPACK_HOME has a wrong form.
    """
    name = _profiled("backpack", environ)
    given = environ.get("BACKPACK_HOME", "")
    if given:
        return _absolute("BACKPACK_HOME", given)
    if sys.platform == "darwin":
        return f"{_user_home(environ)}/Library/Application Support/{name}"
    recorded = _read_private(_record_path(environ))
    if recorded.startswith("/") and "\n" not in recorded:
        return recorded
    usual = f"{_user_home(environ)}/.local/share/{name}"
    data = environ.get("XDG_DATA_HOME", "")
    # The variable differs between terminals of one user. It does not hide a vault that is there.
    if data.startswith("/") and not os.path.exists(f"{usual}/{VAULT_NAME}"):
        return f"{data.rstrip('/')}/{name}"
    return usual


def record_home(environ: "Mapping[str, str]") -> None:
    """Record where the home is, so that every terminal of this user finds it.

    Nothing is recorded where BACKPACK_HOME names it, or where it is found without a record.

    Raises:
        OSError: it cannot be recorded.
    """
    home = home_path(environ)
    without = {name: text for name, text in environ.items() if name != "XDG_DATA_HOME"}
    if environ.get("BACKPACK_HOME") or sys.platform == "darwin" or home_path(without) == home:
        return
    path = _record_path(environ)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        os.write(descriptor, os.fsencode(home) + b"\n")
    finally:
        os.close(descriptor)


def _record_path(environ: "Mapping[str, str]") -> str:
    return f"{_user_home(environ)}/.config/backpack/{_profiled('backpack', environ)}.home"


def _read_private(path: str) -> str:
    """Read a small file that only this user can write; empty where there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        status = os.fstat(descriptor)
        private = status.st_uid == os.geteuid() and not status.st_mode & _WRITABLE_BY_OTHERS
        if not private or not stat.S_ISREG(status.st_mode):
            return ""
        return os.fsdecode(os.read(descriptor, _PATH_BYTES)).rstrip("\n")
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def check_directory(path: str) -> str:
    """Check that only this user and root can change the entries of a directory.

    Otherwise another user could put a fake daemon there and receive passphrases and values. The
    directory must belong to this user or root, and nobody else may be able to write it. The same
    holds for every directory above it. There, a directory that others can write is allowed if it
    is sticky (as /tmp is): then they cannot replace entries of ours below it. In a user namespace,
    a directory above may also belong to a user whom the namespace does not map, as root often is.

    Args:
        path: a directory.

    Returns:
        The checked directory, with every symbolic link resolved. Use this path from then on.

    Raises:
        Failure: `socket-not-trusted`, with the directory at fault; `no-daemon` if there is none.
    """
    resolved = os.path.realpath(path)
    current = resolved
    while True:
        try:
            status = os.stat(current, follow_symlinks=False)
        except FileNotFoundError:
            # What is above it may say why: the variables of another user.
            check_place(f"{resolved}/{SOCKET_NAME}")
            raise no_daemon(path, "there is no such directory") from None
        except OSError as error:
            raise _unusable(path, path, error) from None
        _check_one(current, status, sticky_will_do=current != resolved)
        above = os.path.dirname(current)
        if above == current:
            return resolved
        current = above


def check_place(path: str) -> None:
    """Check the existing part of a socket's directory, before a daemon makes the rest.

    The rule is that of `check_directory`. A daemon could start in a place that this rule refuses,
    but no client would use it.

    Args:
        path: the path that the socket will have.

    Raises:
        Failure: `socket-not-trusted` or `socket-not-accessible`, with the directory at fault.
    """
    directory = os.path.dirname(path)
    resolved = current = os.path.realpath(directory)
    while True:
        try:
            status = os.stat(current, follow_symlinks=False)
        except FileNotFoundError:
            # The daemon makes it, private to its user.
            status = None
        except OSError as error:
            raise _unusable(path, directory, error) from None
        if status is not None:
            _check_one(current, status, sticky_will_do=current != resolved)
        above = os.path.dirname(current)
        if above == current:
            return
        current = above


def connect(path: str, patience: float = CONNECT_PATIENCE) -> _socket.socket:
    """Connect to the daemon, after checking that it belongs to this user or root.

    Args:
        path: the socket's path, of any length on Linux.
        patience: seconds to wait while the daemon's queue of new connections is full.

    Returns:
        A connected, blocking stream socket. The caller closes it.

    Raises:
        Failure: `no-daemon` if nobody listens there; `socket-not-trusted` if the directory or the
            listener belongs, or may belong, to somebody else.
    """
    directory = check_directory(os.path.dirname(path))
    name = os.path.basename(path)
    owner = _owner(directory)
    try:
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    except OSError as error:
        raise _unusable(path, directory, error) from None
    try:
        _connect(connection, path, directory, name, patience)
        _check_listener(connection, owner)
    except BaseException:
        connection.close()
        raise
    return connection


def _profiled(name: str, environ: "Mapping[str, str]") -> str:
    profile = environ.get("BACKPACK_PROFILE", "")
    if not profile:
        return name
    # The name becomes part of paths, so it has no dots and no slashes.
    if (
        len(profile) > _PROFILE_LIMIT
        or not profile.isascii()
        or not profile.replace("_", "a").replace("-", "a").isalnum()
    ):
        raise usage(
            "BACKPACK_PROFILE is not the name of a profile",
            hint="up to 32 letters, digits, - and _, such as staging",
        )
    return f"{name}-{profile}"


def _absolute(variable: str, path: str) -> str:
    if not path.startswith("/"):
        # The meaning of a relative path would depend on the program's current directory.
        raise usage(
            f"{variable} is not an absolute path",
            hint="give an absolute path, one that begins with /",
        )
    return path


def _user_home(environ: "Mapping[str, str]") -> str:
    home = environ.get("HOME", "")
    if home.startswith("/"):
        return home.rstrip("/")
    import pwd  # noqa: PLC0415 - only where HOME is not set

    try:
        return pwd.getpwuid(os.getuid()).pw_dir.rstrip("/")
    except KeyError:
        raise usage("this user has no home directory", hint="set HOME") from None


def _owner(directory: str) -> int:
    try:
        return os.stat(directory).st_uid
    except OSError as error:
        raise _unusable(directory, directory, error) from None


def _check_one(path: str, status: os.stat_result, *, sticky_will_do: bool) -> None:
    above = sticky_will_do
    if status.st_uid not in (0, os.geteuid()) and not (above and _is_unmapped(status.st_uid)):
        raise _foreign(path, status.st_uid)
    sticky = sticky_will_do and status.st_mode & stat.S_ISVTX
    if status.st_mode & _WRITABLE_BY_OTHERS and not sticky:
        raise _not_trusted(
            f"{printable(path, 256)} can be written by others (mode {status.st_mode & 0o7777:04o})",
            hint=f"run: chmod go-w {printable(path, 256)}",
        )


def _foreign(path: str, uid: int) -> Failure:
    if not _is_unmapped(uid):
        return _not_trusted(*whose(path, uid))
    return _not_trusted(
        f"{printable(path, 256)} belongs to uid {uid}, which in a user namespace stands for every "
        "user that it does not map",
        hint="map the owner into the namespace, or set BACKPACK_SOCKET to a path in a directory of "
        "yours",
    )


def _is_unmapped(uid: int) -> bool:
    """Tell whether a uid stands for those that this user namespace does not map.

    Root is one of them where an ordinary user has made the namespace (bubblewrap, podman), and owns
    what is above the socket. Outside of one the number is that of an ordinary user, `nobody`. Which
    user it is nobody can tell, so what the kernel says of the listener still decides.
    """
    try:
        mapped = [line.split() for line in _read("/proc/self/uid_map").splitlines()]
        covered = any(int(first) <= uid < int(first) + int(count) for first, _, count in mapped)
    except (OSError, ValueError):
        return False
    return uid == _overflow_uid() and not covered


def _overflow_uid() -> int:
    try:
        return int(_read("/proc/sys/kernel/overflowuid"))
    except (OSError, ValueError):
        return -1


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # One read: what stands there is made as it is read, and is a page long at most.
        return os.read(descriptor, 65536)
    finally:
        os.close(descriptor)


def _connect(
    connection: _socket.socket, path: str, directory: str, name: str, patience: float
) -> None:
    target = f"{directory.rstrip('/')}/{name}"
    descriptor = -1
    try:
        if len(os.fsencode(target)) > _PATH_LIMIT and sys.platform == "linux":
            descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            target = f"/proc/self/fd/{descriptor}/{name}"
        deadline = time.monotonic() + patience
        # Without blocking: a full queue is then an error and not an endless wait.
        connection.setblocking(False)
        while True:
            try:
                connection.connect(target)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Failure(
                        "the daemon is too busy to take a connection",
                        exit_code=EXIT_NO_DAEMON,
                        reason="busy",
                        hint=NO_ANSWER_HINT,
                    ) from None
                time.sleep(_RETRY_EVERY)
        connection.setblocking(True)
    except OSError as error:
        raise _unusable(path, directory, error) from None
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _check_listener(connection: _socket.socket, owner: int) -> None:
    uid = _listener_uid(connection)
    if uid == os.geteuid():
        return
    # With socket activation the kernel names the process that listens: root for a system service.
    if uid == 0 and owner == 0:
        return
    raise _not_trusted(f"uid {uid} listens at the socket, not you")


def _listener_uid(connection: _socket.socket) -> int:
    try:
        if sys.platform == "darwin":
            credentials = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_SIZE)
        else:
            # struct ucred of unix(7): pid, uid, gid, four bytes each.
            credentials = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    except OSError as error:
        if is_forbidden(error):
            raise sockets_forbidden(error) from None
        raise _not_trusted(f"cannot tell who listens at the socket: {_why(error)}") from None
    if len(credentials) < 8:  # noqa: PLR2004 - the uid is in bytes 4 to 7 of either struct
        raise _not_trusted("cannot tell who listens at the socket")
    return int.from_bytes(credentials[4:8], sys.byteorder)


def whose(path: str, uid: int) -> tuple[str, str]:
    """Say that a directory is another user's, and what to do."""
    import pwd  # noqa: PLC0415 - only for this message

    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = f"#{uid}"
    message = f"{printable(path, 256)} belongs to {printable(name, 64)} (uid {uid}), not to you"
    if os.geteuid() == 0:
        return message, (
            f"you are root with the variables of {printable(name, 64)}: run it as that user, "
            "without sudo; for a vault of root's own: sudo -i"
        )
    return message, (
        "the variables of another user are set: log in as yourself (su -, not su), or set "
        "BACKPACK_HOME and BACKPACK_SOCKET to paths in your own directories"
    )


def _not_trusted(message: str, hint: str = "see BACKPACK_SOCKET and XDG_RUNTIME_DIR") -> Failure:
    return Failure(message, exit_code=EXIT_NO_DAEMON, reason="socket-not-trusted", hint=hint)


def _unusable(path: str, directory: str, error: OSError) -> Failure:
    if is_forbidden(error) or (error.errno == errno.EACCES and _may_write(path)):
        # A socket that this user may write to, and is kept from all the same.
        return sockets_forbidden(error)
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return of_system(error)
    if error.errno != errno.EACCES:
        return no_daemon(path, _why(error))
    # Starting a daemon would not help: this user could not reach that daemon either.
    return Failure(
        f"cannot use the socket's directory {printable(directory, 256)}: {_why(error)}",
        exit_code=EXIT_NO_DAEMON,
        reason="socket-not-accessible",
        hint="make it accessible to you, or set BACKPACK_SOCKET to a path in your own directory",
    )


def _may_write(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode) and os.access(path, os.W_OK)
    except OSError:
        return False


def _why(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "there is no such socket"
    if error.errno == errno.ECONNREFUSED:
        return "nobody listens there any more"
    if error.errno is None:
        return "its path is too long"
    return os.strerror(error.errno).lower()

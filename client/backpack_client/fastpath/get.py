"""The command `get` in its plain form, without gRPC, protobuf or click.

It parses the arguments, asks the daemon once and prints. The full command handles everything that
is not in the plain form, including help and mistakes, so that only one place explains them.
"""

import os
import sys

from backpack_client.address import connect, socket_path
from backpack_client.failures import EXIT_DONE, Failure, usage, waiting_notice
from backpack_client.fastpath import output
from backpack_client.wire import Ended, conversation, malformed
from backpack_client.wire.messages import GET_KEYS_REQUEST, GET_KEYS_RESPONSE, decode, encode

METHOD = "/backpack.v1.Leases/GetKeys"
DEFAULT_WAIT = 60
# The call may take this much longer than the wait, so that the daemon's own answer comes first.
GRACE = 10

# Names the lock of the agent that runs here, as in `lockfiles`.
_LOCK_VARIABLE = "BACKPACK_AGENT_LOCK"
_FLAGS = {"--json": output.JSON, "--export": output.EXPORT}
_OPTIONS = ("--ttl", "--wait", "--reason")


class Arguments:
    """The arguments of a plain `get`.

    Attributes:
        names: at least one.
        form: how to print, see `output`.
        options: the texts given for --ttl, --wait and --reason.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.form = output.PLAIN
        self.options: dict[str, str] = {}


def parse(arguments: "list[str]") -> Arguments | None:
    """Parse the arguments after `get`.

    Returns:
        The parts; None where they are not of the plain form: at least one name, each option and
        flag at most once, and no lock of an agent in the environment.
    """
    if os.environ.get(_LOCK_VARIABLE):
        # To read a lock with all that this takes would cost every `get` what this way saves.
        return None
    parsed = Arguments()
    left = iter(arguments)
    for argument in left:
        if not argument.startswith("-"):
            parsed.names.append(argument)
        elif argument in _FLAGS and parsed.form == output.PLAIN:
            parsed.form = _FLAGS[argument]
        else:
            option, equals, value = argument.partition("=")
            given = value if equals else next(left, None)
            if option not in _OPTIONS or option in parsed.options or given is None:
                return None
            parsed.options[option] = given
    return parsed if parsed.names else None


def run(arguments: Arguments) -> int:
    """Lease the keys and print their values; failures go to standard error.

    Returns:
        The exit code.
    """
    try:
        _run(arguments)
    except Failure as failure:
        tell(failure)
        return failure.exit_code
    return EXIT_DONE


def _run(arguments: Arguments) -> None:
    names = arguments.names
    options = arguments.options
    output.check_form(names, arguments.form)
    ttl, wait = _times(options)
    request = encode(
        GET_KEYS_REQUEST,
        names=names,
        ttl_seconds=ttl,
        reason=_utf8(options.get("--reason", "")),
        wait_seconds=wait,
    )
    seconds = wait + GRACE
    connection = connect(socket_path(os.environ), patience=float(seconds))
    try:
        on_headers = _tell_code if wait else None
        response = conversation.call(connection, METHOD, request, seconds, on_headers=on_headers)
    except Ended as ended:
        raise ended.failure({"backpack-names": " ".join(names)}) from None
    finally:
        connection.close()
    answer = decode(GET_KEYS_RESPONSE, response)
    keys = [(key.name, key.value) for key in answer.keys]
    # Printed under names that the caller trusts, so they must be the ones he asked for.
    if [name for name, _ in keys] != names:
        raise malformed("other keys than those asked for")
    output.write(
        output.render(
            keys,
            arguments.form,
            lease_id=answer.lease.id,
            expires_at_ms=answer.lease.expires_at_ms,
            remaining_seconds=answer.lease.remaining_seconds,
        )
    )


def _times(options: "dict[str, str]") -> tuple[int, int]:
    if "--ttl" not in options and "--wait" not in options:
        return 0, DEFAULT_WAIT
    from backpack_client.durations import parse_duration, parse_wait  # noqa: PLC0415 - most do without

    ttl = parse_duration(options["--ttl"]) if "--ttl" in options else 0
    return ttl, parse_wait(options["--wait"]) if "--wait" in options else DEFAULT_WAIT


def _tell_code(headers: "dict[str, str]") -> None:
    say(waiting_notice(headers.get("backpack-request-code", "")))


def tell(failure: Failure) -> None:
    """Write a failure to standard error, unless it has nothing to say."""
    if failure.message:
        say(failure.render())


def say(text: str) -> None:
    """Write text to standard error, if there is one."""
    if not text or sys.stderr is None:
        return
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        # Nobody reads standard error: the exit code still tells.
        return


def _utf8(reason: str) -> str:
    try:
        reason.encode("utf-8")
    except UnicodeEncodeError:
        # Other bytes in arguments reach Python as lone surrogates.
        raise usage("the reason is not UTF-8 text") from None
    return reason

"""The command `get` in its plain form, without gRPC, protobuf or click.

It parses the arguments, asks the daemon once and prints. The full command handles everything that
is not in the plain form, including help and mistakes, so that only one place explains them.
"""

import os
import sys

from backpack_client.address import connect, socket_path
from backpack_client.durations import parse_duration, parse_wait
from backpack_client.failures import EXIT_DONE, Failure, usage, waiting_notice
from backpack_client.fastpath import HandOver, malformed, messages, output, unary

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
        The parts; None if they do not have the plain form: at least one name, each option and
        flag at most once.
    """
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

    Raises:
        HandOver: the full command must do it.
    """
    try:
        _run(arguments)
    except Failure as failure:
        _tell(failure)
        return failure.exit_code
    return EXIT_DONE


def _run(arguments: Arguments) -> None:
    if os.environ.get(_LOCK_VARIABLE):
        # Code for locks would slow down every `get` as much as the fast path saves.
        raise HandOver("the lock of an agent")
    names = arguments.names
    options = arguments.options
    output.check_form(names, arguments.form)
    ttl = parse_duration(options["--ttl"]) if "--ttl" in options else 0
    wait = parse_wait(options["--wait"]) if "--wait" in options else DEFAULT_WAIT
    request = messages.encode_request(names, ttl, _utf8(options.get("--reason", "")), wait)
    seconds = wait + GRACE
    connection = connect(socket_path(os.environ), patience=float(seconds))
    try:
        facts = {"backpack-names": " ".join(names)}
        on_headers = _tell_code if wait else None
        response = unary.call(connection, METHOD, request, seconds, facts, on_headers=on_headers)
        answer = messages.decode_response(response)
    finally:
        connection.close()
    # The caller trusts the printed names, so they must be the requested ones.
    if [name for name, _ in answer.keys] != names:
        raise malformed("other keys than those asked for")
    output.write(
        output.render(
            answer.keys,
            arguments.form,
            lease_id=answer.lease_id,
            expires_at_ms=answer.expires_at_ms,
            remaining_seconds=answer.remaining_seconds,
        )
    )


def _tell_code(headers: "dict[str, str]") -> None:
    _write(waiting_notice(headers.get("backpack-request-code", "")))


def _tell(failure: Failure) -> None:
    if failure.message:
        _write(failure.render())


def _write(text: str) -> None:
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

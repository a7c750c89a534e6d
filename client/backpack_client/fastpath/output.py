"""Prints the values of `get`, for the fast path and for the full command.

No other code prints values. They go to standard output and nowhere else, all of them or none. This
module encodes them without `json` and `shlex`, which would cost more than the call itself.
"""

import errno
import os
import sys

from backpack_client.failures import EXIT_FAILED, Failure, is_key_name, not_a_key_name, usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

PLAIN = "plain"
JSON = "json"
EXPORT = "export"

_STANDARD_OUTPUT = 1

_JSON_ESCAPES = {code: f"\\u{code:04x}" for code in (*range(0x20), 0x7F)} | {
    ord('"'): '\\"',
    ord("\\"): "\\\\",
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
}


def check_form(names: "Sequence[str]", form: str) -> None:
    """Refuse names that are not key names or cannot be printed, before anything is leased.

    Args:
        names: the requested keys.
        form: PLAIN, JSON or EXPORT.

    Raises:
        Failure: a name is not a key name; there are several names in the plain form, in which a
            value with a newline would look like two; a name cannot be a shell variable in EXPORT;
            standard output is closed.
    """
    for name in names:
        if not is_key_name(name):
            raise not_a_key_name(name)
    if form == PLAIN and len(names) > 1:
        raise usage(
            "several keys at once need --json or --export",
            hint="values may hold newlines, so one per line would be ambiguous",
        )
    if form == EXPORT:
        for name in names:
            if "." in name or "-" in name:
                raise usage(
                    "a key's name cannot be the name of a shell variable: it holds a . or -",
                    hint="get it without --export, into a variable of another name",
                )
    if sys.stdout is None:
        # The caller has closed it: the socket would become descriptor 1, and the value would go
        # there.
        raise Failure(
            "standard output is closed: there is nowhere to print", reason="output-failed"
        )


def render(
    keys: "Sequence[tuple[str, bytes]]",
    form: str,
    *,
    lease_id: str = "",
    expires_at_ms: int = 0,
    remaining_seconds: int = 0,
) -> bytes:
    r"""Lay values out.

    Args:
        keys: names and values; exactly one in the plain form.
        form: PLAIN, the value and a newline; JSON, one object with `keys` (name to value) and
            `lease`; EXPORT, lines for a POSIX shell to evaluate.
        lease_id: for JSON, as are the next two.
        expires_at_ms: milliseconds since the epoch.
        remaining_seconds: how long the lease still lives.

    Raises:
        Failure: a value is not UTF-8 text, or holds a zero byte, and the form cannot carry it.
    """
    if form == PLAIN:
        return keys[0][1] + b"\n"
    texts = [(name, _text(name, value, form)) for name, value in keys]
    if form == EXPORT:
        lines = [
            "export {}='{}'\n".format(name, text.replace("'", "'\\''")) for name, text in texts
        ]
        return "".join(lines).encode()
    values = ", ".join(f"{_quoted(name)}: {_quoted(text)}" for name, text in texts)
    lease = (
        f'{{"id": {_quoted(lease_id)}, "expires_at_ms": {expires_at_ms}, '
        f'"remaining_seconds": {remaining_seconds}}}'
    )
    return f'{{"keys": {{{values}}}, "lease": {lease}}}\n'.encode()


def write(data: bytes) -> None:
    """Write all of `data` to standard output, past every buffer.

    Raises:
        Failure: not all of it could be written. The message is empty if the reader has gone away:
            nobody needs to know that.
    """
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(_STANDARD_OUTPUT, left) :]
        except BlockingIOError:
            # A parent has made it non-blocking: wait for room.
            import select  # noqa: PLC0415 - only here

            select.select((), (_STANDARD_OUTPUT,), ())
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise Failure("", exit_code=EXIT_FAILED, reason="output-closed") from None
            raise Failure(
                f"cannot write to standard output: {os.strerror(error.errno or 0).lower()}",
                reason="output-failed",
            ) from None


def _text(name: str, value: bytes, form: str) -> str:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        raise _not_text(name, form, "is not UTF-8 text") from None
    if form == EXPORT and "\0" in text:
        raise _not_text(name, form, "holds a zero byte")
    return text


def _not_text(name: str, form: str, why: str) -> Failure:
    return Failure(
        f"the value of {name} {why}, which --{form} cannot carry",
        reason="not-text",
        hint=f"get it alone, into a file: backpack-client get {name} > FILE",
    )


def _quoted(text: str) -> str:
    return f'"{text.translate(_JSON_ESCAPES)}"'

"""Entry point of `backpack-client`: a plain `get` takes the fast path, the rest the full one.

It imports modules for the fast path only. A test holds that it loads neither grpc nor
google.protobuf nor click.
"""

import os
import sys

from backpack_client.fastpath import get

_INTERRUPTED = 130


def main() -> int:
    """Run the command that the process was started with.

    Returns:
        The exit code of a command that was interrupted. Everything else ends the process here.
    """
    arguments = sys.argv[1:]
    plain = get.parse(arguments[1:]) if arguments[:1] == ["get"] else None
    if plain is not None:
        try:
            code = get.run(plain)
        except KeyboardInterrupt:
            return _INTERRUPTED
        # Python's own way out frees piece by piece what the kernel frees at once. Nothing is lost:
        # the value went out by write(2), a failure's message was flushed, and no thread, child,
        # temporary file or exit handler of ours exists.
        os._exit(code)
    try:
        from backpack_client.cli.main import main as full_main  # noqa: PLC0415 - the weight to avoid
    except ImportError:
        from backpack_client.fastpath import alone  # noqa: PLC0415 - as above

        return alone.run(arguments)
    code = full_main(arguments)
    _flush()
    # gRPC's threads go on while Python shuts down, and sometimes one of them crashes the process at
    # that point. A command that has done its work must not end with a signal.
    os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            # It is None or closed, or has no reader: the exit code still says how it ended.
            continue


if __name__ == "__main__":
    sys.exit(main())

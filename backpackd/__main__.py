"""The daemon's entry point: nothing but the order in which it begins.

First the process is made safe, then everything else is imported: the re-exec drops variables that
would change what gRPC and Python load.
"""

import os
import sys

from backpackd.adapters.hardening import harden
from backpackd.adapters.scrubbing import ensure_scrubbed
from backpackd.config import read_settings
from backpackd.core.errors import BackpackError, HomeError

EXIT_FAILED = 1


def main() -> int:
    """Run the daemon until it is told to stop.

    Returns:
        The exit status: 0 after an orderly stop, 1 when it could not start.
    """
    try:
        # Help and usage errors come before the re-exec, and cost nothing.
        read_settings(sys.argv[1:], os.environ)
        ensure_scrubbed(sys.argv[1:])
        harden()
        settings = read_settings(sys.argv[1:], os.environ)
        # gRPC's own log lines may hold what a peer sent.
        os.environ["GRPC_VERBOSITY"] = "NONE"
        from backpackd.daemon import run  # noqa: PLC0415 - after the re-exec, see above

        run(settings)
    except HomeError as error:
        return _fail(str(error))
    except BackpackError as error:
        return _fail(error.message)
    return 0


def _fail(message: str) -> int:
    print(f"backpackd: {message}", file=sys.stderr)  # noqa: T201 - before and beside any log
    return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())

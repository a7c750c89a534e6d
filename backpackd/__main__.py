"""The daemon's entry point: it only sets the order of the start.

First the process is made safe. Everything else is imported after that, because the re-exec drops
variables that would change what gRPC and Python load.
"""

import gc
import os
import sys

from backpackd.adapters.refusal import why
from backpackd.adapters.secrets.hardening import harden
from backpackd.adapters.secrets.scrubbing import ensure_scrubbed, executed_anew
from backpackd.config import ConfigError, read_configuration
from backpackd.core.errors import BackpackError, HomeError
from backpackd.core.render import render
from backpackd.settings import Settings, read_settings

EXIT_FAILED = 1
ROUNDS_OF_ALL = 500
"""After so many rounds through what is not so young the collector goes through everything."""
_NO_THREAD = "can't start new thread"
VAULT_NAME = "vault.db"
"""The same name as in the store, which must not be loaded before the re-exec."""


def main() -> int:
    """Run the daemon until it is told to stop.

    Returns:
        The exit status: 0 after an orderly stop, 1 if the daemon could not start. With `--check`:
        0 if the configuration file is good or missing and the vault is undamaged, otherwise 1.
    """
    try:
        return _run()
    except (HomeError, ConfigError) as error:
        return _fail(str(error))
    except BackpackError as error:
        return _fail(error.message)
    except OSError as error:
        named = isinstance(error.filename, (str, bytes))
        what = render(os.fsdecode(error.filename), limit=256) if named else "what the daemon needs"
        return _fail(f"the system refused {what}: {why(error)}")
    except RuntimeError as error:
        # What Python makes of a thread that the system refuses, whatever the error was.
        if _NO_THREAD not in str(error):
            raise
        return _fail(
            "the system refused a thread: raise the limit on processes (ulimit -u, TasksMax= in "
            "the unit), or let the sandbox allow clone and clone3"
        )


def _run() -> int:
    # Help, usage errors and the configuration come before the re-exec, and cost nothing.
    settings = read_settings(sys.argv[1:], os.environ)
    if settings.check and not executed_anew():
        _check(settings)
        if settings.check == "config":
            return 0
        if not os.path.lexists(settings.home / VAULT_NAME):
            return _without_vault(settings)
    ensure_scrubbed(sys.argv[1:])
    harden()
    if settings.check:
        from backpackd.check import run_check  # noqa: PLC0415 - after the re-exec, see above

        return 0 if run_check(settings) else EXIT_FAILED
    settings = read_settings(sys.argv[1:], os.environ)
    # gRPC's own log lines may hold what a peer sent.
    os.environ["GRPC_VERBOSITY"] = "NONE"
    from backpackd.daemon import run  # noqa: PLC0415 - after the re-exec, see above

    # What is loaded by now stays. Looking through it for garbage would hold the event loop up,
    # and `panic` with it. So would looking through all that waits in a flood of calls: rarely.
    # What is young is looked at as often as ever.
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, ROUNDS_OF_ALL)
    run(settings)
    return 0


def _check(settings: Settings) -> None:
    found = read_configuration(settings)
    where = render(str(settings.config), limit=256)
    if found is None:
        lines = [f"{where}: does not exist, so the sealed policy holds as it is"]
    else:
        laid = found.describe() or ["nothing"]
        lines = [f"{where}: good; it adds to the sealed policy:", *(f"  {line}" for line in laid)]
    print("\n".join(lines), flush=True)  # noqa: T201 - what the command is for


def _without_vault(settings: Settings) -> int:
    """Report that there is no vault. This is good only if no other file or option refers to one."""
    where = render(str(settings.home / VAULT_NAME), limit=256)
    if settings.passphrase_file or settings.salvage:
        return _fail(f"{where} does not exist: there is nothing to check or save")
    for suffix in ("-wal", "-journal"):
        if os.path.lexists(f"{settings.home / VAULT_NAME}{suffix}"):
            return _fail(f"{where} is missing, but its {suffix} exists: put the vault file back")
    print(f"{where}: does not exist", flush=True)  # noqa: T201 - what the command is for
    return 0


def _fail(message: str) -> int:
    print(f"backpackd: {message}", file=sys.stderr)  # noqa: T201 - before and beside any log
    return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())

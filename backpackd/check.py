"""What `backpackd --check` does with the vault: its own composition root, without a daemon.

It takes the home's lock, so that no daemon runs at the same time. It changes nothing.
"""

import asyncio
import locale
import os
import sys
from getpass import getpass
from pathlib import Path

from backpackd.adapters.home.files import CREATE, UnsafeFileError, open_file
from backpackd.adapters.home.home import open_home
from backpackd.adapters.processes.linux import LinuxProcesses
from backpackd.adapters.processes.portable import PortableProcesses
from backpackd.adapters.secrets.key_file import read_key
from backpackd.adapters.secrets.stretching import Argon2idStretcher
from backpackd.adapters.stores.inspection import Inspection
from backpackd.application.vault import damage_report
from backpackd.application.vault.damage_report import Report, check
from backpackd.core.errors import HomeError
from backpackd.core.render import render
from backpackd.core.slots import slot_secrets
from backpackd.ports import Processes
from backpackd.settings import Settings


def run_check(settings: Settings) -> bool:
    """Check the vault, print the findings, and return whether all of them are good.

    Raises:
        HomeError: a daemon uses the home, or the passphrase cannot be read.
        BackpackError: the file cannot be opened at all, or it contains nothing to save.
    """
    home = open_home(settings.home)
    try:
        passphrase = _passphrase(settings)
        if settings.salvage and passphrase is None:
            raise HomeError("to save what can be read, add --passphrase-file FILE")
        inspection = Inspection(home.path)
        try:
            return asyncio.run(_run(settings, inspection, passphrase))
        finally:
            inspection.close()
    finally:
        home.close()


async def _run(settings: Settings, inspection: Inspection, passphrase: bytes | None) -> bool:
    processes: Processes = LinuxProcesses() if sys.platform == "linux" else PortableProcesses()
    process, tree = processes.pin(os.getpid())
    process.close()
    stretcher = Argon2idStretcher()
    try:
        report = await check(inspection, passphrase, stretcher, tree)
        _print(report, tried=passphrase is not None)
        if settings.salvage and not report.opened:
            _say("nothing is saved: the keys cannot be opened, see above")
        elif settings.salvage and passphrase is not None:
            file = await damage_report.salvage(report, passphrase, stretcher, tree)
            _write(Path(settings.salvage), file)
            _say(f"{len(report.keys)} keys saved: add them with backpack-client import-vault")
    finally:
        stretcher.close()
    return report.good


def _passphrase(settings: Settings) -> bytes | None:
    if settings.passphrase_file:
        kept = read_key(Path(settings.passphrase_file).absolute(), credential=False)
        return slot_secrets.without_marks(kept)
    if not sys.stdin.isatty():
        return None
    typed = getpass("passphrase (empty: check only what needs no passphrase): ")
    try:
        # The bytes that were typed: the client reads them in the same way.
        return typed.encode(locale.getencoding()) or None
    except UnicodeEncodeError:
        return typed.encode() or None


def _print(report: Report, *, tried: bool) -> None:
    for finding in report.findings:
        mark = "good   " if finding.good else "DAMAGED"
        _say(f"{mark}  {render(finding.part, limit=200)}: {render(finding.detail, limit=400)}")
    if not tried:
        _say("add --passphrase-file to open every record as well")
    if not report.good and report.opened:
        _say(
            f"{len(report.keys)} keys can still be read: --salvage FILE seals them into a new file"
        )


def _write(path: Path, data: bytes) -> None:
    where = render(str(path), limit=256)
    try:
        descriptor = open_file(path, CREATE)
    except UnsafeFileError as error:
        raise HomeError(f"{where} {error.problem}") from None
    except OSError as error:
        raise HomeError(f"{where} cannot be created ({error.strerror})") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise HomeError(f"{where} cannot be written ({error.strerror})") from None


def _say(line: str) -> None:
    print(line)  # noqa: T201 - what the command is for

"""Vaults that unlock in no time: a real vault whose one slot records the least that Argon2id takes.

The daemon stretches by what a slot records, so nothing in it is changed for a test.
"""

import asyncio
from pathlib import Path
from unittest.mock import patch

from backpackd.adapters.secrets.secret_memory import Arena
from backpackd.adapters.secrets.stretching import Argon2idStretcher
from backpackd.adapters.stores.sqlite import SqliteStore
from backpackd.adapters.system.clock import SystemClock
from backpackd.application.vault.vault import Vault
from backpackd.core.peer_facts import ProcessId
from backpackd.core.slots import slots
from backpackd.core.slots.slots import Argon2idParameters
from daemons import PASSPHRASE
from unaudited import Unaudited


def least(salt: bytes) -> Argon2idParameters:
    return Argon2idParameters(salt, iterations=1, lanes=1, memory_kib=8)


async def make(home: Path) -> None:
    """Make a vault in a directory that is there, without a log so far."""
    store, arena, stretcher = SqliteStore(home), Arena(), Argon2idStretcher()
    try:
        vault = Vault(store, arena, stretcher, SystemClock(), Unaudited(store))
        with patch.object(slots, "rfc_9106_low_memory", least):
            await vault.init(PASSPHRASE, ProcessId(1, 1), by=None)
        vault.lock(by=None)
    finally:
        await store.close()
        stretcher.close()
        arena.close()


def make_cheap(home: Path) -> None:
    """Make a vault in a directory; for tests that run no event loop."""
    home.mkdir(mode=0o700, exist_ok=True)
    asyncio.run(make(home))

"""The claim about the daemon's memory, for what agent locks bring: embedded values, the old key.

With the vault unlocked and locks made, opened, migrated and refused, no 16-byte window of any of
them is in memory that root can read.
"""

import base64
import contextlib
import json
import os
import secrets
import sys
from importlib import import_module
from typing import Any

import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from backpack_client import Backpack, Failure
from backpack_client.calls import agents as agent_calls
from daemons import PASSPHRASE, RunningDaemon

# How memory is searched, and that the search finds what is there, stands with the first claim.
claim: Any = import_module("test_memory_claim")
TIMES = 100

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/PID/mem"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may read the daemon's memory"),
]


def old_lock(key: bytes, credentials: dict[str, str]) -> bytes:
    """Make a lock of version 1, as the older tool does."""
    layers = {}
    for name, content in (("credentials", credentials), ("personality", {}), ("memory", {})):
        salt = secrets.token_bytes(16)
        derived = PBKDF2HMAC(hashes.SHA256(), 32, salt, 100_000).derive(key)
        token = Fernet(base64.urlsafe_b64encode(derived)).encrypt(json.dumps(content).encode())
        layers[name] = {
            "data": base64.b64encode(token).decode(),
            "salt": base64.b64encode(salt).decode(),
        }
    return json.dumps({"version": "1.0", "layers": layers}).encode()


def test_root_finds_no_embedded_value_and_no_old_key(daemon: RunningDaemon) -> None:
    names = ("embedded", "edited", "old key", "old value")
    needles = {name: secrets.token_hex(24).encode() for name in names}
    # As on the command line, the operator's connection closes when all is done.
    with Backpack(str(daemon.socket)) as backpack:
        backpack.init(PASSPHRASE)
        backpack.authorize(PASSPHRASE)
        call = backpack.call
        made = call(agent_calls.create_lock({}, {"X": needles["embedded"]}))
        edited = call(agent_calls.edit_lock(made.data, put={"Y": needles["edited"]}))
        old = old_lock(needles["old key"], {"Z": needles["old value"].decode()})
        migrated = call(
            agent_calls.migrate_lock(old, legacy_key=needles["old key"], keep_legacy_key=True)
        )
        call(agent_calls.open_lock(old))
        with contextlib.suppress(Failure):
            call(agent_calls.open_lock(old, legacy_key=b"another key"))
        with contextlib.suppress(Failure):
            put = {"Q": needles["edited"]}
            call(agent_calls.edit_lock(edited.data, put=put, remove=["MISSING"]))
    with Backpack(str(daemon.socket)) as backpack:
        for _ in range(TIMES):
            backpack.call(agent_calls.open_lock(edited.data))
            backpack.call(agent_calls.open_lock(migrated.data))
        assert claim.left(daemon, needles) == set()

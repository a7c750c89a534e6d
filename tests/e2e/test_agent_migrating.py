"""Locks of version 1: every real one opens and migrates without loss, and every damage has a name.

The vectors were written by the tool whose format it is.
"""

import base64
import hashlib
import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from backpack_client import Backpack
from command_line import runner
from daemons import RunningDaemon
from two_vaults import Vault

pytestmark = pytest.mark.usefixtures("cheap_vault", "quick_start")

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "agent-lock-v1"
OLD = sorted(path.name.removesuffix(".agent.lock") for path in VECTORS.glob("*.agent.lock"))


@pytest.fixture
def ann(
    tmp_path: Path,
    daemon: RunningDaemon,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Vault:
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    return Vault(daemon, runner(tmp_path, monkeypatch, capfd))


def placed(name: str, mode: int = 0o644) -> tuple[Path, dict[str, Any], Path]:
    """Put a vector in the current directory; return it, what it holds, and a file with its key."""
    expected: dict[str, Any] = json.loads((VECTORS / f"{name}.expect.json").read_bytes())
    path, key = Path(f"{name}.lock"), Path("old-key")
    path.write_bytes((VECTORS / f"{name}.agent.lock").read_bytes())
    path.chmod(mode)
    key.write_text(expected["master_key"] + "\n", encoding="utf-8")
    return path, expected, key


def is_embedded(value: str) -> bool:
    return not value.startswith("placeholder_")


def credentials(expected: dict[str, Any], *, stored: bool = False) -> list[dict[str, object]]:
    return [
        {"name": name, "embedded": is_embedded(value) and not stored}
        for name, value in sorted(expected["credentials"].items())
    ]


def test_there_are_vectors() -> None:
    assert len(OLD) == 4


@pytest.mark.parametrize("name", OLD)
def test_an_old_lock_opens_and_migrates_without_loss(ann: Vault, name: str) -> None:
    path, expected, key = placed(name, 0o640)
    before = path.read_bytes()
    option = ("--legacy-key-file", str(key))
    old = ann.shown(str(path), *option, "PASS")
    assert (old["version"], old["personality"], old["memory"]) == (
        1, expected["personality"], expected["memory"]
    )  # fmt: skip
    assert old["credentials"] == credentials(expected)
    assert path.read_bytes() == before, "showing one does not migrate it"

    told = ann.ok("agent", "migrate", str(path), *option, "PASS")
    new = ann.shown(str(path))
    assert (new["version"], new["personality"], new["memory"]) == (
        2, expected["personality"], expected["memory"]
    )  # fmt: skip
    assert new["credentials"] == credentials(expected)
    kept = Path(f"{path}.v1")
    assert kept.read_bytes() == before
    assert [each.stat().st_mode & 0o777 for each in (path, kept)] == [0o640, 0o640]
    warned = expected["master_key"] == "default-key"
    assert ("default key" in told.err) is warned
    assert (old["warnings"] == ["default-key"]) is warned
    everything = told.out + told.err
    assert not any(
        value in everything for value in expected["credentials"].values() if is_embedded(value)
    )


def test_an_embedded_value_comes_out_of_a_migrated_lock(ann: Vault) -> None:
    path, expected, key = placed("embedded-key")
    ann.ok("agent", "migrate", str(path), "--legacy-key-file", str(key), "PASS")
    ann.daemon.operator().grant("OPENAI_API_KEY")
    with Backpack() as backpack:
        value = backpack.get("OPENAI_API_KEY", lock=str(path))["OPENAI_API_KEY"]
    assert value == expected["credentials"]["OPENAI_API_KEY"]


def test_embedded_values_become_stored_keys_when_the_operator_asks(ann: Vault) -> None:
    path, expected, key = placed("embedded-key")
    told = ann.ok(
        "agent", "migrate", str(path), "--legacy-key-file", str(key), "--store-embedded", "PASS"
    ).err
    assert "OPENAI_API_KEY" in told
    assert ann.shown(str(path))["credentials"] == credentials(expected, stored=True)
    operator = ann.daemon.operator()
    operator.grant("OPENAI_API_KEY")
    assert operator.value("OPENAI_API_KEY").decode() == expected["credentials"]["OPENAI_API_KEY"]


def test_an_embedded_value_replaces_a_stored_key_only_where_that_was_asked_for(ann: Vault) -> None:
    path, _, key = placed("embedded-key")
    before = path.read_bytes()
    operator = ann.daemon.operator()
    operator.put("OPENAI_API_KEY", b"another one")
    command = ("agent", "migrate", str(path), "--legacy-key-file", str(key), "--store-embedded")
    refused = ann(*command, "PASS")
    assert (refused.code, "already stored" in refused.err) == (1, True)
    assert (path.read_bytes(), Path(f"{path}.v1").exists()) == (before, False)
    ann.ok(*command, "--replace", "PASS")
    operator.grant("OPENAI_API_KEY")
    assert operator.value("OPENAI_API_KEY") == b"sk-live-" + b"0" * 36


def test_no_key_is_stored_where_the_old_file_has_no_place(ann: Vault) -> None:
    path, _, key = placed("embedded-key")
    Path(f"{path}.v1").write_text("something of somebody's")
    refused = ann(
        "agent", "migrate", str(path), "--legacy-key-file", str(key), "--store-embedded", "PASS"
    )
    assert refused.code == 1
    assert "exists already" in refused.err
    assert "nothing was changed" in refused.err
    assert ann.daemon.operator().list() == []


def test_a_value_that_is_stored_already_is_no_obstacle(ann: Vault) -> None:
    path, expected, key = placed("embedded-key")
    value = expected["credentials"]["OPENAI_API_KEY"].encode()
    ann.daemon.operator().put("OPENAI_API_KEY", value)
    ann.ok("agent", "migrate", str(path), "--legacy-key-file", str(key), "--store-embedded", "PASS")


def test_the_old_key_is_kept_only_on_request_and_opens_other_files(ann: Vault) -> None:
    path, _, key = placed("basic")
    other = Path("other.lock")
    other.write_bytes(path.read_bytes())
    another = Path("another.lock")
    another.write_bytes(path.read_bytes())
    option = ("--legacy-key-file", str(key))
    ann.ok("agent", "migrate", str(path), *option, "PASS")
    assert "no terminal" in ann("agent", "migrate", str(other), "PASS").err
    ann.ok("agent", "migrate", str(other), *option, "--keep-key", "PASS")
    ann.ok("agent", "migrate", str(another), "PASS")
    vault = Path(ann.daemon.home)
    kept = b"correct-horse-battery-staple"
    assert not any(kept in each.read_bytes() for each in vault.rglob("*") if each.is_file())


def test_the_default_key_is_never_kept(ann: Vault) -> None:
    path, _, key = placed("default-key")
    refused = ann(
        "agent", "migrate", str(path), "--legacy-key-file", str(key), "--keep-key", "PASS"
    )
    assert (refused.code, "known to everybody" in refused.err) == (2, True)


def test_a_backup_that_is_there_is_never_overwritten(ann: Vault) -> None:
    path, _, key = placed("basic")
    before = path.read_bytes()
    Path(f"{path}.v1").write_text("something of somebody's")
    refused = ann("agent", "migrate", str(path), "--legacy-key-file", str(key), "PASS")
    assert (refused.code, "exists already" in refused.err) == (1, True)
    assert path.read_bytes() == before
    assert Path(f"{path}.v1").read_text() == "something of somebody's"


def test_a_migration_that_was_cut_off_after_the_backup_goes_on(ann: Vault) -> None:
    path, _, key = placed("basic")
    Path(f"{path}.v1").write_bytes(path.read_bytes())
    ann.ok("agent", "migrate", str(path), "--legacy-key-file", str(key), "PASS")
    assert ann.shown(str(path))["version"] == 2


def test_a_lock_of_version_2_is_not_migrated_again(ann: Vault) -> None:
    path, _, key = placed("basic")
    option = ("--legacy-key-file", str(key))
    ann.ok("agent", "migrate", str(path), *option, "PASS")
    again = ann("agent", "migrate", str(path), *option, "PASS")
    assert (again.code, "already of version 2" in again.err) == (2, True)


def test_an_old_lock_opens_for_the_operator_only_and_is_not_worked_with(ann: Vault) -> None:
    path, _, _ = placed("basic")
    for command in (("memory", "get"), ("memory", "clear", "--yes")):
        refused = ann("agent", *command, "--lock", str(path))
        assert (refused.code, "agent migrate" in refused.err) == (5, True)
    refused = ann("agent", "set", "--tone", "x", "--lock", str(path), "PASS")
    assert "agent migrate" in refused.err


def damaged(data: bytes, what: str) -> bytes:
    """Break one thing of a lock of version 1."""
    document = json.loads(data)
    layer = document["layers"]["memory"]
    if what == "bad base64":
        layer["data"] = "!" + layer["data"][1:]
    elif what == "short salt":
        layer["salt"] = base64.b64encode(b"short").decode()
    elif what == "missing layer":
        del document["layers"]["memory"]
    elif what == "not JSON":
        return data[:-40]
    elif what == "another shape":
        return b'{"version": "1.0", "layers": []}'
    elif what == "a layer that was changed":
        token = bytearray(base64.b64decode(layer["data"]))
        token[20] = ord("A") if token[20] != ord("A") else ord("B")
        layer["data"] = base64.b64encode(token).decode()
    elif what == "an unknown version":
        document["version"] = "7.0"
    return json.dumps(document).encode()


DAMAGES = (
    "bad base64",
    "short salt",
    "missing layer",
    "not JSON",
    "another shape",
    "a layer that was changed",
    "an unknown version",
)


def test_every_damage_has_its_own_message_and_exit_code(ann: Vault) -> None:
    path, _, key = placed("basic")
    whole = path.read_bytes()
    told = {}
    for what in DAMAGES:
        path.write_bytes(damaged(whole, what))
        before = path.read_bytes()
        failed = ann("agent", "migrate", str(path), "--legacy-key-file", str(key), "PASS")
        told[what] = failed.err.splitlines()[0]
        assert failed.code == 1, what
        assert "no agent.lock" not in failed.err
        assert path.read_bytes() == before
    assert len(set(told.values())) == len(DAMAGES), told


def test_a_credential_that_no_key_can_be_called_is_named_and_printable(ann: Vault) -> None:
    layers = {}
    contents = {"credentials": {"A": "x", "bad \x1b[31m": "y"}, "personality": {}, "memory": {}}
    for name, content in contents.items():
        key = hashlib.pbkdf2_hmac("sha256", b"old", bytes(16), 1000)
        token = Fernet(base64.urlsafe_b64encode(key)).encrypt(json.dumps(content).encode())
        sealed, salt = base64.b64encode(token).decode(), base64.b64encode(bytes(16)).decode()
        layers[name] = {"data": sealed, "salt": salt}
    before = json.dumps({"version": "1.0", "layers": layers}).encode()
    Path("old.lock").write_bytes(before)
    Path("old-key").write_text("old\n", encoding="utf-8")
    options = ("--legacy-key-file", "old-key", "--iterations", "1000", "PASS")
    refused = ann("agent", "migrate", "old.lock", *options)
    assert (refused.code, "the credential bad \\x1b[31m" in refused.err) == (1, True), refused.err
    assert "rename it with the tool" in refused.err
    assert (Path("old.lock").read_bytes(), Path("old.lock.v1").exists()) == (before, False)


def test_a_wrong_key_is_its_own_error(ann: Vault) -> None:
    path, _, key = placed("basic")
    key.write_text("another key\n")
    failed = ann("agent", "show", str(path), "--legacy-key-file", str(key), "PASS")
    assert failed.code == 8
    assert "another key" not in failed.err


def test_the_number_of_iterations_counts(ann: Vault) -> None:
    path, _, key = placed("basic")
    option = ("--legacy-key-file", str(key), "--iterations", "99999")
    assert ann("agent", "show", str(path), *option, "PASS").code == 8
    option = ("--legacy-key-file", str(key), "--iterations", "100000")
    ann.ok("agent", "show", str(path), *option, "PASS")
    absurd = ann("agent", "show", str(path), *option[:2], "--iterations", "4000000000", "PASS")
    assert absurd.code == 2


KILLED = """
import os, signal, sys
from backpack_client.files import lockfiles
calls = 0
at = int(sys.argv[2])
def dying(name):
    real = getattr(os, name)
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    setattr(os, name, call)
for name in ("open", "write", "fchmod", "fsync", "rename", "link", "unlink"):
    dying(name)
seen = lockfiles.read(sys.argv[1])
lockfiles.replace(seen, b"new" * 20000)
print("done")
"""


def test_whoever_is_killed_in_the_middle_of_a_write_leaves_the_old_file_or_the_new_one(
    tmp_path: Path,
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    path, found = place / "agent.lock", set()
    for at in range(1, 40):
        path.write_bytes(b"old" * 20000)
        ran = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(KILLED), str(path), str(at)],
            capture_output=True,
            check=False,
            timeout=60,
        )
        data = path.read_bytes()
        assert data in (b"old" * 20000, b"new" * 20000), at
        found.add(data[:3])
        if ran.stdout:
            break
        assert ran.returncode == -signal.SIGKILL
    assert ran.stdout == b"done\n", "every call was one to be killed at"
    assert found == {b"old", b"new"}
    assert list(place.iterdir()) == [path], "what a killed writer left is cleared up"

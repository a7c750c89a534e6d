"""A daemon that unlocks its vault by itself: with a file, a credential or the environment."""

import os
from functools import partial
from pathlib import Path

import pytest

from backpack_proto.v1 import leases_pb2, slots_pb2, slots_pb2_grpc, vault_pb2
from daemons import RunningDaemon, failure

pytestmark = pytest.mark.usefixtures("cheap_vault")

UNLOCKED, LOCKED = vault_pb2.VAULT_STATE_UNLOCKED, vault_pb2.VAULT_STATE_LOCKED


def drawn(daemon: RunningDaemon, kind: str) -> bytes:
    """Make a vault with a slot of this kind and stop; return the key."""
    operator = daemon.operator()
    request = slots_pb2.AddSlotRequest(kind=kind)
    key: bytes = slots_pb2_grpc.SlotsStub(operator.channel).AddSlot(request).drawn
    assert daemon.terminate() == 0
    return key


def kept(path: Path, key: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(key + b"\n")
    path.chmod(mode)
    return path


def configured(daemon: RunningDaemon, line: str) -> None:
    path = daemon.home / "backpackd.toml"
    path.write_text(f"[unlock]\n{line}\n")
    path.chmod(0o600)


def test_a_key_file_unlocks_at_start_and_gives_no_authority(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    key = drawn(daemon, "file")
    configured(daemon, f'file = "{kept(tmp_path / "key", key)}"')
    daemon.start()
    status = daemon.client().status()
    assert status.state == UNLOCKED
    assert status.authorized_until_ms == 0
    assert "every program of yours can open this vault" in daemon.log_text()
    assert key.decode() not in daemon.log_text()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_file_that_others_can_get_at_is_not_used(
    daemon: RunningDaemon, tmp_path: Path, mode: int
) -> None:
    path = kept(tmp_path / "key", drawn(daemon, "file"), mode)
    configured(daemon, f'file = "{path}"')
    daemon.start()
    assert daemon.client().status().state == LOCKED
    assert "chmod 600" in daemon.log_text()


def test_a_wrong_or_missing_key_leaves_the_vault_locked_and_the_daemon_running(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    drawn(daemon, "file")
    configured(daemon, f'file = "{tmp_path / "none"}"')
    daemon.start()
    assert daemon.client().status().state == LOCKED
    daemon.terminate()
    kept(tmp_path / "none", b"not the right one at all")
    daemon.start()
    assert daemon.client().status().state == LOCKED


def test_a_credential_of_the_service_manager_unlocks(daemon: RunningDaemon, tmp_path: Path) -> None:
    directory = tmp_path / "credentials"
    directory.mkdir(mode=0o700)
    kept(directory / "vault", drawn(daemon, "file"), 0o400)
    configured(daemon, 'credential = "vault"')
    daemon._environ = {**os.environ, "CREDENTIALS_DIRECTORY": str(directory)}
    daemon.start()
    assert daemon.client().status().state == UNLOCKED


def test_a_key_in_the_environment_unlocks_and_is_gone_from_the_environment(
    daemon: RunningDaemon,
) -> None:
    key = drawn(daemon, "environment")
    daemon._environ = {**os.environ, "AGENT_MASTER_KEY": key.decode()}
    daemon.start()
    assert daemon.client().status().state == UNLOCKED
    environ = Path(f"/proc/{daemon.pid}/environ")
    if os.geteuid() == 0:
        assert key not in environ.read_bytes()
        assert b"AGENT_MASTER_KEY" not in environ.read_bytes()


def test_the_default_key_of_old_is_no_key(daemon: RunningDaemon) -> None:
    drawn(daemon, "environment")
    daemon._environ = {**os.environ, "AGENT_MASTER_KEY": "default-key"}
    daemon.start()
    assert daemon.client().status().state == LOCKED


def test_an_agent_that_restarts_the_daemon_does_not_get_back_what_was_revoked(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    operator = daemon.operator()
    operator.put("K", b"v")
    operator.put("L", b"w")
    operator.grant("*")
    key = drawn(daemon, "file")
    configured(daemon, f'file = "{kept(tmp_path / "key", key)}"')
    daemon.start()
    agent = daemon.client()
    assert agent.value("K") == b"v"
    agent.leases.RevokeLeases(leases_pb2.RevokeLeasesRequest(key="K"))
    for end in (daemon.terminate, daemon.kill):
        end()
        daemon.start()
        agent = daemon.client()
        assert agent.status().state == UNLOCKED
        for name in ("K", "L"):
            assert failure(partial(agent.get, name))[1] == "waiting-for-approval"


def test_what_a_panic_revoked_is_stored_with_the_next_unlock(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    operator = daemon.operator()
    operator.put("K", b"v")
    operator.grant("*")
    key = drawn(daemon, "file")
    configured(daemon, f'file = "{kept(tmp_path / "key", key)}"')
    daemon.start()
    agent = daemon.client()
    assert agent.value("K") == b"v"
    agent.vault.Panic(vault_pb2.PanicRequest())
    daemon.client().unlock()
    daemon.kill()
    daemon.start()
    agent = daemon.client()
    assert failure(partial(agent.get, "K"))[1] == "waiting-for-approval"

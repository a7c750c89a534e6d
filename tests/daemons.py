"""Runs real daemons for tests, each on a home and socket of its own, and talks plain gRPC to them.

No client code of ours is used here: what tests the daemon should not stand on what it serves.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import grpc
import pytest

from backpack_proto.v1 import (
    grants_pb2,
    grants_pb2_grpc,
    keys_pb2,
    keys_pb2_grpc,
    leases_pb2,
    leases_pb2_grpc,
    policy_pb2,
    policy_pb2_grpc,
    requests_pb2,
    requests_pb2_grpc,
    vault_pb2,
    vault_pb2_grpc,
)
from quick_starts import QuicklyStarted, Starting

Pending: TypeAlias = list[requests_pb2.Request]
Grants: TypeAlias = list[grants_pb2.Grant]
PASSPHRASE = b"seven quiet otters"
READY_SECONDS = 100.0
"""A bound on what would otherwise hang. Many sessions of tests at once make a start take long."""


class Client:
    """One connection to a daemon: plain gRPC stubs, with short cuts for what most tests need."""

    def __init__(self, path: Path) -> None:
        self._channel = grpc.insecure_channel(
            f"unix:{path}",
            options=[
                # A connection of its own, since operator authority belongs to a connection.
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.max_receive_message_length", 16 * 1024 * 1024),
                ("grpc.max_send_message_length", 16 * 1024 * 1024),
            ],
        )
        self.channel: Any = self._channel
        self.vault: Any = vault_pb2_grpc.VaultStub(self.channel)
        self.keys: Any = keys_pb2_grpc.KeysStub(self.channel)
        self.leases: Any = leases_pb2_grpc.LeasesStub(self.channel)
        self.grants: Any = grants_pb2_grpc.GrantsStub(self.channel)
        self.requests: Any = requests_pb2_grpc.RequestsStub(self.channel)
        self.policy: Any = policy_pb2_grpc.PolicyStub(self.channel)

    def close(self) -> None:
        self._channel.close()

    def status(self) -> vault_pb2.StatusResponse:
        response: vault_pb2.StatusResponse = self.vault.Status(vault_pb2.StatusRequest())
        return response

    def init(self, passphrase: bytes = PASSPHRASE) -> None:
        self.vault.Init(vault_pb2.InitRequest(passphrase=passphrase))

    def unlock(self, passphrase: bytes = PASSPHRASE) -> None:
        self.vault.Unlock(vault_pb2.UnlockRequest(passphrase=passphrase))

    def lock(self) -> None:
        self.vault.Lock(vault_pb2.LockRequest())

    def authorize(self, passphrase: bytes = PASSPHRASE) -> None:
        self.vault.Authorize(vault_pb2.AuthorizeRequest(passphrase=passphrase))

    def put(self, name: str, value: bytes, *, replace: bool = False) -> None:
        key = keys_pb2.KeyValue(name=name, value=value)
        self.keys.PutKeys(keys_pb2.PutKeysRequest(keys=[key], replace=replace))

    def delete(self, *names: str) -> None:
        self.keys.DeleteKeys(keys_pb2.DeleteKeysRequest(names=names))

    def list(self, *, everything: bool = True) -> list[str]:
        batches = self.keys.ListKeys(keys_pb2.ListKeysRequest(all=everything))
        return [key.name for batch in batches for key in batch.keys]

    def grant(self, *patterns: str, to: str | None = None, uses: int = 0, valid: int = 0) -> str:
        request = grants_pb2.AddGrantRequest(
            patterns=patterns, selector=to or f"uid:{os.geteuid()}", uses=uses, valid_seconds=valid
        )
        grant_id: str = self.grants.AddGrant(request).grant.id
        return grant_id

    def ungrant(self, grant_id: str) -> None:
        self.grants.RemoveGrant(grants_pb2.RemoveGrantRequest(id=grant_id))

    def all_grants(self) -> Grants:
        found = self.grants.ListGrants(grants_pb2.ListGrantsRequest(all=True)).grants
        return Grants(found)

    def get(self, *names: str, ttl: int = 0, wait: int = 0) -> leases_pb2.GetKeysResponse:
        request = leases_pb2.GetKeysRequest(names=names, ttl_seconds=ttl, wait_seconds=wait)
        response: leases_pb2.GetKeysResponse = self.leases.GetKeys(request)
        return response

    def pending(self) -> Pending:
        request = requests_pb2.ListRequestsRequest(all=True)
        return list(self.requests.ListRequests(request).requests)

    def approve(self, code: str, *, once: bool = False, root_pid: int = 0) -> None:
        self.requests.ApproveRequest(
            requests_pb2.ApproveRequestRequest(code=code, once=once, root_pid=root_pid)
        )

    def deny(self, code: str) -> None:
        self.requests.DenyRequest(requests_pb2.DenyRequestRequest(code=code))

    def set_policy(self, **rules: Any) -> None:
        """Set the policy, with what is not said as in a new vault."""
        usual = {
            "default": policy_pb2.POLICY_DEFAULT_ASK,
            "listing": policy_pb2.POLICY_LISTING_GRANTED,
            "max_ttl_seconds": 30 * 86400,
        }
        wanted = policy_pb2.PolicyRules(**{**usual, **rules})
        self.policy.SetPolicy(policy_pb2.SetPolicyRequest(policy=wanted))

    def value(self, name: str) -> bytes:
        return self.get(name).keys[0].value


class RunningDaemon:
    """A daemon process. Knows its own pid and stops nothing else.

    Attributes:
        starting: starts daemons that have no command of their own, see the fixture `quick_start`;
            None: each is executed.
    """

    starting: ClassVar[Starting | None] = None

    def __init__(
        self,
        home: Path,
        path: Path,
        *,
        command: list[str] | None = None,
        environ: dict[str, str] | None = None,
        preexec: Callable[[], None] | None = None,
    ) -> None:
        self.home = home
        self.socket = path
        self.log = home.parent / f"{home.name}.log"
        self.process: subprocess.Popen[bytes] | QuicklyStarted | None = None
        self._own = command is not None or preexec is not None
        self._command = command or [sys.executable, "-m", "backpackd"]
        self._environ = environ
        self._preexec = preexec
        self._clients: list[Client] = []

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start it and wait until it says that it is ready.

        Raises:
            AssertionError: it ended instead; holds what it logged.
        """
        with tempfile.TemporaryDirectory() as directory, self.log.open("ab") as log:
            ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            with ready:
                address = f"{directory}/ready"
                ready.bind(address)
                Path(directory).chmod(0o711)
                Path(address).chmod(0o777)
                ready.settimeout(0.05)
                environ = dict(os.environ) if self._environ is None else self._environ
                environ = {**environ, "NOTIFY_SOCKET": address}
                arguments = ["--home", str(self.home), "--socket", str(self.socket)]
                if self.starting is not None and not self._own:
                    self.process = self.starting.start(arguments, log=log, environ=environ)
                else:
                    self.process = subprocess.Popen(
                        [*self._command, *arguments],
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        env=environ,
                        # Nothing else runs in the test's process at this point.
                        preexec_fn=self._preexec,  # noqa: PLW1509
                    )
                self._await_ready(ready)

    def _await_ready(self, ready: socket.socket) -> None:
        assert self.process is not None
        for _ in range(int(READY_SECONDS / 0.05)):
            try:
                if b"READY=1" in ready.recv(4096):
                    return
            except TimeoutError:
                assert self.process.poll() is None, self.log_text()
        raise AssertionError(f"not ready in time: {self.log_text()}")

    def copied(self, place: Path) -> "RunningDaemon":
        """Return a daemon on a copy of the home and socket directory of this one, which is stopped.

        Making a vault is most of the work of a test that looks at a start. So the tests of a module
        share a vault that was made once, and each does what it likes to a copy.
        """
        assert self.process is None
        shutil.copytree(self.home, place / "home")
        shutil.copytree(self.socket.parent, place / "run")
        return RunningDaemon(place / "home", place / "run" / self.socket.name)

    def refused(self) -> str:
        """Start it where it must not start, and return what it says as it ends with status 1."""
        self.log.touch()
        before = len(self.log.read_bytes())
        with pytest.raises(AssertionError):
            self.start()
        assert self.process is not None
        assert self.process.wait() == 1
        self.process = None
        return self.log.read_bytes()[before:].decode()

    def client(self) -> Client:
        """Open a connection, closed with the daemon."""
        client = Client(self.socket)
        self._clients.append(client)
        return client

    def operator(self) -> Client:
        """Open a connection with operator authority, to a vault that is made or unlocked first."""
        client = self.client()
        state = client.status().state
        if state == vault_pb2.VAULT_STATE_UNINITIALIZED:
            client.init()
        elif state == vault_pb2.VAULT_STATE_LOCKED:
            client.unlock()
        client.authorize()
        return client

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def terminate(self) -> int:
        """Stop it in an orderly way and return its exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """Kill it where it stands."""
        return self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> int:
        for client in self._clients:
            client.close()
        self._clients.clear()
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(READY_SECONDS)
        self.process = None
        return status

    def close(self) -> None:
        """Stop it if it runs."""
        if self.process is not None:
            if self.process.poll() is None:
                self.terminate()
            else:
                self.process = None
        for client in self._clients:
            client.close()


def failure(call: Callable[[], object]) -> tuple[str, str]:
    """Return the status and the `backpack-reason` with which a call fails.

    Raises:
        AssertionError: it did not fail.
    """
    try:
        call()
    except grpc.RpcError as error:
        told: Any = error
        metadata = dict(told.trailing_metadata() or ())
        return told.code().name, str(metadata.get("backpack-reason", ""))
    raise AssertionError("the call did not fail")

"""A caller that asks and does not take the answer: after a lock it is too late."""

import socket
import sys
import time
from collections.abc import Callable

import pytest

from backpack_proto.v1 import leases_pb2, vault_pb2
from daemons import RunningDaemon
from flooding import START, begin, frame

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the door that is tested is Linux's"),
    pytest.mark.usefixtures("cheap_vault"),
]

VALUE = b"a value that is nobody's any more" * 30


def asked(daemon: RunningDaemon) -> socket.socket:
    """Ask for the key K with no window to answer into, and wait until the lease is there."""
    end = socket.socket(socket.AF_UNIX)
    end.connect(str(daemon.socket))
    end.settimeout(20)
    request = leases_pb2.GetKeysRequest(names=["K"]).SerializeToString()
    closed = frame(4, 0, 0, b"\0\4\0\0\0\0")
    body = frame(0, 1, 1, b"\0" + len(request).to_bytes(4, "big") + request)
    end.sendall(START + closed + begin(1, "/backpack.v1.Leases/GetKeys") + body)
    return end


def opened(end: socket.socket) -> bytes:
    """Open the window and read what comes, to the end of the connection or of the answer."""
    got = b""
    try:
        end.sendall(frame(8, 0, 1, (1 << 20).to_bytes(4, "big")))
        while not ended(got):
            data = end.recv(65536)
            if not data:
                break
            got += data
    except ConnectionError:
        pass
    return got


def ended(got: bytes) -> bool:
    """Tell whether frames end with the trailers of the answer."""
    while len(got) >= 9:
        kind, flags = got[3], got[4]
        if kind == 1 and flags & 1:
            return True
        got = got[9 + int.from_bytes(got[:3], "big") :]
    return False


def stocked(daemon: RunningDaemon) -> None:
    operator = daemon.operator()
    operator.put("K", VALUE)
    operator.grant("K")


def leased(daemon: RunningDaemon) -> None:
    """Wait until the key was handed out; not for ever, or the whole run of tests would end."""
    client = daemon.client()
    for _ in range(600):
        if client.leases.ListLeases(leases_pb2.ListLeasesRequest(), timeout=20).leases:
            return
        time.sleep(0.05)
    raise AssertionError(daemon.log_text())


def test_an_answer_that_waits_for_its_caller_is_there_while_the_vault_is_unlocked(
    daemon: RunningDaemon,
) -> None:
    stocked(daemon)
    with asked(daemon) as end:
        leased(daemon)
        assert VALUE in opened(end)


@pytest.mark.parametrize(
    "ending",
    [
        lambda client: client.lock(),
        lambda client: client.vault.Panic(vault_pb2.PanicRequest()),
    ],
    ids=["lock", "panic"],
)
def test_an_answer_that_waits_for_its_caller_is_dropped_with_a_lock(
    daemon: RunningDaemon, ending: Callable[..., object]
) -> None:
    stocked(daemon)
    with asked(daemon) as end:
        leased(daemon)
        ending(daemon.client())
        assert b"nobody's" not in opened(end)

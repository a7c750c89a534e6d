"""The daemon killed in the middle of a rotation: the old master key or the new, and every key."""

import random
import threading
import time
from contextlib import suppress

import grpc
import pytest

from backpack_proto.v1 import keys_pb2, slots_pb2, slots_pb2_grpc
from daemons import RunningDaemon

pytestmark = pytest.mark.usefixtures("cheap_vault", "quick_start")

KEYS = 1500
ROUNDS = 6


def test_a_rotation_that_is_killed_leaves_every_key_and_no_rest(
    daemon: RunningDaemon, chance: random.Random
) -> None:
    operator = daemon.operator()
    for start in range(0, KEYS, 500):
        keys = [
            keys_pb2.KeyValue(name=f"K{n}", value=b"value %d" % n)
            for n in range(start, start + 500)
        ]
        operator.keys.PutKeys(keys_pb2.PutKeysRequest(keys=keys))
    operator.grant("*")
    for _ in range(ROUNDS):
        stub = slots_pb2_grpc.SlotsStub(operator.channel)
        progress = stub.RotateMasterKey(slots_pb2.RotateMasterKeyRequest())
        begun = threading.Event()

        def follow(stream: object = progress, begun: threading.Event = begun) -> None:
            with suppress(grpc.RpcError):
                for _ in stream:  # type: ignore[attr-defined]
                    begun.set()

        follower = threading.Thread(target=follow)
        follower.start()
        assert begun.wait(30)
        # Anywhere in it: the moment is what the test is about, not a wait for something.
        time.sleep(chance.uniform(0, 0.4))
        daemon.kill()
        follower.join(30)
        daemon.start()
        operator = daemon.client()
        operator.unlock()
        operator.authorize()
        assert not (daemon.home / "vault.db.aside").exists()
        assert len(operator.list()) == KEYS
        for number in chance.sample(range(KEYS), 20):
            assert operator.value(f"K{number}") == b"value %d" % number

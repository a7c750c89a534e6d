"""Closing this process to the user's others, and which calls need it."""

import subprocess
import sys
from typing import Any

import pytest

from backpack_client.calls import leases, slots, vault
from backpack_client.calls.call import Call
from backpack_proto.v1 import slots_pb2, vault_pb2

TELLS = """
import resource
from backpack_client import process_protection as protecting
before = protecting.is_undumpable()
protecting.make_undumpable()
print(before, protecting.is_undumpable(), resource.getrlimit(resource.RLIMIT_CORE)[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_a_process_is_open_until_it_closes_itself_and_the_kernel_says_so() -> None:
    done = subprocess.run([sys.executable, "-c", TELLS], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "0"]


PASSPHRASES: list[Call[Any]] = [
    vault.init("a passphrase"),
    vault.unlock("a passphrase"),
    vault.authorize("a passphrase"),
    vault.change_passphrase("a passphrase", "another one"),
    slots.recover(b"code", b"another one"),
    slots.drill_recovery(b"code"),
]


@pytest.mark.parametrize("call", PASSPHRASES, ids=lambda call: call.method)
def test_a_call_that_proves_a_passphrase_goes_by_a_closed_connection(call: Call[Any]) -> None:
    assert call.passphrase


def test_all_methods_that_prove_a_passphrase_are_among_these() -> None:
    services = [
        vault_pb2.DESCRIPTOR.services_by_name["Vault"],
        slots_pb2.DESCRIPTOR.services_by_name["Slots"],
    ]
    proving = {"passphrase", "current", "code"}
    found = {
        f"/{method.containing_service.full_name}/{method.name}"
        for service in services
        for method in service.methods
        if proving & set(method.input_type.fields_by_name)
    }
    assert found == {call.method for call in PASSPHRASES}


def test_a_call_without_one_leaves_the_process_as_it_is() -> None:
    assert not vault.status().passphrase
    assert not leases.list_leases(every=True).passphrase

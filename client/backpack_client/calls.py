"""The calls for vault, keys and leases: requests built, answers read, errors turned into Failures.

Pure: nothing here has a channel, waits or keeps state. The blocking API and the asyncio one carry
these calls out, so neither repeats what the other does. No value and no passphrase ever comes into
a message or a repr here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, Protocol, TypeVar

from google.protobuf.message import Message

from backpack_client.durations import format_duration, parse_duration, parse_wait
from backpack_client.failures import (
    EXIT_FAILED,
    EXIT_WAITING,
    Failure,
    from_status,
    is_code,
    is_key_name,
    no_daemon,
    printable,
    usage,
)
from backpack_client.model import (
    Deleted,
    KeyEntry,
    LeaseInfo,
    Protection,
    Stored,
    VaultState,
    VaultStatus,
)
from backpack_proto.v1 import keys_pb2, leases_pb2, vault_pb2

Answer = TypeVar("Answer")


class RpcError(Protocol):
    """What is read of a grpc error; those of grpc and grpc.aio both have it."""

    def code(self) -> Any:
        """Give the status code; its `name` is the canonical one."""

    def details(self) -> str | None:
        """Give the status message."""

    def trailing_metadata(self) -> Any:
        """Give pairs of name and value."""


# How long to wait for an answer, in seconds; unlocking takes part of one, one at a time.
DEFAULT_TIMEOUT = 30.0
DEFAULT_TTL = "15m"
DEFAULT_WAIT = "60s"

PACKAGE = "/backpack.v1."
_FACT = "backpack-"
# uint32 in the messages.
LARGEST = 2**32 - 1
# What can be a process id: an int64 in the messages.
LARGEST_PID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Call(Generic[Answer]):
    """One call, ready to be carried out.

    A watch is a call that streams, whose `read` takes one response at a time.

    Attributes:
        method: its full name, such as `/backpack.v1.Vault/Status`.
        request: the message to send; never shown, since it may hold a passphrase or values.
        parse: makes a response message of bytes.
        read: turns the response into the answer; for a streaming call, the list of responses.
        streams: True when the daemon answers with a stream of responses.
        names: the key names that are asked for, which a refusal's hint repeats.
        wait: how long the daemon may let it wait for a person, in seconds.
    """

    method: str
    request: Message = field(repr=False)
    parse: Callable[[bytes], Message] = field(repr=False)
    read: Callable[[Any], Answer] = field(repr=False)
    streams: bool = False
    names: tuple[str, ...] = ()
    wait: int = 0


@dataclass(frozen=True, slots=True)
class Handout:
    """What GetKeys answers: a lease and its values, which no repr shows."""

    lease: LeaseInfo
    values: Mapping[str, bytes] = field(repr=False)


def status() -> Call[VaultStatus]:
    """Ask for the state of daemon and vault."""
    return Call(
        PACKAGE + "Vault/Status",
        vault_pb2.StatusRequest(),
        vault_pb2.StatusResponse.FromString,
        _read_status,
    )


def init(passphrase: str | bytes, *, recovery: bool = False) -> Call[str]:
    """Make a new vault; answers the recovery code."""
    return Call(
        PACKAGE + "Vault/Init",
        vault_pb2.InitRequest(passphrase=passphrase_bytes(passphrase), recovery=recovery),
        vault_pb2.InitResponse.FromString,
        lambda response: str(response.recovery_code),
    )


def unlock(passphrase: str | bytes) -> Call[None]:
    """Load the master key."""
    return Call(
        PACKAGE + "Vault/Unlock",
        vault_pb2.UnlockRequest(passphrase=passphrase_bytes(passphrase)),
        vault_pb2.UnlockResponse.FromString,
        _read_nothing,
    )


def lock() -> Call[int]:
    """Drop the master key; answers how many leases ended with it."""
    return Call(
        PACKAGE + "Vault/Lock",
        vault_pb2.LockRequest(),
        vault_pb2.LockResponse.FromString,
        lambda response: int(response.leases_ended),
    )


def authorize(passphrase: str | bytes) -> Call[datetime]:
    """Give the connection operator authority; answers until when."""
    return Call(
        PACKAGE + "Vault/Authorize",
        vault_pb2.AuthorizeRequest(passphrase=passphrase_bytes(passphrase)),
        vault_pb2.AuthorizeResponse.FromString,
        lambda response: moment(response.authorized_until_ms),
    )


def change_passphrase(current: str | bytes, replacement: str | bytes) -> Call[None]:
    """Replace the passphrase."""
    request = vault_pb2.ChangePassphraseRequest(
        current=passphrase_bytes(current), replacement=passphrase_bytes(replacement)
    )
    return Call(
        PACKAGE + "Vault/ChangePassphrase",
        request,
        vault_pb2.ChangePassphraseResponse.FromString,
        _read_nothing,
    )


def put_keys(
    keys: Mapping[str, str | bytes], *, replace: bool, dry_run: bool, skip_existing: bool
) -> Call[Stored]:
    """Store keys, all or none."""
    request = keys_pb2.PutKeysRequest(
        keys=[
            keys_pb2.KeyValue(name=name, value=_value_bytes(name, value))
            for name, value in zip(_key_names(keys), keys.values(), strict=True)
        ],
        replace=replace,
        dry_run=dry_run,
        skip_existing=skip_existing,
    )
    return Call(
        PACKAGE + "Keys/PutKeys",
        request,
        keys_pb2.PutKeysResponse.FromString,
        lambda response: Stored(response.created, response.replaced, tuple(response.skipped)),
    )


def delete_keys(names: Sequence[str]) -> Call[Deleted]:
    """Delete keys, all or none."""
    return Call(
        PACKAGE + "Keys/DeleteKeys",
        keys_pb2.DeleteKeysRequest(names=_key_names(names)),
        keys_pb2.DeleteKeysResponse.FromString,
        lambda response: Deleted(response.deleted, response.leases_ended),
    )


def list_keys(*, every: bool) -> Call[list[KeyEntry]]:
    """List keys without values."""
    return Call(
        PACKAGE + "Keys/ListKeys",
        keys_pb2.ListKeysRequest(all=every),
        keys_pb2.ListKeysResponse.FromString,
        _read_keys,
        streams=True,
    )


def get_keys(
    names: Sequence[str], *, ttl: str | int | None, reason: str, wait: str | int = DEFAULT_WAIT
) -> Call[Handout]:
    """Lease keys and get their values, all or none."""
    checked = _key_names(names)
    waiting = parse_wait(wait if isinstance(wait, str) else str(wait))
    return Call(
        PACKAGE + "Leases/GetKeys",
        leases_pb2.GetKeysRequest(
            names=checked,
            ttl_seconds=seconds(ttl),
            reason=text("reason", reason),
            wait_seconds=waiting,
        ),
        leases_pb2.GetKeysResponse.FromString,
        _read_handout,
        names=tuple(checked),
        wait=waiting,
    )


def renew_lease(lease_id: str) -> Call[LeaseInfo]:
    """Extend a lease for as long as it was issued for."""
    return Call(
        PACKAGE + "Leases/RenewLease",
        leases_pb2.RenewLeaseRequest(lease_id=lease_id),
        leases_pb2.RenewLeaseResponse.FromString,
        lambda response: lease_info(response.lease),
    )


def revoke_leases(
    *,
    lease_id: str | None = None,
    key: str | None = None,
    tree: int | None = None,
    every: bool = False,
) -> Call[int]:
    """End leases; answers how many, as far as the caller may know."""
    if (lease_id is not None) + (key is not None) + (tree is not None) + every != 1:
        raise usage(
            "which leases to revoke is not clear",
            hint="say exactly one of: a lease's id, a key, a process tree, all",
        )
    if lease_id is not None:
        request = leases_pb2.RevokeLeasesRequest(lease_id=text("lease id", lease_id))
    elif key is not None:
        request = leases_pb2.RevokeLeasesRequest(key=_key_names([key])[0])
    elif tree is not None:
        if not 0 < tree <= LARGEST_PID:
            raise usage("not a process id", hint="")
        request = leases_pb2.RevokeLeasesRequest(tree_pid=tree)
    else:
        request = leases_pb2.RevokeLeasesRequest(all=True)
    return Call(
        PACKAGE + "Leases/RevokeLeases",
        request,
        leases_pb2.RevokeLeasesResponse.FromString,
        lambda response: int(response.ended),
    )


def give_back(lease_id: str) -> Call[int]:
    """End a lease of the own tree that is done with; what it rested on stays."""
    return Call(
        PACKAGE + "Leases/RevokeLeases",
        leases_pb2.RevokeLeasesRequest(lease_id=lease_id, give_back=True),
        leases_pb2.RevokeLeasesResponse.FromString,
        lambda response: int(response.ended),
    )


def list_leases(*, every: bool) -> Call[list[LeaseInfo]]:
    """List live leases."""
    return Call(
        PACKAGE + "Leases/ListLeases",
        leases_pb2.ListLeasesRequest(all=every),
        leases_pb2.ListLeasesResponse.FromString,
        lambda response: [lease_info(lease) for lease in response.leases],
    )


def failure_of(error: RpcError, call: Call[Any], *, socket_path: str, timeout: float) -> Failure:
    """Turn the error that a call ended with into a Failure.

    Args:
        error: of grpc or grpc.aio.
        call: the call that failed.
        socket_path: the daemon's socket, for the message.
        timeout: how long the call was given, in seconds, for the message; the wait comes on top.
    """
    code: str = error.code().name
    facts = _facts(error.trailing_metadata() or ())
    reason = facts.get("backpack-reason", "")
    if not reason and code == "UNAVAILABLE":
        # grpc's own text names a target in its syntax and several reasons in a row.
        return no_daemon(socket_path, "the connection was lost")
    if not reason and code == "DEADLINE_EXCEEDED":
        return Failure(
            f"the daemon did not answer within {format_duration(timeout + call.wait)}",
            # A get that waits is what this exit code is for, on the fast path as well.
            exit_code=EXIT_WAITING if call.names else EXIT_FAILED,
            reason="no-answer",
            hint="see whether it answers at all: backpack-client status",
        )
    if not reason and code == "CANCELLED":
        return closed()
    if call.names:
        facts["backpack-names"] = " ".join(call.names)
    return from_status(code, reason, error.details() or "", facts)


def request_code(metadata: Iterable[Any]) -> str:
    """Read the code of the request that a call waits for, told ahead of its answer.

    Args:
        metadata: the initial metadata.

    Returns:
        The code; empty where there is none.
    """
    code = _facts(metadata or ()).get("backpack-request-code", "")
    return code if is_code(code) else ""


def closed() -> Failure:
    """Make the failure for a call on a Backpack that was closed."""
    return Failure("this Backpack is closed", reason="closed", hint="open a new one")


def seconds(duration: str | int | None) -> int:
    """Read a duration as the messages take it.

    Args:
        duration: seconds, or text such as "15m"; None asks for the daemon's default.

    Returns:
        Seconds; 0 for the default.

    Raises:
        Failure: a usage failure; it is not a duration, or out of bounds.
    """
    if duration is None:
        return 0
    return parse_duration(duration if isinstance(duration, str) else str(duration))


def passphrase_bytes(passphrase: str | bytes) -> bytes:
    """Write a passphrase as the messages take it: text as UTF-8.

    Raises:
        Failure: a usage failure; the text cannot be written as UTF-8. It is not shown.
    """
    if isinstance(passphrase, bytes):
        return passphrase
    try:
        return passphrase.encode()
    except UnicodeEncodeError:
        raise usage("the passphrase is not valid text", hint="") from None


def _key_names(names: Iterable[str]) -> list[str]:
    checked = list(names)
    if not checked:
        raise usage("no key name was given", hint="")
    for name in checked:
        if not is_key_name(name):
            raise usage(
                f"not a key name: {printable(name, 64)}",
                hint="a letter or _, then up to 127 letters, digits, _, . and -",
            )
    return checked


def _value_bytes(name: str, value: str | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise usage(
            f"the value of {name} is not valid text", hint="give its bytes instead"
        ) from None


def text(what: str, given: str) -> str:
    """Check text for a message.

    Raises:
        Failure: a usage failure; it cannot be written as UTF-8. It is not shown.
    """
    # Arguments of a process that are not UTF-8 come in as lone surrogates, which no message takes.
    try:
        given.encode()
    except UnicodeEncodeError:
        raise usage(f"the {what} is not valid UTF-8", hint="") from None
    return given


def _facts(metadata: Iterable[Any]) -> dict[str, str]:
    return {
        key: value for key, value in metadata if key.startswith(_FACT) and isinstance(value, str)
    }


def _read_nothing(_response: object) -> None:
    return None


def _read_status(response: vault_pb2.StatusResponse) -> VaultStatus:
    states = {
        vault_pb2.VAULT_STATE_UNINITIALIZED: VaultState.UNINITIALIZED,
        vault_pb2.VAULT_STATE_LOCKED: VaultState.LOCKED,
        vault_pb2.VAULT_STATE_UNLOCKED: VaultState.UNLOCKED,
    }
    return VaultStatus(
        state=states.get(response.state, VaultState.UNKNOWN),
        daemon_version=response.daemon_version,
        daemon_pid=response.daemon_pid,
        supervised=response.supervised,
        started_at=moment(response.started_at_ms),
        protections=tuple(
            Protection(protection.name, protection.on, protection.detail)
            for protection in response.protections
        ),
        leases_of_tree=response.leases_of_tree,
        tree_pid=response.tree_pid,
        authorized_until=moment_or_none(response.authorized_until_ms),
        slot_kinds=tuple(response.slot_kinds),
        recovery_drilled_at=moment_or_none(response.recovery_drilled_at_ms),
    )


def _read_keys(responses: Sequence[keys_pb2.ListKeysResponse]) -> list[KeyEntry]:
    return [
        KeyEntry(key.name, moment(key.created_at_ms), moment(key.updated_at_ms))
        for response in responses
        for key in response.keys
    ]


def _read_handout(response: leases_pb2.GetKeysResponse) -> Handout:
    return Handout(lease_info(response.lease), {key.name: key.value for key in response.keys})


def lease_info(lease: leases_pb2.Lease) -> LeaseInfo:
    """Read a lease."""
    return LeaseInfo(
        id=lease.id,
        names=tuple(lease.names),
        holder_pid=lease.holder_pid,
        grant_ids=tuple(lease.grant_ids),
        issued_at=moment(lease.issued_at_ms),
        expires_at=moment(lease.expires_at_ms),
        max_expires_at=moment(lease.max_expires_at_ms),
        remaining_seconds=lease.remaining_seconds,
    )


def moment(milliseconds: int) -> datetime:
    """Read a time of the messages."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def moment_or_none(milliseconds: int) -> datetime | None:
    """Read a time of the messages in which 0 stands for none."""
    return moment(milliseconds) if milliseconds else None

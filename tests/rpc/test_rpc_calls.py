"""What every call goes through: the guard, the request's form, the errors' way out."""

import asyncio
import importlib
import logging
import pkgutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

import backpack_proto.v1
from backpack_proto.v1 import keys_pb2, leases_pb2, vault_pb2
from backpackd.core import errors
from backpackd.core.errors import BackpackError, DeniedError, LimitError
from backpackd.core.states import State
from backpackd.ports import Connection
from backpackd.rpc import calls
from backpackd.rpc.calls import MOST_WATCHES, WHILE_LOCKED, WITH_VALUES, Calls
from fakes import GOOD_MARK
from served import serving, stranger, told

VAULT = vault_pb2.DESCRIPTOR.services_by_name["Vault"]
LEASES = leases_pb2.DESCRIPTOR.services_by_name["Leases"]
KEYS = keys_pb2.DESCRIPTOR.services_by_name["Keys"]
STATUS = "backpack.v1.Vault/Status"
LIST = "backpack.v1.Keys/ListKeys"
TELLTALE = "telltale-of-a-value"


def services() -> Iterator[ServiceDescriptor]:
    """Yield every service of every proto file there is, served or not."""
    for module in pkgutil.iter_modules(backpack_proto.v1.__path__):
        if module.name.endswith("_pb2"):
            loaded = importlib.import_module(f"backpack_proto.v1.{module.name}")
            yield from loaded.DESCRIPTOR.services_by_name.values()


# Said here once more, so that nobody opens another one without noticing.
OPEN = {
    *(f"backpack.v1.Vault/{name}" for name in ("Status", "Init", "Unlock", "Lock", "Panic")),
    "backpack.v1.Slots/Recover",
    "backpack.v1.Slots/DrillRecovery",
    "backpack.v1.Audit/VerifyAudit",
    "backpack.v1.Audit/GetAuditHead",
}
METHODS = [method for service in services() for method in service.methods]


class Answering:
    """Serves a service whose methods all do the same."""

    def __init__(self, descriptor: ServiceDescriptor, outcome: BaseException | None = None) -> None:
        self.descriptor = descriptor
        self.outcome = outcome
        self.connections: list[tuple[Connection, int]] = []
        self._streams = {_snake(m.name) for m in descriptor.methods if m.server_streaming}
        self._collecting = {_snake(m.name) for m in descriptor.methods if m.client_streaming}
        self._answers = {_snake(m.name): GetMessageClass(m.output_type) for m in descriptor.methods}

    def __getattr__(self, name: str) -> Any:
        if name not in self._answers:
            raise AttributeError(name)
        answer = self._answers[name]()

        async def unary(connection: Connection, request: Any) -> Any:
            if name in self._collecting:
                async for _ in request:
                    pass
            self._answer(connection)
            return answer

        async def stream(connection: Connection, _: object) -> AsyncIterator[Any]:
            yield answer
            self._answer(connection)

        return stream if name in self._streams else unary

    def _answer(self, connection: Connection) -> None:
        self.connections.append((connection, connection.calls))
        if self.outcome is not None:
            raise self.outcome


class Waiting(Answering):
    """Serves a service whose streams answer once and then stay open."""

    def __getattr__(self, name: str) -> Any:
        super().__getattr__(name)
        answer = self._answers[name]()

        async def stream(_: Connection, __: object) -> AsyncIterator[Any]:
            yield answer
            await asyncio.Event().wait()

        return stream


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)[1:]


def kinds(root: type[BackpackError] = BackpackError) -> Iterator[type[BackpackError]]:
    """Yield every error that a caller may be told, of which some are only families."""
    if hasattr(root, "status"):
        yield root
    for kind in root.__subclasses__():
        yield from kinds(kind)


async def failing(call: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        await call
    return caught.value


async def drained(stream: Any) -> list[bytes]:
    return [message async for message in stream]


@pytest.mark.parametrize("kind", dict.fromkeys(kinds()))
async def test_an_error_has_its_status_reason_and_message(
    tmp_path: Path, kind: type[BackpackError]
) -> None:
    async with serving(tmp_path, Answering(VAULT, kind("what failed and what to do"))) as served:
        error: Any = await failing(served.unary(STATUS))
    assert told(error) == (kind.status.value, kind.reason)
    assert error.details() == "what failed and what to do"


def test_every_status_is_one_of_grpcs() -> None:
    assert {status.value for status in errors.Status} <= set(grpc.StatusCode.__members__)


async def test_an_error_says_when_to_try_again_and_what_it_knows(tmp_path: Path) -> None:
    error = LimitError("busy", reason="so-it-is", retry_after=1.5, facts={"tree-pid": "5"})
    async with serving(tmp_path, Answering(VAULT, error)) as served:
        found: Any = await failing(served.unary(STATUS))
    metadata = dict(found.trailing_metadata())
    assert metadata["backpack-reason"] == "so-it-is"
    assert metadata["backpack-retry-after-ms"] == "1500"
    assert metadata["backpack-tree-pid"] == "5"


@pytest.mark.parametrize("method", [STATUS, LIST])
async def test_an_unexpected_exception_is_told_as_an_incident_without_its_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    caplog.set_level(logging.DEBUG)
    broken = (Answering(d, ValueError(TELLTALE)) for d in (VAULT, KEYS))
    async with serving(tmp_path, *broken) as served:
        if method == STATUS:
            found: Any = await failing(served.unary(method))
        else:
            found = await failing(drained(served.stream(method)))
    assert told(found) == ("INTERNAL", "internal")
    incident = dict(found.trailing_metadata())["backpack-incident"]
    assert TELLTALE not in f"{found.details()} {found.trailing_metadata()}"
    assert incident in found.details()
    assert f"incident {incident}: ValueError" in caplog.text
    assert TELLTALE not in caplog.text


async def test_an_error_in_the_middle_of_a_stream_ends_it_with_its_status(tmp_path: Path) -> None:
    async with serving(tmp_path, Answering(KEYS, DeniedError("no"))) as served:
        stream = served.stream(LIST)
        assert await stream.read() == b""
        found = await failing(stream.read())
    assert told(found) == ("PERMISSION_DENIED", "no-grant")


async def test_a_call_that_came_in_by_no_door_is_refused(tmp_path: Path) -> None:
    answering = Answering(VAULT)
    async with serving(tmp_path, answering) as served:
        served.connection = None
        assert told(await failing(served.unary(STATUS))) == ("UNAUTHENTICATED", "peer-unknown")
    assert answering.connections == []


async def test_a_daemon_that_stops_takes_no_new_calls(tmp_path: Path) -> None:
    answering = Answering(VAULT)
    async with serving(tmp_path, answering) as served:
        served.calls.close()
        assert told(await failing(served.unary(STATUS))) == ("UNAVAILABLE", "shutting-down")
    assert answering.connections == []


@pytest.mark.parametrize("outcome", [None, DeniedError("no"), ValueError("broken")])
async def test_calls_under_way_are_counted_for_their_connection(
    tmp_path: Path, outcome: BaseException | None
) -> None:
    answering = Answering(VAULT, outcome)
    async with serving(tmp_path, answering) as served:
        await asyncio.gather(served.unary(STATUS), return_exceptions=True)
        assert answering.connections == [(served.connection, 1)]
        assert served.connection is not None
        assert served.connection.calls == 0
        assert served.connection.served


def _path(method: MethodDescriptor) -> str:
    return f"{method.containing_service.full_name}/{method.name}"


@pytest.mark.parametrize("state", [State.LOCKED, State.UNINITIALIZED])
@pytest.mark.parametrize("method", METHODS, ids=_path)
async def test_only_so_many_methods_answer_without_an_unlocked_vault(
    tmp_path: Path, method: MethodDescriptor, state: State
) -> None:
    answering = Answering(method.containing_service)
    async with serving(tmp_path, answering) as served:
        served.state = state
        if method.server_streaming:
            call: Any = drained(served.stream(_path(method)))
        else:
            call = served.unary(_path(method))
        if _path(method) in OPEN:
            await call
            assert len(answering.connections) == 1
        else:
            assert told(await failing(call)) == ("FAILED_PRECONDITION", state.value)
            assert answering.connections == []


def test_what_answers_while_locked_exists() -> None:
    assert {method.full_name for method in METHODS} >= WHILE_LOCKED


async def test_a_closed_method_does_not_even_read_its_request(tmp_path: Path) -> None:
    async with serving(tmp_path, Answering(KEYS)) as served:
        served.state = State.LOCKED
        found = await failing(served.unary("backpack.v1.Keys/PutKeys", b"\xff garbage"))
    assert told(found) == ("FAILED_PRECONDITION", "locked")


@pytest.mark.parametrize("method", METHODS, ids=_path)
async def test_a_malformed_request_is_an_error_of_the_caller(
    tmp_path: Path, method: MethodDescriptor
) -> None:
    answering = Answering(method.containing_service)
    async with serving(tmp_path, answering) as served:
        call = served.stream if method.server_streaming else served.unary
        answer: Any = call(_path(method), b"\xff" + TELLTALE.encode())
        found: Any = await failing(drained(answer) if method.server_streaming else answer)
    assert told(found) == ("INVALID_ARGUMENT", "malformed-request")
    assert TELLTALE not in found.details()
    assert answering.connections == []


async def test_a_name_that_is_not_utf_8_is_malformed(tmp_path: Path) -> None:
    async with serving(tmp_path, Answering(KEYS)) as served:
        # PutKeysRequest{keys: {name: FF}}
        found = await failing(served.unary("backpack.v1.Keys/PutKeys", b"\x0a\x03\x0a\x01\xff"))
    assert told(found) == ("INVALID_ARGUMENT", "malformed-request")


async def test_an_unknown_method_is_unimplemented(tmp_path: Path) -> None:
    async with serving(tmp_path, Answering(VAULT)) as served:
        assert told(await failing(served.unary("backpack.v1.Vault/Nothing")))[0] == "UNIMPLEMENTED"


def test_a_service_that_lacks_a_method_cannot_be_served() -> None:
    class Empty:
        descriptor = VAULT

    guard = Calls(lambda _: None, lambda: State.UNLOCKED)
    with pytest.raises(AttributeError):
        guard.handler(Empty())


@pytest.mark.parametrize(
    "marks",
    [(), ("",), (GOOD_MARK[:-1],), (GOOD_MARK, GOOD_MARK), (GOOD_MARK, "guess"), ("guess",)],
)
@pytest.mark.parametrize("method", [STATUS, LIST])
async def test_a_call_without_the_doors_one_mark_is_nobodys(
    tmp_path: Path, marks: tuple[str, ...], method: str
) -> None:
    answering = [Answering(VAULT), Answering(KEYS)]
    async with serving(tmp_path, *answering) as served:
        served.channel.marks = marks
        if method == STATUS:
            found: Any = await failing(served.unary(method))
        else:
            found = await failing(drained(served.stream(method)))
    assert told(found) == ("UNAUTHENTICATED", "peer-unknown")
    assert [one.connections for one in answering] == [[], []]


async def test_a_connections_mark_is_not_in_its_text() -> None:
    assert GOOD_MARK not in repr(stranger())


@pytest.mark.parametrize("method", METHODS, ids=_path)
async def test_a_call_of_a_process_that_runs_as_another_user_by_now_is_refused(
    tmp_path: Path, method: MethodDescriptor
) -> None:
    answering = Answering(method.containing_service)
    async with serving(tmp_path, answering) as served:
        assert served.connection is not None
        served.connection.peer.uid += 1
        call = served.stream if method.server_streaming else served.unary
        answer: Any = call(_path(method))
        found: Any = await failing(drained(answer) if method.server_streaming else answer)
    assert told(found) == ("UNAUTHENTICATED", "user-changed")
    assert answering.connections == []


@pytest.mark.parametrize("cause", ["locked", "malformed", "stopping", "another user"])
@pytest.mark.parametrize("method", METHODS, ids=_path)
async def test_a_refused_request_is_rinsed_where_it_may_carry_a_passphrase_or_values(
    tmp_path: Path, method: MethodDescriptor, cause: str
) -> None:
    rinsed: list[int] = []
    async with serving(tmp_path, Answering(method.containing_service)) as served:
        assert served.connection is not None
        served.connection.rinse = lambda: rinsed.append(1)
        if cause == "locked":
            served.state = State.LOCKED
        elif cause == "stopping":
            served.calls.close()
        elif cause == "another user":
            served.connection.peer.uid += 1
        call = served.stream if method.server_streaming else served.unary
        answer: Any = call(_path(method), b"" if cause == "stopping" else b"\xff")
        await failing(drained(answer) if method.server_streaming else answer)
    any_method = cause in {"stopping", "another user"}
    assert rinsed == [1] * (any_method or method.full_name in WITH_VALUES)


def test_the_methods_that_carry_a_passphrase_or_values_are_all_there() -> None:
    kinds = {m.full_name: m.input_type for m in METHODS}
    telling = {"passphrase", "current", "replacement", "value", "keys", "secret", "code", "terms"}
    telling |= {"credentials", "put_credentials", "legacy"}
    found = {n for n, kind in kinds.items() if telling & set(kind.fields_by_name)}
    # Here a code is the name of a question, and nothing to hide.
    assert found - {"backpack.v1.Requests.ApproveRequest", "backpack.v1.Requests.DenyRequest"} == (
        WITH_VALUES
    )


@pytest.mark.parametrize("method", [LIST, "backpack.v1.Leases/WatchLeases"])
async def test_watches_of_a_tree_are_limited_and_count_until_they_end(
    tmp_path: Path, method: str
) -> None:
    waiting = Waiting(KEYS if method == LIST else LEASES)
    async with serving(tmp_path, waiting) as served:
        open_ = [served.stream(method) for _ in range(MOST_WATCHES)]
        for call in open_:
            await call.read()
        more = served.stream(method)
        if method == LIST:
            assert await more.read() == b""
        else:
            assert told(await failing(more.read())) == ("RESOURCE_EXHAUSTED", "limit")
            assert served.connection is not None
            assert served.calls._standing[served.connection.tree] == MOST_WATCHES
        for call in (*open_, more):
            call.cancel()
        while served.calls._open:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)
        assert not served.calls._standing


@pytest.mark.parametrize("method", ["backpack.v1.Keys/PutKeys", LIST])
async def test_an_answer_that_was_sent_closes_nothing_and_is_forgotten(
    tmp_path: Path, method: str
) -> None:
    async with serving(tmp_path, Answering(KEYS)) as served:
        assert served.connection is not None
        closed: list[int] = []
        served.connection.close = lambda: closed.append(1)
        await (drained(served.stream(method)) if method == LIST else served.unary(method))
        while served.calls.unsent._answers:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)
        served.calls.unsent.cut_off()
        assert closed == []


async def test_an_answer_that_is_not_sent_in_time_closes_its_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calls, "PATIENCE_SECONDS", 0.01)
    unsent, connection, closed = calls.Unsent(), stranger(), asyncio.Event()
    connection.close = closed.set
    unsent.drop(unsent.add(stranger()))
    unsent.add(connection)
    await closed.wait()
    assert not unsent._answers

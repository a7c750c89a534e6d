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
from backpackd.core.vault.states import State
from backpackd.ports import Call
from backpackd.rpc.calls import MOST_OPEN, served_methods
from backpackd.rpc.methods import METHODS as RULES
from backpackd.rpc.methods import Caller, Rules
from backpackd.rpc.sizes import size_of
from served import TREE, serving, told

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
        self.calls: list[Call] = []
        self._streams = {_snake(m.name) for m in descriptor.methods if m.server_streaming}
        self._collecting = {_snake(m.name) for m in descriptor.methods if m.client_streaming}
        self._answers = {_snake(m.name): GetMessageClass(m.output_type) for m in descriptor.methods}

    def __getattr__(self, name: str) -> Any:
        if name not in self._answers:
            raise AttributeError(name)
        answer = self._answers[name]()

        async def unary(call: Call, request: Any) -> Any:
            if name in self._collecting:
                async for _ in request:
                    pass
            self._answer(call)
            return answer

        async def stream(call: Call, _: object) -> AsyncIterator[Any]:
            yield answer
            self._answer(call)

        return stream if name in self._streams else unary

    def _answer(self, call: Call) -> None:
        self.calls.append(call)
        if self.outcome is not None:
            raise self.outcome


class Waiting(Answering):
    """Serves a service whose streams answer once and then stay open."""

    def __getattr__(self, name: str) -> Any:
        super().__getattr__(name)
        answer = self._answers[name]()

        async def stream(_: Call, __: object) -> AsyncIterator[Any]:
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


def _path(method: MethodDescriptor) -> str:
    return f"{method.containing_service.full_name}/{method.name}"


@pytest.mark.parametrize("state", [State.LOCKED, State.UNINITIALIZED])
@pytest.mark.parametrize("method", METHODS, ids=_path)
async def test_only_so_many_methods_answer_without_an_unlocked_vault(
    tmp_path: Path, method: MethodDescriptor, state: State
) -> None:
    answering = Answering(method.containing_service)
    async with serving(tmp_path, answering) as served:
        served.around.state = state
        if method.server_streaming:
            call: Any = drained(served.stream(_path(method)))
        else:
            call = served.unary(_path(method))
        if _path(method) in OPEN:
            await call
            assert len(answering.calls) == 1
        else:
            assert told(await failing(call)) == ("FAILED_PRECONDITION", state.value)
            assert answering.calls == []


async def test_a_closed_method_does_not_even_read_its_request(tmp_path: Path) -> None:
    async with serving(tmp_path, Answering(KEYS)) as served:
        served.around.state = State.LOCKED
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
    assert answering.calls == []


async def test_a_name_that_is_not_utf_8_is_malformed(tmp_path: Path) -> None:
    async with serving(tmp_path, Answering(KEYS)) as served:
        # PutKeysRequest{keys: {name: FF}}
        found = await failing(served.unary("backpack.v1.Keys/PutKeys", b"\x0a\x03\x0a\x01\xff"))
    assert told(found) == ("INVALID_ARGUMENT", "malformed-request")


async def test_an_unknown_method_is_unimplemented(tmp_path: Path) -> None:
    async with serving(tmp_path, Answering(VAULT)) as served:
        assert told(await failing(served.unary("backpack.v1.Vault/Nothing")))[0] == "UNIMPLEMENTED"


@pytest.mark.parametrize("method", METHODS, ids=_path)
async def test_a_method_of_the_operators_is_closed_without_authority_and_reads_nothing(
    tmp_path: Path, method: MethodDescriptor
) -> None:
    answering = Answering(method.containing_service)
    rules = RULES[method.full_name]
    async with serving(tmp_path, answering) as served:
        served.around.authorized = False
        for_all = rules.caller is Caller.OPERATOR_FOR_ALL
        request = GetMessageClass(method.input_type)(all=True) if for_all else None
        raw = request.SerializeToString() if request else b"\xff garbage"
        call = served.stream if method.server_streaming else served.unary
        answer: Any = call(_path(method), raw)
        found = told(await failing(drained(answer) if method.server_streaming else answer))
    if rules.caller is Caller.ANYONE:
        assert found == ("INVALID_ARGUMENT", "malformed-request")
    else:
        assert found == ("UNAUTHENTICATED", "not-authorized")
    assert answering.calls == []


@pytest.mark.parametrize("method", METHODS, ids=_path)
async def test_uses_and_reviews_are_noted_after_calls_that_succeed_and_no_others(
    tmp_path: Path, method: MethodDescriptor
) -> None:
    rules = RULES[method.full_name]
    due = ["use"] * rules.use + ["review"] * rules.review
    call: Any
    for outcome in (None, DeniedError("no")):
        answering = Answering(method.containing_service, outcome)
        async with serving(tmp_path / str(outcome is None), answering) as served:
            if method.server_streaming:
                call = drained(served.stream(_path(method)))
            else:
                call = served.unary(_path(method))
            await asyncio.gather(call, return_exceptions=True)
            # A stream counts from its first message on.
            expected = due if outcome is None or method.server_streaming else []
            assert served.around.noted == expected


STREAMS = [m for m in METHODS if m.server_streaming and RULES[m.full_name].caller != Caller.ANYONE]


@pytest.mark.parametrize(
    "method", [m for m in STREAMS if not RULES[m.full_name].stays_open], ids=_path
)
@pytest.mark.parametrize("answers", [0, 1])
async def test_a_stream_ends_with_the_authority_that_it_needs(
    tmp_path: Path, method: MethodDescriptor, answers: int
) -> None:
    class Long(Answering):
        def __getattr__(self, name: str) -> Any:
            super().__getattr__(name)
            answer = self._answers[name]()

            async def stream(_: Call, __: object) -> AsyncIterator[Any]:
                for _each in range(answers):
                    yield answer
                served.around.authorized = False
                yield answer

            return stream

    request = GetMessageClass(method.input_type)()
    if RULES[method.full_name].caller is Caller.OPERATOR_FOR_ALL:
        request = GetMessageClass(method.input_type)(all=True)
    async with serving(tmp_path, Long(method.containing_service)) as served:
        answer = served.stream(_path(method), request.SerializeToString())
        for _ in range(answers):
            assert await answer.read() is not None
        noted = list(served.around.noted)
        with pytest.raises(grpc.RpcError) as caught:
            await answer.read()
        # What was refused is no use.
        assert served.around.noted == noted
    assert told(caught.value) == ("UNAUTHENTICATED", "not-authorized")


async def test_a_stream_without_a_message_is_no_use(tmp_path: Path) -> None:
    class Empty(Answering):
        def __getattr__(self, name: str) -> Any:
            super().__getattr__(name)

            async def stream(_: Call, __: object) -> AsyncIterator[Any]:
                nothing: tuple[Any, ...] = ()
                for each in nothing:
                    yield each

            return stream

    async with serving(tmp_path, Empty(KEYS)) as served:
        assert await drained(served.stream(LIST)) == []
        assert served.around.noted == []


def test_every_method_has_its_rules_and_every_row_its_method() -> None:
    ours = {method.full_name for method in METHODS}
    standard = {name for name in RULES if name.startswith("grpc.")}
    assert RULES.keys() - standard == ours
    assert len(standard) == 4


def test_a_method_without_rules_cannot_be_served() -> None:
    guard: Any = None
    few = {name: rules for name, rules in RULES.items() if not name.endswith("Status")}
    with pytest.raises(KeyError, match="Status"):
        served_methods(guard, [Answering(VAULT)], few)


def test_a_service_that_lacks_a_method_cannot_be_served() -> None:
    class Empty:
        descriptor = VAULT

    guard: Any = None
    with pytest.raises(AttributeError):
        served_methods(guard, [Empty()])


@pytest.mark.parametrize("method", METHODS, ids=_path)
async def test_a_call_of_a_process_that_runs_as_another_user_by_now_is_refused(
    tmp_path: Path, method: MethodDescriptor
) -> None:
    answering = Answering(method.containing_service)
    async with serving(tmp_path, answering) as served:
        await served.unary("grpc.health.v1.Health/Check")
        (connection,) = served.door.connections()
        connection.peer.uid += 1
        call = served.stream if method.server_streaming else served.unary
        answer: Any = call(_path(method))
        found: Any = await failing(drained(answer) if method.server_streaming else answer)
    assert told(found) == ("UNAUTHENTICATED", "user-changed")
    assert answering.calls == []


@pytest.mark.parametrize("method", METHODS, ids=_path)
async def test_a_request_longer_than_its_method_takes_is_refused_before_it_is_parsed(
    tmp_path: Path, method: MethodDescriptor
) -> None:
    answering = Answering(method.containing_service)
    longest = size_of(method.input_type).bytes
    async with serving(tmp_path, answering) as served:
        served.door._shared.authorized = lambda _: True
        call = served.stream if method.server_streaming else served.unary
        for size, expected in ((longest + 1, "request-too-large"), (longest, "malformed-request")):
            answer: Any = call(_path(method), b"\xff" * size)
            error = await failing(drained(answer) if method.server_streaming else answer)
            assert told(error)[1] == expected
    assert answering.calls == []


def test_the_methods_that_carry_secrets_say_so() -> None:
    kinds = {m.full_name: m.input_type for m in METHODS}
    telling = {"passphrase", "current", "replacement", "value", "keys", "secret", "code", "terms"}
    telling |= {"credentials", "put_credentials", "legacy"}
    found = {n for n, kind in kinds.items() if telling & set(kind.fields_by_name)}
    # Here a code is the name of a question, and nothing to hide.
    found -= {"backpack.v1.Requests.ApproveRequest", "backpack.v1.Requests.DenyRequest"}
    assert found == {name for name, rules in RULES.items() if rules.secret}


def test_only_methods_whose_requests_say_all_are_for_all() -> None:
    with_all = {m.full_name for m in METHODS if "all" in m.input_type.fields_by_name}
    for_all = {name for name, rules in RULES.items() if rules.caller is Caller.OPERATOR_FOR_ALL}
    # `all` says there which leases end, and safe directions are open.
    assert with_all - for_all == {"backpack.v1.Leases.RevokeLeases"}
    assert for_all <= with_all


def test_rules_are_closed_unless_they_say_otherwise() -> None:
    assert Rules() == Rules(Caller.ANYONE, locked=False, use=False, review=False)


async def test_open_calls_of_a_tree_are_limited_and_count_until_they_end(tmp_path: Path) -> None:
    method = "backpack.v1.Leases/WatchLeases"
    async with serving(tmp_path, Waiting(LEASES)) as served:
        open_ = [served.stream(method) for _ in range(MOST_OPEN)]
        for call in open_:
            await call.read()
        more = served.stream(method)
        assert told(await failing(more.read())) == ("RESOURCE_EXHAUSTED", "limit")
        assert served.guard._open[TREE] == MOST_OPEN
        for call in (*open_, more):
            call.cancel()
        while served.guard._open:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.001)

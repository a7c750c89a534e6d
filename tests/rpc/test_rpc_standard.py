"""The standard health and reflection services, as any tool uses them."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from backpackd.core.vault.states import State
from daemons import RunningDaemon, failure
from served import Served, serving, told

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
NAMES = {
    f"backpack.v1.{name}" for name in ("Vault", "Keys", "Leases", "Grants", "Requests", "Policy")
}


def watch(served: Served, service: str = "") -> Any:
    stub: Any = health_pb2_grpc.HealthStub(served.channel)
    return stub.Watch(health_pb2.HealthCheckRequest(service=service))


def reflect(served: Served) -> Any:
    channel: Any = served.channel
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    return stub.ServerReflectionInfo()


async def ended(stream: Any) -> str:
    """Read a stream to its end and return the reason with which it failed."""
    try:
        while await stream.read() is not grpc.aio.EOF:
            continue
    except grpc.RpcError as error:
        return told(error)[1]
    raise AssertionError("the stream did not fail")


def test_a_real_daemon_is_healthy_without_a_vault(daemon: RunningDaemon) -> None:
    stub: Any = health_pb2_grpc.HealthStub(daemon.client().channel)
    for service in ("", *NAMES):
        assert stub.Check(health_pb2.HealthCheckRequest(service=service)).status == SERVING
    request = health_pb2.HealthCheckRequest(service="nothing")
    assert failure(lambda: stub.Check(request))[0] == "NOT_FOUND"


def test_a_real_daemon_describes_its_api(daemon: RunningDaemon) -> None:
    database: Any = ProtoReflectionDescriptorDatabase(daemon.client().channel)
    assert set(database.get_services()) >= NAMES | {"grpc.health.v1.Health"}
    service = DescriptorPool(database).FindServiceByName("backpack.v1.Vault")
    assert "Unlock" in service.methods_by_name


def test_a_real_daemon_stops_under_its_watchers(daemon: RunningDaemon) -> None:
    stub: Any = health_pb2_grpc.HealthStub(daemon.client().channel)
    watching = stub.Watch(health_pb2.HealthCheckRequest())
    assert next(watching).status == SERVING
    assert daemon.terminate() == 0


def test_a_request_that_is_too_long_is_refused(daemon: RunningDaemon) -> None:
    operator = daemon.operator()
    operator.put("K", b"v")
    found = failure(lambda: operator.put("L", bytes(9 * 1024 * 1024)))
    assert found[0] == "RESOURCE_EXHAUSTED"
    assert operator.list() == ["K"]


async def test_a_watcher_is_told_that_the_daemon_stops_and_does_not_hold_it_up(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as served:
        watching = watch(served)
        assert (await watching.read()).status == SERVING
        draining = asyncio.ensure_future(served.door.drain(3600))
        assert (await watching.read()).status == NOT_SERVING
        assert await ended(watching) == "shutting-down"
        await draining


async def test_a_tool_that_reflects_does_not_hold_up_the_daemon(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        reflecting = reflect(served)
        await reflecting.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        assert (await reflecting.read()).HasField("list_services_response")
        draining = asyncio.ensure_future(served.door.drain(3600))
        assert await ended(reflecting) == "shutting-down"
        await draining


async def test_a_tool_that_is_done_reflecting_ends_in_peace(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        reflecting = reflect(served)
        await reflecting.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        await reflecting.done_writing()
        assert len([response async for response in reflecting]) == 1
        assert await reflecting.code() is grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("symbol", "file"),
    [
        ("grpc.health.v1.Health", "grpc/health/v1/health.proto"),
        ("grpc.health.v1.Health.Check", "grpc/health/v1/health.proto"),
        (
            "grpc.reflection.v1.ServerReflection.ServerReflectionInfo",
            "grpc/reflection/v1/reflection.proto",
        ),
        ("grpc.health.v1.HealthCheckResponse.ServingStatus", "grpc/health/v1/health.proto"),
        ("grpc.health.v1.HealthCheckRequest.service", "grpc/health/v1/health.proto"),
        ("grpc.health.v1.Health.Nothing", None),
        ("nothing.Check", None),
        (".", None),
        ("", None),
    ],
)
async def test_a_file_is_found_by_any_name_in_it(
    tmp_path: Path, symbol: str, file: str | None
) -> None:
    async with serving(tmp_path) as served:
        reflecting = reflect(served)
        request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)
        await reflecting.write(request)
        response = await reflecting.read()
        reflecting.cancel()
    if file is None:
        assert response.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    else:
        (first,) = response.file_descriptor_response.file_descriptor_proto
        assert FileDescriptorProto.FromString(first).name == file


@pytest.mark.parametrize(
    ("kind", "found"),
    [("grpc.health.v1.HealthCheckRequest", True), ("grpc.health.v1.Health", False), ("no", False)],
)
async def test_a_message_has_no_extensions_and_what_is_no_message_is_not_found(
    tmp_path: Path, kind: str, found: bool
) -> None:
    async with serving(tmp_path) as served:
        reflecting = reflect(served)
        request = reflection_pb2.ServerReflectionRequest(all_extension_numbers_of_type=kind)
        await reflecting.write(request)
        response = await reflecting.read()
        reflecting.cancel()
    assert response.HasField("all_extension_numbers_response") == found
    assert response.all_extension_numbers_response.base_type_name == (kind if found else "")
    assert not response.all_extension_numbers_response.extension_number


async def test_an_unknown_service_is_watched_as_unknown(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        watching = watch(served, "nothing")
        assert (await watching.read()).status == UNKNOWN
        watching.cancel()


async def test_health_answers_while_the_vault_is_locked(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        served.around.state = State.LOCKED
        stub: Any = health_pb2_grpc.HealthStub(served.channel)
        assert (await stub.Check(health_pb2.HealthCheckRequest())).status == SERVING


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("unary_unary", "grpc.health.v1.Health/Check"),
        ("unary_stream", "grpc.health.v1.Health/Watch"),
        ("stream_stream", "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
    ],
)
async def test_a_malformed_request_is_an_error_of_the_caller_here_as_well(
    tmp_path: Path, kind: str, method: str
) -> None:
    async with serving(tmp_path) as served:
        make = getattr(served.channel, kind)(f"/{method}")
        call: Any = make() if kind == "stream_stream" else make(b"\xff telltale")
        if kind == "stream_stream":
            await call.write(b"\xff telltale")
        with pytest.raises(grpc.RpcError) as caught:
            await (call if kind == "unary_unary" else call.read())
        found: Any = caught.value
    assert told(found) == ("INVALID_ARGUMENT", "malformed-request")
    assert "telltale" not in found.details()


async def test_what_the_health_service_does_not_have_is_unimplemented(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        with pytest.raises(grpc.RpcError) as caught:
            await served.unary("grpc.health.v1.Health/List")
        assert told(caught.value)[0] == "UNIMPLEMENTED"

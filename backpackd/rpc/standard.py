"""gRPC's health and reflection services, which every gRPC tool knows.

Their messages have our own package names (see proto/backpack_proto/standard). Tools see the
services under the standard names, by which they call them.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence

from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from backpack_proto.standard import health_pb2, reflection_pb2
from backpackd.core.errors import ServiceUnknownError
from backpackd.ports import Call
from backpackd.rpc.calls import Service, service_name

HEALTH = "grpc.health.v1.Health"
REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
_NOT_FOUND = 5
"""The canonical status code, inside a reflection response."""


class HealthService:
    """Reports whether the daemon serves, not whether the vault is unlocked."""

    descriptor: ServiceDescriptor = health_pb2.DESCRIPTOR.services_by_name["Health"]
    name = HEALTH

    def __init__(self, names: Iterable[str]) -> None:
        """Take the full names of the services."""
        self._names = {"", *names}

    async def check(
        self, _: Call, request: health_pb2.HealthCheckRequest
    ) -> health_pb2.HealthCheckResponse:
        """Answer `Check`.

        Raises:
            ServiceUnknownError: there is no such service.
        """
        if request.service not in self._names:
            raise ServiceUnknownError("there is no service of that name")
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)

    async def watch(
        self, call: Call, request: health_pb2.HealthCheckRequest
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Answer `Watch`. Only one change can be reported, and it ends the call."""
        known = request.service in self._names
        answer = health_pb2.HealthCheckResponse
        yield answer(status=answer.SERVING if known else answer.SERVICE_UNKNOWN)
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            if call.stopping:
                await call.send(answer(status=answer.NOT_SERVING).SerializeToString())
            raise


class ReflectionService:
    """Describes the API, so that tools need no proto files."""

    descriptor: ServiceDescriptor = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]

    def __init__(self, name: str, services: Sequence[Service]) -> None:
        """Describe services under one of the two names that tools ask for."""
        self.name = name
        self._names = sorted({*map(service_name, services), HEALTH, *REFLECTION})
        self._pool = DescriptorPool()
        for service in services:
            _add(self._pool, service.descriptor.file)
        for full_name, file in [
            (HEALTH, health_pb2.DESCRIPTOR),
            *((each, reflection_pb2.DESCRIPTOR) for each in REFLECTION),
        ]:
            self._pool.Add(_renamed(file, full_name.rpartition(".")[0]))

    async def server_reflection_info(
        self, _: Call, requests: AsyncIterator[reflection_pb2.ServerReflectionRequest]
    ) -> AsyncIterator[reflection_pb2.ServerReflectionResponse]:
        """Answer `ServerReflectionInfo`."""
        async for request in requests:
            response = self._response(request)
            response.valid_host = request.host
            response.original_request.CopyFrom(request)
            yield response

    def _response(
        self, request: reflection_pb2.ServerReflectionRequest
    ) -> reflection_pb2.ServerReflectionResponse:
        try:
            match request.WhichOneof("message_request"):
                case "list_services":
                    return reflection_pb2.ServerReflectionResponse(
                        list_services_response=reflection_pb2.ListServiceResponse(
                            service=[
                                reflection_pb2.ServiceResponse(name=name) for name in self._names
                            ]
                        )
                    )
                case "file_by_filename":
                    return _described(self._pool.FindFileByName(request.file_by_filename))
                case "file_containing_symbol":
                    return _described(self._containing(request.file_containing_symbol))
                case "all_extension_numbers_of_type":
                    kind = self._pool.FindMessageTypeByName(request.all_extension_numbers_of_type)
                    return reflection_pb2.ServerReflectionResponse(
                        all_extension_numbers_response=reflection_pb2.ExtensionNumberResponse(
                            base_type_name=kind.full_name
                        )
                    )
                case _:
                    return _not_found("there are no extensions here")
        except KeyError:
            return _not_found("there is nothing of that name")

    def _containing(self, symbol: str) -> FileDescriptor:
        """Find the file of a symbol. The pool has a separate lookup for methods."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            return self._pool.FindMethodByName(symbol).containing_service.file


def _described(file: FileDescriptor) -> reflection_pb2.ServerReflectionResponse:
    """Describe a file and all files that it imports, each once, and the file itself first."""
    files: dict[str, FileDescriptor] = {}
    wanted = [file]
    while wanted:
        one = wanted.pop()
        if one.name not in files:
            files[one.name] = one
            wanted += one.dependencies
    return reflection_pb2.ServerReflectionResponse(
        file_descriptor_response=reflection_pb2.FileDescriptorResponse(
            file_descriptor_proto=[one.serialized_pb for one in files.values()]
        )
    )


def _not_found(message: str) -> reflection_pb2.ServerReflectionResponse:
    return reflection_pb2.ServerReflectionResponse(
        error_response=reflection_pb2.ErrorResponse(error_code=_NOT_FOUND, error_message=message)
    )


def _add(pool: DescriptorPool, file: FileDescriptor) -> None:
    """Add a file to a pool, after all files that it imports. Adding it twice is harmless."""
    for imported in file.dependencies:
        _add(pool, imported)
    pool.AddSerializedFile(file.serialized_pb)


def _renamed(file: FileDescriptor, package: str) -> FileDescriptorProto:
    """Return a file with its package renamed."""
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    before, after = f".{proto.package}.", f".{package}."
    proto.name = f"{package.replace('.', '/')}/{proto.name.rpartition('/')[2]}"
    proto.package = package
    for message in proto.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace(before, after, 1)
    for service in proto.service:
        for method in service.method:
            method.input_type = method.input_type.replace(before, after, 1)
            method.output_type = method.output_type.replace(before, after, 1)
    return proto


def standard_services(services: Sequence[Service]) -> list[Service]:
    """Create the health and reflection services for other services."""
    return [
        HealthService(map(service_name, services)),
        *(ReflectionService(name, services) for name in REFLECTION),
    ]

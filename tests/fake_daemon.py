"""A daemon of cardboard for tests of the client: real gRPC on a real socket, answers from a table.

It knows the API's messages and nothing of what they mean. Tests of what only the real one can do
use `daemons`.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
from google.protobuf import message_factory

from backpack_proto.v1 import (
    audit_pb2,
    backup_pb2,
    grants_pb2,
    keys_pb2,
    leases_pb2,
    policy_pb2,
    requests_pb2,
    slots_pb2,
    vault_pb2,
)

Answer = Callable[[Any], Any]

_METHODS = {
    f"/{service.full_name}/{method.name}": method
    for module in (
        audit_pb2,
        backup_pb2,
        grants_pb2,
        keys_pb2,
        leases_pb2,
        policy_pb2,
        requests_pb2,
        slots_pb2,
        vault_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


class RefusalError(Exception):
    """Makes a call end with a status and trailing metadata."""

    def __init__(self, code: str, reason: str = "", message: str = "refused", **facts: str) -> None:
        super().__init__(message)
        self.code = grpc.StatusCode[code]
        self.message = message
        metadata = {"backpack-reason": reason} if reason else {}
        metadata |= {f"backpack-{name.replace('_', '-')}": text for name, text in facts.items()}
        self.metadata = tuple(metadata.items())


class FakeDaemon(grpc.GenericRpcHandler):
    """Answers calls out of `answers`, by the method's short name; unknown ones with UNKNOWN.

    A call that sends a stream is answered once all of it, as a list, has come.

    Attributes:
        path: its socket.
        answers: request to response; for a stream, request to a list of responses.
        seen: every call, in order: the method's short name and the request.
        calls: the same as a queue, to wait on.
        code: the code of a request that every GetKeys is told of at once; empty: none.
    """

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.answers: dict[str, Answer] = {"Status": lambda _: status()}
        self.seen: list[tuple[str, Any]] = []
        self.calls: SimpleQueue[str] = SimpleQueue()
        self.code = ""

    def requests(self, name: str) -> list[Any]:
        return [request for method, request in self.seen if method == name]

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = _METHODS.get(handler_call_details.method)
        if method is None:
            return None
        request = message_factory.GetMessageClass(method.input_type)
        response = message_factory.GetMessageClass(method.output_type)

        def answer(message: Any, context: grpc.ServicerContext) -> Any:
            if method.client_streaming:
                message = list(message)
            self.seen.append((method.name, message))
            if self.code and method.name == "GetKeys":
                context.send_initial_metadata((("backpack-request-code", self.code),))
            try:
                answered = self.answers[method.name](message)
                return _streamed(answered, context) if method.server_streaming else answered
            except RefusalError as refusal:
                _refuse(refusal, context)
            finally:
                self.calls.put(method.name)

        make = (
            grpc.stream_unary_rpc_method_handler
            if method.client_streaming
            else grpc.unary_stream_rpc_method_handler
            if method.server_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        return make(answer, request.FromString, response.SerializeToString)


def _streamed(responses: Iterable[Any], context: grpc.ServicerContext) -> Iterator[Any]:
    try:
        yield from responses
    except RefusalError as refusal:
        _refuse(refusal, context)


def _refuse(refusal: RefusalError, context: grpc.ServicerContext) -> None:
    context.set_trailing_metadata(refusal.metadata)
    context.abort(refusal.code, refusal.message)


@contextmanager
def fake_daemon(directory: Path) -> Iterator[FakeDaemon]:
    """Serve on a socket in `directory` until the block ends."""
    fake = FakeDaemon(directory / "fake.sock")
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((fake,))
    server.add_insecure_port(f"unix:{fake.path}")
    server.start()
    try:
        yield fake
    finally:
        server.stop(0).wait()


def refuse(code: str, reason: str = "", message: str = "refused", **facts: str) -> Answer:
    """Make an answer that refuses."""

    def answer(_: object) -> None:
        raise RefusalError(code, reason, message, **facts)

    return answer


def status(**changes: Any) -> vault_pb2.StatusResponse:
    """Make the answer of an unlocked daemon."""
    fields = {
        "state": vault_pb2.VAULT_STATE_UNLOCKED,
        "daemon_version": "9.9.9",
        "daemon_pid": 77,
        "started_at_ms": 1_700_000_000_000,
        "tree_pid": 66,
    }
    return vault_pb2.StatusResponse(**{**fields, **changes})


def lease(lease_id: str = "lease-1", remaining: int = 900, **changes: Any) -> leases_pb2.Lease:
    """Make a lease as the daemon tells of it."""
    fields = {
        "id": lease_id,
        "names": ["K"],
        "holder_pid": 66,
        "grant_ids": ["grant-1"],
        "issued_at_ms": 1_700_000_000_000,
        "expires_at_ms": 1_700_000_900_000,
        "max_expires_at_ms": 1_700_086_400_000,
        "remaining_seconds": remaining,
    }
    return leases_pb2.Lease(**{**fields, **changes})


def handout(values: dict[str, bytes], told: leases_pb2.Lease | None = None) -> Answer:
    """Make an answer to GetKeys."""
    keys = [leases_pb2.LeasedKey(name=name, value=value) for name, value in values.items()]
    return lambda _: leases_pb2.GetKeysResponse(lease=told or lease(), keys=keys)


def process(pid: int, **changes: Any) -> requests_pb2.ProcessFacts:
    """Make a process of a request's chain."""
    fields = {"pid": pid, "executable": f"/bin/p{pid}", "may_be_root": True}
    return requests_pb2.ProcessFacts(**{**fields, **changes})


def request(code: str = "K7QF", **changes: Any) -> requests_pb2.Request:
    """Make a request of process 66, whose tree has the root 65, under a shell with pid 64."""
    fields = {
        "code": code,
        "names": ["K"],
        "chain": [
            process(66, in_tree=True),
            process(65, in_tree=True, proposed_root=True, claimed_command="agent --fast"),
            process(64),
            process(1, may_be_root=False),
        ],
        "claimed_reason": "why",
        "asked_at_ms": 1_700_000_000_000,
        "waiting": 1,
    }
    return requests_pb2.Request(**{**fields, **changes})

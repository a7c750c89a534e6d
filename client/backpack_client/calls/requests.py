"""The calls of the service Requests: requests that wait for a person, and answers to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from backpack_client.calls.call import PACKAGE, Call, read_nothing
from backpack_client.calls.fields import LARGEST_PID, checked_code, moment
from backpack_client.calls.stubs import Stubs
from backpack_client.failures import usage
from backpack_client.model import Process, Request

if TYPE_CHECKING:
    from backpack_proto.v1 import requests_pb2
else:
    requests_pb2 = Stubs("requests_pb2")


def list_requests(*, every: bool) -> Call[list[Request]]:
    """List the requests that wait for a person."""
    return Call(
        PACKAGE + "Requests/ListRequests",
        requests_pb2.ListRequestsRequest(all=every),
        requests_pb2.ListRequestsResponse.FromString,
        _read_requests,
    )


def watch_requests(*, every: bool) -> Call[Sequence[Request]]:
    """Follow the pending requests: the list now, and again whenever it changes."""
    return Call(
        PACKAGE + "Requests/WatchRequests",
        requests_pb2.WatchRequestsRequest(all=every),
        requests_pb2.WatchRequestsResponse.FromString,
        _read_requests,
        streams=True,
    )


def approve(code: str, *, once: bool, root: int | None, revision: int) -> Call[int]:
    """Allow a request; the answer is the root of the tree that may now lease the keys."""
    if root is not None and not 0 < root <= LARGEST_PID:
        raise usage("not a process id", hint="")
    return Call(
        PACKAGE + "Requests/ApproveRequest",
        requests_pb2.ApproveRequestRequest(
            code=checked_code(code), once=once, root_pid=root or 0, revision=revision
        ),
        requests_pb2.ApproveRequestResponse.FromString,
        lambda response: int(response.root_pid),
    )


def deny(code: str) -> Call[None]:
    """Refuse a request."""
    return Call(
        PACKAGE + "Requests/DenyRequest",
        requests_pb2.DenyRequestRequest(code=checked_code(code)),
        requests_pb2.DenyRequestResponse.FromString,
        read_nothing,
    )


def _read_requests(
    response: requests_pb2.ListRequestsResponse | requests_pb2.WatchRequestsResponse,
) -> list[Request]:
    return [
        Request(
            code=request.code,
            names=tuple(request.names),
            chain=tuple(
                Process(
                    pid=process.pid,
                    executable=process.executable,
                    unit=process.unit,
                    proposed_root=process.proposed_root,
                    in_tree=process.in_tree,
                    may_be_root=process.may_be_root,
                    claimed_command=process.claimed_command,
                    now=process.now,
                )
                for process in request.chain
            ),
            claimed_reason=request.claimed_reason,
            asked_at=moment(request.asked_at_ms),
            waiting=request.waiting,
            revision=request.revision,
        )
        for request in response.requests
    ]

"""Short cuts for the Audit service on a connection of `daemons.Client`."""

from typing import Any

from backpack_proto.v1 import audit_pb2, audit_pb2_grpc
from daemons import Client


class AuditClient:
    """The audit log, as seen on one connection."""

    def __init__(self, client: Client) -> None:
        self._stub: Any = audit_pb2_grpc.AuditStub(client.channel)

    def head(self) -> str:
        head: str = self._stub.GetAuditHead(audit_pb2.GetAuditHeadRequest()).head
        return head

    def verify(self, expected: str = "") -> audit_pb2.AuditVerdict:
        request = audit_pb2.VerifyAuditRequest(expected_head=expected)
        *_, last = self._stub.VerifyAudit(request)
        assert last.HasField("verdict")
        verdict: audit_pb2.AuditVerdict = last.verdict
        return verdict

    def show(self, **wanted: Any) -> list[audit_pb2.AuditEntry]:
        batches = self._stub.ShowAudit(audit_pb2.ShowAuditRequest(**wanted))
        return [entry for batch in batches for entry in batch.entries]

    def events(self, **wanted: Any) -> list[str]:
        return [entry.event for entry in self.show(**wanted)]

"""Batches of a stream: full by count or by bytes, whichever comes first."""

from backpack_proto.v1 import audit_pb2
from backpackd.rpc.batches import MOST_BYTES, Batch

SMALL = audit_pb2.AuditEntry(number=1)
LARGE = audit_pb2.AuditEntry(names=["N" * 128] * 1000)


def test_a_batch_is_full_by_count() -> None:
    batch = Batch[audit_pb2.AuditEntry](3)
    assert [batch.add(SMALL) for _ in range(3)] == [False, False, True]
    assert len(batch.take()) == 3
    assert batch.take() == []


def test_a_batch_of_large_entries_is_full_long_before_its_count() -> None:
    batch = Batch[audit_pb2.AuditEntry](100)
    added = next(count for count in range(1, 101) if batch.add(LARGE))
    assert added * LARGE.ByteSize() < MOST_BYTES + LARGE.ByteSize()
    batch.take()
    assert not batch.add(LARGE)

"""What rotation carries over: every member of the authority record, and every row."""

from dataclasses import dataclass, fields

import pytest

from backpackd.core.audit import keys as audit_keys
from backpackd.core.audit.anchor import AuditAnchor
from backpackd.core.audit.chain import Head
from backpackd.core.audit.keys import AuditKeys
from backpackd.core.errors import DamageError
from backpackd.core.sealing.sealing import OpenError
from backpackd.core.vault import authority as authorities
from backpackd.core.vault import rekeying
from backpackd.core.vault.authority import Authority
from backpackd.core.vault.records import KeyHead, RowSet, open_head, open_value, seal_row

OLD, NEW, VAULT_ID = b"o" * 32, b"n" * 32, b"v" * 16


def salts(size: int) -> bytes:
    return b"s" * size


MOVE = rekeying.Move(OLD, NEW, VAULT_ID, salts)


def record() -> Authority:
    keys = audit_keys.generate()
    return Authority(
        generation=4,
        master_generation=1,
        rows=RowSet(),
        slots={},
        signing_key=authorities.seal_signing_key(OLD, VAULT_ID, b"g" * 32, b"a" * 32),
        latest_ms=5,
        audit=AuditAnchor(keys.seal(OLD, VAULT_ID, b"b" * 32), Head(1, bytes(32))),
    )


def test_it_is_said_of_every_member_what_becomes_of_it() -> None:
    rekeying.check_complete()


def test_a_member_that_nobody_carries_over_keeps_rotation_from_starting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @dataclass(frozen=True)
    class Wider(Authority):
        forgotten: bytes = b""

    monkeypatch.setattr(rekeying, "Authority", Wider)
    with pytest.raises(DamageError):
        rekeying.check_complete()


def test_every_member_that_is_said_to_be_as_it_is_holds_no_bytes() -> None:
    """Sealed things are bytes, or objects with bytes in them: those must be carried."""
    made = record()
    for name in rekeying.AS_IT_IS:
        assert not isinstance(getattr(made, name), bytes | AuditAnchor), name
    holding = {m.name for m in fields(made) if isinstance(getattr(made, m.name), bytes)}
    assert holding <= set(rekeying.CARRIED)


def test_what_is_sealed_in_the_record_opens_under_the_new_key_and_no_more_under_the_old() -> None:
    before = record()
    after = rekeying.carry(before, MOVE, master_generation=2)
    assert authorities.open_signing_key(NEW, VAULT_ID, after.signing_key) == b"g" * 32
    with pytest.raises(DamageError):
        authorities.open_signing_key(OLD, VAULT_ID, after.signing_key)
    assert before.audit is not None
    assert after.audit is not None
    assert AuditKeys.open(NEW, VAULT_ID, after.audit.keys) == AuditKeys.open(
        OLD, VAULT_ID, before.audit.keys
    )
    assert after.audit.head == before.audit.head


def test_a_sealed_part_that_does_not_open_is_damage() -> None:
    anchor = AuditAnchor(b"x" * 80, Head(1, bytes(32)))
    broken = Authority(1, 1, RowSet(), {}, record().signing_key, 5, audit=anchor)
    with pytest.raises(DamageError):
        rekeying.carry(broken, MOVE)


def test_a_row_has_another_index_and_the_same_contents() -> None:
    head = KeyHead("K", 1, 2)
    row = seal_row(
        OLD, vault_id=VAULT_ID, head=head, value=b"value", version=3, salts=(b"1" * 32, b"2" * 32)
    )
    carried = rekeying.carry_row(row, MOVE)
    assert carried.index != row.index
    assert carried.version == 3
    assert open_value(NEW, vault_id=VAULT_ID, row=carried) == b"value"
    assert open_head(NEW, vault_id=VAULT_ID, row=carried.row_head, sealed=carried.head) == head
    with pytest.raises(OpenError):
        open_value(OLD, vault_id=VAULT_ID, row=carried)

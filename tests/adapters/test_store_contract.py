"""What every store does: one contract, and all stores held to it."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from backpackd.adapters.stores.memory import MemoryStore
from backpackd.adapters.stores.sqlite import SqliteStore
from backpackd.core.errors import AlreadyInitializedError, DamageError, StoreError
from backpackd.core.rows import AuditPublic, AuditRow, Change, KeyRow, SlotRow, StoredVault
from backpackd.ports import Store

SLOTS = (SlotRow(b"a" * 16, b"slot a"), SlotRow(b"b" * 16, b"slot b"))
VAULT = StoredVault(b"v" * 16, b"authority 0", SLOTS)


def row(number: int, version: int = 1, text: bytes = b"") -> KeyRow:
    return KeyRow(
        number.to_bytes(32, "big"), version, b"head" + text + b"h" * 16, b"value" + text + b"v" * 16
    )


def audit_row(number: int, kind: int = 2) -> AuditRow:
    return AuditRow(number, kind, b"p" * 32, b"body")


class StoreContract:
    """The properties. A subclass says which store."""

    async def test_there_is_no_vault_at_first(self, make: Callable[[], Store]) -> None:
        store = make()
        assert await store.load() is None
        await store.close()

    async def test_what_was_created_is_loaded(self, make: Callable[[], Store]) -> None:
        store = make()
        await store.create(VAULT)
        assert await store.load() == VAULT
        assert await store.heads() == []
        await store.close()

    async def test_a_second_vault_is_refused_and_the_first_stays(
        self, make: Callable[[], Store]
    ) -> None:
        store = make()
        await store.create(VAULT)
        with pytest.raises(AlreadyInitializedError):
            await store.create(StoredVault(b"w" * 16, b"other", ()))
        assert await store.load() == VAULT
        await store.close()

    async def test_a_change_is_whole(self, make: Callable[[], Store]) -> None:
        store = make()
        await store.create(VAULT)
        await store.commit(Change(b"authority 0", b"authority 1", put=[row(1), row(2), row(3)]))
        slot = SlotRow(b"c" * 16, b"slot c")
        change = Change(
            b"authority 1",
            b"authority 2",
            put=[row(2, 2, b"new"), row(4)],
            delete=[row(1).index],
            put_slots=[slot, SlotRow(b"b" * 16, b"slot b, new")],
            delete_slots=[b"a" * 16],
        )
        await store.commit(change)
        assert await store.load() == StoredVault(
            b"v" * 16, b"authority 2", (SlotRow(b"b" * 16, b"slot b, new"), slot)
        )
        wanted = [row(number).index for number in (1, 2, 3, 4)]
        expected = [row(2, 2, b"new"), row(3), row(4)]
        assert await store.rows(wanted) == {found.index: found for found in expected}
        assert set(await store.heads()) == {found.row_head for found in expected}
        await store.close()

    async def test_rows_that_are_not_there_are_left_out(self, make: Callable[[], Store]) -> None:
        store = make()
        await store.create(VAULT)
        assert await store.rows([row(1).index, b""]) == {}
        await store.close()

    async def test_sealed_heads_come_with_their_rows(self, make: Callable[[], Store]) -> None:
        store = make()
        await store.create(VAULT)
        await store.commit(Change(b"authority 0", b"authority 1", put=[row(1), row(2)]))
        assert sorted(await store.sealed_heads(), key=lambda found: found[0].index) == [
            (found.row_head, found.head) for found in (row(1), row(2))
        ]
        await store.close()

    async def test_a_change_of_another_state_is_refused_and_nothing_is_changed(
        self, make: Callable[[], Store]
    ) -> None:
        store = make()
        await store.create(VAULT)
        stale = Change(
            b"authority of another day",
            b"authority 1",
            put=[row(1)],
            delete_slots=[b"a" * 16],
        )
        with pytest.raises(DamageError) as caught:
            await store.commit(stale)
        assert caught.value.reason == "changed-underneath"
        assert await store.load() == VAULT
        assert await store.heads() == []
        await store.close()

    @pytest.mark.parametrize(
        "asking", ["heads", "sealed_heads", "rows", "commit", "append", "audit_rows", "audit_last"]
    )
    async def test_without_a_vault_there_is_nothing_to_ask(
        self, make: Callable[[], Store], asking: str
    ) -> None:
        store = make()
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "heads": store.heads,
            "sealed_heads": store.sealed_heads,
            "rows": lambda: store.rows([b"i"]),
            "commit": lambda: store.commit(Change(b"", b"")),
            "append": lambda: store.append([audit_row(1)]),
            "audit_rows": lambda: store.audit_rows(0, 1),
            "audit_last": store.audit_last,
        }
        with pytest.raises(StoreError):
            await calls[asking]()
        await store.close()

    async def test_the_audit_log_is_read_in_order_and_in_pages(
        self, make: Callable[[], Store]
    ) -> None:
        store = make()
        await store.create(VAULT)
        assert (await store.audit_rows(0, 5), await store.audit_last()) == ([], None)
        rows = [audit_row(number) for number in range(1, 8)]
        await store.append(rows[:3])
        await store.append(rows[3:])
        assert await store.audit_rows(0, 3) == rows[:3]
        assert await store.audit_rows(3, 100) == rows[3:]
        assert await store.audit_last() == rows[-1]
        await store.close()

    async def test_the_last_row_of_a_kind(self, make: Callable[[], Store]) -> None:
        store = make()
        await store.create(VAULT)
        rows = [audit_row(1, kind=1), audit_row(2), audit_row(3, kind=1), audit_row(4)]
        await store.append(rows)
        assert await store.audit_last(1) == rows[2]
        assert await store.audit_last(3) is None
        await store.close()

    @pytest.mark.parametrize("number", [2**63 - 1, 2**62 + 1, 0, -1])
    async def test_a_row_that_no_log_reaches_is_no_last_row(
        self, make: Callable[[], Store], number: int
    ) -> None:
        store = make()
        await store.create(VAULT)
        await store.append([audit_row(1), audit_row(number)])
        assert await store.audit_last() == audit_row(1)
        assert audit_row(number) in await store.audit_rows(-(2**63), 10)
        await store.close()

    async def test_a_row_is_never_written_over_and_what_comes_with_it_is_not_stored(
        self, make: Callable[[], Store]
    ) -> None:
        store = make()
        await store.create(VAULT)
        await store.append([audit_row(1)])
        with pytest.raises(StoreError):
            await store.append([audit_row(2), audit_row(1, kind=3)])
        change = Change(b"authority 0", b"authority 1", put=[row(1)], audit=[audit_row(1)])
        with pytest.raises(StoreError):
            await store.commit(change)
        assert await store.audit_rows(0, 5) == [audit_row(1)]
        assert await store.load() == VAULT
        assert await store.heads() == []
        await store.close()

    async def test_a_change_brings_its_audit_rows_and_keys(self, make: Callable[[], Store]) -> None:
        store = make()
        await store.create(VAULT)
        public = AuditPublic(b"wrap", b"verify")
        await store.commit(
            Change(b"authority 0", b"authority 1", audit=[audit_row(1)], audit_public=public)
        )
        loaded = await store.load()
        assert loaded is not None
        assert (loaded.audit, loaded.authority) == (public, b"authority 1")
        assert await store.audit_rows(0, 5) == [audit_row(1)]
        stale = Change(b"authority 0", b"authority 2", audit=[audit_row(2)])
        with pytest.raises(DamageError):
            await store.commit(stale)
        assert await store.audit_rows(0, 5) == [audit_row(1)]
        await store.close()

    async def test_any_bytes_come_back_as_they_went_in(self, make: Callable[[], Store]) -> None:
        store = make()
        odd = bytes(range(256)) + b"\0" * 20
        await store.create(StoredVault(odd[:16], odd, (SlotRow(odd[16:32], odd),)))
        await store.commit(Change(odd, odd + b"1", put=[KeyRow(odd[:32], 2**62, odd, odd)]))
        assert await store.rows([odd[:32]]) == {odd[:32]: KeyRow(odd[:32], 2**62, odd, odd)}
        await store.close()


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def make(self) -> Callable[[], Store]:
        return MemoryStore


class TestSqliteStore(StoreContract):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Callable[[], Store]:
        tmp_path.chmod(0o700)
        return lambda: SqliteStore(tmp_path)

    async def test_a_closed_store_is_opened_again_as_it_was(
        self, make: Callable[[], Store]
    ) -> None:
        store = make()
        await store.create(VAULT)
        await store.commit(Change(b"authority 0", b"authority 1", put=[row(1)]))
        await store.close()
        again = make()
        assert await again.load() == StoredVault(b"v" * 16, b"authority 1", SLOTS)
        assert await again.rows([row(1).index]) == {row(1).index: row(1)}
        await again.close()

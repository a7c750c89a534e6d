import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from types import FrameType
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from backpackd.core.access import leases
from backpackd.core.access.leases import Lease, LeaseTable
from backpackd.core.peer_facts import ProcessId
from thorough import CI

HOLDER, OTHER = ProcessId(10, 100, 1000), ProcessId(11, 110, 1100)


def issue(
    table: LeaseTable,
    lease_id: str = "one",
    *,
    names: tuple[str, ...] = ("KEY",),
    holder: ProcessId = HOLDER,
    grant_ids: tuple[str, ...] = ("grant",),
    now: float = 0,
    ttl: float = 10,
    max_ttl: float = 100,
) -> Lease:
    return table.issue(
        lease_id=lease_id,
        names=names,
        holder=holder,
        grant_ids=grant_ids,
        now=now,
        ttl=ttl,
        max_ttl=max_ttl,
    )


def test_a_lease_lives_for_its_time_and_no_longer() -> None:
    table = LeaseTable()
    lease = issue(table, now=5, ttl=10)
    assert table.get("one", now=14.9) is lease
    assert table.get("one", now=15) is None


def test_a_lease_lives_no_longer_than_its_grant_allows() -> None:
    lease = issue(LeaseTable(), now=5, ttl=1000, max_ttl=60)
    assert (lease.ttl, lease.expires_at, lease.max_expires_at) == (60, 65, 65)


def test_a_lease_that_is_due_cannot_be_found_though_the_timer_has_not_rung() -> None:
    table = LeaseTable()
    issue(table)
    assert table.get("one", now=10) is None
    assert table.of_holder(HOLDER, now=10) == []
    assert table.live(now=10) == []


def test_a_lease_that_is_due_cannot_be_renewed_though_the_timer_has_not_rung() -> None:
    table = LeaseTable()
    issue(table)
    assert table.renew("one", now=10, ttl=None) is None


def test_renewing_counts_from_now() -> None:
    table = LeaseTable()
    lease = issue(table, ttl=10)
    assert table.renew("one", now=4, ttl=None) is lease
    assert lease.expires_at == 14


def test_renewing_may_ask_for_another_time() -> None:
    table = LeaseTable()
    lease = issue(table, ttl=10)
    table.renew("one", now=4, ttl=3)
    assert lease.expires_at == 7


def test_no_renewal_goes_past_the_maximum() -> None:
    table = LeaseTable()
    lease = issue(table, ttl=10, max_ttl=15)
    table.renew("one", now=9, ttl=10_000)
    assert (lease.expires_at, lease.max_expires_at) == (15, 15)


def test_a_lease_that_was_ended_cannot_be_renewed() -> None:
    table = LeaseTable()
    issue(table)
    table.end("one")
    assert table.renew("one", now=1, ttl=None) is None


def test_a_shortened_lease_ends_sooner_and_no_renewal_goes_past() -> None:
    table = LeaseTable()
    lease = issue(table, ttl=10, max_ttl=100)
    start = lease.issued_at
    assert table.shorten(lease.id, start + 50) is None
    assert (lease.expires_at, lease.max_expires_at) == (start + 10, start + 50)
    assert table.shorten(lease.id, start + 5) is lease
    assert (lease.expires_at, lease.max_expires_at) == (start + 5, start + 5)
    assert table.expire(start + 4) == ([], start + 5)
    renewed = table.renew(lease.id, now=start + 4, ttl=60)
    assert renewed is not None
    assert renewed.expires_at == start + 5
    assert table.expire(start + 5) == ([lease], None)


def test_shortening_never_lengthens() -> None:
    table = LeaseTable()
    lease = issue(table, ttl=10, max_ttl=20)
    assert table.shorten(lease.id, lease.issued_at + 1000) is None
    assert lease.max_expires_at == lease.issued_at + 20


def test_ending_twice_ends_once() -> None:
    table = LeaseTable()
    lease = issue(table)
    assert [table.end("one"), table.end("one")] == [[lease], []]


@pytest.mark.parametrize(
    "end",
    [
        lambda table: table.end_key("B"),
        lambda table: table.end_holder(HOLDER),
        lambda table: table.end_grant("second"),
        lambda table: table.end_all(),
        lambda table: table.expire(10)[0],
    ],
)
def test_a_lease_on_several_keys_and_grants_ends_once_and_whole(
    end: Callable[[LeaseTable], list[Lease]],
) -> None:
    table = LeaseTable()
    lease = issue(table, names=("A", "B"), grant_ids=("first", "second"))
    assert end(table) == [lease]
    assert len(table) == 0
    assert table.holders() == set()
    assert table.grants() == set()
    assert table.end_key("A") == []


@pytest.mark.parametrize(
    "end",
    [
        lambda table: table.end("nothing"),
        lambda table: table.end_key("OTHER"),
        lambda table: table.end_holder(OTHER),
        lambda table: table.end_grant("other"),
    ],
)
def test_ending_what_is_not_there_changes_nothing(
    end: Callable[[LeaseTable], list[Lease]],
) -> None:
    table = LeaseTable()
    issue(table)
    assert end(table) == []
    assert len(table) == 1


def test_listings_are_oldest_first() -> None:
    table = LeaseTable()
    for lease_id, now in (("c", 2), ("b", 1), ("a", 2)):
        issue(table, lease_id, now=now)
    assert [lease.id for lease in table.live(now=3)] == ["b", "a", "c"]


def test_expiring_tells_the_next_deadline() -> None:
    table = LeaseTable()
    first, _ = issue(table, "one", ttl=10), issue(table, "two", ttl=20)
    assert table.expire(9.9) == ([], 10)
    assert table.expire(10) == ([first], 20)


def test_expiring_an_empty_table_needs_no_next_time() -> None:
    assert LeaseTable().expire(1e9) == ([], None)


def test_a_renewed_lease_is_not_ended_at_its_first_deadline() -> None:
    table = LeaseTable()
    issue(table, ttl=10)
    table.renew("one", now=5, ttl=None)
    assert table.expire(10) == ([], 15)


def test_a_lease_renewed_to_less_ends_at_the_new_deadline() -> None:
    table = LeaseTable()
    lease = issue(table, ttl=10)
    table.renew("one", now=1, ttl=2)
    assert table.expire(3) == ([lease], None)


def test_renewals_without_end_do_not_fill_the_memory() -> None:
    table = LeaseTable()
    issue(table, max_ttl=1e9)
    for now in range(5000):
        table.renew("one", now=now / 1000, ttl=1e6)
    assert len(table._heap) <= 100


def test_taking_leases_and_giving_them_back_without_end_does_not_fill_the_memory() -> None:
    table = LeaseTable()
    for number in range(5000):
        issue(table, str(number), ttl=1e6, max_ttl=1e6)
        table.end(str(number))
    assert len(table._heap) <= 100


def test_ending_all_leaves_nothing_behind() -> None:
    table = LeaseTable()
    for number in range(1000):
        issue(table, str(number))
    table.end_all()
    assert len(table._heap) <= 100
    assert table._leases == {}
    for index in (table._by_key, table._by_holder, table._by_grant):
        assert index.keys() == set()


# A model of the table: a dictionary of facts, searched through whole.


@dataclass
class Known:
    names: tuple[str, ...]
    holder: ProcessId
    grant_ids: tuple[str, ...]
    issued_at: float
    ttl: float
    expires_at: float
    max_expires_at: float


KEYS, GRANTS, HOLDERS = ["A", "B", "C"], ["g", "h"], [HOLDER, OTHER]
SOME = {"min_size": 1, "max_size": 2, "unique": True}
TTLS = st.integers(1, 12)


class LeaseTableAgreesWithAModel(RuleBasedStateMachine):
    """Whatever is done, in whatever order, the table says what a plain dictionary says."""

    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.table = LeaseTable()
        self.model: dict[str, Known] = {}
        self.now = 0
        self.numbers = count()

    def ended(self, told: list[Lease], wanted: Callable[[str, Known], bool]) -> None:
        gone = {lease_id for lease_id, known in self.model.items() if wanted(lease_id, known)}
        assert sorted(lease.id for lease in told) == sorted(gone)
        for lease_id in gone:
            del self.model[lease_id]

    def live(self) -> dict[str, Known]:
        return {one: known for one, known in self.model.items() if self.now < known.expires_at}

    @rule(
        target=ids,
        names=st.lists(st.sampled_from(KEYS), **SOME),  # type: ignore[arg-type]
        holder=st.sampled_from(HOLDERS),
        grant_ids=st.lists(st.sampled_from(GRANTS), max_size=2, unique=True),
        ttl=TTLS,
        max_ttl=TTLS,
        times=st.integers(1, 60),
    )
    def issue(
        self,
        *,
        names: list[str],
        holder: ProcessId,
        grant_ids: list[str],
        ttl: int,
        max_ttl: int,
        times: int,
    ) -> Any:
        made = []
        for _ in range(times):
            lease_id = f"{next(self.numbers):032x}"
            issue(
                self.table,
                lease_id,
                names=tuple(names),
                holder=holder,
                grant_ids=tuple(grant_ids),
                now=self.now,
                ttl=ttl,
                max_ttl=max_ttl,
            )
            lived = min(ttl, max_ttl)
            self.model[lease_id] = Known(
                tuple(names),
                holder,
                tuple(grant_ids),
                self.now,
                lived,
                self.now + lived,
                self.now + max_ttl,
            )
            made.append(lease_id)
        return multiple(*made[:5])

    @rule(lease_id=ids, ttl=st.none() | TTLS, times=st.integers(1, 40))
    def renew(self, lease_id: str, ttl: int | None, times: int) -> None:
        for _ in range(times):
            told = self.table.renew(lease_id, now=self.now, ttl=ttl)
            known = self.live().get(lease_id)
            assert (told is None) == (known is None)
            if known is not None:
                wished = self.now + (known.ttl if ttl is None else ttl)
                known.expires_at = min(wished, known.max_expires_at)

    @rule(lease_id=consumes(ids))
    def end(self, lease_id: str) -> None:
        self.ended(self.table.end(lease_id), lambda one, _: one == lease_id)

    @rule(name=st.sampled_from(KEYS))
    def end_key(self, name: str) -> None:
        self.ended(self.table.end_key(name), lambda _, known: name in known.names)

    @rule(holder=st.sampled_from(HOLDERS))
    def end_holder(self, holder: ProcessId) -> None:
        self.ended(self.table.end_holder(holder), lambda _, known: known.holder == holder)

    @rule(grant_id=st.sampled_from(GRANTS))
    def end_grant(self, grant_id: str) -> None:
        self.ended(self.table.end_grant(grant_id), lambda _, known: grant_id in known.grant_ids)

    @rule()
    def end_all(self) -> None:
        self.ended(self.table.end_all(), lambda *_: True)

    @rule(seconds=st.integers(1, 6))
    def advance(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def expire(self) -> None:
        ended, coming = self.table.expire(self.now)
        self.ended(ended, lambda _, known: known.expires_at <= self.now)
        assert coming == min((known.expires_at for known in self.model.values()), default=None)

    @invariant()
    def it_lists_what_lives(self) -> None:
        live = self.live()
        order = sorted(live, key=lambda one: (live[one].issued_at, one))
        assert [lease.id for lease in self.table.live(now=self.now)] == order
        for holder in HOLDERS:
            listed = [lease.id for lease in self.table.of_holder(holder, now=self.now)]
            assert listed == [one for one in order if live[one].holder == holder]

    @invariant()
    def every_lease_is_as_it_was_made(self) -> None:
        for lease_id, known in self.live().items():
            lease = self.table.get(lease_id, now=self.now)
            assert lease is not None
            found = (lease.names, lease.holder, lease.grant_ids, lease.issued_at)
            assert found == (known.names, known.holder, known.grant_ids, known.issued_at)
            times = (lease.expires_at, lease.max_expires_at)
            assert times == (known.expires_at, known.max_expires_at)

    @invariant()
    def no_lease_outlives_its_maximum(self) -> None:
        for lease in self.table._leases.values():
            assert lease.expires_at <= lease.max_expires_at

    @invariant()
    def what_has_ended_is_in_no_index(self) -> None:
        present = set(self.model)
        assert set(self.table._leases) == present
        assert len(self.table) == len(present)
        for index in (self.table._by_key, self.table._by_holder, self.table._by_grant):
            indexed = [{ids} if isinstance(ids, str) else ids for ids in index._ids.values()]
            assert set().union(*indexed) <= present
            assert all(indexed)

    @invariant()
    def it_knows_who_holds_what_on_which_grants(self) -> None:
        assert self.table.holders() == {known.holder for known in self.model.values()}
        rested_on = {grant_id for known in self.model.values() for grant_id in known.grant_ids}
        assert self.table.grants() == rested_on
        for holder in HOLDERS:
            held = sum(known.holder == holder for known in self.model.values())
            assert self.table.count_of(holder) == held

    @invariant()
    def the_heap_is_no_larger_than_it_must_be(self) -> None:
        assert len(self.table._heap) <= 2 * len(self.model) + 64


TestLeaseTableAgreesWithAModel = LeaseTableAgreesWithAModel.TestCase
TestLeaseTableAgreesWithAModel.settings = settings(
    max_examples=1400 if CI else 700, stateful_step_count=18
)


# What it costs.


def filled(size: int) -> LeaseTable:
    """Return a table of leases with a name, a holder and a grant that are no one else's."""
    table = LeaseTable()
    for number in range(size):
        issue(
            table,
            f"{number:032x}",
            names=(f"KEY_{number}",),
            holder=ProcessId(number, number * 1000, number * 10**6),
            grant_ids=(f"{number:016x}",),
            now=number / 7,
            ttl=1e6,
            max_ttl=1e7,
        )
    return table


def test_a_lease_takes_at_most_a_kibibyte() -> None:
    size = 20_000
    tracemalloc.start()
    try:
        table = filled(size)
        for number in range(size):
            table.renew(f"{number:032x}", now=number / 7, ttl=2e6)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(table) == size
    assert taken / size <= 1024


def steps(work: Callable[[], object]) -> int:
    """Count the lines of the table's own code that run."""
    counted = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal counted
        if frame.f_code.co_filename != leases.__file__:
            return None
        counted += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return counted


@pytest.mark.parametrize(
    "end",
    [
        lambda table, number: table.end(f"{number:032x}"),
        lambda table, number: table.end_key(f"KEY_{number}"),
        lambda table, number: table.end_holder(ProcessId(number, number * 1000, number * 10**6)),
        lambda table, number: table.end_grant(f"{number:016x}"),
    ],
)
def test_ending_a_few_leases_takes_no_more_steps_among_many(
    end: Callable[[LeaseTable, int], list[Lease]],
) -> None:
    few, many = filled(200), filled(20_000)
    among_few = steps(lambda: [end(few, number) for number in range(20)])
    among_many = steps(lambda: [end(many, number) for number in range(20)])
    assert among_few == among_many > 0


def test_expiring_a_few_leases_takes_no_more_steps_among_many() -> None:
    few, many = filled(200), filled(20_000)
    due = 1e6 + 19 / 7
    among_few = steps(lambda: few.expire(due))
    among_many = steps(lambda: many.expire(due))
    assert among_few == among_many > 0


def test_ending_all_one_by_one_takes_steps_in_proportion() -> None:
    # Clearing the heap now and then must not make it a square.
    def end_each(size: int) -> int:
        table = filled(size)
        return steps(lambda: [table.end(f"{number:032x}") for number in range(size)])

    assert end_each(8000) <= 10 * end_each(1000)

"""What the authority record holds of agent locks, and records from before it held any."""

import json

import pytest

from backpackd.core.agentlock.history import Mark
from backpackd.core.errors import DamageError, InvalidRequestError
from backpackd.core.sealing.canonical import context, encode
from backpackd.core.sealing.identity import generate
from backpackd.core.sealing.sealing import open_sealed, pad, seal, unpad
from backpackd.core.vault import authority as authorities
from backpackd.core.vault.authority import Authority
from backpackd.core.vault.records import RowSet
from backpackd.core.vault.trust import KnownLock, TrustedAuthor, check_label, check_path

MASTER, VAULT_ID, SALT = bytes(range(32)), b"v" * 16, b"s" * 32
MARK = Mark(7, "a" * 64, "b" * 64, 3, "c" * 64)
LATER = {"audit", "authors", "identity", "legacy_key", "locks", "revoked", "slot_dates"}
PLAIN = Authority(1, 1, RowSet(), {}, b"sealed elsewhere", 5)
FULL = Authority(
    1,
    1,
    RowSet(),
    {},
    b"sealed elsewhere",
    5,
    identity=b"sealed identity",
    authors=(TrustedAuthor("d" * 64, "ann", 9),),
    locks={"0" * 32: KnownLock(MARK, "/project/agent.lock")},
    legacy_key=b"sealed key",
)


def members(record: Authority) -> dict[str, object]:
    sealed = record.seal(MASTER, VAULT_ID, SALT)
    opened = open_sealed(MASTER, sealed, kind="authority", bound_to=context(VAULT_ID))
    found: dict[str, object] = json.loads(unpad(opened))
    return found


def sealed_again(found: object) -> bytes:
    return seal(MASTER, pad(encode(found)), kind="authority", bound_to=context(VAULT_ID), salt=SALT)


def test_a_record_comes_back_as_it_was_sealed() -> None:
    assert Authority.open(MASTER, VAULT_ID, FULL.seal(MASTER, VAULT_ID, SALT)) == FULL


def test_a_record_from_before_these_members_opens_with_none_of_each() -> None:
    old = {name: value for name, value in members(PLAIN).items() if name not in LATER}
    found = Authority.open(MASTER, VAULT_ID, sealed_again(old))
    assert found == PLAIN
    assert members(found).keys() == old.keys() | LATER, "and is written with all"


@pytest.mark.parametrize("name", sorted(members(PLAIN).keys() - LATER))
def test_no_other_member_may_be_missing(name: str) -> None:
    found = members(FULL)
    del found[name]
    with pytest.raises(DamageError):
        Authority.open(MASTER, VAULT_ID, sealed_again(found))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("more", 1),
        ("identity", 1),
        ("identity", "not base64!"),
        ("authors", {}),
        ("authors", [{"fingerprint": "d" * 63, "label": "", "trusted": 1}]),
        ("authors", [{"fingerprint": "D" * 64, "label": "", "trusted": 1}]),
        ("authors", [{"fingerprint": "d" * 64, "label": ""}]),
        ("locks", []),
        ("locks", {"x": {"mark": MARK.encode(), "path": ""}}),
        ("locks", {"0" * 32: {"mark": {**MARK.encode(), "generation": 0}, "path": ""}}),
        ("locks", {"0" * 32: {"mark": MARK.encode(), "path": 1}}),
        ("locks", {"0" * 32: {"mark": MARK.encode(), "path": "", "names": []}}),
        ("locks", {"0" * 32: {"mark": MARK.encode(), "path": "", "names": [1]}}),
        ("locks", {"0" * 32: {"mark": MARK.encode(), "path": "", "names": ["B", "A"]}}),
        ("locks", {"0" * 32: {"mark": MARK.encode(), "path": "", "names": ["A", "A"]}}),
        ("locks", {"0" * 32: {"mark": MARK.encode(), "path": "", "names": {}}}),
        ("locks", {"0" * 32: {"mark": MARK.encode(), "path": "", "more": ["A"]}}),
        ("legacy_key", None),
    ],
)
def test_a_member_of_another_form_is_damage(name: str, value: object) -> None:
    with pytest.raises(DamageError):
        Authority.open(MASTER, VAULT_ID, sealed_again({**members(FULL), name: value}))


def test_accepted_names_are_kept_and_a_lock_without_any_is_written_as_it_was_before() -> None:
    without, named = KnownLock(MARK, "p"), KnownLock(MARK, "p", ("CC", "VAULT_ADDR"))
    assert without.encode() == {"mark": MARK.encode(), "path": "p"}
    assert KnownLock.decode(without.encode()) == without
    assert KnownLock.decode(named.encode()) == named


def test_a_trusted_author_is_spoken_of_as_its_identity_is() -> None:
    public = generate().public
    assert TrustedAuthor(public.fingerprint, "", 1).spoken == public.spoken


def test_a_kept_key_opens_in_its_own_vault_alone() -> None:
    sealed = authorities.seal_legacy_key(MASTER, VAULT_ID, b"an old key", SALT)
    assert authorities.open_legacy_key(MASTER, VAULT_ID, sealed) == b"an old key"
    for master, vault_id in ((bytes(32), VAULT_ID), (MASTER, b"w" * 16)):
        with pytest.raises(DamageError):
            authorities.open_legacy_key(master, vault_id, sealed)


def test_the_length_of_a_kept_key_says_little() -> None:
    lengths = {
        len(authorities.seal_legacy_key(MASTER, VAULT_ID, b"k" * size, SALT))
        for size in (1, 12, 100, 250)
    }
    assert len(lengths) == 1


@pytest.mark.parametrize("label", ["", "ann", "Ann's laptop", "ключ", "x" * 64])
def test_a_label_is_printable_text(label: str) -> None:
    assert check_label(label) == label


@pytest.mark.parametrize("label", ["x" * 65, "a\nb", "\x1b[31m", "\u202eann", "\ud800"])
def test_a_label_that_could_act_on_a_terminal_is_refused(label: str) -> None:
    with pytest.raises(InvalidRequestError):
        check_label(label)


def test_a_claimed_path_has_a_limit() -> None:
    assert check_path("p" * 256)
    with pytest.raises(InvalidRequestError):
        check_path("p" * 257)

"""Reports what is damaged in a vault that no daemon uses, and saves what can still be read.

It changes nothing. Without a passphrase it checks forms and sizes. With a passphrase it opens every
record. A damaged part never hides the others: each finding is independent.

What can be read is sealed as a backup, without grants and policy: those of a damaged vault cannot
be trusted, while each key proves itself.
"""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from backpackd.application.vault import stored_vault
from backpackd.core.access.policy import Policy
from backpackd.core.audit.anchor import AuditAnchor
from backpackd.core.audit.keys import AuditKeys
from backpackd.core.audit.verify import Known, Verifier
from backpackd.core.backup import backup, backup_contents
from backpackd.core.backup.backup import Header, Sealer
from backpackd.core.backup.backup_contents import StoredKey, Summary
from backpackd.core.errors import BackpackError, DamageError, WrongPassphraseError
from backpackd.core.peer_facts import ProcessId
from backpackd.core.rows import AuditPublic, AuditRow, KeyRow, RowHead, StoredVault
from backpackd.core.sealing.sealing import OpenError
from backpackd.core.slots import passphrases, slots
from backpackd.core.slots.slots import Slot, SlotError
from backpackd.core.vault import records
from backpackd.core.vault.authority import Authority
from backpackd.core.vault.records import RowSet
from backpackd.ports import Stretcher

_SEALED_LEAST = 48


class Source(Protocol):
    """A vault file, as far as it can be read."""

    problems: list[str]

    def stored(self) -> StoredVault | None:
        """Return everything except keys and log."""
        ...

    def rows(self) -> Iterable[KeyRow]:
        """Yield the key rows that can be read."""
        ...

    def audit_public(self) -> AuditPublic | None:
        """Return the public audit keys."""
        ...

    def audit_rows(self) -> Iterable[AuditRow]:
        """Yield the rows of the audit log that can be read."""
        ...


@dataclass(frozen=True, slots=True)
class Finding:
    """The result for one part.

    Attributes:
        part: for example `slot 3f2a`.
        good: whether it is undamaged.
        detail: for people.
    """

    part: str
    good: bool
    detail: str


@dataclass(slots=True)
class Report:
    """All results.

    Attributes:
        findings: in the order of the checks.
        keys: those that can be read; only with a passphrase.
        authority: the authority record, if it opens.
        stored: the content of the file except keys.
        opened: whether the master key was opened.
    """

    findings: list[Finding] = field(default_factory=list)
    keys: list[StoredKey] = field(default_factory=list, repr=False)
    authority: Authority | None = None
    stored: StoredVault | None = None
    opened: bool = False

    @property
    def good(self) -> bool:
        """Whether nothing is damaged."""
        return all(finding.good for finding in self.findings)

    def note(self, part: str, problem: str, detail: str = "good") -> None:
        """Add a finding. It is good if the problem is empty."""
        self.findings.append(Finding(part, not problem, problem or detail))


async def check(
    source: Source, passphrase: bytes | None, stretcher: Stretcher, tree: ProcessId
) -> Report:
    """Check every part of a vault.

    Args:
        source: the file.
        passphrase: or a recovery code; None: check only what needs none.
        stretcher: for the passphrase.
        tree: the process tree whose turn the stretching takes.

    Raises:
        InvalidRequestError: it is not a valid passphrase.
    """
    report = Report()
    report.stored = stored = source.stored()
    for problem in source.problems:
        report.note("file", problem)
    if stored is None:
        return report
    found = _slots(report, stored)
    master = None
    if passphrase is not None and found:
        master = await _master(report, found, stored.vault_id, passphrase, (stretcher, tree))
    if master is not None:
        report.opened = True
        _authority(report, stored, found, master)
    heads = _keys(report, source, stored, master)
    if master is not None and report.authority is not None:
        _row_set(report, stored, heads, master)
    _audit(report, source, stored, master)
    seen = {finding.detail for finding in report.findings if finding.part == "file"}
    for problem in source.problems:
        if problem not in seen:
            report.note("file", problem)
    if not source.problems:
        report.findings.insert(0, Finding("file", good=True, detail="good"))
    return report


async def _master(
    report: Report,
    found: Sequence[Slot],
    vault_id: bytes,
    passphrase: bytes,
    stretching: tuple[Stretcher, ProcessId],
) -> bytes | None:
    """Open the master key with any slot that opens."""
    stretcher, tree = stretching
    try:
        slot, master = await stored_vault.open_any(stretcher, found, vault_id, passphrase, tree)
    except WrongPassphraseError:
        # The two cannot be told apart: a slot's blob only opens or does not open with its secret.
        report.note("master key", "does not open: wrong passphrase, or its slot is damaged")
    except DamageError as error:
        report.note("master key", error.message)
    else:
        report.note("master key", "", f"opens with slot {slot.slot_id.hex()[:12]}, signed")
        return master
    return None


def _slots(report: Report, stored: StoredVault) -> list[Slot]:
    found = []
    if not 1 <= len(stored.slots) <= stored_vault.MOST_SLOTS:
        report.note("slots", f"there are {len(stored.slots)}, which is not possible")
    for row in stored.slots[: stored_vault.MOST_SLOTS]:
        part = f"slot {row.slot_id.hex()[:12]}"
        try:
            slot = Slot.decode(row.slot_id, row.body)
        except SlotError as error:
            report.note(part, f"is malformed: {error}")
            continue
        found.append(slot)
        report.note(part, "", f"a {slot.kind} slot, well-formed")
    if not any(slot.kind in slots.AUTHORIZING for slot in found):
        report.note("slots", "no slot that gives authority can be read")
    return found


def _authority(report: Report, stored: StoredVault, found: Sequence[Slot], master: bytes) -> None:
    try:
        report.authority = record = Authority.open(master, stored.vault_id, stored.authority)
    except BackpackError as error:
        report.note("authority record", error.message)
        return
    detail = f"generation {record.generation}, {len(record.grants)} grants, a policy"
    report.note("authority record", "", detail)
    for slot in found:
        part, known = f"slot {slot.slot_id.hex()[:12]}", record.slots.get(slot.slot_id.hex())
        if known is None:
            report.note(part, "is not known to the vault")
        elif known != slot.digest:
            report.note(part, "was altered, or put back from an older file")
    for slot_id in record.slots.keys() - {row.slot_id.hex() for row in stored.slots}:
        report.note(f"slot {slot_id[:12]}", "is missing")


def _keys(
    report: Report, source: Source, stored: StoredVault, master: bytes | None
) -> list[RowHead]:
    heads: list[RowHead] = []
    count = damaged = 0
    for row in source.rows():
        count += 1
        problem, name = _row(report, stored, row, master)
        if problem:
            damaged += 1
            report.note(f"key {name or row.index.hex()[:12]}", problem)
        else:
            heads.append(row.row_head)
    what = "can be read" if master is not None else "are well-formed"
    report.note("keys", "", f"{count - damaged} of {count} {what}")
    return heads


def _row(report: Report, stored: StoredVault, row: KeyRow, master: bytes | None) -> tuple[str, str]:
    """Return the problem of a row, and the key's name if it can be read."""
    if (
        len(row.index) != records.INDEX_SIZE
        or not 1 <= row.version <= records.MAX_VERSION
        or min(len(row.head), len(row.value)) <= _SEALED_LEAST
    ):
        return "is malformed", ""
    if master is None:
        return "", ""
    try:
        head = records.open_head(
            master, vault_id=stored.vault_id, row=row.row_head, sealed=row.head
        )
    except OpenError:
        return "its name does not open: it was altered", ""
    if records.row_index(master, stored.vault_id, head.name) != row.index:
        return "is in the place of another key", head.name
    try:
        value = records.open_value(master, vault_id=stored.vault_id, row=row)
    except OpenError:
        return "its value does not open: it was altered", head.name
    report.keys.append(StoredKey(head, value))
    return "", head.name


def _row_set(report: Report, stored: StoredVault, heads: Sequence[RowHead], master: bytes) -> None:
    assert report.authority is not None
    try:
        rows = RowSet().change(master, stored.vault_id, add=heads, drop=())
        report.authority.check_rows(rows)
    except DamageError as error:
        report.note("set of keys", error.message)
    else:
        report.note("set of keys", "", "the one that the vault wrote last")


def _audit(report: Report, source: Source, stored: StoredVault, master: bytes | None) -> None:
    anchor = report.authority.audit if report.authority is not None else None
    public = found = source.audit_public()
    if anchor is not None and master is not None:
        public = _audit_keys(report, stored, anchor, found, master)
    elif found is None and next(iter(source.audit_rows()), None) is not None:
        report.note("audit keys", "are missing: the vault cannot be unlocked without them")
    if report.authority is not None and anchor is None and found is not None:
        report.note("authority record", "is not the newest: it is from before there was a log")
    if public is None:
        return
    known = [Known(anchor.head, "the vault")] if anchor is not None else []
    verifier, count = Verifier(stored.vault_id, public.verify, known), 0
    for row in source.audit_rows():
        verifier.feed(row)
        count += 1
    verifier.hold_record(stored.authority)
    verifier.finish()
    if verifier.stepped is not None:
        number, what = verifier.stepped.number, verifier.stepped.what
        report.note("authority record", f"is not the newest: entry {number} of the log {what}")
    problems = [each for each in (verifier.problem, verifier.broken, verifier.later) if each]
    for problem in problems:
        report.note("audit log", f"entry {problem.number} {problem.what}")
    if not problems:
        report.note("audit log", "", f"{count} rows, whole")


def _audit_keys(
    report: Report,
    stored: StoredVault,
    anchor: AuditAnchor,
    found: AuditPublic | None,
    master: bytes,
) -> AuditPublic | None:
    """Compare the file's audit keys with the vault's, as an unlock does, and return the vault's."""
    try:
        public = AuditKeys.open(master, stored.vault_id, anchor.keys).public
    except OpenError:
        report.note("audit keys", "do not open: the vault cannot be unlocked")
        return found
    problem = ""
    if found is None:
        problem = "are missing: the vault cannot be unlocked without them"
    elif found != public:
        problem = "are not the vault's, because somebody replaced them: it cannot be unlocked"
    report.note("audit keys", problem)
    return public


async def salvage(
    report: Report, passphrase: bytes, stretcher: Stretcher, tree: ProcessId
) -> bytes:
    """Return a backup of the keys that a report found readable.

    Args:
        report: of a check with the passphrase.
        passphrase: the vault's, which also opens the backup.
        stretcher: for the passphrase.
        tree: the process tree whose turn the stretching takes.

    Raises:
        DamageError: nothing can be read.
    """
    if report.stored is None or not report.keys:
        raise DamageError("no key of this vault can be read: there is nothing to save")
    file_key = secrets.token_bytes(backup.FILE_KEY_SIZE)
    stretching = slots.rfc_9106_low_memory(secrets.token_bytes(16))
    secret = await stretcher.stretch(passphrases.normalise(passphrase), stretching, tree)
    way = backup.passphrase_way(file_key, secret, stretching)
    # There may be two rows of one name, if an old row was put back: the newest counts.
    keys: dict[str, StoredKey] = {}
    for key in sorted(report.keys, key=lambda key: key.head.updated_at_ms):
        keys[key.head.name] = key
    newest = max(key.head.updated_at_ms for key in keys.values())
    sealer = Sealer(file_key, Header(report.stored.vault_id, newest, (way,)))
    parts = [sealer.head, sealer.add(backup_contents.encode(Summary(len(keys), 0)))]
    parts.append(sealer.add(backup_contents.encode(Policy())))
    parts += [sealer.add(backup_contents.encode(key)) for key in keys.values()]
    parts += [sealer.add(backup_contents.encode_end()), sealer.finish()]
    return b"".join(parts)

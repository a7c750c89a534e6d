"""What the daemon answers, as plain values. Nothing here talks to anybody or knows protobuf.

Times are datetimes in UTC, durations are seconds, and None stands where there is none.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum, unique


@unique
class VaultState(StrEnum):
    """The states that a vault can be in."""

    UNKNOWN = "unknown"
    UNINITIALIZED = "uninitialized"
    LOCKED = "locked"
    UNLOCKED = "unlocked"


@dataclass(frozen=True, slots=True)
class Protection:
    """One protection of the running daemon.

    Attributes:
        name: a stable word, such as `secret-memory`.
        on: True when it is fully in force.
        detail: how it is done, or what is missing.
    """

    name: str
    on: bool
    detail: str


@dataclass(frozen=True, slots=True)
class VaultStatus:
    """The daemon and its vault.

    Attributes:
        state: uninitialized, locked or unlocked.
        daemon_version: as in `backpackd --version`.
        daemon_pid: the daemon's process id, as it sees itself.
        supervised: True when a service manager runs it, so that stopping is its job.
        started_at: when it started.
        protections: what guards its memory and its door.
        leases_of_tree: live leases of the caller's own process tree.
        tree_pid: the root of that tree: what `tree:PID` in a grant would name.
        authorized_until: until when this connection has operator authority.
        slot_kinds: the kinds of slots that the vault has: passphrase, recovery, file, environment.
        recovery_drilled_at: when a recovery code was last proven; None: never, or not known while
            the vault is locked.
        audit_broken_at: when the audit log was found cut or altered since the daemon began; None:
            it was not.
        home: the directory of the daemon's vault; empty for an older daemon.
    """

    state: VaultState
    daemon_version: str
    daemon_pid: int
    supervised: bool
    started_at: datetime
    protections: tuple[Protection, ...]
    leases_of_tree: int
    tree_pid: int
    authorized_until: datetime | None
    slot_kinds: tuple[str, ...] = ()
    recovery_drilled_at: datetime | None = None
    audit_broken_at: datetime | None = None
    home: str = ""


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """A stored key without its value."""

    name: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Stored:
    """What a put did.

    Attributes:
        created: how many keys are new.
        replaced: how many got a new value.
        skipped: names that were left alone.
    """

    created: int
    replaced: int
    skipped: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Deleted:
    """What a delete did.

    Attributes:
        deleted: how many keys went.
        leases_ended: how many leases ended with them.
        grants_left: how many grants still name one of them.
    """

    deleted: int
    leases_ended: int
    grants_left: int


@dataclass(frozen=True, slots=True)
class Grant:
    """A standing permission.

    Attributes:
        id: what `ungrant` takes.
        patterns: key names, or patterns in which `*` stands for any run of characters.
        selector: whom it is given to.
        max_ttl_seconds: the longest lease that it allows.
        expires_at: when it ends; None: when it is taken back.
        uses_left: how many leases it still allows; None: any number.
        created_at: when it was given.
        reason: the operator's words.
        not_stored: names that it allows and that were not stored when it was given. Told to who
            gives it; empty in a listing.
    """

    id: str
    patterns: tuple[str, ...]
    selector: str
    max_ttl_seconds: int
    expires_at: datetime | None
    uses_left: int | None
    created_at: datetime
    reason: str
    not_stored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LeaseInfo:
    """A lease as the daemon tells of it, without values.

    Attributes:
        id: what `revoke` takes.
        names: the keys that it hands out.
        holder_pid: the root of the process tree that holds it.
        grant_ids: the grants that it rests on.
        issued_at: when it began.
        expires_at: when it ends unless renewed.
        max_expires_at: no renewal goes past this.
        remaining_seconds: how long it lived still when the daemon answered.
    """

    id: str
    names: tuple[str, ...]
    holder_pid: int
    grant_ids: tuple[str, ...]
    issued_at: datetime
    expires_at: datetime
    max_expires_at: datetime
    remaining_seconds: int


@dataclass(frozen=True, slots=True)
class LeaseEvent:
    """Something that happened to a lease.

    Attributes:
        kind: `live` (when the watch began), `issued`, `renewed` or `ended`.
        lease: the lease.
        reason: why it ended, such as `expired` or `revoked`; else empty.
    """

    kind: str
    lease: LeaseInfo
    reason: str


@dataclass(frozen=True, slots=True)
class Process:
    """One process of a caller's chain, as the daemon attested it.

    Attributes:
        pid: its process id.
        executable: what it runs, an absolute path; empty when the kernel does not tell.
        unit: its systemd unit; empty outside of one.
        proposed_root: True for the root of the process tree as the daemon sees it.
        in_tree: True from the caller up to the proposed root.
        may_be_root: True where consent may be given to this process as root instead.
        claimed_command: what it says of itself. A claim.
        now: empty where `executable` is what it runs now; else what the kernel says of that:
            `unnamed` (deleted, or in memory only), `hidden`, `nothing` or `ended`.
    """

    pid: int
    executable: str
    unit: str
    proposed_root: bool
    in_tree: bool
    may_be_root: bool
    claimed_command: str
    now: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """A request that waits for a person.

    Attributes:
        code: what `approve` and `deny` take.
        names: the keys that are asked for.
        chain: the caller first, then its parent, and so on.
        claimed_reason: the caller's words. A claim.
        asked_at: when it was first asked.
        waiting: how many calls wait for the answer now.
        revision: what `approve` takes, so that nothing is approved but what was shown: another one
            once a process of the chain has been found to run something else.
    """

    code: str
    names: tuple[str, ...]
    chain: tuple[Process, ...]
    claimed_reason: str
    asked_at: datetime
    waiting: int
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Panicked:
    """What a panic ended: how many leases, and how many requests."""

    leases_ended: int
    requests_ended: int


@dataclass(frozen=True, slots=True)
class Revealed:
    """One time that values were revealed.

    Attributes:
        at: when.
        names: the keys.
        pid: the process that asked.
        executable: what it ran; empty when unknown.
        root_pid: the root of its process tree.
        root_executable: what that ran; empty when unknown.
        lease_id: the lease that was issued for it.
    """

    at: datetime
    names: tuple[str, ...]
    pid: int
    executable: str
    root_pid: int
    root_executable: str
    lease_id: str


@unique
class PolicyDefault(StrEnum):
    """What happens to a request that no grant covers and no rule denies."""

    ASK = "ask"
    ALLOW = "allow"
    DENY = "deny"


@unique
class PolicyListing(StrEnum):
    """Which names callers without operator authority are told."""

    GRANTED = "granted"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class DenyRule:
    """Denies keys, whatever grants there are.

    Attributes:
        patterns: key names, or patterns in which `*` stands for any run of characters.
        selector: whom it denies them, not `tree:`; empty: everybody.
    """

    patterns: tuple[str, ...]
    selector: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds for every request, whatever was granted.

    Attributes:
        default: what happens where nothing was granted.
        listing: which names are listed to whom.
        deny: rules that beat every grant.
        max_ttl_seconds: no lease lives longer than this.
    """

    default: PolicyDefault
    listing: PolicyListing
    deny: tuple[DenyRule, ...]
    max_ttl_seconds: int


@dataclass(frozen=True, slots=True)
class Policies:
    """The policy as the operator sealed it, and as it is with the configuration file on top."""

    sealed: Policy
    in_force: Policy

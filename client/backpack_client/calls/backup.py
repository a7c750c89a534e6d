"""The calls of the service Backup: everything that is stored, out of the vault and into it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, BinaryIO

from backpack_client.calls.call import PACKAGE, Call
from backpack_client.calls.fields import moment
from backpack_client.calls.stubs import Stubs

if TYPE_CHECKING:
    from backpack_proto.v1 import backup_pb2
else:
    backup_pb2 = Stubs("backup_pb2")

_PIECE = 256 * 1024
RULES = ("keep", "replace", "fail")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a backup: the first says how much it holds, the others are bytes of the file."""

    keys: int
    grants: int
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Imported:
    """The result of an import, or of a dry run."""

    created_at: datetime
    vault_id: str
    created: int
    replaced: int
    kept: int
    grants: tuple[str, ...]
    policy: tuple[str, ...]
    grants_added: int


def export_keys(
    passphrase: bytes, *, plaintext: bool = False, recipients: Sequence[str] = ()
) -> Call[Piece]:
    """Write a backup; the answers are its pieces.

    Args:
        passphrase: opens it; empty: no passphrase opens it.
        plaintext: do not seal it at all.
        recipients: identities of vaults that may open it.
    """
    return Call(
        PACKAGE + "Backup/ExportKeys",
        backup_pb2.ExportKeysRequest(
            passphrase=passphrase, plaintext=plaintext, recipients=recipients
        ),
        backup_pb2.ExportKeysResponse.FromString,
        lambda response: Piece(response.keys, response.grants, response.data),
        streams=True,
    )


def import_keys(
    passphrase: bytes, *, on_conflict: str, dry_run: bool, with_grants: bool
) -> Call[Imported]:
    """Import a backup; its bytes follow in further requests, see `pieces`."""
    rules = {
        "keep": backup_pb2.ON_CONFLICT_KEEP,
        "replace": backup_pb2.ON_CONFLICT_REPLACE,
        "fail": backup_pb2.ON_CONFLICT_FAIL,
    }
    terms = backup_pb2.ImportTerms(
        passphrase=passphrase,
        on_conflict=rules[on_conflict],
        dry_run=dry_run,
        with_grants=with_grants,
    )
    return Call(
        PACKAGE + "Backup/ImportKeys",
        backup_pb2.ImportKeysRequest(terms=terms),
        backup_pb2.ImportKeysResponse.FromString,
        _imported,
    )


def pieces(file: BinaryIO) -> Iterator[backup_pb2.ImportKeysRequest]:
    """Yield the bytes of a file as requests."""
    while piece := file.read(_PIECE):
        yield backup_pb2.ImportKeysRequest(data=piece)


def _imported(response: backup_pb2.ImportKeysResponse) -> Imported:
    return Imported(
        moment(response.created_at_ms),
        response.vault_id,
        response.created,
        response.replaced,
        response.kept,
        tuple(response.grants),
        tuple(response.policy),
        response.grants_added,
    )

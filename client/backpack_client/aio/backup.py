"""Backups, to be awaited."""

from collections.abc import Sequence
from typing import BinaryIO

from backpack_client.aio.connection import Connection
from backpack_client.aio.watch import AsyncWatch
from backpack_client.calls import backup as calls


class BackupMethods(Connection):
    """Backups: export everything that is stored, and import it."""

    def export(
        self, passphrase: bytes = b"", *, plaintext: bool = False, recipients: Sequence[str] = ()
    ) -> AsyncWatch[calls.Piece]:
        """Read a backup of everything that is stored, piece by piece. Needs operator authority.

        Args:
            passphrase: opens the backup; empty: no passphrase opens it.
            plaintext: do not seal it at all.
            recipients: identities of vaults that may open it.
        """
        return self.follow(
            calls.export_keys(passphrase, plaintext=plaintext, recipients=recipients)
        )

    async def import_vault(
        self,
        file: BinaryIO,
        passphrase: bytes = b"",
        *,
        on_conflict: str = "fail",
        dry_run: bool = False,
        with_grants: bool = False,
    ) -> calls.Imported:
        """Store the keys of a backup, all of them or none. Needs operator authority.

        Args:
            file: the backup, read from its current position.
            passphrase: opens it; empty: the backup was sealed to this vault.
            on_conflict: what to do with a key that is stored already: keep, replace or fail.
            dry_run: check everything, store nothing.
            with_grants: also import grants and policy.
        """
        call = calls.import_keys(
            passphrase, on_conflict=on_conflict, dry_run=dry_run, with_grants=with_grants
        )
        return await self.upload(call, calls.pieces(file))

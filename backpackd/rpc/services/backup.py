"""The service `backpack.v1.Backup`."""

from collections.abc import AsyncIterator

from backpack_proto.v1 import backup_pb2 as pb
from backpackd.application.backup import backup
from backpackd.application.backup.backup import Backup, Imported, Terms
from backpackd.application.vault.vault import Vault
from backpackd.core.errors import InvalidRequestError, LimitError
from backpackd.core.sealing.identity import PublicIdentity
from backpackd.ports import Call

MOST_BYTES = 16 * 1024 * 1024 * 1024
"""The longest backup that can be imported: more than a full vault makes."""
_PIECE = 256 * 1024
_RULES = {
    pb.ON_CONFLICT_KEEP: backup.KEEP,
    pb.ON_CONFLICT_REPLACE: backup.REPLACE,
    pb.ON_CONFLICT_FAIL: backup.FAIL,
}


class BackupService:
    """Translates messages into backups and back."""

    descriptor = pb.DESCRIPTOR.services_by_name["Backup"]

    def __init__(self, vault: Vault, backups: Backup) -> None:
        self._vault = vault
        self._backups = backups

    async def export_keys(
        self, call: Call, request: pb.ExportKeysRequest
    ) -> AsyncIterator[pb.ExportKeysResponse]:
        """Answer `ExportKeys`."""
        with call.waiting():
            if request.plaintext:
                exported = await self._backups.export_plain(by=call.connection)
            else:
                # Each recipient is a public key that must be checked.
                backup.check_recipients(request.recipients)
                recipients = [PublicIdentity.parse(each) for each in request.recipients]
                exported = await self._backups.export(
                    request.passphrase,
                    [each.encryption for each in recipients],
                    call.connection.tree,
                    by=call.connection,
                )
        session = self._vault.session()
        try:
            yield pb.ExportKeysResponse(keys=exported.keys, grants=exported.grants)
            if request.plaintext:
                async for line in self._backups.plain(exported):
                    # Values may leave only while the vault is unlocked.
                    session.check()
                    yield pb.ExportKeysResponse(data=line)
            else:
                async for piece in exported.spool.pieces():
                    for at in range(0, len(piece), _PIECE):
                        yield pb.ExportKeysResponse(data=piece[at : at + _PIECE])
        finally:
            exported.spool.close()

    async def import_keys(
        self, call: Call, requests: AsyncIterator[pb.ImportKeysRequest]
    ) -> pb.ImportKeysResponse:
        """Answer `ImportKeys`.

        Raises:
            InvalidRequestError: the parts are not the terms, once, followed by data.
            LimitError: the backup is too long.
        """
        spool = self._backups.spooling()
        try:
            terms: Terms | None = None
            size = 0
            async for request in requests:
                if terms is None:
                    terms = _terms(request)
                    continue
                if request.WhichOneof("part") != "data":
                    raise InvalidRequestError("send the terms of an import first, and only once")
                size += len(request.data)
                if size > MOST_BYTES:
                    raise LimitError("this backup is too long to import")
                await spool.append(request.data)
            if terms is None:
                raise InvalidRequestError("send the terms of an import first")
            with call.waiting():
                taken = await self._backups.take(
                    spool, terms, call.connection.tree, by=call.connection
                )
        finally:
            spool.close()
        return _imported(taken)


def _terms(request: pb.ImportKeysRequest) -> Terms:
    if request.WhichOneof("part") != "terms":
        raise InvalidRequestError("send the terms of an import first")
    terms = request.terms
    if terms.on_conflict not in _RULES:
        raise InvalidRequestError("choose what happens to keys that are already stored")
    return Terms(
        terms.passphrase,
        _RULES[terms.on_conflict],
        dry_run=terms.dry_run,
        with_grants=terms.with_grants,
    )


def _imported(taken: Imported) -> pb.ImportKeysResponse:
    return pb.ImportKeysResponse(
        created_at_ms=taken.header.created_ms,
        vault_id=taken.header.vault_id.hex(),
        created=taken.created,
        replaced=taken.replaced,
        kept=taken.kept,
        grants=[backup.describe_grant(grant) for grant in taken.grants],
        policy=backup.describe_policy(taken.policy),
        grants_added=taken.grants_added,
    )

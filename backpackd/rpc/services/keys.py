"""The service `backpack.v1.Keys`."""

from collections.abc import AsyncIterator, Sequence

from backpack_proto.v1 import keys_pb2 as pb
from backpackd.application.access.access import Access
from backpackd.application.access.grants import StandingGrants
from backpackd.application.vault.keys import MOST_AT_ONCE, Keys
from backpackd.application.vault.vault import Vault
from backpackd.core.names import check_names
from backpackd.core.vault.records import KeyHead
from backpackd.ports import Call

_BATCH = 500


class KeysService:
    """Translates messages into calls on stored keys."""

    descriptor = pb.DESCRIPTOR.services_by_name["Keys"]

    def __init__(
        self, vault: Vault, keys: Keys, access: Access, standing_grants: StandingGrants
    ) -> None:
        self._vault = vault
        self._keys = keys
        self._access = access
        self._standing_grants = standing_grants

    async def put_keys(self, call: Call, request: pb.PutKeysRequest) -> pb.PutKeysResponse:
        """Answer `PutKeys`."""
        result = await self._keys.put(
            [(key.name, key.value) for key in request.keys],
            by=call.connection,
            replace=request.replace,
            skip_existing=request.skip_existing,
            dry_run=request.dry_run,
        )
        return pb.PutKeysResponse(
            created=result.created, replaced=result.replaced, skipped=result.skipped
        )

    async def list_keys(
        self, call: Call, request: pb.ListKeysRequest
    ) -> AsyncIterator[pb.ListKeysResponse]:
        """Answer `ListKeys`."""
        session = self._vault.session()
        heads: Sequence[KeyHead]
        if request.all:
            heads = await self._keys.list(lambda _: True)
        else:
            heads = await self._access.listed(call.connection)
        # A caller that may see nothing gets no message. That does not count as a use of the vault.
        for start in range(0, len(heads), _BATCH):
            # Names reveal as much as values, and a slow reader may delay this.
            session.check()
            yield pb.ListKeysResponse(
                keys=[
                    pb.KeyEntry(
                        name=head.name,
                        created_at_ms=head.created_at_ms,
                        updated_at_ms=head.updated_at_ms,
                    )
                    for head in heads[start : start + _BATCH]
                ]
            )

    async def delete_keys(self, call: Call, request: pb.DeleteKeysRequest) -> pb.DeleteKeysResponse:
        """Answer `DeleteKeys`."""
        names = check_names(list(request.names), most=MOST_AT_ONCE)
        left = self._standing_grants.naming(names)
        ended = await self._access.delete_keys(names, by=call.connection)
        return pb.DeleteKeysResponse(
            deleted=len(names),
            leases_ended=ended,
            grants_left=left,
        )

"""The messages of what agents call besides `get`, as tables for `messages`."""

from backpack_client.wire.messages import BOOL, BYTES, ENUM, INT64, LEASE, TEXT, UINT32, UINT64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from backpack_client.wire.messages import Table

RENEW_LEASE_REQUEST: "Table" = {1: ("lease_id", TEXT), 2: ("ttl_seconds", UINT32)}
RENEW_LEASE_RESPONSE: "Table" = {1: ("lease", LEASE)}

REVOKE_LEASES_REQUEST: "Table" = {
    1: ("lease_id", TEXT),
    2: ("key", TEXT),
    3: ("tree_pid", INT64),
    4: ("all", BOOL),
    5: ("give_back", BOOL),
}
REVOKE_LEASES_RESPONSE: "Table" = {1: ("ended", UINT32)}

LIST_LEASES_REQUEST: "Table" = {1: ("all", BOOL)}
LIST_LEASES_RESPONSE: "Table" = {1: ("leases", [LEASE])}

WATCH_LEASES_REQUEST: "Table" = {1: ("all", BOOL)}
KIND_LIVE, KIND_ISSUED, KIND_RENEWED, KIND_ENDED = 1, 2, 3, 4
WATCH_LEASES_RESPONSE: "Table" = {1: ("kind", ENUM), 2: ("lease", LEASE), 3: ("reason", TEXT)}

LIST_KEYS_REQUEST: "Table" = {1: ("all", BOOL)}
KEY_ENTRY: "Table" = {1: ("name", TEXT), 2: ("created_at_ms", INT64), 3: ("updated_at_ms", INT64)}
LIST_KEYS_RESPONSE: "Table" = {1: ("keys", [KEY_ENTRY])}

LEGACY_KEY: "Table" = {1: ("key", BYTES), 2: ("iterations", UINT32)}
LOCK_AUTHOR: "Table" = {
    1: ("fingerprint", TEXT),
    2: ("label", TEXT),
    3: ("trusted", BOOL),
    4: ("own", BOOL),
}
LOCK_RECIPIENT: "Table" = {1: ("fingerprint", TEXT), 2: ("label", TEXT), 3: ("own", BOOL)}
LOCK_CREDENTIAL: "Table" = {1: ("name", TEXT), 2: ("embedded", BOOL)}
LOCK_INFO: "Table" = {
    1: ("version", UINT32),
    2: ("lock_id", TEXT),
    3: ("author", LOCK_AUTHOR),
    4: ("generation", UINT64),
    5: ("credentials_generation", UINT64),
    6: ("personality_generation", UINT64),
    7: ("memory_counter", UINT64),
    8: ("memory_hash", TEXT),
    9: ("recipients", [LOCK_RECIPIENT]),
    10: ("credentials", [LOCK_CREDENTIAL]),
    11: ("warnings", [TEXT]),
    12: ("unaccepted_names", [TEXT]),
}
OPEN_LOCK_REQUEST: "Table" = {
    1: ("agent_lock", BYTES),
    2: ("claimed_path", TEXT),
    3: ("legacy", LEGACY_KEY),
}
OPEN_LOCK_RESPONSE: "Table" = {
    1: ("info", LOCK_INFO),
    2: ("personality", BYTES),
    3: ("memory", BYTES),
}
UPDATE_MEMORY_REQUEST: "Table" = {
    1: ("agent_lock", BYTES),
    2: ("claimed_path", TEXT),
    3: ("memory", BYTES),
    4: ("expected_memory_hash", TEXT),
}
UPDATE_MEMORY_RESPONSE: "Table" = {
    1: ("agent_lock", BYTES),
    2: ("memory_counter", UINT64),
    3: ("memory_hash", TEXT),
}

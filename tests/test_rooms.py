"""The rooms of each storey: which may import which, and what lies inside of each."""

from collections.abc import Iterator

import pytest

from test_architecture import PACKAGES, ROOT, imports, modules, parsed, within

# The rooms of each storey, lowest first, and which rooms each may import. A room is a package, or a
# module that stands beside the packages. A row names only rows above it, so there is no cycle.
ROOMS: dict[str, dict[str, str]] = {
    "backpackd.core": {
        "errors": "",
        "process_roles": "",
        "peer_facts": "process_roles",
        "protections": "",
        "render": "",
        "rows": "",
        "names": "errors",
        "sealing": "errors",
        "slots": "errors peer_facts sealing",
        "access": "errors peer_facts names sealing",
        "agentlock": "errors names sealing",
        "audit": "peer_facts render rows sealing",
        "vault": "errors rows names sealing slots access agentlock audit",
        "backup": "errors names sealing slots access vault",
    },
    "backpackd.application": {
        "vault": "",
        "audit": "vault",
        "unattended": "vault audit",
        "deadlines": "audit",
        "callers": "audit",
        "access": "vault audit deadlines callers",
        "agents": "vault audit callers",
        "backup": "vault access",
    },
    "backpackd.adapters": {
        "refusal": "",
        "home": "refusal",
        "processes": "",
        "stores": "refusal home",
        "system": "refusal home",
        "secrets": "refusal home system",
        "door": "processes system",
    },
    "backpackd.rpc": {
        "methods": "",
        "sizes": "",
        "batches": "",
        "watching": "",
        "calls": "methods sizes",
        "standard": "methods sizes calls",
        "services": "methods sizes batches watching calls",
    },
    "backpack_client": {
        "failures": "",
        "model": "",
        "agent_model": "",
        "durations": "failures",
        "address": "failures",
        "process_protection": "failures",
        "files": "failures",
        "launch": "failures",
        "console": "failures process_protection",
        "wire": "failures address",
        "channel": "failures durations address wire",
        "fastpath": "failures durations address wire",
        "calls": "failures model agent_model durations wire",
        "grpc_calls": "process_protection channel wire calls",
        "handles": "failures model agent_model files calls",
        "api": "failures model agent_model address files wire calls grpc_calls handles",
        "aio": "failures model agent_model address files wire calls grpc_calls handles",
        "cli": "failures model agent_model durations address process_protection channel files "
        "launch console wire fastpath calls handles api",
        "__main__": "fastpath cli",
    },
    "backpack_client.cli": {
        "daemon_control": "",
        "session": "daemon_control",
        "main": "session",
        "operate": "session main",
        "audit": "session",
        "keys": "session",
        "consent": "session",
        "vault": "daemon_control session",
        "agents": "session consent vault",
    },
}

# What only the room itself imports: the rest of each room is its entrance.
INSIDE = {
    "backpackd.core.agentlock": "fields header layers strictjson",
    "backpackd.application.vault": "change_queue journal stored_vault",
    "backpackd.application.audit": "reconciliation writer",
    "backpackd.adapters.door": "budget frames places refusals turns",
    "backpackd.adapters.processes": "claims process_reader procfs",
    "backpackd.adapters.stores": "aside failures formats purging remembered vault_file",
    "backpack_client.wire": "hpack http2",
}
MOST_FILES = 13
"""One for each service of the API, where each has a file."""


def near(name: str) -> Iterator[tuple[str, str, str]]:
    """Yield each module of a storey, what it imports of that storey, and the room of that."""
    package = name.partition(".")[0]
    for module, path in modules(package).items():
        if module != name and within(module, name):
            for found in imports(parsed(path)):
                if within(found, name) and found != name:
                    rest = found.removeprefix(f"{name}.")
                    yield module, found, rest.partition(".")[0]


@pytest.mark.parametrize("storey", ROOMS)
def test_every_module_of_a_storey_is_in_a_room_that_is_named(storey: str) -> None:
    inside = [name for name in modules(storey.partition(".")[0]) if name.startswith(f"{storey}.")]
    rooms = {name.removeprefix(f"{storey}.").partition(".")[0] for name in inside}
    assert rooms == ROOMS[storey].keys()


@pytest.mark.parametrize("storey", ROOMS)
def test_rooms_import_only_rooms_below_them(storey: str) -> None:
    rooms, above = ROOMS[storey], set[str]()
    for room, allowed in rooms.items():
        assert set(allowed.split()) <= above, f"{room} may import only rooms above it in the table"
        above.add(room)
    wrong = [
        f"{module} imports {found}"
        for module, found, room in near(storey)
        if (own_room := module.removeprefix(f"{storey}.").partition(".")[0]) != room
        and room in rooms
        and room not in rooms[own_room].split()
    ]
    assert wrong == []


@pytest.mark.parametrize("room", INSIDE)
def test_what_lies_inside_a_room_is_imported_by_that_room_only(room: str) -> None:
    inner = [f"{room}.{name}" for name in INSIDE[room].split()]
    found = [
        f"{module} imports {name}"
        for package in PACKAGES
        for module, path in modules(package).items()
        if not within(module, room)
        for name in imports(parsed(path))
        if within(name, *inner)
    ]
    assert found == []


def test_no_room_holds_more_files_than_a_reader_can_tell_apart() -> None:
    rooms = {path.parent for package in PACKAGES for path in modules(package).values()}
    full = [
        f"{room.relative_to(ROOT)}: {len(files)}"
        for room in sorted(rooms)
        if len(files := [p for p in room.glob("*.py") if p.name != "__init__.py"]) > MOST_FILES
    ]
    assert full == []

"""What the documents promise about the code, checked against the code."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpack_client import failures
from backpack_client.cli.main import _HOMES
from backpackd import config, settings
from backpackd.adapters.door import limits
from backpackd.application.access import access, approvals, started_agents
from backpackd.application.access import leases as live_leases
from backpackd.application.audit import writer
from backpackd.application.callers import operators
from backpackd.application.vault import keys
from backpackd.core import names
from backpackd.core.access import grants, leases, policy, requests
from backpackd.core.errors import BackpackError
from backpackd.core.slots import passphrases, throttle
from backpackd.rpc import sizes
from backpackd.rpc.calls import MOST_OPEN
from backpackd.rpc.methods import METHODS, Caller
from backpackd.rpc.services import audit as rpc_audit
from backpackd.rpc.services import leases as rpc_leases
from backpackd.rpc.services import requests as rpc_requests

ROOT = Path(__file__).resolve().parents[1]
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SERVICE_FILES = sorted([*(ROOT / "systemd").iterdir(), *(ROOT / "launchd").iterdir()])

# [text](target), with the target up to a title or the closing parenthesis.
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)[^)]*\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
MACHINE_PATH = re.compile(r"(?<![\w$~}./-])/(?:work|root|home|Users|mnt|workspace)(?:/|\b)")
REASON_ROW = re.compile(r"^\| `([a-z][a-z-]*)` \| ([A-Z_]+) \|", re.MULTILINE)
METHOD_ROW = re.compile(r"^\| `(backpack\.v1\.\w+/\w+)` \|", re.MULTILINE)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def subclasses(of: type[BackpackError]) -> Iterator[type[BackpackError]]:
    for one in of.__subclasses__():
        yield one
        yield from subclasses(one)


def reasons_of_classes() -> dict[str, str]:
    """Every reason that a class has, with its status; branches that only group have none."""
    # With the composition root comes every module that defines one.
    importlib.import_module("backpackd.daemon")
    return {
        one.reason: one.status.value
        for one in subclasses(BackpackError)
        if one.reason != BackpackError.reason
    }


def called(node: ast.Call) -> str:
    """Return the last part of the name of what is called."""
    function = node.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def reasons_raised() -> set[str]:
    """Every reason given where an error is made: `SomethingError(..., reason="word")`."""
    found = set()
    for path in (ROOT / "backpackd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            if not called(node).endswith("Error"):
                continue
            for keyword in node.keywords:
                if keyword.arg == "reason" and isinstance(keyword.value, ast.Constant):
                    found.add(str(keyword.value.value))
    return found


def metadata_sent() -> set[str]:
    """Every name of trailing metadata of ours: as it is, or as a member of an error's `facts`."""
    found = set()
    for path in (ROOT / "backpackd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and called(node).endswith("Error"):
                for keyword in node.keywords:
                    if keyword.arg == "facts":
                        assert isinstance(keyword.value, ast.Dict), "facts are written out"
                        for key in keyword.value.keys:
                            assert isinstance(key, ast.Constant)
                            found.add(f"backpack-{key.value!s}")
            elif isinstance(node, ast.Constant) and re.fullmatch(
                r"backpack-(?!client)[a-z-]+[a-z]", str(node.value)
            ):
                found.add(str(node.value))
    return found


def rpcs() -> set[str]:
    """Every method of the API as its full name on the wire, without the leading slash."""
    found = set()
    for path in sorted((ROOT / "proto" / "backpack_proto" / "v1").glob("*.proto")):
        text = re.sub(r"//.*", "", path.read_text(encoding="utf-8"))
        for service, body in re.findall(
            r"service (\w+) \{(.*?)^\}", text, re.DOTALL | re.MULTILINE
        ):
            found |= {f"backpack.v1.{service}/{name}" for name in re.findall(r"rpc (\w+)\(", body)}
    return found


def anchors(document: Path) -> set[str]:
    """The anchors that a document's headings get where it is shown on the web."""
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    headings = re.findall(r"^#{1,6} (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links() -> list[tuple[Path, str]]:
    return [
        (document, target)
        for document in DOCUMENTS
        for target in LINK.findall(FENCE.sub("", document.read_text(encoding="utf-8")))
        if not re.match(r"[a-z]+:", target)
    ]


@pytest.mark.parametrize("reason", sorted(reasons_of_classes()))
def test_every_reason_of_the_taxonomy_stands_in_the_protocol_with_its_status(reason: str) -> None:
    assert dict(REASON_ROW.findall(PROTOCOL)).get(reason) == reasons_of_classes()[reason]


def test_every_reason_that_the_daemon_raises_stands_in_the_protocol() -> None:
    assert reasons_raised() - {reason for reason, _ in REASON_ROW.findall(PROTOCOL)} == set()


def test_the_protocol_names_no_reason_that_the_daemon_does_not_have() -> None:
    documented = {reason for reason, _ in REASON_ROW.findall(PROTOCOL)}
    assert documented - reasons_raised() - set(reasons_of_classes()) == set()


def test_no_reason_stands_in_the_protocol_twice() -> None:
    documented = [reason for reason, _ in REASON_ROW.findall(PROTOCOL)]
    assert len(documented) == len(set(documented))


def test_every_metadata_name_that_the_daemon_sends_stands_in_the_protocol() -> None:
    assert {name for name in metadata_sent() if f"`{name}`" not in PROTOCOL} == set()


def test_the_table_of_methods_is_the_api() -> None:
    assert set(METHOD_ROW.findall(PROTOCOL)) == rpcs()
    assert rpcs()


def test_the_table_of_the_readme_is_the_api() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("## The API at a glance")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE)
    told = [f"backpack.v1.{name}/{call}" for name, calls in rows for call in calls.split()]
    assert sorted(told) == sorted(method.replace("/", "/`") + "`" for method in rpcs())


@pytest.mark.parametrize(
    ("what", "limit"),
    [
        ("value", f"1 to {names.MAX_VALUE} bytes"),
        (
            "patterns in a grant",
            f"1 to {grants.MAX_PATTERNS}, of at most {names.MAX_NAME} characters",
        ),
        ("reason of a grant or a lease", f"{grants.MAX_REASON} characters"),
        ("grants", str(grants.MAX_GRANTS)),
        (
            "lease: shortest, by default",
            f"{leases.SHORTEST_TTL} second, {leases.DEFAULT_TTL // 60} minutes",
        ),
        (
            "longest lease that a grant allows: by default, at most",
            f"{grants.DEFAULT_MAX_TTL // 3600} hours, {grants.LONGEST_TTL // 86400} days",
        ),
        (
            "passphrase",
            f"{passphrases.MAX_BYTES} bytes; a new one at least 12 characters",
        ),
        (
            "connections of one process tree, of all",
            f"{limits.CONNECTIONS_OF_TREE}, {limits.CONNECTIONS}",
        ),
        (
            "calls of one process tree that stay open, those of health and reflection included",
            str(MOST_OPEN),
        ),
        (
            (
                "requests under way without operator authority: of one connection, of one process "
                "tree, of all"
            ),
            ", ".join(
                f"{size >> 20} MiB"
                for size in (
                    limits.UNFINISHED_OF_CONNECTION,
                    limits.UNFINISHED_OF_TREE,
                    limits.UNFINISHED,
                )
            ),
        ),
        (
            "headers of one call",
            f"{limits.HEADER_BYTES >> 10} KiB; at 64 KiB the connection is closed",
        ),
        ("calls at once on one connection", f"{limits.STREAMS}, then it is closed"),
        ("length of a frame", f"{limits.LONGEST_FRAME >> 10} KiB, as HTTP/2 says"),
        ("one message, in either direction", f"{sizes.MAX_MESSAGE >> 20} MiB"),
        (
            "a caller that takes nothing of what waits for it",
            f"{limits.PATIENCE_SECONDS:.0f} seconds, then it is closed",
        ),
        ("passphrases of one process tree that wait to be checked", str(operators.MOST_WAITING)),
        ("keys in a vault", str(keys.MOST_STORED)),
        (
            "live leases of one process tree, of all",
            f"{live_leases.MOST_OF_TREE}, {live_leases.MOST_LEASES}",
        ),
        (
            "`WatchLeases` of one process tree, of all without operator authority, of operators",
            (
                f"{live_leases.MOST_WATCHERS_OF_TREE}, {live_leases.MOST_WATCHERS}, "
                f"{live_leases.MOST_WATCHERS}"
            ),
        ),
        (
            "`WatchRequests` of one process tree, of all without operator authority, of operators",
            (
                f"{approvals.MOST_WATCHERS_OF_TREE}, {approvals.MOST_WATCHERS}, "
                f"{approvals.MOST_WATCHERS}"
            ),
        ),
        ("waiting for a person", f"{access.LONGEST_WAIT} seconds"),
        ("requests of one process tree, of all", f"{requests.MOST_OF_TREE}, {requests.MOST}"),
        ("requests below one outermost process", str(requests.MOST_OF_CHAIN)),
        ("calls that wait for one request", str(approvals.MOST_WAITING_OF_TREE)),
        (
            "rules in a policy",
            f"{policy.MAX_RULES}, of 1 to {grants.MAX_PATTERNS} patterns each",
        ),
        (
            "agents of one process tree, of all",
            f"{started_agents.MOST_AGENTS_OF_TREE}, {started_agents.MOST_AGENTS}",
        ),
        ("leases that are kept for one agent", str(started_agents.MOST_LEASES_OF_AGENT)),
        ("from SIGTERM to SIGKILL for an agent", f"{started_agents.GRACE} seconds"),
        ("handouts that are listed, newest entries in `ShowAudit`", str(rpc_leases.MOST_HANDOUTS)),
        ("events in `ShowAudit`", str(rpc_audit.MOST_EVENTS)),
        (
            "audit events that wait while nothing can be written",
            str(writer.MOST_NOTED),
        ),
        ("names in `GetKeys`", f"1 to {access.MOST_NAMES}, each once"),
        ("keys in `PutKeys`, names in `DeleteKeys`", f"1 to {keys.MOST_AT_ONCE}"),
        (
            "until the first request on a connection",
            f"{limits.FIRST_REQUEST_SECONDS:.0f} seconds, {limits.FIRST_REQUEST_BYTES >> 10} KiB",
        ),
    ],
)
def test_a_limit_in_the_protocol_is_the_one_that_is_enforced(what: str, limit: str) -> None:
    assert f"\n| {what} | {limit} |\n" in PROTOCOL


def test_the_limits_that_stand_in_no_row_of_their_own_are_those_that_are_enforced() -> None:
    assert passphrases.MIN_CHARACTERS == 12
    assert f"| calls in progress of one process tree | {limits.CALLS_OF_TREE}; " in PROTOCOL
    frames = (
        f"{limits.FRAMES_SPARE} to spare; those that begin a request are free and bring "
        f"{limits.FRAMES_FOR_A_REQUEST} more, {limits.BYTES_FOR_ONE_FRAME} bytes of a request "
        f"bring one, a whole message {limits.FRAMES_FOR_A_MESSAGE}, a frame that is answered "
        f"{limits.FRAMES_FOR_AN_ANSWER}, a second "
        f"{limits.FRAMES_A_SECOND};"
    )
    assert frames in PROTOCOL


def test_the_sizes_of_requests_are_those_in_the_protocol() -> None:
    rows = re.findall(r"^\| ([^|]+) \| (\d+) KiB \| (\d+) \|$", PROTOCOL, re.MULTILINE)
    told = {}
    for who, most, fields in rows:
        for name in re.findall(r"`(\w+)`", who) or ["every other"]:
            told[name] = (int(most) * 1024, int(fields))
    usual = sizes.Size()
    assert told.pop("every other") == (usual.bytes, usual.fields)
    enforced = {
        name.removeprefix("backpack.v1.").removesuffix("Request"): (size.bytes, size.fields)
        for name, size in sizes.SIZES.items()
    }
    assert told == enforced


def test_what_is_listed_is_bounded_as_the_protocol_says() -> None:
    assert f"| {rpc_leases.MOST_LISTED_BYTES >> 20} MiB; beyond that `WatchLeases` |" in PROTOCOL
    assert f"| {rpc_requests.MOST_SHOWN_BYTES >> 20} MiB, the first in line |" in PROTOCOL
    assert rpc_audit.MOST_NEWEST == rpc_leases.MOST_HANDOUTS
    patterns = f"| patterns in all grants together | {grants.MAX_PATTERNS_OF_ALL} |"
    assert patterns in PROTOCOL


def test_the_threat_model_says_when_the_vault_locks_by_itself() -> None:
    text = " ".join((ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8").split())
    assert f"not used for {config.IDLE / 3600:.0f} hours and no lease is live" in text
    assert f"or for {config.LONGEST / 3600:.0f} hours at most" in text


def test_the_example_of_a_configuration_file_is_a_good_one_and_uses_every_setting() -> None:
    (example,) = re.findall(r"^```toml\n(.*?)^```", CONFIGURATION, re.MULTILINE | re.DOTALL)
    said = "\n".join(config.parse_configuration(example.encode()).describe())
    settings = ("default", "listing", "max_ttl", "deny")
    assert all(f"policy.{name}: " in said for name in settings)
    assert all(f"lock.{name}: " in said for name in ("idle", "longest"))


def test_the_limits_of_the_configuration_file_are_those_that_are_enforced() -> None:
    text = " ".join(CONFIGURATION.split())
    assert f"at most {config.MAX_CONFIG // 1024} KiB, in lines of at most {config.MAX_LINE}" in text
    assert f"at most {config.IDLE // 3600}h" in text
    assert f"at most {config.LONGEST // 3600}h" in text
    assert f"up to {policy.MAX_RULES}" in text
    assert f"1 second to {grants.LONGEST_TTL // 86400} days" in text
    assert f"{settings.CONFIG_NAME}` in the vault's home" in text


def test_the_life_of_a_request_is_the_one_in_the_protocol() -> None:
    assert requests.LIFE == 600
    assert "stays for ten minutes" in PROTOCOL


def test_the_readme_names_every_command() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme[readme.index("## The commands") : readme.index("--help` explains each")]
    assert {name for name in _HOMES if f"`{name}`" not in table} == set()


def test_the_table_of_methods_in_the_protocol_is_the_one_that_is_enforced() -> None:
    rows = re.findall(
        r"^\| `(backpack\.v1\.\w+)/(\w+)` \| ([^|]*) \| (yes|no) \|", PROTOCOL, re.MULTILINE
    )
    callers = {"yes": Caller.OPERATOR, "for `all`": Caller.OPERATOR_FOR_ALL}
    told = {
        f"{service}.{name}": (callers.get(operator, Caller.ANYONE), locked == "yes")
        for service, name, operator, locked in rows
    }
    enforced = {name: (rules.caller, rules.locked) for name, rules in METHODS.items()}
    assert told == {name: row for name, row in enforced.items() if name.startswith("backpack.")}


def test_the_delays_in_the_protocol_are_those_of_the_throttle() -> None:
    assert throttle.FREE_TRIES == 2
    assert (
        f"{throttle.FIRST_DELAY:.0f} second, doubling up to {throttle.LONGEST_DELAY:.0f}"
        in PROTOCOL
    )


def test_the_exit_codes_in_the_protocol_are_those_of_the_client() -> None:
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", PROTOCOL, re.MULTILINE)}
    assert documented == {
        value for name, value in vars(failures).items() if name.startswith("EXIT_")
    }


@pytest.mark.parametrize(
    ("document", "target"), links(), ids=lambda part: part if isinstance(part, str) else part.name
)
def test_a_relative_link_resolves(document: Path, target: str) -> None:
    path, _, anchor = target.partition("#")
    found = (document.parent / path).resolve() if path else document
    assert found.exists()
    assert found.is_relative_to(ROOT), "a link must not leave the repository"
    if anchor:
        assert anchor in anchors(found)


@pytest.mark.parametrize("document", [*DOCUMENTS, *SERVICE_FILES], ids=relative)
def test_a_document_names_no_path_of_one_machine(document: Path) -> None:
    assert MACHINE_PATH.findall(document.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", ["/root/x", "in /root/main", "`/home/ann`", "(/Users/ann)"])
def test_the_search_for_machine_paths_finds_one(path: str) -> None:
    assert MACHINE_PATH.search(path)


@pytest.mark.parametrize("record", sorted((ROOT / "docs" / "decisions").iterdir()), ids=relative)
def test_a_decision_says_why_and_what_else_was_weighed(record: Path) -> None:
    assert re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", record.name)
    headings = re.findall(r"^## (.+)$", record.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == ["Context", "Decision", "What else was weighed", "Consequences"]

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpackd.core.access.selectors import Selector, matches, parse
from backpackd.core.errors import InvalidRequestError
from backpackd.core.peer_facts import PeerFacts, ProcessFacts, ProcessId

USER = 1000
BOOT = "boot-1"
DIGEST = "0123456789abcdef" * 4


def process(pid: int, **facts: object) -> ProcessFacts:
    known = {"parent": 0, "session": 1, "terminal": 0, "uid": USER, **facts}
    return ProcessFacts(ProcessId(pid, pid * 10, pid * 100), **known)  # type: ignore[arg-type]


TOOL = process(30, executable="/usr/bin/tool", unit="tool.scope")
AGENT = process(20, executable="/opt/agent", unit="agent.service")
ABOVE = process(10, executable="/usr/lib/systemd", unit="user.service", manager=True)
FACTS = PeerFacts(USER, USER, (TOOL, AGENT, ABOVE))


def tree(facts: ProcessFacts, boot_id: str | None = BOOT) -> Selector:
    return replace(parse(f"tree:{facts.id.pid}"), process=facts.id, boot_id=boot_id)


@pytest.mark.parametrize(
    "text",
    [
        "tree:1",
        "tree:4194304",
        "tree:2147483647",
        "uid:0",
        "uid:1000",
        "uid:4294967294",
        "exe:/usr/bin/agent",
        "exe:/opt/an agent/bin",
        "exe:/opt/..agent/.bin",
        "exe:/opt/\N{LATIN SMALL LETTER E WITH ACUTE}",
        "exe:/a:b",
        f"sha256:{DIGEST}",
        "unit:agent.service",
        "unit:agent@1.service",
        "unit:app-a\\x2db.scope",
        "unit:user-1000.slice",
    ],
)
def test_a_selector_of_the_form_is_written_as_it_was_read(text: str) -> None:
    assert parse(text).text == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "tree",
        "tree:",
        "tree:0",
        "tree:-1",
        "tree:+1",
        "tree:01",
        "tree: 1",
        "tree:1 ",
        "tree:1\n",
        "tree:1\0",
        "tree:1_0",
        "tree:1.0",
        "tree:0x10",
        "tree:\N{ARABIC-INDIC DIGIT ONE}",
        "tree:\N{SUPERSCRIPT TWO}",
        "tree:\N{FULLWIDTH DIGIT ONE}",
        "tree:2147483648",
        "tree:99999999999",
        "TREE:1",
        " tree:1",
        "uid:",
        "uid:-1",
        "uid:00",
        "uid:01000",
        "uid:4294967295",
        "uid:4294967296",
        "uid:root",
        "uid:\N{ARABIC-INDIC DIGIT ONE}",
        "exe:",
        "exe:/",
        "exe:agent",
        "exe:./agent",
        "exe:~/agent",
        "exe://usr/bin/agent",
        "exe:/usr//bin/agent",
        "exe:/usr/bin/",
        "exe:/usr/./bin/agent",
        "exe:/usr/../bin/agent",
        "exe:/usr/bin/..",
        "exe:/usr/bin/.",
        "exe:/usr/bin/agent\n",
        "exe:/usr/bin/agent\0",
        "exe:/usr/bin/\x1b[2Jagent",
        "exe:/usr/bin/\N{RIGHT-TO-LEFT OVERRIDE}agent",
        "exe:/usr/bin/\N{ZERO WIDTH SPACE}agent",
        "exe:/usr/bin/\udc80agent",
        "exe:/" + "a" * 4096,
        "sha256:",
        f"sha256:{DIGEST[:-1]}",
        f"sha256:{DIGEST}0",
        f"sha256:{DIGEST.upper()}",
        f"sha256:{DIGEST}\n",
        f"sha256:{DIGEST[:-1]}g",
        "unit:",
        "unit:agent",
        "unit:.service",
        "unit:agent.socket",
        "unit:agent.service ",
        "unit:agent.service\n",
        "unit:a/agent.service",
        "unit:%i.service",
        "unit:*.service",
        "unit:" + "a" * 241 + ".service",
        "all:1",
        "pid:1",
        "gid:1000",
    ],
)
def test_a_selector_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse(text)
    assert caught.value.reason == "invalid-selector"


def test_a_refused_selector_is_not_repeated() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse("exe:MARKER")
    assert "MARKER" not in str(caught.value)


@given(st.text() | st.builds(str.__add__, st.sampled_from(["tree:", "uid:", "exe:/"]), st.text()))
def test_any_text_parses_to_itself_or_raises_invalid_request_error(text: str) -> None:
    try:
        selector = parse(text)
    except InvalidRequestError:
        return
    assert selector.text == text
    assert selector.process is None


@pytest.mark.parametrize("root", FACTS.chain)
def test_a_tree_means_its_root_and_all_that_descend_from_it(root: ProcessFacts) -> None:
    assert matches(tree(root), FACTS, BOOT)


def test_a_tree_does_not_mean_what_stands_above_its_root() -> None:
    assert not matches(tree(TOOL), PeerFacts(USER, USER, (AGENT, ABOVE)), BOOT)


@pytest.mark.parametrize("change", [{"pid": 21}, {"start": 201}, {"unique": 2001}])
def test_a_tree_does_not_mean_another_process_with_the_same_number(change: dict[str, int]) -> None:
    recycled = replace(tree(AGENT), process=replace(AGENT.id, **change))
    assert not matches(recycled, FACTS, BOOT)


def test_a_tree_of_another_boot_means_nobody() -> None:
    assert not matches(tree(AGENT), FACTS, "boot-2")


def test_a_tree_that_was_never_looked_up_means_nobody() -> None:
    assert not matches(parse(f"tree:{AGENT.id.pid}"), FACTS, BOOT)
    assert not matches(replace(parse(f"tree:{AGENT.id.pid}"), boot_id=BOOT), FACTS, BOOT)


def test_a_uid_means_the_uid_of_the_connection() -> None:
    assert matches(parse("uid:1000"), FACTS, BOOT)


def test_a_uid_does_not_mean_the_uid_that_a_process_runs_as() -> None:
    assert not matches(parse("uid:1000"), replace(FACTS, uid=0), BOOT)


@pytest.mark.parametrize("path", ["/usr/bin/tool", "/opt/agent"])
def test_an_executable_is_looked_for_in_the_whole_tree(path: str) -> None:
    assert matches(parse(f"exe:{path}"), FACTS, BOOT)


def test_an_executable_above_the_tree_does_not_count() -> None:
    assert not matches(parse("exe:/usr/lib/systemd"), FACTS, BOOT)


@pytest.mark.parametrize("path", ["/opt/agent2", "/opt", "/OPT/AGENT", "/opt/agent (deleted)"])
def test_an_executable_is_compared_whole(path: str) -> None:
    assert not matches(parse(f"exe:{path}"), FACTS, BOOT)


def test_a_digest_is_looked_for_in_the_whole_tree() -> None:
    facts = replace(FACTS, digests={TOOL.id: "0" * 64, AGENT.id: DIGEST})
    assert matches(parse(f"sha256:{DIGEST}"), facts, BOOT)


def test_a_digest_above_the_tree_does_not_count() -> None:
    facts = replace(FACTS, digests={ABOVE.id: DIGEST})
    assert not matches(parse(f"sha256:{DIGEST}"), facts, BOOT)


def test_a_digest_of_another_process_with_the_same_path_does_not_count() -> None:
    # In a mount namespace of its own, a process has what it likes under any path.
    facts = replace(FACTS, digests={replace(AGENT.id, start=1): DIGEST})
    assert not matches(parse(f"sha256:{DIGEST}"), facts, BOOT)


def test_a_unit_means_the_caller_itself() -> None:
    assert matches(parse("unit:tool.scope"), FACTS, BOOT)


def test_a_unit_of_an_ancestor_does_not_count() -> None:
    assert not matches(parse("unit:agent.service"), FACTS, BOOT)


NOTHING_TOLD = PeerFacts(USER, USER, (process(30), process(20)))


@pytest.mark.parametrize(
    "selector",
    [
        parse("exe:/usr/bin/tool"),
        parse(f"sha256:{DIGEST}"),
        parse("unit:tool.scope"),
        # Forms that no parser gives, as a damaged mind might construct them.
        Selector("exe", ""),
        Selector("exe", "None"),
        Selector("sha256", "None"),
        Selector("unit", "None"),
        Selector("all", ""),
    ],
)
def test_what_the_kernel_does_not_tell_never_matches(selector: Selector) -> None:
    assert not matches(selector, NOTHING_TOLD, BOOT)


def test_a_digest_that_could_not_be_read_never_matches() -> None:
    assert not matches(parse(f"sha256:{DIGEST}"), FACTS, BOOT)

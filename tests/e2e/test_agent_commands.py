"""The agent commands on real daemons: making, showing, changing, sharing and migrating a lock."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backpack_client.cli.vault.identity import full_fingerprint
from cheap_vaults import make_cheap
from command_line import Run, runner
from daemons import RunningDaemon
from two_vaults import Vault

pytestmark = pytest.mark.usefixtures("cheap_vault", "quick_start")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    return runner(tmp_path, monkeypatch, capfd)


@pytest.fixture
def ann(daemon: RunningDaemon, run: Run) -> Vault:
    return Vault(daemon, run)


@pytest.fixture
def bob(tmp_path: Path, run: Run) -> Iterator[Vault]:
    make_cheap(tmp_path / "home-of-bob")
    running = RunningDaemon(tmp_path / "home-of-bob", tmp_path / "run" / "bob.sock")
    running.start()
    yield Vault(running, run)
    running.close()


def made(vault: Vault, *arguments: str) -> Path:
    vault.ok("agent", "init", "--yes", *arguments, "PASS")
    return Path("agent.lock").absolute()


def shared(ann: Vault, bob: Vault) -> Path:
    """Make a lock of Ann's that Bob can open, each trusting the other."""
    path = made(ann, "--prompt", "first")
    line = bob.ok("identity").out.encode()
    ann.ok(
        "agent", "add-recipient", "-", "--fingerprint", bob.fingerprint,
        "--trust", "--label", "bob", "PASS", stdin=line,
    )  # fmt: skip
    bob.ok("agent", "trust", "--fingerprint", ann.fingerprint, "--label", "ann", "PASS")
    return path


def test_a_lock_is_made_shown_and_changed(ann: Vault) -> None:
    path = made(ann, "--prompt", "be brief", "--set", "temperature=0.5", "--key", "OPENAI_API_KEY")
    assert path.stat().st_mode & 0o7777 == 0o600
    found = ann.shown()
    assert found["personality"] == {
        "system_prompt": "be brief", "tone": "professional", "temperature": 0.5
    }  # fmt: skip
    assert found["credentials"] == [{"name": "OPENAI_API_KEY", "embedded": False}]
    assert (found["version"], found["generation"], found["memory"]) == (2, 1, {})
    ann.ok("agent", "set", "--tone", "dry", "--unset", "temperature", "--key", "B", "PASS")
    ann.ok("agent", "set", "--remove-key", "OPENAI_API_KEY", "PASS")
    found = ann.shown()
    assert found["personality"] == {"system_prompt": "be brief", "tone": "dry"}
    assert found["credentials"] == [{"name": "B", "embedded": False}]
    assert found["generation"] == 3


def test_a_change_that_changes_nothing_leaves_the_file_alone(ann: Vault) -> None:
    path = made(ann, "--tone", "dry")
    before = path.read_bytes()
    assert "nothing is changed" in ann.ok("agent", "set", "--tone", "dry", "PASS").err
    assert path.read_bytes() == before


def test_making_a_lock_says_which_keys_the_vault_lacks(ann: Vault) -> None:
    told = ann.ok("agent", "init", "--key", "MISSING_KEY", "PASS").err
    assert "MISSING_KEY" in told
    assert "backpack-client put" in told


def test_a_lock_that_is_there_is_never_overwritten_by_init(ann: Vault) -> None:
    path = made(ann)
    before = path.read_bytes()
    again = ann("agent", "init", "--yes", "PASS")
    assert (again.code, "exists already" in again.err) == (1, True)
    assert path.read_bytes() == before


def test_an_embedded_value_is_in_no_output(ann: Vault, tmp_path: Path) -> None:
    (tmp_path / "value").write_text("sk-embedded-value\n")
    path = made(ann, "--embed", f"K={tmp_path / 'value'}")
    shown = ann("agent", "show")
    everything = shown.out + shown.err + json.dumps(ann.shown())
    assert "embedded" in shown.out
    assert "sk-embedded-value" not in everything
    assert b"sk-embedded-value" not in path.read_bytes()


def test_a_value_on_the_command_line_is_refused_and_not_repeated(ann: Vault) -> None:
    refused = ann("agent", "init", "--embed", "sk live 123", "PASS")
    assert refused.code == 2
    assert not Path("agent.lock").exists()


def test_the_wizard_does_not_wait_where_there_is_no_terminal(ann: Vault) -> None:
    refused = ann("agent", "init", "PASS")
    assert (refused.code, "no terminal" in refused.err) == (1, True)


def test_memory_is_put_got_and_cleared_without_the_passphrase(ann: Vault) -> None:
    path = made(ann)
    ann.ok("agent", "memory", "put", stdin=b'{"n": 1, "deep": {"list": [1, null, "x"]}}')
    assert json.loads(ann.ok("agent", "memory", "get").out) == {
        "n": 1, "deep": {"list": [1, None, "x"]}
    }  # fmt: skip
    ann.ok("agent", "memory", "clear", "--yes")
    assert json.loads(ann.ok("agent", "memory", "get").out) == {}
    assert path.stat().st_mode & 0o7777 == 0o600


def test_memory_that_is_no_json_object_is_refused_and_not_repeated(ann: Vault) -> None:
    path = made(ann)
    before = path.read_bytes()
    for given in (b"[1]", b"{marker", b"", b"\xff"):
        refused = ann("agent", "memory", "put", stdin=given)
        assert (refused.code, "marker" in refused.err) == (2, False)
    assert path.read_bytes() == before


def test_memory_is_found_from_a_directory_below(
    ann: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(ann)
    below = Path("src/deep")
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert json.loads(ann.ok("agent", "memory", "get").out) == {}


def test_what_one_vault_edits_the_other_sees(ann: Vault, bob: Vault) -> None:
    shared(ann, bob)
    bob.ok("agent", "set", "--prompt", "second", "PASS")
    found = ann.shown()
    assert found["personality"] == {"system_prompt": "second", "tone": "professional"}
    author = found["author"]
    assert author == {
        "fingerprint": bob.fingerprint, "label": "bob", "trusted": True, "own": False
    }  # fmt: skip
    ann.ok("agent", "memory", "put", stdin=b'{"from": "ann"}')
    assert json.loads(bob.ok("agent", "memory", "get").out) == {"from": "ann"}


def test_an_author_who_was_not_accepted_is_named_and_refused(ann: Vault, bob: Vault) -> None:
    made(ann)
    Path("bob.id").write_text(bob.ok("identity").out)
    ann.ok("agent", "add-recipient", "bob.id", "--yes", "PASS")
    refused = bob("agent", "show")
    assert refused.code == 5
    assert ann.fingerprint in refused.err
    assert "agent trust" in refused.err
    assert bob("agent", "memory", "get").code == 5
    # Not even with the passphrase is anything built on top of it.
    assert bob("agent", "set", "--tone", "x", "PASS").code == 5
    assert bob.ok("agent", "show", "PASS").err.count("you have not accepted its author") == 1
    bob.ok("agent", "trust", "--fingerprint", ann.fingerprint, "PASS")
    bob.ok("agent", "show")


def test_trust_is_refused_for_another_fingerprint_than_was_told(ann: Vault, bob: Vault) -> None:
    made(ann)
    ann.ok("agent", "add-recipient", bob.ok("identity").out.strip(), "--yes", "PASS")
    refused = bob("agent", "trust", "--fingerprint", bob.fingerprint, "PASS")
    assert (refused.code, ann.fingerprint in refused.err) == (1, True)
    assert bob("agent", "show").code == 5


def test_a_recipient_with_another_fingerprint_than_was_told_is_not_added(
    ann: Vault, bob: Vault
) -> None:
    path = made(ann)
    before = path.read_bytes()
    line = bob.ok("identity").out.strip()
    refused = ann("agent", "add-recipient", line, "--fingerprint", ann.fingerprint, "PASS")
    assert (refused.code, path.read_bytes() == before) == (1, True)
    assert ann("agent", "add-recipient", line, "PASS").code == 1, "nobody was there to say yes"
    assert path.read_bytes() == before


def acts(vault: Vault, reason: str) -> int:
    told = vault.ok("audit", "show", "--json", "--event", "operator-act", "PASS").out
    return [json.loads(line)["reason"] for line in told.splitlines()].count(reason)


@pytest.mark.parametrize("refusal", ["another fingerprint", "nobody to ask", "there already"])
def test_a_recipient_that_was_not_added_is_not_in_the_audit_log(
    ann: Vault, bob: Vault, refusal: str
) -> None:
    path = made(ann)
    line = bob.ok("identity").out.strip()
    add = ["agent", "add-recipient", line, "PASS"]
    before = 0
    if refusal == "another fingerprint":
        add += ["--fingerprint", ann.fingerprint]
    elif refusal == "there already":
        ann.ok(*add, "--yes")
        before = 1
    kept = path.read_bytes()
    assert ann(*add).code == 1
    assert path.read_bytes() == kept
    assert acts(ann, "recipient-added") == before


def test_a_recipient_that_was_added_is_in_the_audit_log_once(ann: Vault, bob: Vault) -> None:
    made(ann)
    ann.ok("agent", "add-recipient", bob.ok("identity").out.strip(), "--yes", "PASS")
    assert acts(ann, "recipient-added") == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line[:-4],
        lambda line: line.replace("-v1:", "-v2:"),
        lambda line: line + "AAAA",
        lambda line: line[:400] + "%" + line[401:],
        lambda line: line[:-1] + ("A" if line[-1] != "A" else "B"),
    ],
)
def test_what_is_no_identity_is_refused_and_leaves_no_entry(
    ann: Vault, bob: Vault, change: Callable[[str], str]
) -> None:
    path = made(ann)
    before = path.read_bytes()
    refused = ann("agent", "add-recipient", change(bob.ok("identity").out.strip()), "--yes", "PASS")
    assert (refused.code, path.read_bytes() == before) == (2, True)
    assert acts(ann, "recipient-added") == 0


@pytest.mark.parametrize("where", ["missing/agent.lock", f"{'x' * 250}"])
def test_a_lock_that_cannot_be_written_is_not_in_the_audit_log(ann: Vault, where: str) -> None:
    assert ann("agent", "init", "--yes", "--lock", where, "PASS").code == 1
    assert acts(ann, "lock-created") == 0


def test_a_vault_that_is_no_recipient_is_told_so(ann: Vault, bob: Vault) -> None:
    made(ann)
    refused = bob("agent", "trust", "--yes", "PASS")
    assert (refused.code, "author can add you" in refused.err) == (5, True)


def test_whoever_is_removed_opens_no_later_version(ann: Vault, bob: Vault) -> None:
    path = shared(ann, bob)
    kept = path.read_bytes()
    told = ann.ok("agent", "remove-recipient", "bob", "PASS").err
    assert "still an accepted author" in told
    assert f"backpack-client agent trust --forget {bob.fingerprint}" in told
    ann.ok("agent", "set", "--prompt", "not for bob", "PASS")
    assert bob("agent", "show").code == 5
    assert bob("agent", "show", "PASS").code == 5
    path.write_bytes(kept)
    assert bob.shown()["personality"] == {"system_prompt": "first", "tone": "professional"}


def test_whoever_was_removed_is_believed_as_an_author_until_that_is_withdrawn_too(
    ann: Vault, bob: Vault
) -> None:
    path = shared(ann, bob)
    kept = path.read_bytes()
    ann.ok("agent", "remove-recipient", "bob", "PASS")
    path.write_bytes(kept)
    for number in range(3):
        # Past the generation that Ann has made meanwhile: no fork that her vault could see.
        bob.ok("agent", "set", "--prompt", f"bob {number}", "PASS")
    assert ann.shown()["personality"] == {"system_prompt": "bob 2", "tone": "professional"}
    ann.ok("agent", "trust", "--forget", bob.fingerprint, "PASS")
    refused = ann("agent", "show")
    assert (refused.code, bob.fingerprint in refused.err) == (5, True)


def test_more_keys_than_one_question_is_about_are_told_when_the_lock_is_made(ann: Vault) -> None:
    keys = [part for number in range(64) for part in ("--key", f"K{number}")]
    assert "warning" not in ann.ok("agent", "init", "--yes", *keys, "PASS").err
    assert "names 65 keys" in ann.ok("agent", "set", "--key", "ONE_MORE", "PASS").err
    refused = ann("run", "--", "true")
    assert (refused.code, "needs 65 keys" in refused.err) == (1, True)


def test_making_a_lock_says_what_keeps_its_line_ends(ann: Vault) -> None:
    made_elsewhere = ann.ok("agent", "init", "--yes", "--lock", "other.lock", "PASS")
    assert ".gitattributes: other.lock -text" in made_elsewhere.err


def test_rewrapping_changes_every_layer_and_nothing_of_what_is_in_it(
    ann: Vault, bob: Vault
) -> None:
    path = shared(ann, bob)
    before, layers = ann.shown(), json.loads(path.read_text())["layers"]
    ann.ok("agent", "rewrap", "PASS")
    after, sealed = ann.shown(), json.loads(path.read_text())["layers"]
    assert {name: after[name] for name in ("personality", "memory", "recipients")} == {
        name: before[name] for name in ("personality", "memory", "recipients")
    }
    assert all(sealed[name] != layers[name] for name in layers)
    bob.ok("agent", "show")


def test_a_step_back_is_reported_and_used_once_it_was_accepted(ann: Vault) -> None:
    path = made(ann, "--tone", "old")
    old = path.read_bytes()
    ann.ok("agent", "set", "--tone", "new", "PASS")
    path.write_bytes(old)
    refused = ann("agent", "show")
    assert (refused.code, "older than one" in refused.err) == (5, True)
    assert ann("agent", "memory", "get").code == 5
    assert ann("agent", "set", "--tone", "x", "PASS").code == 5
    ann.ok("agent", "trust", "--yes", "PASS")
    assert ann.shown()["personality"] == {
        "system_prompt": "You are a helpful AI assistant.", "tone": "old"
    }  # fmt: skip


def test_a_fork_is_reported_and_used_once_it_was_accepted(ann: Vault) -> None:
    path = made(ann, "--tone", "trunk")
    trunk = path.read_bytes()
    ann.ok("agent", "set", "--tone", "one branch", "PASS")
    one = path.read_bytes()
    path.write_bytes(trunk)
    ann.ok("agent", "trust", "--yes", "PASS")
    ann.ok("agent", "set", "--tone", "other branch", "PASS")
    path.write_bytes(one)
    refused = ann("agent", "show")
    assert (refused.code, "changed in two ways" in refused.err) == (5, True)
    ann.ok("agent", "trust", "--yes", "PASS")
    ann.ok("agent", "show")


def test_a_memory_that_steps_back_is_used_and_reported(ann: Vault) -> None:
    path = made(ann)
    old = path.read_bytes()
    ann.ok("agent", "memory", "put", stdin=b'{"n": 1}')
    ann.ok("agent", "memory", "get")
    path.write_bytes(old)
    assert ann.shown()["warnings"] == ["memory-stepped-back"]
    assert "memory is older" in ann.ok("agent", "show").err


def test_accepted_authors_are_listed_and_forgotten(ann: Vault, bob: Vault) -> None:
    shared(ann, bob)
    listed = json.loads(bob.ok("agent", "trust", "--list", "--json", "PASS").out)
    assert [(each["fingerprint"], each["label"]) for each in listed["authors"]] == [
        (ann.fingerprint, "ann")
    ]
    (lock,) = listed["locks"]
    assert lock["claimed_path"] == str(Path("agent.lock").absolute())
    assert ann.fingerprint in bob.ok("agent", "trust", "--list", "PASS").out
    bob.ok("agent", "trust", "--forget", ann.fingerprint, "PASS")
    assert bob("agent", "show").code == 5
    bob.ok("agent", "trust", "--forget", lock["lock_id"], "PASS")
    emptied = json.loads(bob.ok("agent", "trust", "--list", "--json", "PASS").out)
    assert emptied == {"authors": [], "locks": []}
    assert bob("agent", "trust", "--forget", ann.fingerprint, "PASS").code == 1


def test_nothing_that_signs_goes_without_the_passphrase(ann: Vault, tmp_path: Path) -> None:
    made(ann)
    wrong = tmp_path / "wrong"
    wrong.write_text("not the passphrase\n")
    wrong.chmod(0o600)
    option = ("--passphrase-file", str(wrong))
    before = Path("agent.lock").read_bytes()
    assert ann("agent", "set", "--tone", "x", *option).code == 8
    assert ann("agent", "rewrap", *option).code == 8
    assert Path("agent.lock").read_bytes() == before


def test_a_locked_vault_opens_no_lock(ann: Vault) -> None:
    made(ann)
    ann.ok("lock")
    assert ann("agent", "show").code == 3
    assert ann("identity").code == 3


def test_another_fingerprint_is_refused_also_for_an_accepted_lock(ann: Vault, bob: Vault) -> None:
    shared(ann, bob)
    refused = bob("agent", "trust", "--fingerprint", bob.fingerprint, "PASS")
    assert (refused.code, ann.fingerprint in refused.err) == (1, True)


def test_all_digits_of_a_fingerprint_are_compared(ann: Vault, bob: Vault) -> None:
    shared(ann, bob)
    digits = json.loads(Path("agent.lock").read_bytes())["header"]["author"]
    other = digits[:-1] + ("0" if digits[-1] != "0" else "1")
    assert bob("agent", "trust", "--fingerprint", other, "PASS").code == 1
    bob.ok("agent", "trust", "--fingerprint", digits, "PASS")


def test_all_digits_of_a_new_recipients_fingerprint_are_compared(ann: Vault, bob: Vault) -> None:
    ann.ok("agent", "init", "--yes", "PASS")
    line = bob.ok("identity").out.strip()
    digits = full_fingerprint(line)
    assert (digits[:4], len(digits)) == (bob.fingerprint[:4], 64)
    other = digits[:-1] + ("0" if digits[-1] != "0" else "1")
    add = ("agent", "add-recipient", line, "PASS", "--fingerprint")
    assert ann(*add, other).code == 1
    ann.ok(*add, digits)

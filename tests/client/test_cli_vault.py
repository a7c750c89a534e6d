"""The commands on a real daemon, from nothing to a leased key and back."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpack_client import Backpack, Failure, Stored
from backpack_client.cli import daemon_control
from command_line import PASSPHRASE, Run, runner
from daemons import RunningDaemon
from pseudo_terminal import Terminal

MARK = "marker-of-a-value"
UID = os.geteuid()
PATIENCE = 30.0


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    return runner(tmp_path, monkeypatch, capfd)


@pytest.fixture
def own_daemon() -> Iterator[daemon_control.Daemon]:
    """Clean up after a test that lets the command line start the daemon."""
    found = daemon_control.find(os.environ)
    yield found
    if daemon_control.runs(found):
        daemon_control.stop(found)


@pytest.fixture
def vault(cheap_vault: None, quick_start: None, daemon: RunningDaemon) -> RunningDaemon:
    daemon.client().unlock()
    return daemon


def get(name: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "backpack_client", "get", name],
        capture_output=True,
        text=True,
        check=False,
    )


def test_from_nothing_to_a_leased_key_and_again_after_a_crash(
    run: Run, own_daemon: daemon_control.Daemon
) -> None:
    assert run("init", "PASS").code == 0
    assert run("put", "K", "--value-file", "-", "PASS", stdin=b"v").code == 0
    assert run("grant", "K", "--to", f"uid:{UID}", "PASS").code == 0
    assert get("K").stdout == "v\n"
    pid = json.loads(run("status", "--json").out)["daemon_pid"]
    process = os.pidfd_open(pid)
    signal.pidfd_send_signal(process, signal.SIGKILL)
    ended, _, _ = select.select([process], (), (), PATIENCE)
    os.close(process)
    assert ended
    assert run("unlock", "PASS").code == 0
    assert get("K").stdout == "v\n"


def test_starting_and_stopping_say_what_is_so(run: Run, own_daemon: daemon_control.Daemon) -> None:
    assert "nothing to stop" in run("stop").err
    started = run("start")
    assert started.code == 0
    assert "backpack-client init" in started.err
    assert "already runs" in run("start").err
    assert run("stop").code == 0
    assert run("status").code == 7


def test_a_vault_is_made_once(run: Run, vault: RunningDaemon) -> None:
    ran = run("init", "PASS")
    assert ran.code == 1
    assert "already" in ran.err


def test_a_weak_passphrase_is_refused(run: Run, daemon: RunningDaemon, tmp_path: Path) -> None:
    weak = tmp_path / "weak"
    weak.write_text("short")
    weak.chmod(0o600)
    assert run("init", "--passphrase-file", str(weak)).code == 1
    assert json.loads(run("status", "--json").out)["state"] == "uninitialized"


def test_a_wrong_passphrase_is_exit_8(run: Run, vault: RunningDaemon, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("not the passphrase")
    wrong.chmod(0o600)
    assert run("unlock", "--passphrase-file", str(wrong)).code == 8
    assert run("list", "--all", "--passphrase-file", str(wrong)).code in (1, 8)


def test_locking_locks(run: Run, vault: RunningDaemon) -> None:
    assert run("lock").code == 0
    assert get("K").returncode == 3
    assert run("list").code == 3
    assert run("unlock", "PASS").code == 0
    assert run("list").code == 0


def test_changing_the_passphrase_ends_the_old_one(
    run: Run, vault: RunningDaemon, tmp_path: Path
) -> None:
    new = tmp_path / "new"
    new.write_text("eight noisy otters")
    new.chmod(0o600)
    assert run("passwd", "PASS", "--new-passphrase-file", str(new)).code == 0
    assert run("lock").code == 0
    assert run("unlock", "PASS").code == 8
    assert run("unlock", "--passphrase-file", str(new)).code in (0, 1)


def test_a_stored_key_is_replaced_only_when_told(run: Run, vault: RunningDaemon) -> None:
    assert run("put", "K", "--value-file", "-", "PASS", stdin=b"v1").code == 0
    refused = run("put", "K", "--value-file", "-", "PASS", stdin=b"v2")
    assert refused.code == 1
    assert "K" in refused.err
    assert "--replace" in refused.err
    ran = run("put", "K", "--replace", "--value-file", "-", "PASS", stdin=b"v3")
    assert ran.code == 0
    assert "replaced" in ran.err
    assert run("grant", "K", "--to", f"uid:{UID}", "PASS").code == 0
    assert get("K").stdout == "v3\n"


def test_deleting_names_what_is_not_stored_and_changes_nothing(
    run: Run, vault: RunningDaemon
) -> None:
    run("put", "K", "--value-file", "-", "PASS", stdin=b"v")
    refused = run("delete", "K", "NONE", "PASS")
    assert refused.code == 4
    assert "NONE" in refused.err
    assert '"K"' in run("list", "--all", "--json", "PASS").out
    assert run("delete", "K", "PASS").code == 0
    assert '"K"' not in run("list", "--all", "--json", "PASS").out


def test_a_grant_that_is_taken_back_ends_its_leases(run: Run, vault: RunningDaemon) -> None:
    run("put", "K", "--value-file", "-", "PASS", stdin=b"v")
    granted = run("grant", "K", "--to", f"uid:{UID}", "--ttl", "1h", "--json", "PASS")
    grant_id = json.loads(granted.out)["id"]
    assert run("get", "K").out == "v\n"
    assert len(json.loads(run("leases", "--json").out)["leases"]) == 1
    assert run("ungrant", grant_id, "PASS").code == 0
    assert json.loads(run("leases", "--json").out)["leases"] == []
    assert run("get", "K", "--wait", "0").code == 6
    assert run("ungrant", grant_id, "PASS").code == 1


def dotenv(tmp_path: Path, text: str) -> str:
    path = tmp_path / "some.env"
    path.write_text(text)
    return str(path)


def test_a_dry_run_of_an_import_stores_nothing_and_shows_no_value(
    run: Run, vault: RunningDaemon, tmp_path: Path
) -> None:
    path = dotenv(tmp_path, f"A={MARK}\nB='{MARK}\n2'\nC=\nD=${{A}}{MARK}\n{MARK}\n")
    ran = run("import", path, "--dry-run", "PASS")
    assert ran.code == 0
    assert "would store 2 new keys" in ran.err
    assert "line 4: skipped: C" in ran.err
    assert "line 5: skipped: D" in ran.err
    assert MARK not in ran.err + ran.out
    assert json.loads(run("list", "--all", "--json", "PASS").out) == {"keys": []}


def test_an_import_stores_all_or_nothing(run: Run, vault: RunningDaemon, tmp_path: Path) -> None:
    run("put", "B", "--value-file", "-", "PASS", stdin=b"old")
    path = dotenv(tmp_path, "A=1\nB=2\n")
    refused = run("import", path, "PASS")
    assert refused.code == 1
    assert refused.err.startswith("backpack-client: stored already, and nothing was changed: B\n")
    assert '"A"' not in run("list", "--all", "--json", "PASS").out
    kept = run("import", path, "--skip-existing", "PASS")
    assert kept.code == 0
    assert "left alone: B" in kept.err
    assert "replaced 2" in run("import", path, "--replace", "PASS").err


def test_an_import_of_more_than_one_call_takes_is_made_in_steps(
    run: Run, vault: RunningDaemon, tmp_path: Path
) -> None:
    path = dotenv(tmp_path, "".join(f"K{number}={number}\n" for number in range(1200)))
    run("put", "K1100", "--value-file", "-", "PASS", stdin=b"old")
    refused = run("import", path, "PASS")
    assert refused.code == 1
    assert "stored already, and nothing was changed: K1100" in refused.err
    dry = run("import", path, "--dry-run", "--skip-existing", "PASS")
    assert "would store 1199 new keys" in dry.err
    done = run("import", path, "--skip-existing", "PASS")
    assert done.code == 0
    assert "1,200 keys: 2 steps" in done.err
    assert "stored 1199 new keys" in done.err
    assert len(json.loads(run("list", "--all", "--json", "PASS").out)["keys"]) == 1200


def test_an_import_that_stops_between_two_steps_says_what_is_stored(
    run: Run, vault: RunningDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, calls = Backpack.put, []

    def failing(self: Backpack, keys: dict[str, bytes], **how: bool) -> Stored:
        if not how["dry_run"]:
            calls.append(len(keys))
            if len(calls) == 2:
                raise Failure("no room on the disk", reason="disk-full")
        return put(self, keys, **how)

    monkeypatch.setattr(Backpack, "put", failing)
    path = dotenv(tmp_path, "".join(f"K{number}={number}\n" for number in range(1200)))
    stopped = run("import", path, "PASS")
    assert stopped.code == 1
    assert "1,000 of 1,200 keys are stored" in stopped.err
    assert "--skip-existing" in stopped.err


def test_a_file_with_nothing_to_import_is_a_failure(
    run: Run, vault: RunningDaemon, tmp_path: Path
) -> None:
    assert run("import", dotenv(tmp_path, "# nothing\n"), "PASS").code == 1
    assert run("import", dotenv(tmp_path, f"A='{MARK}"), "PASS").code == 1


def test_the_value_of_a_pem_file_comes_back_byte_for_byte(
    run: Run, vault: RunningDaemon, tmp_path: Path
) -> None:
    pem = tmp_path / "key.pem"
    pem.write_text("-----BEGIN KEY-----\nabc\n-----END KEY-----\n")
    assert run("put", "PEM", "--value-file", str(pem), "PASS").code == 0
    assert run("grant", "PEM", "--to", f"uid:{UID}", "PASS").code == 0
    assert run("get", "PEM").out == pem.read_text() + "\n"


def test_at_a_terminal_a_weak_passphrase_can_be_chosen_again(daemon: RunningDaemon) -> None:
    with Terminal(["-m", "backpack_client", "init"]) as at:
        for passphrase in (b"passwordpassword\n", b"a longer passphrase\n"):
            at.expect(b"new passphrase (at least 12 characters): ")
            at.type(passphrase)
            at.expect(b"new passphrase (once more): ")
            at.type(passphrase)
        code, output = at.end()
    assert code == 0
    assert b"made and unlocked" in output


def test_unlocking_an_unlocked_vault_says_so(run: Run, vault: RunningDaemon) -> None:
    ran = run("unlock", "PASS")
    assert (ran.code, ran.err) == (0, "the vault was already unlocked\n")


def test_a_new_passphrase_is_asked_for_only_after_the_current_one_was_right(
    run: Run, vault: RunningDaemon, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("not the passphrase")
    wrong.chmod(0o600)
    arguments = ("passwd", "--new-passphrase-file", str(tmp_path / "none"))
    ran = run(*arguments, "--passphrase-file", str(wrong))
    assert (ran.code, ran.err) == (8, "backpack-client: wrong passphrase\n")
    run("lock")
    assert run(*arguments, "PASS").code == 3


def test_at_a_terminal_the_value_is_asked_for_after_the_passphrase(
    run: Run, vault: RunningDaemon
) -> None:
    with Terminal(["-m", "backpack_client", "put", "K"]) as at:
        at.expect(b"passphrase: ")
        at.type(PASSPHRASE.encode() + b"\n")
        at.expect(b"value of K: ")
        at.type(MARK.encode() + b"\n")
        code, _ = at.end()
        assert code == 0
        assert MARK.encode() not in at.shown
    run("grant", "K", "--to", f"uid:{UID}", "PASS")
    assert get("K").stdout == MARK + "\n"

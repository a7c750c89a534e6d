"""The configuration file: what is read, what is refused with which line, and what never widens."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpackd.config import (
    IDLE,
    LONGEST,
    MAX_CONFIG,
    MAX_LINE,
    ConfigError,
    Configuration,
    parse_configuration,
    read_configuration,
)
from backpackd.core.access.grants import LONGEST_TTL
from backpackd.core.access.policy import DEFAULTS, LISTINGS, DenyRule, Policy
from backpackd.core.access.selectors import Selector
from backpackd.settings import CONFIG_NAME, read_settings

WHOLE = b"""\
# everything that there is
[policy]
default = "deny"
listing = "granted"
max_ttl = "1h"

[[policy.deny]]
keys = ["PROD_*", "ROOT"]
to = "unit:x.service"

[[policy.deny]]
keys = ["NEVER"]

[lock]
idle = "30m"
longest = 3600
"""

_POLICIES = st.builds(
    Policy,
    st.sampled_from(DEFAULTS),
    st.sampled_from(LISTINGS),
    st.sampled_from([(), (DenyRule(("K",)),)]),
    st.integers(1, LONGEST_TTL),
)


def refusal(data: bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_configuration(data)
    return str(caught.value)


def check(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "backpackd", "--check", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_setting_is_read() -> None:
    assert parse_configuration(WHOLE) == Configuration(
        Policy(
            "deny",
            "granted",
            (
                DenyRule(("PROD_*", "ROOT"), Selector("unit", "x.service")),
                DenyRule(("NEVER",), None),
            ),
            3600,
        ),
        idle=1800,
        longest=3600,
    )


def test_an_empty_file_tightens_nothing() -> None:
    assert parse_configuration(b"") == Configuration()
    assert Configuration().describe() == []


def test_what_says_nothing_leaves_every_policy_as_it_is() -> None:
    for default in DEFAULTS:
        for listing in LISTINGS:
            sealed = Policy(default, listing, (DenyRule(("K",)),), 7)
            assert sealed.tightened(Configuration().policy) == sealed


@given(laid=_POLICIES, sealed=_POLICIES)
def test_no_file_makes_a_sealed_policy_wider(laid: Policy, sealed: Policy) -> None:
    text = (
        f'[policy]\ndefault = "{laid.default}"\nlisting = "{laid.listing}"\n'
        f"max_ttl = {laid.max_ttl}\n"
    )
    force = sealed.tightened(parse_configuration(text.encode()).policy)
    assert DEFAULTS.index(force.default) >= DEFAULTS.index(sealed.default)
    assert LISTINGS.index(force.listing) >= LISTINGS.index(sealed.listing)
    assert set(sealed.deny) <= set(force.deny)
    assert force.max_ttl <= sealed.max_ttl


@pytest.mark.parametrize(
    ("name", "most"), [("idle", IDLE), ("longest", LONGEST)], ids=["idle", "longest"]
)
def test_the_vault_never_stays_unlocked_for_longer_than_by_default(name: str, most: int) -> None:
    assert getattr(parse_configuration(f"[lock]\n{name} = {most}".encode()), name) == most
    assert "line 2" in refusal(f"[lock]\n{name} = {most + 1}".encode())


@pytest.mark.parametrize(
    ("data", "line", "name"),
    [
        (b'\n[policy]\n\ndefalt = "ask"', 4, "defalt"),
        (b"[polcy]", 1, "polcy"),
        (b'[policy]\n[[policy.deny]]\nkeys = ["K"]\nfor = "uid:1"', 4, "for"),
        (b"[lock]\nmax_ttl = 3", 2, "max_ttl"),
        (b"[policy]\ndefault = 1", 2, "default"),
        (b'[policy]\ndefault = "no"', 2, "default"),
        (b'policy.listing = "none"', 1, "listing"),
        (b'\npolicy = { default = "no" }', 2, "default"),
        (b'"policy"."max_ttl" = "31d"', 1, "max_ttl"),
        (b"[policy]\nmax_ttl = true", 2, "max_ttl"),
        (b"[policy]\nmax_ttl = 1.5", 2, "max_ttl"),
        (b"[policy]\nmax_ttl = -1", 2, "max_ttl"),
        (b"[policy]\nmax_ttl = 0", 2, "max_ttl"),
        (b'[lock]\nidle = "2 h"', 2, "idle"),
        (b'[lock]\nidle = "\xd9\xa3h"', 2, "idle"),
        (b"[lock]\nidle = []", 2, "idle"),
        (b"policy = 1", 1, "policy"),
        (b"[policy]\ndeny = 1", 2, "deny"),
        (b"[policy]\ndeny = [1]", 2, "deny"),
        (b'[[policy.deny]]\nkeys = ["K"]\n[[policy.deny]]\nto = "uid:1"', 3, "keys"),
        (b'[[policy.deny]]\nkeys = "K"', 2, "keys"),
        (b"[[policy.deny]]\nkeys = []", 2, "keys"),
        (b'[[policy.deny]]\nkeys = ["K"]\n[[policy.deny]]\nkeys = ["a b"]', 4, "keys"),
        (b'[[policy.deny]]\nkeys = ["K"]\nto = ""', 3, "to"),
        (b'[[policy.deny]]\nkeys = ["K"]\nto = "everybody"', 3, "to"),
        (b'[[policy.deny]]\nkeys = ["K"]\nto = "tree:4711"', 3, "to"),
    ],
)
def test_an_error_names_the_line_and_the_setting(data: bytes, line: int, name: str) -> None:
    message = refusal(data)
    assert message.startswith(f"line {line}: ")
    assert f"'{name}'" in message


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"[policy\n", 1),
        (b'[policy]\ndefault = "ask"\n[policy]\n', 3),
        (b'[policy]\ndefault = "a\n', 2),
        (b"[policy]\ndeny = [\n1,\n", 4),
        (b"\n\n\xff", 3),
    ],
)
def test_what_is_no_toml_is_refused_with_its_line(data: bytes, line: int) -> None:
    assert refusal(data).startswith(f"line {line}: not ")


@pytest.mark.parametrize(
    "data",
    [
        b'[policy]\ndefault = "hunter2hunter2"',
        b"[policy]\nmax_ttl = 'hunter2hunter2'",
        b"[policy]\ndefault = hunter2hunter2",
        b"[policy]\nhunter2 hunter2 = 1",
        b"[[policy.deny]]\nkeys = ['hunter2 hunter2']",
        b"[[policy.deny]]\nkeys = ['K']\nto = 'hunter2hunter2'",
        b"policy = 'hunter2hunter2'",
    ],
)
def test_an_error_repeats_nothing_that_a_setting_holds(data: bytes) -> None:
    assert "hunter2" not in refusal(data)


def test_an_unknown_name_cannot_forge_a_line_of_the_log() -> None:
    message = refusal(b'"x\\nERROR backpackd: forged\\u001b[2J' + b"x" * 100 + b'" = 1')
    assert "\n" not in message
    assert "\x1b" not in message
    assert len(message) < 120


@pytest.mark.parametrize(
    "data",
    [b"a=" + b"[" * 1000, (b"a=" + b"1" * 1000 + b"\n") * 2, b"a=" + b"1" * 1022],
    ids=["nesting", "digits", "long"],
)
def test_what_is_deep_or_long_without_end_is_refused(data: bytes) -> None:
    assert refusal(data)


def test_a_longer_line_or_file_is_refused_before_it_is_parsed() -> None:
    assert f"longer than {MAX_LINE} bytes" in refusal(b"#" * (MAX_LINE + 1))
    assert "longer than 64 KiB" in refusal(b"#\n" * (MAX_CONFIG // 2) + b"#")
    assert parse_configuration(b"#\n" * (MAX_CONFIG // 2)) == Configuration()


def test_more_rules_than_a_policy_has_are_refused_at_the_first_too_many() -> None:
    rule = b"[[policy.deny]]\nkeys = ['K']\n"
    assert len(parse_configuration(rule * 100).policy.deny) == 100
    assert refusal(rule * 101).startswith("line 201: ")


@given(st.binary(max_size=400) | st.text(max_size=400).map(str.encode))
def test_any_bytes_are_a_configuration_or_refused(data: bytes) -> None:
    try:
        parse_configuration(data)
    except ConfigError:
        return


def test_the_file_of_the_home_is_read_where_none_is_named(tmp_path: Path) -> None:
    settings = read_settings(["--home", str(tmp_path)], {})
    assert read_configuration(settings) is None
    (tmp_path / CONFIG_NAME).write_bytes(WHOLE)
    assert read_configuration(settings) == parse_configuration(WHOLE)


def test_a_byte_order_mark_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / CONFIG_NAME).write_bytes(b"\xef\xbb\xbf[lock]\nidle = 7\n")
    (home / CONFIG_NAME).chmod(0o600)
    found = read_configuration(read_settings(["--home", str(home)], {}))
    assert found is not None
    assert found.idle == 7
    assert "byte-order mark" in caplog.text


def test_a_file_that_was_named_has_to_be_there(tmp_path: Path) -> None:
    settings = read_settings(["--config", str(tmp_path / "none.toml")], {"HOME": "/h"})
    with pytest.raises(ConfigError, match="no such file"):
        read_configuration(settings)


def test_an_error_of_a_file_names_the_file_and_the_line(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_bytes(b"\n[x]")
    with pytest.raises(ConfigError) as caught:
        read_configuration(read_settings(["--config", str(file)], {"HOME": "/h"}))
    assert str(caught.value).startswith(f"{file}: line 2: ")


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "c.toml"
    file.touch()
    file.chmod(mode)
    with pytest.raises(ConfigError, match="changed by others: run chmod go-w"):
        read_configuration(read_settings(["--config", str(file)], {"HOME": "/h"}))


def test_a_file_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "c.toml"
    file.touch(mode=0o600)
    monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
    with pytest.raises(ConfigError, match="belongs to uid"):
        read_configuration(read_settings(["--config", str(file)], {"HOME": "/h"}))


def test_what_is_no_regular_file_is_refused_and_a_fifo_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(ConfigError, match="not a regular file"):
            read_configuration(read_settings(["--config", str(path)], {"HOME": "/h"}))


def test_checking_a_good_file_says_what_it_lays_on_top(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_bytes(WHOLE)
    done = check("--config", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert "policy.default: deny" in done.stdout
    assert "policy.deny: PROD_*, ROOT to unit:x.service" in done.stdout
    assert "lock.idle: 1800 s" in done.stdout


def test_checking_starts_nothing_and_makes_nothing(tmp_path: Path) -> None:
    assert check("--home", str(tmp_path / "home")).returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_checking_a_broken_file_fails_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_bytes(b"[policy]\ndefault = 'maybe'\n")
    done = check("--config", str(file))
    assert (done.returncode, done.stdout) == (1, "")
    assert "c.toml: line 2: 'default' is not one of" in done.stderr
    assert "maybe" not in done.stderr


def test_checking_a_file_that_is_named_and_not_there_fails(tmp_path: Path) -> None:
    assert check("--config", str(tmp_path / "none.toml")).returncode == 1

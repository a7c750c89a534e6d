"""Daemon and client keep a copy each of some rules and facts: held together here."""

import pytest

import backpack_client
import backpackd
from backpack_client import address
from backpack_client.durations import parse_duration
from backpack_client.failures import Failure
from backpackd import config, settings
from backpackd.core.errors import HomeError

_ENVIRONMENTS: list[dict[str, str]] = [
    {"HOME": "/home/u"},
    {"HOME": "/home/u/"},
    {"HOME": "/home/u", "XDG_RUNTIME_DIR": "/run/user/1", "XDG_DATA_HOME": "/data"},
    {"HOME": "/home/u", "XDG_RUNTIME_DIR": "relative", "XDG_DATA_HOME": "relative"},
    {"HOME": "/home/u", "BACKPACK_PROFILE": "dev", "XDG_RUNTIME_DIR": "/run/user/1/"},
    {"HOME": "/home/u", "BACKPACK_PROFILE": "dev"},
    {"HOME": "/home/u", "BACKPACK_HOME": "/h", "BACKPACK_SOCKET": "/s", "BACKPACK_PROFILE": "x"},
    {"HOME": "/home/u", "BACKPACK_HOME": "", "BACKPACK_SOCKET": "", "BACKPACK_PROFILE": ""},
    {},
]


@pytest.mark.parametrize("environ", _ENVIRONMENTS)
def test_daemon_and_client_agree_on_home_and_socket(environ: dict[str, str]) -> None:
    assert settings.home_path(environ) == address.home_path(environ)
    assert settings.socket_path(environ) == address.socket_path(environ)


@pytest.mark.parametrize("profile", ["a/b", "..", "a b", "é", "x" * 33])
def test_both_refuse_what_is_no_profile(profile: str) -> None:
    environ = {"HOME": "/home/u", "BACKPACK_PROFILE": profile}
    with pytest.raises(HomeError):
        settings.home_path(environ)
    with pytest.raises(Failure):
        address.home_path(environ)


@pytest.mark.parametrize("name", ["BACKPACK_HOME", "BACKPACK_SOCKET"])
def test_both_refuse_a_relative_path(name: str) -> None:
    environ = {"HOME": "/home/u", name: "here/or/there"}
    daemon = {"BACKPACK_HOME": settings.home_path, "BACKPACK_SOCKET": settings.socket_path}[name]
    client = {"BACKPACK_HOME": address.home_path, "BACKPACK_SOCKET": address.socket_path}[name]
    with pytest.raises(HomeError):
        daemon(environ)
    with pytest.raises(Failure):
        client(environ)


def test_daemon_and_client_are_of_one_version() -> None:
    assert backpack_client.__version__ == backpackd.__version__


@pytest.mark.parametrize("text", ["90s", "15m", "2h", "1d", "900", "007", "1s"])
def test_daemon_and_client_read_a_length_of_time_alike(text: str) -> None:
    found = config.parse_configuration(f"[policy]\nmax_ttl = '{text}'".encode())
    assert found.policy.max_ttl == parse_duration(text)


@pytest.mark.parametrize(
    "text", ["", "1 h", "h", "1w", "1h30m", "-1", "+1", "1.5h", "\u0663h", "0"]
)
def test_both_refuse_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(config.ConfigError):
        config.parse_configuration(f"[policy]\nmax_ttl = '{text}'".encode())
    with pytest.raises(Failure):
        parse_duration(text)

"""The service managers' files: exactly the directives that were tried, and no syntax errors."""

import plistlib
import re
import shutil
import stat
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from backpackd.adapters.system.listener import LAUNCHD_SOCKETS

ROOT = Path(__file__).resolve().parents[1]
SOCKET = ROOT / "systemd" / "backpackd.socket"
SERVICE = ROOT / "systemd" / "backpackd.service"
AGENT = ROOT / "launchd" / "dev.backpack.backpackd.plist"

# Each of these makes a user namespace for a user unit, or fails its start on older managers.
# Either way the daemon can no longer tell what a caller runs, or does not run at all.
BLINDING = re.compile(
    r"(Private\w+|Protect\w+|ProcSubset|DynamicUser|Capability\w+|AmbientCapabilities|Root\w+"
    r"|Bind\w+|Read\w+Paths|Inaccessible\w+|NoExec\w+|Exec(?:Paths|SearchPath)|TemporaryFileSystem"
    r"|Mount\w+|IPAddress\w+|SystemdCredential|LoadCredential\w*|StateDirectory|RuntimeDirectory)"
)


def directives(unit: Path) -> dict[str, dict[str, list[str]]]:
    """Read a unit: section, key, and the values in their order (systemd.syntax(7))."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    section = ""
    for line in unit.read_text(encoding="ascii").splitlines():
        if not line or line.startswith("#"):
            continue
        if heading := re.fullmatch(r"\[(\w+)\]", line):
            section = heading[1]
            continue
        key, _, value = line.partition("=")
        found[section][key].append(value)
    return found


@pytest.fixture
def systemd_analyze(tmp_path: Path) -> list[str]:
    """The command for user units, with a home in which the daemon is installed."""
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not installed: it is in the package systemd")
    command = tmp_path / ".local" / "bin" / "backpackd"
    command.parent.mkdir(parents=True)
    command.write_text("#!/bin/sh\n")
    command.chmod(0o700)
    return ["env", "-i", f"HOME={tmp_path}", f"XDG_RUNTIME_DIR={tmp_path}", tool, "--user"]


def test_systemd_finds_no_fault_in_the_units(systemd_analyze: list[str]) -> None:
    verified = subprocess.run(
        [*systemd_analyze, "verify", SOCKET, SERVICE], capture_output=True, text=True, check=False
    )
    # A misspelled directive is a warning only, so what counts is that nothing was said.
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")


def test_systemd_would_say_when_a_directive_is_misspelled(
    systemd_analyze: list[str], tmp_path: Path
) -> None:
    broken = tmp_path / SERVICE.name
    broken.write_text(SERVICE.read_text().replace("NoNewPrivileges=", "NoNewPrivilege="))
    (tmp_path / SOCKET.name).write_text(SOCKET.read_text())
    verified = subprocess.run(
        [*systemd_analyze, "verify", broken], capture_output=True, text=True, check=False
    )
    assert "NoNewPrivilege" in verified.stderr


def exposure(systemd_analyze: list[str], unit: Path) -> float:
    judged = subprocess.run(
        [*systemd_analyze, "security", "--offline=true", "--no-pager", unit],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(re.findall(r"exposure level for backpackd\.service: ([\d.]+)", judged.stdout)[0])


def test_the_service_is_as_confined_as_a_user_unit_that_sees_its_callers_can_be(
    systemd_analyze: list[str],
) -> None:
    # 5.9 by the reckoning of systemd 252; that of later versions is lower.
    assert exposure(systemd_analyze, SERVICE) <= 6.0


@pytest.mark.parametrize(
    "directive",
    ["RestrictNamespaces", "RestrictAddressFamilies", "SystemCallFilter", "KeyringMode"],
)
def test_without_a_directive_the_service_would_be_judged_worse(
    systemd_analyze: list[str], tmp_path: Path, directive: str
) -> None:
    weaker = tmp_path / SERVICE.name
    lines = SERVICE.read_text().splitlines(keepends=True)
    weaker.write_text("".join(line for line in lines if not line.startswith(f"{directive}=")))
    assert exposure(systemd_analyze, weaker) > exposure(systemd_analyze, SERVICE)


def test_the_service_has_exactly_the_directives_that_work_everywhere() -> None:
    assert directives(SERVICE)["Service"] == {
        "ExecStart": ["%h/.local/bin/backpackd"],
        "ExecReload": ["/bin/kill -HUP $MAINPID"],
        "Type": ["notify"],
        "NotifyAccess": ["main"],
        "WatchdogSec": ["20"],
        "Restart": ["on-failure"],
        "RestartSec": ["1"],
        "NoNewPrivileges": ["yes"],
        "MemoryDenyWriteExecute": ["yes"],
        "LockPersonality": ["yes"],
        "RestrictRealtime": ["yes"],
        "RestrictSUIDSGID": ["yes"],
        "RestrictNamespaces": ["yes"],
        "RestrictAddressFamilies": ["AF_UNIX"],
        "SystemCallArchitectures": ["native"],
        "SystemCallFilter": [
            "@system-service memfd_secret",
            "~@privileged @resources process_vm_readv process_vm_writev",
        ],
        "SystemCallErrorNumber": ["EPERM"],
        "KeyringMode": ["private"],
        "LimitCORE": ["0"],
        "UMask": ["0077"],
    }


def test_no_directive_blinds_the_daemon_to_its_callers() -> None:
    assert [key for key in directives(SERVICE)["Service"] if BLINDING.fullmatch(key)] == []


def test_a_daemon_that_keeps_crashing_does_not_fail_the_socket_for_good() -> None:
    assert directives(SERVICE)["Unit"]["StartLimitIntervalSec"] == ["0"]


def test_the_socket_is_where_clients_look_and_private_from_the_start() -> None:
    assert directives(SOCKET)["Socket"] == {
        "ListenStream": ["%t/backpack/backpackd.sock"],
        "SocketMode": ["0600"],
        "DirectoryMode": ["0700"],
    }


def test_the_units_name_each_other() -> None:
    assert directives(SERVICE)["Unit"]["Requires"] == [SOCKET.name]
    assert directives(SERVICE)["Install"] == {"Also": [SOCKET.name]}
    assert directives(SOCKET)["Install"] == {"WantedBy": ["sockets.target"]}


def test_launchd_listens_for_the_daemon_on_a_private_socket() -> None:
    agent = plistlib.loads(AGENT.read_bytes())
    assert agent["Sockets"] == {
        # The name by which the daemon asks launchd for it.
        LAUNCHD_SOCKETS: {"SockPathName": "@SOCKET@", "SockPathMode": 0o600},
    }


def test_launchd_starts_the_daemon_on_demand_only() -> None:
    agent = plistlib.loads(AGENT.read_bytes())
    assert (agent["RunAtLoad"], agent["KeepAlive"]) == (False, False)
    assert agent["ProgramArguments"] == ["@BACKPACKD@"]


def test_launchd_gives_the_daemon_no_environment_and_no_core_files() -> None:
    agent = plistlib.loads(AGENT.read_bytes())
    assert "EnvironmentVariables" not in agent
    assert agent["Umask"] == 0o077
    assert agent["SoftResourceLimits"] == agent["HardResourceLimits"] == {"Core": 0}


def test_launchd_finds_the_agent_by_its_label() -> None:
    assert plistlib.loads(AGENT.read_bytes())["Label"] == AGENT.stem


@pytest.mark.parametrize("path", [SOCKET, SERVICE, AGENT], ids=lambda path: path.name)
def test_a_service_file_cannot_be_executed(path: Path) -> None:
    # A manager warns about unit files that can.
    assert not stat.S_IMODE(path.stat().st_mode) & 0o111

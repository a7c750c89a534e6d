"""The two commands as installed: no variable and no directory of the surroundings chooses code."""

import os
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMANDS = {"backpackd": ["--help"], "backpack-client": ["put", "--help"]}
SCRIPTS = {
    "backpackd": "packaging/backpackd",
    "backpack-client": "client/packaging/backpack-client",
}
PLANTED = (
    *("click", "site", "sitecustomize", "backpack_client", "backpackd"),
    *("grpc", "google", "backpack_proto", "rich", "h2", "cryptography"),
)


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """Install the scripts into an environment as an installer does: byte for byte."""
    place = tmp_path / "a place"
    venv.create(place, symlinks=True)
    (packages,) = place.glob("lib/python*/site-packages")
    # What this environment finds, the new one finds as well.
    (packages / "here.pth").write_text("\n".join(path for path in sys.path if Path(path).is_dir()))
    for name in COMMANDS:
        shutil.copy(ROOT / SCRIPTS[name], place / "bin" / name)
    return place / "bin"


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Make a directory of modules that tell when one of them was loaded."""
    place = tmp_path / "hostile"
    place.mkdir()
    for name in PLANTED:
        (place / f"{name}.py").write_text(f"open({str(tmp_path / 'loaded')!r}, 'w')\n")
    return place


@pytest.mark.parametrize("variable", ["PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONINSPECT"])
@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("name", list(COMMANDS))
def test_a_command_loads_nothing_that_its_surroundings_name(
    scripts: Path, hostile: Path, name: str, variable: str, linked: bool
) -> None:
    command = scripts / name
    if linked:
        command = hostile.parent / name
        command.symlink_to(scripts / name)
    done = subprocess.run(
        [command, *COMMANDS[name]],
        cwd=hostile,
        env={"PATH": os.defpath, variable: str(hostile)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.lower().startswith(f"usage: {name}")
    assert not (hostile.parent / "loaded").exists()


@pytest.mark.parametrize("variable", ["PYTHONPATH", "PYTHONHOME"])
@pytest.mark.parametrize("arguments", [["status"], ["leases"], ["get", "K"], ["lock"]])
def test_a_command_that_calls_the_daemon_uses_no_grpc_that_its_surroundings_name(
    scripts: Path, hostile: Path, variable: str, arguments: list[str]
) -> None:
    runtime = hostile.parent / "run"
    runtime.mkdir(mode=0o700)
    done = subprocess.run(
        [scripts / "backpack-client", *arguments],
        cwd=hostile,
        env={
            "PATH": os.defpath,
            "HOME": str(runtime),
            "BACKPACK_SOCKET": str(runtime / "none"),
            variable: str(hostile),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 7
    assert done.stderr.startswith("backpack-client: no daemon at ")
    assert not (hostile.parent / "loaded").exists()


@pytest.mark.parametrize("name", list(COMMANDS))
def test_the_planted_modules_would_be_loaded_by_a_python_that_is_not_isolated(
    scripts: Path, hostile: Path, tmp_path: Path, name: str
) -> None:
    # Otherwise the test above would prove nothing.
    subprocess.run(
        [scripts / "python3", scripts / name, *COMMANDS[name]],
        env={"PYTHONPATH": str(hostile)},
        capture_output=True,
        check=False,
    )
    assert (tmp_path / "loaded").exists()


def test_both_packages_are_built_alike_from_one_tree() -> None:
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())
    client = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text())
    assert client["build-system"] == whole["build-system"]
    for same in ("requires-python", "license", "license-files"):
        assert client["project"][same] == whole["project"][same]
    assert client["project"]["dependencies"] == []
    # A copy, since what is built from one directory holds nothing of another one.
    assert (ROOT / "client" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    shared = client["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-scripts"]
    assert {f"client/{path}": name for path, name in shared.items()} == {
        path: name for name, path in SCRIPTS.items() if name == "backpack-client"
    }


def test_the_wheel_has_these_scripts_and_no_generated_ones() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    shared = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-scripts"]
    assert shared == {path: name for name, path in SCRIPTS.items()}
    assert "scripts" not in project["project"]
    for path in SCRIPTS.values():
        assert os.access(ROOT / path, os.X_OK)

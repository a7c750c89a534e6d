"""The tour that `make run` takes, as it is run where there is no terminal."""

import os
import subprocess
import sys
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]


def test_the_tour_goes_through_without_a_terminal_and_leaves_nothing(tmp_path: Path) -> None:
    kept = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
    programs = Path(sys.executable).parent
    place = tmp_path / "tour"
    place.mkdir(mode=0o700)
    done = subprocess.run(
        ["sh", str(ROOT / "docs" / "examples" / "tour.sh")],
        env={**kept, "PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": str(place)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        # A session of its own has no terminal, whatever the tests have.
        start_new_session=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The daemon is stopped" in done.stdout
    assert list(place.iterdir()) == []
    left = [
        process.info["pid"]
        for process in psutil.process_iter(["pid", "cmdline"])
        if any(str(place) in word for word in process.info["cmdline"] or ())
    ]
    assert left == []

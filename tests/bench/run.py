"""Measures Backpack side by side with what its targets compare it to, and prints the ratios.

Run by `make bench`. Every pair is measured in turn, A B A B, in one run, because machines differ
and drift; medians are compared. The home lies on a disk file system (set BACKPACK_BENCH_DIR where
the temporary directory is none). It judges nothing: it prints the target beside the figure.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import calls, commands, endings, leases, panic, sizes


def main() -> None:
    """Run every measurement and print a line for each."""
    directory = os.environ.get("BACKPACK_BENCH_DIR")
    measurements: list[Callable[[Path], list[tuple[str, str, str]]]] = [
        commands.measure,
        calls.measure,
        sizes.measure,
        leases.measure,
        endings.measure,
        panic.measure,
    ]
    print(f"{'what':58}  {'measured':>12}  target")
    for measurement in measurements:
        with tempfile.TemporaryDirectory(dir=directory) as place:
            for what, found, target in measurement(Path(place)):
                print(f"{what:58}  {found:>12}  {target}", flush=True)


if __name__ == "__main__":
    main()

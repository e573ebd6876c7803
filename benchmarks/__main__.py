"""Print what is fast, against what: ``python -m benchmarks [--full] [--only GROUP,...]``."""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.cases import CASES
from benchmarks.cases.base import Case
from benchmarks.data import make_all
from benchmarks.measure import Array, Usage, median, run_child
from benchmarks.targets import judge

HEADER = ("case", "work", "wall s", "CPU s", "peak MB", "read MB", "CPU / ours")


def main() -> None:
    options = parse_arguments()
    cases = [case for case in CASES.values() if case.quick or options.full]
    if options.only:
        cases = [case for case in cases if case.group in options.only.split(",")]
    print(f"{describe_machine()}; medians of {options.repeats} processes each, one thread unless said\n")
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        make_all(folder)
        measured: dict[str, Usage] = {}
        numbers: dict[str, dict[str, float]] = {}
        for group in dict.fromkeys(case.group for case in cases):
            members = [case for case in cases if case.group == group]
            run_group(group, members, folder, options.repeats, measured, numbers)
        print(judge(measured, numbers))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure speed and memory, print ratios.")
    parser.add_argument("--full", action="store_true", help="also 100,000 samples x 200,000 variants (6 GB of disk)")
    parser.add_argument("--repeats", type=int, default=3, help="processes per case (default 3)")
    parser.add_argument(
        "--only", metavar="GROUP,...", help=f"groups: {', '.join({c.group: 0 for c in CASES.values()})}"
    )
    parser.add_argument("--folder", type=Path, help="keep data sets here (default: a temporary folder; 1.2 GB)")
    return parser.parse_args()


def describe_machine() -> str:
    """Processor, cores, memory and Python."""
    model = next(
        (x.split(":")[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x), ""
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} cores, {memory:.0f} GB; Python {platform.python_version()}, numpy {np.__version__}"


def run_group(
    group: str,
    members: list[Case],
    folder: Path,
    repeats: int,
    measured: dict[str, Usage],
    numbers: dict[str, dict[str, float]],
) -> None:
    """Check that the cases of a group agree, then measure them in turn and print their rows."""
    print(f"## {group}\n\n| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    for case in members:
        if not case.is_possible:
            print(f"| {case.name} | {case.needs} is not installed |{' |' * (len(HEADER) - 2)}")
    possible = [case for case in members if case.is_possible]
    check_agreement(possible, folder)
    answers: dict[str, list[tuple[Usage, dict[str, float]]]] = {case.name: [] for case in possible}
    for turn in range(repeats):
        for case in possible:
            if turn == 0 or not case.once:
                answers[case.name].append(run_child(case.name, folder))
    for case in possible:
        usages, found = zip(*answers[case.name], strict=True)
        usage = measured[case.name] = median(list(usages))
        numbers[case.name] = {name: float(np.median([one[name] for one in found])) for name in found[0]}
        print(format_row(case, usage, possible[0], measured), flush=True)
    for case in possible:
        for name, value in numbers[case.name].items():
            print(f"\n{case.name}: {name} = {value:.3g}", end="")
    print("\n", flush=True)


def check_agreement(cases: list[Case], folder: Path) -> None:
    """Compare every result with that of the group's first case.

    Raises:
        SystemExit: they differ by more than the case's tolerance.
    """
    compared = [case for case in cases if case.tolerance is not None]
    if not compared:
        return
    with tempfile.TemporaryDirectory() as scratch:
        ours = load_result(cases[0], folder, Path(scratch))
        for case in compared:
            for name, theirs in load_result(case, folder, Path(scratch)).items():
                own = ours[name][: len(theirs)]
                worst = float(np.max(np.abs(own - theirs)) / np.max(np.abs(theirs)))
                if not worst <= (case.tolerance or 0.0):
                    raise SystemExit(f"{case.name}: {name} differs by {worst:.3g}, more than {case.tolerance}")


def load_result(case: Case, folder: Path, scratch: Path) -> dict[str, Array]:
    """Run a case once and return its arrays."""
    run_child(case.name, folder, scratch / "result.npz")
    with np.load(scratch / "result.npz") as data:
        return {name: data[name] for name in data.files}


def format_row(case: Case, usage: Usage, ours: Case, measured: dict[str, Usage]) -> str:
    """Return a row of the table; the ratio is per unit of work."""
    ratio = usage.cpu / case.units / (measured[ours.name].cpu / ours.units)
    cells = (
        case.name, case.work, f"{usage.wall:.2f}", f"{usage.cpu:.2f}", f"{usage.peak_mb:.0f}", f"{usage.read_mb:.0f}",
        "" if case.group == "rates" else "1" if case is ours else f"{ratio:.2g}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()

"""Command line of the study; see the package."""

from __future__ import annotations

import argparse
from pathlib import Path

import studies.grouping as study
from studies.grouping.design import list_units
from studies.grouping.run import Settings, read_checkpoint, run_units


def main() -> None:
    """Run, or report what a checkpoint holds."""
    parser = argparse.ArgumentParser(prog="python -m studies.grouping", description=study.__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=Path("grouping.jsonl"))
    parser.add_argument("--replicates", type=int, default=500)
    parser.add_argument("--permutations", type=int, default=500)
    parser.add_argument("--engine", choices=("msprime", "built-in"), default="msprime")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no unit after this")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="run nothing; write the page and its figures")
    arguments = parser.parse_args()
    settings = Settings(arguments.seed, arguments.permutations, arguments.engine)
    if arguments.report:
        from studies.grouping.report import write_report
        from studies.grouping.summary import Rates

        write_report(Rates(settings, read_checkpoint(arguments.checkpoint, settings)))
        return
    done = run_units(
        settings, list_units(range(arguments.replicates)), arguments.checkpoint, arguments.processes, arguments.minutes
    )
    print(f"{len(done):,} units in {arguments.checkpoint}")


if __name__ == "__main__":
    main()

"""Command line of the study; see the package."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import studies.grouping as study
from studies.grouping.design import N_HAPLOTYPES, list_units
from studies.grouping.run import Settings, read_checkpoint, run_units
from studies.grouping.subset import check_subset, run_subset
from studies.grouping.variance import check_variance


def main() -> None:
    """Run, or report what a checkpoint holds."""
    parser = argparse.ArgumentParser(prog="python -m studies.grouping", description=study.__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=Path("grouping.jsonl"))
    parser.add_argument("--replicates", type=int, default=500)
    parser.add_argument("--permutations", type=int, default=500)
    parser.add_argument("--engine", choices=("msprime", "built-in"), default="msprime")
    parser.add_argument("--haplotypes", type=int, default=N_HAPLOTYPES, help="of a gene's pool: how rare variants get")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no unit after this")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--subset", action="store_true", help="a small study with checks; exit code 1 if one fails")
    parser.add_argument("--report", action="store_true", help="run nothing; write the page and its figures")
    arguments = parser.parse_args()
    if arguments.subset:
        with tempfile.TemporaryDirectory() as folder:
            checks = list(check_subset(run_subset(Path(folder) / "subset.jsonl", arguments.processes)))
        checks += check_variance()
        print("\n".join(f"{'ok  ' if holds else 'FAIL'} {what}" for what, holds in checks))
        raise SystemExit(not all(holds for _, holds in checks))
    settings = Settings(arguments.seed, arguments.permutations, arguments.engine, haplotypes=arguments.haplotypes)
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

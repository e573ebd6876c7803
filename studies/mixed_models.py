"""Mixed models for meta-analysis and sequencing (Bulik-Sullivan 2015): formulas of `locomass power` against simulation.

Part 1, `designs`: 10, 20 and 40 cohorts of people with common variants in LD blocks on ten chromosomes, traits with
polygenic effects, and causal variants on every chromosome, some tagged by the common variants and some not. Each
design gives every cohort a LOCO prediction; the cohorts then fit the package's null model (own intercept and sigma2)
and add up their U and V. What differs is who trains the prediction:

    linear                 nobody
    per cohort             every cohort on itself: block ridge of the package, one person left out at a time, as offset
    per cohort, slope      the same prediction as covariate
    per cohort, exact      the same by the mixed model's equations with the true heritability
    summary, earlier       ridge of the package on the summary statistics of as many other people, as covariate
    summary, same people   ridge on the cohorts' own meta-analysis, as offset: the one step of the paper
    pooled                 block ridge on everybody's individual data, one person left out at a time
    pooled, exact          the mixed model's equations on everybody, true heritability

Part 2, `sequencing`: a sequenced cohort, a GWAS ten times its size, genes of rare variants, tests with no, an
in-sample, an external and a combined predictor.

Part 3, `ascertained`: as many cases as controls of diseases from common to rare.

    python -m studies.mixed_models                # about ten minutes of one core
    python -m studies.mixed_models --write        # and put tables and figures into docs
    python -m studies.mixed_models --full --checkpoint mixed.jsonl   # overnight; may be killed and started again
    python -m studies.mixed_models --subset       # seconds
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from locomass import power
from studies.mixed_ascertained import ascertained_lines, draw_ascertained, run_ascertained, summarise_ascertained
from studies.mixed_designs import (
    compare_designs,
    contamination_lines,
    design_lines,
    draw_designs,
    order_lines,
    run_designs,
    summarise_designs,
)
from studies.mixed_sequencing import draw_sequencing, run_sequencing, sequencing_lines, summarise_sequencing
from studies.mixed_world import AFFORDED, FULL, SUBSET, Settings
from studies.shared import DOCS, PAGE, make_table, run_units, write_section


def published_lines() -> list[str]:
    """Return height and BMI, from the R2 of the published predictions."""
    body = []
    for row in power.PUBLISHED:
        loco = 1 / (1 - row.r2 * 21 / 22) - 1
        body.append(
            [
                f"{row.trait} ({row.source})",
                f"{row.n:,}",
                f"{row.r2:.3f}",
                f"{100 * row.gain:.1f} %",
                f"{100 * loco:.1f} %",
                f"{float(power.effective_sample_size(row.n, row.r2)):,.0f}",
                f"about {100 * row.reported_gain:.0f} %",
                f"{float(power.compute_r2_of_gain(row.reported_gain)):.3f}",
            ]
        )
    header = [
        "trait",
        "N",
        "R2",
        "gain 1/(1 - R2) - 1",
        "with 21/22 of R2 (LOCO)",
        "effective N",
        "the paper's gain",
        "R2 that it needs",
    ]
    return make_table(header, body)


#: settings that say how much is run, not how
COUNTS = ("cohorts", "replicates", "sequencing_replicates", "prevalences", "ascertained_replicates")


def list_units(s: Settings, seed: int) -> Iterator[tuple[str, str]]:
    """Give (part, unit) of a run."""
    for r in range(s.replicates):
        yield from (("designs", f"designs {k} #{seed + r}") for k in s.cohorts)
    yield from (("sequencing", f"sequencing #{seed + r}") for r in range(s.sequencing_replicates))
    for r in range(s.ascertained_replicates):
        yield from (("ascertained", f"ascertained {p:g} #{seed + r}") for p in s.prevalences)


def run(s: Settings, seed: int, checkpoint: Path | None, parts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the results of the parts, each by unit of work."""
    # how many replicates there are is no part of a result: a longer run adds to a shorter one
    made = {k: v for k, v in asdict(s).items() if k not in COUNTS}
    compute = {"designs": run_designs, "sequencing": run_sequencing, "ascertained": run_ascertained}
    return {
        part: run_units(
            [u for p, u in list_units(s, seed) if p == part], lambda u, f=compute[part]: f(u, s), checkpoint, made
        )
        for part in parts
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--full", action="store_true", help="more cohorts, traits and replicates")
    size.add_argument("--subset", action="store_true", help="seconds")
    parser.add_argument(
        "--part", action="append", choices=["designs", "sequencing", "ascertained"], help="repeat; default all"
    )
    parser.add_argument("--checkpoint", type=Path, help="JSON lines; a run that was killed goes on")
    parser.add_argument("--write", action="store_true", help="put tables and figures into docs")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    s = FULL if arguments.full else SUBSET if arguments.subset else AFFORDED
    found = run(s, arguments.seed, arguments.checkpoint, arguments.part or ["designs", "sequencing", "ascertained"])
    sections: dict[str, list[str]] = {"published gains": published_lines()}
    if "designs" in found:
        rows = summarise_designs(found["designs"], s)
        sections |= {
            "designs": design_lines(rows),
            "order of designs": order_lines(compare_designs(found["designs"], s)),
        }
        sections["proximal contamination"] = contamination_lines(rows)
    if "sequencing" in found:
        summary = summarise_sequencing(found["sequencing"])
        sections["sequencing power"], sections["sequencing null"] = sequencing_lines(summary)
    if "ascertained" in found:
        loss = summarise_ascertained(found["ascertained"], s)
        sections["ascertained"] = ascertained_lines(loss)
    for name, lines in sections.items():
        print("\n".join([f"\n{name}", *lines]))
        if arguments.write:
            write_section(PAGE, name, lines)
    for part, units in found.items():
        print(f"\n{part}: {sum(r['cpu_seconds'] for r in units.values()):.0f} CPU seconds", end="")
    print()
    if arguments.write:
        if "designs" in found:
            draw_designs(rows, DOCS / "figures")
        if "sequencing" in found:
            draw_sequencing(summary, DOCS / "figures")
        if "ascertained" in found:
            draw_ascertained(loss, DOCS / "figures")


if __name__ == "__main__":
    main()

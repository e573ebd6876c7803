"""Meta equals joint (MASS): gene tests of shared score statistics against one analysis of everybody's individual data.

Part 1, `equality`: up to 20 studies are written as PLINK filesets with a quantitative and a binary trait, and go
through the package - `locomass run` up to the bundle, then `locomass meta`. Every study has people, variants (70 % of
all, some with alleles written the other way round), missing calls, covariates, trait mean and residual variance of
its own. The joint analysis sees the individual data of all studies at once: one regression with a block-diagonal
design (each study its own intercept and covariate effects, and its own sigma2 as weight), dense, written here, and
the gene tests of `tests/reference_gene_tests.py` or written here. It shares no function with the package.

Part 2, `borders`: how far the answers drift when the pooled analysis is another one - one sigma2, common covariate
effects, one intercept - and for binary traits with few cases, where each study fits its own logistic null model.

    python -m studies.meta_equals_joint              # about four minutes of one core
    python -m studies.meta_equals_joint --write      # and put tables and figures into docs
    python -m studies.meta_equals_joint --full --checkpoint meta.jsonl   # overnight; may be killed and started again
    python -m studies.meta_equals_joint --subset     # seconds
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from scipy.special import expit

from locomass.commands.meta import run_meta_analysis
from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
from locomass.gene_tests.base import ScoreStatistics
from locomass.gene_tests.registry import evaluate
from locomass.genotypes.write_bed import write_fileset
from studies.meta_borders import BORDERS, border_lines, draw_borders, run_border, summarise_borders
from studies.meta_joint import (
    AFFORDED,
    FULL,
    MAX_MAF,
    REFERENCE_P,
    SUBSET,
    TESTS,
    TRAITS,
    WEIGHTS,
    Floats,
    Settings,
    Study,
    block_diagonal,
    compute_scores,
    fit_joint,
    own_variance,
    permute_joint,
    pool_genotypes,
    step_up_by_definition,
    test_by_definition,
)
from studies.shared import COLOURS, DOCS, PAGE, make_table, new_figure, run_units, save_figure, write_section


def simulate(rng: np.random.Generator, settings: Settings) -> list[Study]:
    """Return the studies; in every third gene all variants act, in the next those with an even number act both ways."""
    n_variants = settings.genes * settings.variants
    frequency = np.exp(rng.uniform(np.log(0.001), np.log(0.03), n_variants))
    number = np.arange(n_variants)
    gene, within = number // settings.variants, number % settings.variants
    effect = np.where(
        gene % 3 == 0, 0.35, np.where((gene % 3 == 1) & (within % 2 == 0), (-1.0) ** (within // 2) * 0.6, 0.0)
    )
    studies = []
    for _ in range(max(settings.cohorts)):
        n, p = int(rng.integers(settings.smallest, settings.largest + 1)), int(rng.integers(1, 4))
        own = np.clip(frequency * np.exp(rng.normal(0, 0.3, n_variants)), 5e-4, 0.045)
        G = rng.binomial(2, own, (n, n_variants)).astype(np.float64)
        covariates = rng.standard_normal((n, p))
        X = np.column_stack([np.ones(n), covariates])
        signal = G @ effect * rng.uniform(0.8, 1.2)
        pull = covariates @ rng.normal(0, 0.5, p)
        noise = rng.uniform(0.6, 2.0) * rng.standard_normal(n)
        cases = (rng.random(n) < expit(rng.uniform(-1.5, 0.5) + pull + signal)).astype(np.float64)
        y = np.column_stack([rng.normal(0, 3) + pull + signal + noise, cases])
        G[rng.random(G.shape) < 0.01] = np.nan
        G[:, rng.random(n_variants) < 0.3] = np.nan
        studies.append(Study(G, X, y))
    return studies


def write_study(study: Study, name: str, folder: Path, settings: Settings, rng: np.random.Generator) -> Path:
    """Write a study's fileset, tables, genes and configuration; every other study has A1 and A2 the other way round."""
    present = np.flatnonzero(~np.isnan(study.G).all(axis=0))
    n, iid = len(study.y), [f"{name}_{i}" for i in range(len(study.y))]
    flip = rng.random(len(present)) < 0.5
    dosage = np.where(flip, 2 - study.G[:, present], study.G[:, present])
    labels = variant_labels(settings)
    variants = pd.DataFrame(
        {
            "chromosome": "1",
            "position": [int(labels[v].split(":")[1]) for v in present],
            "id": [labels[v] for v in present],
            "a1": np.where(flip, "A", "C"),
            "a2": np.where(flip, "C", "A"),
        }
    )
    write_fileset(folder / f"{name}.bed", variants, np.where(np.isnan(dosage), -1, dosage).astype(np.int8), iid)
    table = pd.DataFrame({"FID": iid, "IID": iid, "quantitative": study.y[:, 0], "binary": study.y[:, 1].astype(int)})
    table.to_csv(folder / f"{name}.traits.tsv", sep="\t", index=False)
    names = [f"c{j}" for j in range(1, study.X.shape[1])]
    covariates = pd.DataFrame(study.X[:, 1:], columns=names)
    covariates.insert(0, "IID", iid)
    covariates.insert(0, "FID", iid)
    covariates.to_csv(folder / f"{name}.covariates.tsv", sep="\t", index=False)
    config = {
        "study": name,
        "genotypes": f"{name}.bed",
        "genes": {"sets": "sets.txt"},
        "phenotypes": {"file": f"{name}.traits.tsv", "quantitative": ["quantitative"], "binary": ["binary"]},
        "covariates": {"file": f"{name}.covariates.tsv", "quantitative": names},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    assert n == len(table)
    return path


def variant_labels(settings: Settings) -> list[str]:
    """Return chrom:pos:ref:alt of every variant; ALT is the minor allele."""
    m = settings.variants
    return [f"1:{1000 * (v // m + 1) + 10 * (v % m)}:A:C" for v in range(settings.genes * m)]


def write_sets(folder: Path, settings: Settings) -> None:
    """Write the set list."""
    labels, m = variant_labels(settings), settings.variants
    lines = [f"GENE{g + 1} 1 {1000 * (g + 1)} {','.join(labels[g * m : (g + 1) * m])}\n" for g in range(settings.genes)]
    (folder / "sets.txt").write_text("".join(lines))


def run_package(studies: Sequence[Study], settings: Settings, folder: Path, rng: np.random.Generator) -> pd.DataFrame:
    """Return the gene tests of `locomass run` and `locomass meta`, a block of rows per number of studies."""
    write_sets(folder, settings)
    resources = Resources(threads=1)
    bundles = []
    for k, study in enumerate(studies):
        config = write_study(study, f"s{k + 1:02d}", folder, settings, rng)
        bundles.append(run_study(config, folder / f"out{k + 1:02d}", resources, "score-statistics").path / "bundle")
    tables = []
    for k in settings.cohorts:
        config = {
            "studies": [str(b) for b in bundles[:k]],
            "genes": {"sets": "sets.txt"},
            "tests": {"names": list(TESTS), "max_maf": [MAX_MAF], "weights": list(WEIGHTS), "null_law": "normal"},
        }
        path = folder / f"meta{k}.yaml"
        path.write_text(yaml.safe_dump(config))
        out = run_meta_analysis(path, [], folder / f"meta{k}", resources, "meta").path
        tables.append(pd.read_parquet(out / "gene_tests.parquet").assign(cohorts=k))
    return pd.concat(tables, ignore_index=True)


def joint_rows(studies: Sequence[Study], settings: Settings, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Return what the joint analysis says of every gene, trait, test and set of weights."""
    G, maf = pool_genotypes(studies)
    rows = []
    for t, trait in enumerate(TRAITS):
        y, X = np.concatenate([s.y[:, t] for s in studies]), block_diagonal([s.X for s in studies])
        variance = own_variance([s.y[:, 0] for s in studies], [s.X for s in studies]) if t == 0 else None
        r, w = fit_joint(y, X, variance)
        permuted = permute_joint(studies, t, G, settings.draws, rng)
        for gene in range(settings.genes):
            name = f"GENE{gene + 1}"
            at = np.arange(gene * settings.variants, (gene + 1) * settings.variants)
            chosen = at[(maf[at] > 0) & (maf[at] <= MAX_MAF)]
            U, V = compute_scores(G[:, chosen], X, r, w)
            ours = evaluate(_as_statistics(name, U, V, maf[chosen], studies, chosen), TESTS, WEIGHTS)
            same = {(name, label): float(result.log_p[0]) for name, label, result in ours}
            everywhere = np.nansum([np.nansum(s.G[:, chosen], axis=0) for s in studies], axis=0) / (2 * len(y))
            absent = evaluate(_as_statistics(name, U, V, everywhere, studies, chosen), ("burden", "skat"), WEIGHTS)
            counted = {(name, label): float(result.log_p[0]) for name, label, result in absent}
            for (test, label), log_p in same.items():
                statistic, p = test_by_definition(test, label, U, V, maf[chosen], gene < settings.definitions)
                row = {
                    "trait": trait,
                    "gene": name,
                    "test": test,
                    "weights": label,
                    "joint_statistic": statistic,
                    "joint_p": p,
                    "joint_log10p": -log_p / np.log(10),
                }
                if (test, label) in counted:
                    row["absent_log10p"] = -counted[test, label] / np.log(10)
                if test == "step-up":
                    null = step_up_by_definition(permuted(chosen), V)
                    row["permuted_p"] = float((1 + (null >= statistic * (1 - 1e-9)).sum()) / (1 + len(null)))
                rows.append(row)
    return rows


def _as_statistics(
    gene: str, U: Floats, V: Floats, maf: Floats, studies: Sequence[Study], chosen: NDArray[np.int64]
) -> ScoreStatistics:
    """Return the joint U and V as the package's tests take them (searches draw from the stream of the gene's name)."""
    mac = np.sum([np.nansum(s.G[:, chosen], axis=0) for s in studies], axis=0)
    n = float(sum(len(s.y) for s in studies))
    return ScoreStatistics(
        U=U[None],
        V=V,
        scale=np.ones(1),
        maf=maf,
        mac=mac,
        n_samples=np.array([n]),
        rare=np.ones(len(U), np.bool_),
        gene=gene,
    )


def compare(unit: str, settings: Settings) -> dict[str, Any]:
    """Return the rows of one set of studies: package and joint side by side."""
    seed = int(unit.split()[1])
    rng = np.random.default_rng([seed, 1])
    studies = simulate(rng, settings)
    with tempfile.TemporaryDirectory() as folder:
        package = run_package(studies, settings, Path(folder), rng)
    rows = []
    for k in settings.cohorts:
        joint = pd.DataFrame(joint_rows(studies[:k], settings, rng))
        rows.append(package[package["cohorts"] == k].merge(joint, on=["trait", "gene", "test", "weights"], how="outer"))
    table = pd.concat(rows, ignore_index=True)
    columns = [
        "cohorts",
        "trait",
        "gene",
        "test",
        "weights",
        "statistic",
        "log10p",
        "joint_statistic",
        "joint_p",
        "joint_log10p",
        "permuted_p",
        "absent_log10p",
    ]
    return {"columns": columns, "rows": [[_plain(v) for v in row] for row in table[columns].itertuples(index=False)]}


def _plain(value: Any) -> Any:
    """Return what JSON can hold."""
    if isinstance(value, str) or value is None:
        return value
    return None if np.isnan(value) else float(value)


def as_table(found: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """Return the rows of all replicates."""
    return pd.concat(
        [pd.DataFrame(r["rows"], columns=r["columns"]).assign(replicate=u) for u, r in found.items()], ignore_index=True
    ).astype(dict.fromkeys(("permuted_p", "joint_p", "joint_statistic", "absent_log10p"), float))


def summarise_equality(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return, per trait and test, the largest differences between meta-analysis and joint analysis."""
    rows = []
    for trait in TRAITS:
        for test in TESTS:
            part = table[(table["trait"] == trait) & (table["test"] == test)]
            known = part["joint_statistic"].notna()
            relative = (part["statistic"] / part["joint_statistic"] - 1).abs()[known]
            apart = (part["log10p"] - part["joint_log10p"]).abs()
            written = part[(part["joint_p"] > REFERENCE_P)]
            definition = (written["log10p"] + np.log10(written["joint_p"])).abs()
            rows.append(
                {
                    "trait": trait,
                    "test": test,
                    "rows": len(part),
                    "missing": int(part["log10p"].isna().sum()),
                    "smallest": float(part["log10p"].max()),
                    "statistic": float(relative.max()) if known.any() else float("nan"),
                    "log10p": float(apart.max()),
                    "definition": float(definition.max()) if len(definition) else float("nan"),
                }
            )
    return rows


def summarise_permutations(table: pd.DataFrame, draws: int) -> dict[str, dict[str, float]]:
    """Compare step-up's p from N(0, V) with permutations of everybody's residuals, in standard errors of the latter."""
    out = {}
    for trait in TRAITS:
        part = table[(table["trait"] == trait) & (table["test"] == "step-up") & table["permuted_p"].notna()]
        p = 10.0 ** -part["log10p"]
        se = np.sqrt(p * (1 - p) / draws + (0.22 * p) ** 2)  # 20 exceedances leave p a relative error of 22 %
        z = ((part["permuted_p"] - p) / se)[p > 10 / draws]
        out[trait] = {"rows": len(z), "mean": float(z.mean()), "within": float((z.abs() < 1.96).mean())}
    return out


def summarise_absent(table: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Return median and largest change of -log10 p when studies without a variant count as non-carriers in its MAF.

    U and V are the same; the frequency, and with it the Beta(1, 25) weight, is not.
    """
    out = {}
    for test in ("burden", "skat"):
        part = table[(table["test"] == test) & (table["weights"] == "beta_1_25")]
        apart = (part["absent_log10p"] - part["joint_log10p"]).abs()
        out[test] = (float(apart.median()), float(apart.max()))
    return out


def equality_lines(
    rows: Sequence[dict[str, Any]],
    permuted: dict[str, dict[str, float]],
    absent: dict[str, tuple[float, float]],
    draws: int,
) -> list[str]:
    """Return the table of part 1."""
    body = [
        [
            f"{r['test']}, {r['trait']}",
            f"{r['rows']:,}",
            f"{r['smallest']:.1f}",
            _short(r["statistic"]),
            _short(r["log10p"]),
            _short(r["definition"]),
        ]
        for r in rows
    ]
    lines = make_table(
        [
            "test, trait",
            "rows",
            "largest -log10 p",
            "statistic: largest relative difference",
            "-log10 p: largest difference",
            "the same, p from the definition",
        ],
        body,
    )
    for trait, r in permuted.items():
        lines += [
            "",
            f"Step-up, {trait}: p-values of the meta-analysis (normal draws from V) against {draws:,} "
            f"permutations of everybody's residuals within the studies: mean difference {r['mean']:+.2f} standard "
            f"errors over {r['rows']:.0f} rows, {100 * r['within']:.0f} % within 1.96.",
        ]
    (a, b), (c, d) = absent["burden"], absent["skat"]
    return [
        *lines,
        "",
        "Weights from frequencies: were the people of a study that lacks a variant counted as non-carriers, -log10 p "
        f"with Beta(1, 25) weights would change by {a:.3f} (median) and {b:.2f} (largest) for the burden, "
        f"{c:.3f} and {d:.2f} for SKAT.",
    ]


def _short(value: float) -> str:
    """Return a difference in two digits."""
    return "" if np.isnan(value) else f"{value:.1e}"


def draw_equality(table: pd.DataFrame, folder: Path) -> None:
    """Draw -log10 p of the meta-analysis against the joint analysis, a panel per test."""
    figure, axes = new_figure(len(TESTS), 2.1, 2.3)
    for axis, test in zip(axes[0], TESTS, strict=True):
        for trait, colour in zip(TRAITS, COLOURS, strict=False):
            part = table[(table["test"] == test) & (table["trait"] == trait) & (table["weights"] != "flat")]
            part = part if len(part) <= 60 else part.iloc[:: -(-len(part) // 60)]
            axis.plot(part["joint_log10p"], part["log10p"], "o", ms=2.5, color=colour, label=trait, alpha=0.7)
        top = axis.get_xlim()[1]
        axis.plot([0, top], [0, top], color="0.6", lw=0.8, zorder=0)
        axis.set_title(test, fontsize=9)
        axis.set_xlabel("joint, -log10 p")
    axes[0][0].set_ylabel("meta, -log10 p")
    axes[0][0].legend(fontsize=7, frameon=False)
    save_figure(figure, "meta-equals-joint", folder)


def run(settings: Settings, seed: int, checkpoint: Path | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the results of both parts, by unit of work."""
    # how many replicates there are is no part of a result: a longer run adds to a shorter one
    made = {k: v for k, v in asdict(settings).items() if k not in ("replicates", "border")}
    units = [f"equality {seed + r}" for r in range(settings.replicates)]
    equality = run_units(units, lambda u: compare(u, settings), checkpoint, made)
    units = [f"{name} #{seed + r}" for name in BORDERS for r in range(settings.border)]
    return equality, run_units(units, lambda u: run_border(u, settings), checkpoint, made)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--full", action="store_true", help="every number of studies from 2 to 20, ten sets of them")
    size.add_argument("--subset", action="store_true", help="seconds")
    parser.add_argument("--checkpoint", type=Path, help="JSON lines; a run that was killed goes on")
    parser.add_argument("--write", action="store_true", help="put tables and figures into docs")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    settings = FULL if arguments.full else SUBSET if arguments.subset else AFFORDED
    equality, borders = run(settings, arguments.seed, arguments.checkpoint)
    table = as_table(equality)
    permuted = summarise_permutations(table, settings.draws)
    first = equality_lines(summarise_equality(table), permuted, summarise_absent(table), settings.draws)
    second = border_lines(summarise_borders(borders))
    cpu = sum(r["cpu_seconds"] for r in [*equality.values(), *borders.values()])
    print("\n".join([*first, "", *second, "", f"{cpu:.0f} CPU seconds"]))
    if arguments.write:
        write_section(PAGE, "meta equals joint", first)
        write_section(PAGE, "meta borders", second)
        draw_equality(table, DOCS / "figures")
        draw_borders(borders, DOCS / "figures")


if __name__ == "__main__":
    main()

"""Certify that a meta-analysis gives what the pooled analysis gives: every row of both result tables, compared.

Equality is exact in theory when the pooled model lets every study keep its own intercept, covariate effects and
residual variance (Lin & Zeng 2010, Genetic Epidemiology 34:60).
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from locomass import __version__
from locomass.errors import InputError, MatchError
from locomass.files.atomic import atomic_path
from locomass.numbers import LN10
from locomass.run.provenance import digest_file, write_json
from locomass.schema import GENE_TESTS, validate_table

KEYS = ["gene", "trait", "mask", "max_maf", "weights", "test"]
MONTE_CARLO = 1e-6  # a larger p_error is that of random draws, not of rounding
ERRORS_ALLOWED = 5.0  # standard errors by which two random estimates may differ


@dataclass(frozen=True)
class TestAgreement:
    """How one test agrees over all its rows.

    Attributes:
        test: its name.
        rows: rows with a p-value in both tables.
        largest_p: largest relative difference of p among rows computed without random draws, 0 when there are none.
        where: that row.
        largest_beta: largest difference of beta in standard errors.
        random_rows: rows whose p came from random draws.
        largest_random: their largest difference of p in standard errors of both.
        agrees: within the tolerance, and random rows within `ERRORS_ALLOWED`.
    """

    test: str
    rows: int
    largest_p: float
    where: str
    largest_beta: float
    random_rows: int
    largest_random: float
    agrees: bool


@dataclass(frozen=True)
class Certificate:
    """What was compared, and how well it agrees.

    Attributes:
        meta, pooled: the two tables, each path with its BLAKE2b-128 digest.
        tolerance: largest relative difference of p that counts as equal.
        tests: agreement by test.
        only_meta, only_pooled: rows that only one table has.
        one_sided: rows whose p is missing in one table.
        agrees: all tests agree and no row is missing.
    """

    meta: tuple[str, str]
    pooled: tuple[str, str]
    tolerance: float
    tests: tuple[TestAgreement, ...]
    only_meta: int
    only_pooled: int
    one_sided: int
    agrees: bool


def certify(meta: Path, pooled: Path, out: Path, *, tolerance: float = 1e-6) -> Certificate:
    """Compare the gene tests of two results directories; write ``certificate.json`` and ``certificate.md`` to ``out``.

    Args:
        meta: results of the meta-analysis.
        pooled: results of the pooled analysis.
        out: folder for the certificate.
        tolerance: largest relative difference of p that counts as equal.

    Raises:
        InputError: a directory has no gene_tests.parquet.
        MatchError: the tables share no row.
    """
    certificate = compare_results(meta / "gene_tests.parquet", pooled / "gene_tests.parquet", tolerance)
    made = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    record = {"made": made, "software": f"locomass {__version__}", **asdict(certificate)}
    write_json(out / "certificate.json", record)
    with atomic_path(out / "certificate.md") as temporary:
        temporary.write_text(format_certificate(certificate, made), encoding="utf-8")
    return certificate


def compare_results(meta: Path, pooled: Path, tolerance: float) -> Certificate:
    """Compare two gene_tests.parquet, row by row on gene, trait, mask, bin, weights and test."""
    tables = [_read(path) for path in (meta, pooled)]
    joined = tables[0].merge(tables[1], on=KEYS, how="outer", suffixes=("_meta", "_pooled"), indicator=True)
    both = joined[joined["_merge"] == "both"]
    if not len(both):
        raise MatchError(
            f"{meta} and {pooled} share no row; the two runs must have the same genes, masks, bins and tests"
        )
    present = both[["log10p_meta", "log10p_pooled"]].notna()
    one_sided = int((present["log10p_meta"] != present["log10p_pooled"]).sum())
    compared = both[present.all(axis=1)]
    tests = tuple(_compare_test(str(name), rows, tolerance) for name, rows in compared.groupby("test"))
    only_meta, only_pooled = (int((joined["_merge"] == side).sum()) for side in ("left_only", "right_only"))
    agrees = bool(tests) and all(t.agrees for t in tests) and not (only_meta or only_pooled or one_sided)
    one, other = ((str(path), digest_file(path)) for path in (meta, pooled))
    return Certificate(
        meta=one,
        pooled=other,
        tolerance=tolerance,
        tests=tests,
        only_meta=only_meta,
        only_pooled=only_pooled,
        one_sided=one_sided,
        agrees=agrees,
    )


def _read(path: Path) -> pd.DataFrame:
    """Return the keys and numbers of a table of gene tests."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read: {error}; give a folder that `locomass run` or `meta` left") from None
    frame: pd.DataFrame = validate_table(table, GENE_TESTS, path).to_pandas()
    if frame.duplicated(KEYS).any():
        raise InputError(f"{path}: a row is listed twice: {_where(frame[frame.duplicated(KEYS)].iloc[0])}")
    return frame[[*KEYS, "beta", "se", "log10p", "p_error"]]


def _where(row: Any) -> str:
    """Return the keys of a row as text."""
    return f"{row.gene}, trait {row.trait}, mask {row['mask']}, bin {row.max_maf:g}, weights {row.weights}"


def _compare_test(name: str, rows: pd.DataFrame, tolerance: float) -> TestAgreement:
    """Compare the rows of one test."""
    with np.errstate(over="ignore"):
        difference = np.expm1(LN10 * np.abs(rows["log10p_meta"] - rows["log10p_pooled"]).to_numpy(float))
    errors = rows[["p_error_meta", "p_error_pooled"]].fillna(0.0).to_numpy(float)
    random = errors.max(axis=1) > MONTE_CARLO
    exact = np.where(random, -1.0, difference)
    worst = int(np.argmax(exact))
    largest = max(float(exact[worst]), 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        in_errors = np.where(random, difference / np.sqrt((errors**2).sum(axis=1)), 0.0)
        beta = np.abs(rows["beta_meta"] - rows["beta_pooled"]) / rows["se_pooled"]
    largest_beta = float(np.nanmax(beta)) if beta.notna().any() else 0.0
    return TestAgreement(
        test=name,
        rows=len(rows),
        largest_p=largest,
        where=_where(rows.iloc[worst]) if largest > 0 else "",
        largest_beta=largest_beta,
        random_rows=int(random.sum()),
        largest_random=float(in_errors.max()),
        agrees=bool(largest <= tolerance and in_errors.max() <= ERRORS_ALLOWED),
    )


def format_certificate(certificate: Certificate, made: str) -> str:
    """Return the certificate as Markdown."""
    c = certificate
    verdict = "agree" if c.agrees else "DO NOT agree"
    lines = [
        "# Meta-analysis against pooled analysis",
        "",
        f"Made {made} by locomass {__version__}. The two result tables **{verdict}** (tolerance {c.tolerance:g} on p).",
        "",
        f"- meta: `{c.meta[0]}` (digest {c.meta[1]})",
        f"- pooled: `{c.pooled[0]}` (digest {c.pooled[1]})",
        f"- rows in the meta-analysis only: {c.only_meta:,}; in the pooled analysis only: {c.only_pooled:,}",
        f"- rows with a p-value in one table only: {c.one_sided:,}",
        "",
        "| test | rows | largest relative difference of p | at | of beta, in standard errors | random rows | "
        "largest, in their errors |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {t.test} | {t.rows:,} | {t.largest_p:.2e} | {t.where} | {t.largest_beta:.2e} | {t.random_rows:,} | "
        f"{t.largest_random:.2f} |"
        for t in c.tests
    ]
    return "\n".join(lines) + "\n"

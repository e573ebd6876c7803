"""Rates of the packed kernel by frequency, cost of further traits, exponents of the cost, tests of 20,000 genes."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.cases.base import Case
from benchmarks.cases.genotypes import null_model, packed_pieces, pass_over
from benchmarks.data import SAMPLES, SCALING_SAMPLES, SCALING_VARIANTS, VARIANTS
from benchmarks.measure import Array, Result
from locomass.gene_tests.base import ScoreStatistics
from locomass.gene_tests.registry import evaluate
from locomass.genotypes.fileset import open_fileset
from locomass.genotypes.packed import scan_carriers
from locomass.genotypes.write_bed import pack_carriers

RATE_BYTES = 64 << 20  # per class of frequency: far more than the processor's own cache
CLASSES = {
    "singletons, doubletons": (1, 2),
    "3 to 20 carriers": (3, 20),
    "0.05-0.1 %": (20, 40),
    "0.1-1 %": (40, 400),
}
GENES, GENES_TIMED = 20_000, 500
TRAITS = (5, 10, 20, 50)


def best(run: Callable[[], object], repeats: int = 5) -> float:
    """Return the smallest CPU time of several calls: of all, the one least disturbed by others."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def rates(folder: Path) -> Callable[[], Result]:
    """GB of packed bytes per second by class, rows of a class in random order of counts, from main memory."""
    del folder
    n, rng = SAMPLES, np.random.default_rng(1)
    m = RATE_BYTES // (n // 4)
    position = np.arange(n, dtype=np.int32)

    def run() -> Result:
        out = {}
        for name, (low, high) in CLASSES.items():
            # counts like 1/k within the class
            count = np.exp(rng.uniform(np.log(low), np.log(high + 1), m)).astype(int)
            sample = np.concatenate([np.sort(rng.choice(n, k, replace=False)) for k in count]).astype(np.int32)
            indptr = np.concatenate(([0], np.cumsum(count)))
            packed = pack_carriers(indptr, sample, np.ones(len(sample), np.int8), n)
            found = scan_carriers(packed, n, position, n)
            np.testing.assert_array_equal(found[0], indptr)
            np.testing.assert_array_equal(found[1], sample)
            out[name] = np.array(packed.nbytes / best(partial(scan_carriers, packed, n, position, n)) / 1e9)
        return out

    return run


def shares(name: str, folder: Path) -> Callable[[], Result]:
    """What part of the scan of a data set is spent on singletons and doubletons, and the rate of all."""
    fileset = open_fileset(folder / f"{name}.bed")
    n, rows = fileset.n_samples, np.arange(fileset.n_variants)
    position = np.arange(n, dtype=np.int32)

    def scan(chosen: Array) -> float:
        pieces = [piece.copy() for piece in packed_pieces(fileset, chosen)]
        return best(lambda: [scan_carriers(piece, n, position, n) for piece in pieces])

    def run() -> Result:
        carriers = np.concatenate(
            [np.diff(scan_carriers(piece, n, position, n)[0]) for piece in packed_pieces(fileset, rows)]
        )
        rare = carriers <= 2
        seconds, rare_seconds = scan(rows), scan(rows[rare])
        return {
            "all variants, GB/s": np.array(len(rows) * (n // 4) / seconds / 1e9),
            "singletons and doubletons, GB/s": np.array(rare.sum() * (n // 4) / rare_seconds / 1e9),
            "their part of the bytes": np.array(rare.mean()),
            "their part of the time": np.array(rare_seconds / seconds),
        }

    return run


def traits(folder: Path) -> Callable[[], Result]:
    """Cost of the genotype pass with more traits, relative to one, per five traits."""
    bed = folder / "reference.bed"
    fileset, (residual, Q, _) = open_fileset(bed), null_model(bed)
    rows, rng = np.arange(fileset.n_variants), np.random.default_rng(1)

    def run() -> Result:
        seconds = {}
        for count in (1, *TRAITS):
            # null traits: permutations of the residuals
            many = np.stack([rng.permutation(residual[:, 0]) for _ in range(count)], axis=1)
            pass_over(fileset, rows[:100], many, Q)
            seconds[count] = best(partial(pass_over, fileset, rows, many, Q), 3)
        slope = np.polyfit(list(seconds), list(seconds.values()), 1)[0]
        extra = {f"{count} traits / 1": np.array(seconds[count] / seconds[1]) for count in TRAITS}
        return {**extra, "extra per 5 traits": np.array(5 * slope / seconds[1])}

    return run


def exponents(folder: Path) -> Callable[[], Result]:
    """Exponents of the CPU time of the genotype pass, fitted on a log scale."""

    def seconds(bed: Path, m: int | None) -> float:
        fileset, (residual, Q, _) = open_fileset(bed), null_model(bed)
        rows = np.arange(fileset.n_variants)[: m or None]
        pass_over(fileset, rows[:100], residual, Q)
        return best(partial(pass_over, fileset, rows, residual, Q))

    def run() -> Result:
        samples = [seconds(folder / f"scale-{n}.bed", None) for n in SCALING_SAMPLES]
        variants = [seconds(folder / "reference.bed", m) for m in SCALING_VARIANTS]
        return {
            "samples": np.array(np.polyfit(np.log(SCALING_SAMPLES), np.log(samples), 1)[0]),
            "variants": np.array(np.polyfit(np.log(SCALING_VARIANTS), np.log(variants), 1)[0]),
        }

    return run


def draw_gene(rng: np.random.Generator) -> ScoreStatistics:
    """Statistics of a gene under the null: median 30 variants, frequencies ~ 1/k, a little LD."""
    m = int(np.clip(rng.lognormal(np.log(30), 0.7), 2, 400))
    mac = np.exp(rng.uniform(0, np.log(400), m))
    root = np.diag(np.sqrt(mac)) + 0.05 * rng.standard_normal((m, m))
    V = root @ root.T
    U = (root @ rng.standard_normal(m))[None]
    maf = mac / (2 * SAMPLES)
    return ScoreStatistics(U, V, np.ones(1), maf, mac, np.full(1, float(SAMPLES)), np.ones(m, np.bool_))


def twenty_thousand_genes(folder: Path) -> Callable[[], Result]:
    """Burden, SKAT and ACAT-V of 20,000 genes and 2 masks with one set of weights, from 500 genes and 2 masks."""
    del folder
    rng = np.random.default_rng(1)
    genes = [draw_gene(rng) for _ in range(2 * GENES_TIMED)]
    sizes = [gene.n_variants for gene in genes]

    def test() -> None:
        for gene in genes:
            evaluate(gene, ("burden", "skat", "acat-v"), ("beta_1_25",))

    test()

    def run() -> Result:
        seconds = best(test, 3) * GENES / GENES_TIMED
        return {
            "seconds for 20,000 genes x 2 masks x 3 tests": np.array(seconds),
            "median variants": np.array(np.median(sizes)),
        }

    return run


CASES = [
    Case("scan_carriers by frequency, GB/s", "rates", 1, "64 MB of packed rows each", rates, once=True),
    Case("scan, 1/k", "rates", VARIANTS, f"{SAMPLES:,} x {VARIANTS:,}", partial(shares, "reference"), once=True),
    Case(
        "scan, growth", "rates", VARIANTS // 2, f"{SAMPLES:,} x {VARIANTS // 2:,}", partial(shares, "growth"), once=True
    ),
    Case("further traits", "rates", VARIANTS, f"{SAMPLES:,} x {VARIANTS:,}", traits, once=True),
    Case("exponents of the genotype pass", "rates", 1, "10,000 to 80,000 samples", exponents, once=True),
    Case("gene tests alone", "rates", GENES, "500 genes x 2 masks, times 40", twenty_thousand_genes, once=True),
]

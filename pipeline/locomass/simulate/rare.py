"""Rare variants in bulk: filesets for benchmarks, genes for null calibration."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from locomass.errors import ConfigError
from locomass.files.atomic import atomic_path
from locomass.genotypes.write_bed import open_writer
from locomass.genotypes.write_pgen import open_pgen_writer
from locomass.simulate.genotypes import draw_alleles
from locomass.simulate.haplotypes import collect_carriers, simulate_clades

Spectrum = Literal["1/k", "growth"]
#: P(k carriers) is proportional to k^-exponent: constant population size, and strong recent growth (half singletons)
SPECTRA: dict[str, float] = {"1/k": 1.0, "growth": 1.8}
_BLOCK_CARRIERS = 4_000_000
_BLOCK_BYTES = 64 << 20
_CHROMOSOMES = 22


def write_rare_fileset(
    path: str | Path,
    n_samples: int,
    n_variants: int,
    spectrum: Spectrum = "1/k",
    seed: int = 1,
    *,
    max_maf: float = 0.01,
    variants_per_gene: int = 40,
    n_traits: int = 1,
) -> Path:
    """Write a large fileset of independent rare variants, streamed in bounded memory, with all a run needs beside it.

    A variant has k carrying haplotypes, ``P(k) ~ 1/k`` (or ``k^-1.8``) for ``1 <= k <= 2 n max_maf``, drawn with
    replacement, so a few have one less. Genes are runs of ``variants_per_gene`` variants, spread over 22 chromosomes.
    Beside ``X.bed`` or ``X.pgen``: ``X.sets.txt``, ``X.annotations.txt``, ``X.masks.txt``, ``X.pheno.tsv`` (null
    traits: ``y1``.. normal, ``cc`` with 20 % cases), ``X.covar.tsv`` (age, sex, pc1, pc2) and the configuration
    ``X.yaml``.

    Args:
        path: the .bed or .pgen file.
        n_samples: n.
        n_variants: m.
        spectrum: ``1/k`` or ``growth``.
        seed: seed of every random number.
        max_maf: largest frequency.
        variants_per_gene: size of a gene.
        n_traits: quantitative traits.

    Returns:
        The configuration.

    Raises:
        ConfigError: numbers out of range, or an unknown spectrum.
        InputError: the folder cannot be written.
    """
    bed = Path(path) if str(path).endswith((".bed", ".pgen")) else Path(f"{path}.bed")
    _check(n_samples, n_variants, spectrum, max_maf, variants_per_gene, n_traits)
    rng = np.random.default_rng(seed)
    labels = [f"r{i}" for i in range(n_samples)]
    count = _draw_counts(n_variants, max(1, int(2 * n_samples * max_maf)), SPECTRA[spectrum], rng)
    variants = _make_variants(n_variants, variants_per_gene, rng)
    opened = open_pgen_writer(bed, labels, n_variants=n_variants) if bed.suffix == ".pgen" else open_writer(bed, labels)
    with opened as writer:
        for start, stop in _split_blocks(count, (n_samples + 3) // 4):
            carriers = _draw_carriers(count[start:stop], n_samples, rng)
            writer.write_carriers(variants.iloc[start:stop], *carriers)
    _write_genes(bed, variants, variants_per_gene, rng)
    return _write_tables(bed, labels, n_traits, rng)


def simulate_null_genes(
    n_samples: int,
    n_genes: int,
    variants_per_gene: int = 25,
    *,
    growth: float = 2000.0,
    max_maf: float = 0.05,
    seed: int = 1,
) -> Iterator[NDArray[np.int8]]:
    """Simulate independent genes without effects, for calibration under the null.

    Every gene has its own genealogy (`simulate_clades`: Kingman with growth, no recombination within the gene), so
    frequencies and the correlation of its variants are those of haplotypes. Gene g depends on the seed and g only.

    Args:
        n_samples: n.
        n_genes: how many.
        variants_per_gene: m.
        growth: exponential growth per 2 N0 generations.
        max_maf: largest frequency; at least one carrier is always allowed.
        seed: seed of every random number.

    Yields:
        (n, m) ALT counts of one gene, Fortran order.
    """
    if min(n_samples, variants_per_gene) < 1 or n_genes < 0 or growth < 0 or not 0 < max_maf <= 0.5:
        raise ConfigError(
            f"null genes need positive sizes, growth >= 0 and max_maf in (0, 0.5]; got {n_samples} samples, {n_genes} "
            f"genes of {variants_per_gene}, growth {growth}, max_maf {max_maf}"
        )
    max_count = max(1, int(2 * n_samples * max_maf))
    for gene in range(n_genes):
        rng = np.random.default_rng([seed, gene])
        first, size = simulate_clades(2 * n_samples, variants_per_gene, growth, max_count, rng)
        indptr, sample, count = collect_carriers(first, size, rng.permutation(2 * n_samples), n_samples)
        dosage = np.zeros((variants_per_gene, n_samples), np.int8)
        dosage[np.repeat(np.arange(variants_per_gene), np.diff(indptr)), sample] = count
        yield dosage.T


def _check(n_samples: int, n_variants: int, spectrum: str, max_maf: float, per_gene: int, n_traits: int) -> None:
    """Raise ConfigError unless a fileset can be made of these numbers."""
    if spectrum not in SPECTRA:
        raise ConfigError(f"spectrum '{spectrum}' is unknown; expected one of: {', '.join(SPECTRA)}")
    if min(n_samples, n_variants, per_gene, n_traits) < 1:
        raise ConfigError(
            f"samples, variants, variants per gene and traits must be 1 or more; got {n_samples}, {n_variants}, "
            f"{per_gene}, {n_traits}"
        )
    if not 0 < max_maf <= 0.5:
        raise ConfigError(f"max_maf must be above 0 and at most 0.5, got {max_maf}")


def _draw_counts(n: int, largest: int, exponent: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return (n,) carrier counts from ``P(k) ~ k^-exponent``, k = 1..largest."""
    cumulative = np.cumsum(np.arange(1, largest + 1, dtype=float) ** -exponent)
    count: NDArray[np.int64] = np.searchsorted(cumulative, rng.random(n) * cumulative[-1], side="right") + 1
    return count


def _split_blocks(count: NDArray[np.int64], row_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of blocks that hold at most about 4 M carriers and 64 MB of packed rows."""
    before = np.concatenate(([0], np.cumsum(count)))
    start, rows = 0, max(1, _BLOCK_BYTES // row_bytes)
    while start < count.size:
        full = int(np.searchsorted(before, before[start] + _BLOCK_CARRIERS, side="right")) - 1
        stop = min(count.size, start + rows, max(full, start + 1))
        yield start, stop
        start = stop


def _draw_carriers(
    count: NDArray[np.int64], n_samples: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int8]]:
    """Return CSR carriers (indptr, sample, dosage) of variants with the given numbers of carrying haplotypes."""
    haplotype = rng.integers(2 * n_samples, size=int(count.sum()))
    key = np.repeat(np.arange(count.size) * (2 * n_samples), count) + haplotype
    key.sort()
    key = key[np.diff(key, prepend=-1) != 0]
    person = key >> 1
    first = np.flatnonzero(np.diff(person, prepend=-1) != 0)
    dosage = np.diff(first, append=person.size).astype(np.int8)
    row, sample = np.divmod(person[first], n_samples)
    indptr = np.concatenate(([0], np.cumsum(np.bincount(row, minlength=count.size)))).astype(np.int64)
    return indptr, sample.astype(np.int32), dosage


def _make_variants(n: int, per_gene: int, rng: np.random.Generator) -> pd.DataFrame:
    """Return the .bim columns, plus the gene's number; A1 = ALT."""
    gene = np.arange(n) // per_gene
    n_genes = int(gene[-1]) + 1
    chromosome = 1 + gene * min(_CHROMOSOMES, n_genes) // n_genes
    position = 1_000_000 + 10 * np.arange(n) + 10_000 * gene
    ref, alt = draw_alleles(n, rng)
    columns = zip(chromosome.tolist(), position.tolist(), ref.tolist(), alt.tolist(), strict=True)
    keys = [f"{c}:{at}:{r}:{a}" for c, at, r, a in columns]
    return pd.DataFrame(
        {"chromosome": chromosome, "position": position, "id": keys, "a1": alt, "a2": ref, "gene": gene}
    )


def _write_genes(bed: Path, variants: pd.DataFrame, per_gene: int, rng: np.random.Generator) -> None:
    """Write set list, annotations (10 % LoF, 55 % missense, 35 % synonymous) and masks."""
    keys, genes = variants["id"].tolist(), variants["gene"].tolist()
    chromosome, position = variants["chromosome"].tolist(), variants["position"].tolist()
    with atomic_path(bed.with_suffix(".sets.txt")) as temporary, open(temporary, "w", encoding="utf-8") as handle:
        for start in range(0, len(keys), per_gene):
            members = ",".join(keys[start : start + per_gene])
            handle.write(f"G{genes[start] + 1} {chromosome[start]} {position[start]} {members}\n")
    category = rng.choice(["LoF", "missense", "synonymous"], len(keys), p=[0.1, 0.55, 0.35]).tolist()
    with (
        atomic_path(bed.with_suffix(".annotations.txt")) as temporary,
        open(temporary, "w", encoding="utf-8") as handle,
    ):
        handle.writelines(f"{key} G{gene + 1} {word}\n" for key, gene, word in zip(keys, genes, category, strict=True))
    with atomic_path(bed.with_suffix(".masks.txt")) as temporary:
        temporary.write_text("M1 LoF\nM2 LoF,missense\nM3 LoF,missense,synonymous\n", encoding="utf-8")


def _write_tables(bed: Path, labels: list[str], n_traits: int, rng: np.random.Generator) -> Path:
    """Write phenotypes, covariates and the configuration; return the configuration."""
    n = len(labels)
    traits = [f"y{t + 1}" for t in range(n_traits)]
    ids = pd.DataFrame({"FID": labels, "IID": labels})
    pheno = ids.assign(
        **{name: rng.standard_normal(n).round(6) for name in traits}, cc=(rng.random(n) < 0.2).astype(int)
    )
    covar = ids.assign(
        age=rng.uniform(40, 70, n).round(1),
        sex=rng.integers(1, 3, n),
        pc1=rng.standard_normal(n).round(4),
        pc2=rng.standard_normal(n).round(4),
    )
    for table, suffix in ((pheno, ".pheno.tsv"), (covar, ".covar.tsv")):
        with atomic_path(bed.with_suffix(suffix)) as temporary:
            table.to_csv(temporary, sep="\t", index=False)
    config = bed.with_suffix(".yaml")
    with atomic_path(config) as temporary:
        temporary.write_text(
            _CONFIG.format(name=bed.stem, genotypes=bed.name, traits=", ".join(traits)), encoding="utf-8"
        )
    return config


_CONFIG = """\
# Simulated rare variants and null traits; run with:  locomass run {name}.yaml --out DIR
study: {name}
genotypes: {genotypes}
phenotypes:
  file: {name}.pheno.tsv
  quantitative: [{traits}]
  binary: [cc]
covariates:
  file: {name}.covar.tsv
  quantitative: [age, pc1, pc2]
  categorical: [sex]
genes:
  sets: {name}.sets.txt
  annotations: {name}.annotations.txt
  masks: {name}.masks.txt
output: results/{name}
"""

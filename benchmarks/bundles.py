"""Study bundles of a simulated consortium, written from carriers of rare variants; no genotype file in between."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from locomass.bundle.study import list_array
from locomass.bundle.write import write_bundle_tables
from locomass.schema import BUNDLE_GENES

PER_GENE = 60  # variants of a gene over all studies
GENES_PER_PART = 200
GENE_SPACING = 100_000
CONFIG = """\
genes:
  sets: sets.txt
  annotations: annotations.txt
  masks: masks.txt
tests:
  names: [burden, skat, acat-v, acat-o]
  max_maf: [0.001, 0.01]
  weights: [flat, beta_1_25]
"""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Sites:
    """Variants of the consortium's genes: gene number, position, ALT frequency; chromosome from 1 to 22."""

    gene: Integers
    chromosome: Integers
    position: Integers
    ref: NDArray[np.object_]
    alt: NDArray[np.object_]
    frequency: Floats


def make_sites(n_genes: int, rng: np.random.Generator) -> Sites:
    """Draw variants with a 1/k spectrum from 2e-5 to 0.02."""
    gene = np.repeat(np.arange(n_genes), PER_GENE)
    position = (1 + gene) * GENE_SPACING + 10 * np.tile(np.arange(PER_GENE), n_genes)
    frequency = np.exp(rng.uniform(np.log(2e-5), np.log(0.02), len(gene)))
    letters = np.array(["A", "C", "G", "T"], object)
    ref = rng.integers(4, size=len(gene))
    alt = (ref + rng.integers(1, 4, size=len(gene))) % 4
    return Sites(gene, 1 + gene * 22 // n_genes, position, letters[ref], letters[alt], frequency)


def make_consortium(folder: Path, n_studies: int, n_genes: int, n_samples: int = 4_000) -> Path:
    """Write ``n_studies`` signed bundles, the sets and a configuration below ``folder``; return the configuration.

    Every study carries what its own draw of people carries; a tenth of its variants are written with REF and ALT
    exchanged, since alleles are matched by name.
    """
    config = folder / "consortium.yaml"
    if config.exists():
        return config
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(n_genes)
    sites = make_sites(n_genes, rng)
    names = [f"study{k + 1:02d}" for k in range(n_studies)]
    for name in names:
        write_study(folder / name, name, sites, n_samples, rng)
    keys = [f"{c}:{p}:{r}:{a}" for c, p, r, a in zip(*_labels(sites), strict=True)]
    lines = []
    for start in range(0, len(keys), PER_GENE):
        members = ",".join(keys[start : start + PER_GENE])
        lines.append(f"G{sites.gene[start] + 1} {sites.chromosome[start]} {sites.position[start]} {members}\n")
    (folder / "sets.txt").write_text("".join(lines))
    words = rng.choice(["LoF", "missense", "synonymous"], len(keys), p=[0.1, 0.55, 0.35])
    rows = (f"{key} G{gene + 1} {word}\n" for key, gene, word in zip(keys, sites.gene, words, strict=True))
    (folder / "annotations.txt").write_text("".join(rows))
    (folder / "masks.txt").write_text("M1 LoF\nM3 LoF,missense,synonymous\n")
    config.write_text(f"studies: [{', '.join(names)}]\n{CONFIG}")
    return config


def _labels(sites: Sites) -> tuple[list[int], list[int], list[str], list[str]]:
    return sites.chromosome.tolist(), sites.position.tolist(), sites.ref.tolist(), sites.alt.tolist()


def write_study(path: Path, name: str, sites: Sites, n: int, rng: np.random.Generator) -> None:
    """Write one bundle: a quantitative null trait, an intercept and two covariates, sigma2 = 1."""
    count = rng.binomial(2 * n, sites.frequency)
    seen = np.flatnonzero(count)
    person = rng.integers(n, size=int(count.sum()))
    cells = pd.DataFrame({"site": np.repeat(np.arange(len(count)), count), "person": person})
    cells = cells.groupby(["site", "person"], sort=True).size().clip(upper=2).reset_index(name="dosage")
    X = np.column_stack([np.ones(n), rng.standard_normal((n, 2))])
    Q = np.linalg.qr(X)[0]
    residual = rng.standard_normal(n)
    residual -= Q @ (Q.T @ residual)
    residual /= np.sqrt(residual @ residual / (n - 3))
    number = np.full(len(count), -1)
    number[seen] = np.arange(len(seen))
    row, who = number[cells["site"]], cells["person"].to_numpy()
    dosage = cells["dosage"].to_numpy(float)
    U = np.bincount(row, dosage * residual[who], len(seen))
    B = np.array([np.bincount(row, dosage * q[who], len(seen)) for q in Q.T])
    squares = np.bincount(row, dosage**2, len(seen))
    variance = np.maximum(squares - (B**2).sum(axis=0), 0.0)
    het, hom = (np.bincount(row, dosage == d, len(seen)).astype(np.int32) for d in (1, 2))
    turned = rng.random(len(seen)) < 0.1
    sign = np.where(turned, -1.0, 1.0)
    ref, alt = (np.where(turned, a[seen], b[seen]) for a, b in ((sites.alt, sites.ref), (sites.ref, sites.alt)))
    rest = (n - het - hom).astype(np.int32)
    n_alt = np.where(turned, rest, hom)
    variants = pa.table(
        {
            "chromosome": pa.array([str(c) for c in sites.chromosome[seen]], pa.string()),
            "position": pa.array(sites.position[seen], pa.int64()),
            "ref": pa.array(ref, pa.string()),
            "alt": pa.array(alt, pa.string()),
            "n_obs": list_array(np.full((len(seen), 1), n, np.int32), pa.int32()),
            "n_ref": list_array(np.where(turned, hom, rest)[:, None], pa.int32()),
            "n_het": list_array(het[:, None], pa.int32()),
            "n_alt": list_array(n_alt[:, None], pa.int32()),
            "alt_frequency": list_array(((het + 2.0 * n_alt) / (2.0 * n))[:, None], pa.float64()),
            "U": list_array((U * sign)[:, None], pa.float64()),
            "V": list_array(variance[:, None], pa.float64()),
        }
    )
    cells = pd.DataFrame({"row": row, "who": who, "dosage": dosage})
    # V of a turned variant is that of 2 - g: its signs change, and so G'G and B may be stored with changed signs
    parts = _gene_tables(sites, seen, cells, B * sign, sign)
    trait = {
        "name": "y", "kind": "quantitative", "sample_set": "s1", "covariance": "c1", "n_samples": n, "n_cases": None,
        "sigma2": {"all": 1.0}, "denoising": [],
    }  # fmt: skip
    info = {
        "study": name, "genome_build": "GRCh38", "traits": [trait], "min_cell": 0,
        "sample_sets": [{"name": "s1", "n_samples": n}],
        "covariances": [{"name": "c1", "kind": "quantitative", "sample_set": "s1", "traits": ["y"]}],
    }  # fmt: skip
    write_bundle_tables(path, info, variants, parts)


def _gene_tables(sites: Sites, seen: Integers, cells: pd.DataFrame, B: Floats, sign: Floats) -> list[pa.Table]:
    """Return the files of genes/: people are joined with themselves, gene by gene, for the entries of G'G."""
    gene = sites.gene[seen]
    cells = cells.assign(gene=gene[cells["row"]])
    joined = cells.merge(cells, on=["gene", "who"], suffixes=("_i", "_j"))
    joined = joined[joined["row_i"] >= joined["row_j"]]
    joined["value"] = joined["dosage_i"] * joined["dosage_j"]
    entries = joined.groupby(["row_i", "row_j"], sort=True)["value"].sum().reset_index()
    i, j = entries["row_i"].to_numpy(), entries["row_j"].to_numpy()
    value = entries["value"].to_numpy() * sign[i] * sign[j]
    owner = gene[i]
    tables = []
    for low in range(0, int(sites.gene[-1]) + 1, GENES_PER_PART):
        numbers = np.arange(low, min(low + GENES_PER_PART, int(sites.gene[-1]) + 1))
        columns: dict[str, list[object]] = {c.name: [] for c in BUNDLE_GENES.columns}
        for g in numbers:
            first, last = np.searchsorted(gene, (g, g + 1))
            a, b = np.searchsorted(owner, (g, g + 1))
            start = int((1 + g) * GENE_SPACING)
            cell = (
                f"G{g + 1}", str(sites.chromosome[g * PER_GENE]), start, start + 10 * PER_GENE, "c1",
                np.arange(first, last, dtype=np.int32), (i[a:b] - first).astype(np.int32),
                (j[a:b] - first).astype(np.int32), value[a:b], B[:, first:last].reshape(-1), np.empty(0), "",
            )  # fmt: skip
            for column, item in zip(columns.values(), cell, strict=True):
                column.append(item)
        tables.append(
            pa.table(
                {
                    c.name: list_array(columns[c.name], c.type.value_type)  # type: ignore[arg-type]
                    if pa.types.is_list(c.type)
                    else pa.array(columns[c.name], c.type)
                    for c in BUNDLE_GENES.columns
                }
            )
        )
    return tables

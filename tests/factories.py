"""Small synthetic studies written to a folder: filesets, tables, genes, configurations; no code of the product.

`make_study` gives a `Study` held in memory, which a test may bend (swap alleles, shuffle samples, spoil a column)
before `Study.write` puts it on disk. The .bed writer is the plain definition of the format.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CODES = {2: 0b00, -1: 0b01, 1: 0b10, 0: 0b11}  # A1 count -> two bits
CHROMOSOMES = ("1", "2", "3")
GENES_PER_CHROMOSOME = 2
VARIANTS_PER_GENE = 8


def pack_row(a1_counts: Iterable[int]) -> bytes:
    """Return one .bed row; -1 is a missing call."""
    counts = list(a1_counts)
    row = bytearray((len(counts) + 3) // 4)
    for i, count in enumerate(counts):
        row[i // 4] |= CODES[int(count)] << (2 * (i % 4))
    return bytes(row)


def write_bed(path: Path, a1_counts: NDArray[np.int64]) -> None:
    """Write a variant-major .bed of A1 counts (m, n), -1 missing."""
    path.write_bytes(b"\x6c\x1b\x01" + b"".join(pack_row(row) for row in a1_counts))


def write_fileset(
    prefix: Path,
    a1_counts: NDArray[np.int64],
    variants: Sequence[tuple[str, int, str, str, str]],
    samples: Sequence[tuple[str, str]],
) -> Path:
    """Write .bed, .bim (chromosome, position, id, a1, a2) and .fam (FID, IID); return the .bed."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    write_bed(prefix.with_suffix(".bed"), a1_counts)
    bim = [f"{c}\t{name}\t0\t{p}\t{a1}\t{a2}\n" for c, p, name, a1, a2 in variants]
    prefix.with_suffix(".bim").write_text("".join(bim))
    prefix.with_suffix(".fam").write_text("".join(f"{f} {i} 0 0 0 -9\n" for f, i in samples))
    return prefix.with_suffix(".bed")


def random_calls(rng: np.random.Generator, m: int, n: int, *, missing: float = 0.1) -> NDArray[np.int64]:
    """Return A1 counts (m, n) whose rows run from rare to A1-major, with missing calls (-1)."""
    frequency = rng.choice([0.0, 0.01, 0.05, 0.3, 0.5, 0.9, 0.99, 1.0], size=(m, 1))
    calls = rng.binomial(2, frequency, size=(m, n))
    calls[rng.random((m, n)) < missing] = -1
    return calls


@dataclass
class Study:
    """A study in memory; columns are by sample, rows of the genotype matrix by variant.

    Attributes:
        chromosome, position, ref, alt: labels of the variants in file order.
        a1_is_alt: (m,) how the .bim writes the alleles.
        dosage: (m, n) ALT counts, NaN missing.
        samples: IIDs; the FID is ``F`` + IID.
        traits: name -> (n,) values, NaN missing. binary: which of them are binary.
        covariates: name -> (n,) numbers. sex: (n,) categories.
        loco: (chromosomes, n) LOCO prediction, or None.
        sets: gene -> variants as (chromosome, position, ref, alt).
        annotations: variant -> category.
        config: further keys of the configuration.
    """

    name: str
    chromosome: list[str]
    position: NDArray[np.int64]
    ref: list[str]
    alt: list[str]
    a1_is_alt: NDArray[np.bool_]
    dosage: Floats
    samples: list[str]
    traits: dict[str, Floats]
    binary: tuple[str, ...]
    covariates: dict[str, Floats]
    sex: list[str]
    loco: Floats | None
    sets: dict[str, list[tuple[str, int, str, str]]]
    annotations: dict[str, str]
    config: dict[str, Any] = field(default_factory=dict)
    table_order: NDArray[np.int64] | None = None

    @property
    def n(self) -> int:
        """Samples."""
        return len(self.samples)

    @property
    def a1_counts(self) -> NDArray[np.int64]:
        """(m, n) A1 counts, -1 missing."""
        a1 = np.where(self.a1_is_alt[:, None], self.dosage, 2 - self.dosage)
        return np.where(np.isnan(a1), -1, a1).astype(np.int64)

    def keys(self) -> list[str]:
        """Variant names chrom:pos:ref:alt."""
        labels = zip(self.chromosome, self.position.tolist(), self.ref, self.alt, strict=True)
        return [":".join(map(str, label)) for label in labels]

    def rows_of(self, gene: str) -> list[int]:
        """Rows of the genotype matrix that a gene lists, in the gene's order; absent variants are left out."""
        where = {key: k for k, key in enumerate(self.keys())}
        names = [":".join(map(str, v)) for v in self.sets[gene]]
        return [where[name] for name in names if name in where]

    def design(self, chosen: NDArray[np.bool_]) -> Floats:
        """Intercept, covariates, and an indicator of sex M, for the chosen samples."""
        sex = np.array([s == "M" for s in self.sex], np.float64)
        return np.column_stack([np.ones(self.n), *self.covariates.values(), sex])[chosen]

    def observed(self, trait: str) -> NDArray[np.bool_]:
        """Samples with the trait and every covariate (and prediction)."""
        values = [self.traits[trait], *self.covariates.values()]
        if self.loco is not None:
            values.append(self.loco[0])
        known = np.isfinite(np.column_stack(values)).all(axis=1)
        return known & np.array([s != "NA" for s in self.sex])

    def take_samples(self, order: NDArray[np.int64]) -> Study:
        """Return the study with samples chosen and reordered everywhere."""
        return dataclasses.replace(
            self,
            dosage=self.dosage[:, order],
            samples=[self.samples[i] for i in order],
            traits={k: v[order] for k, v in self.traits.items()},
            covariates={k: v[order] for k, v in self.covariates.items()},
            sex=[self.sex[i] for i in order],
            loco=None if self.loco is None else self.loco[:, order],
        )

    def write(self, folder: Path, **changes: Any) -> Path:
        """Write every file and return the configuration; ``changes`` replace top-level keys (None removes one)."""
        folder.mkdir(parents=True, exist_ok=True)
        labels = zip(self.chromosome, self.position.tolist(), self.keys(), strict=True)
        alleles = zip(self.a1_is_alt, self.ref, self.alt, strict=True)
        variants = [
            (c, p, key, alt if first else ref, ref if first else alt)
            for (c, p, key), (first, ref, alt) in zip(labels, alleles, strict=True)
        ]
        write_fileset(folder / "geno", self.a1_counts, variants, [(f"F{s}", s) for s in self.samples])
        order = np.arange(self.n) if self.table_order is None else self.table_order
        write_table(folder / "pheno.tsv", self.samples, self.traits, order, binary=self.binary)
        write_table(folder / "covar.tsv", self.samples, {**self.covariates, "sex": np.array(self.sex, object)}, order)
        write_genes(folder, self.sets, self.annotations)
        if self.loco is not None:
            write_loco(folder / "all.loco", self.samples, self.loco)
        config = {**self._config(), **self.config, **changes}
        path = folder / "study.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in config.items() if v is not None}, sort_keys=False))
        return path

    def _config(self) -> dict[str, Any]:
        """The configuration as a mapping."""
        quantitative = [t for t in self.traits if t not in self.binary]
        config: dict[str, Any] = {
            "study": self.name,
            "genome_build": "GRCh38",
            "genotypes": "geno.bed",
            "phenotypes": {"file": "pheno.tsv", "quantitative": quantitative, "binary": list(self.binary)},
            "covariates": {"file": "covar.tsv", "quantitative": list(self.covariates), "categorical": ["sex"]},
            "genes": {"sets": "sets.txt", "annotations": "annotations.txt", "masks": "masks.txt"},
            "tests": {"names": ["burden", "skat"], "max_maf": [0.05, 0.5], "weights": ["flat", "beta_1_25"]},
        }
        if self.loco is not None:
            files = dict.fromkeys(self.traits, "all.loco")
            config["predictor"] = {"method": "loco", "loco": files, "use": "covariate"}
        return config


def write_table(
    path: Path,
    samples: Sequence[str],
    columns: Mapping[str, NDArray[Any]],
    order: NDArray[np.int64],
    binary: Sequence[str] = (),
) -> None:
    """Write a table ``FID IID ...`` with rows in ``order``; NaN becomes NA."""
    lines = ["\t".join(["FID", "IID", *columns])]
    for i in order:
        cells = [_cell(values[i], name in binary) for name, values in columns.items()]
        lines.append("\t".join([f"F{samples[i]}", samples[i], *cells]))
    path.write_text("\n".join(lines) + "\n")


def _cell(value: Any, is_binary: bool) -> str:
    if isinstance(value, str):
        return value
    if np.isnan(value):
        return "NA"
    return str(int(value)) if is_binary else repr(float(value))


def write_genes(
    folder: Path, sets: Mapping[str, Sequence[tuple[str, int, str, str]]], annotations: Mapping[str, str]
) -> None:
    """Write sets.txt, annotations.txt and masks.txt in REGENIE's formats."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, notes = [], []
    for gene, variants in sets.items():
        names = [":".join(map(str, v)) for v in variants]
        rows.append(f"{gene} {variants[0][0]} {min(v[1] for v in variants)} {','.join(names)}\n")
        notes += [f"{name} {gene} {annotations[name]}\n" for name in names]
    (folder / "sets.txt").write_text("".join(rows))
    (folder / "annotations.txt").write_text("".join(notes))
    (folder / "masks.txt").write_text("M1 LoF\nM2 LoF,missense\n")


def write_loco(path: Path, samples: Sequence[str], values: Floats) -> None:
    """Write a REGENIE .loco file with one row per chromosome."""
    lines = [" ".join(["FID_IID", *(f"F{s}_{s}" for s in samples)])]
    for chromosome, row in zip(CHROMOSOMES, values, strict=True):
        lines.append(" ".join([chromosome, *("NA" if np.isnan(v) else repr(float(v)) for v in row)]))
    path.write_text("\n".join(lines) + "\n")


def make_study(
    seed: int = 1,
    n: int = 150,
    name: str = "study",
    *,
    loco: bool = True,
    missing_calls: float = 0.03,
    sites_seed: int = 7,
) -> Study:
    """Return a study of 6 genes on 3 chromosomes.

    Traits: ``y`` and ``w`` quantitative with the same missing values, ``z`` quantitative and complete, ``cc`` binary
    with missing values. Variants: mostly rare, some common, some with ALT the major allele; every third is written with
    A1 = REF; the last variant of a gene is also in the next gene of its chromosome. Studies with one ``sites_seed``
    share their variants.
    """
    sites = np.random.default_rng(sites_seed)
    rng = np.random.default_rng(seed)
    m = len(CHROMOSOMES) * GENES_PER_CHROMOSOME * VARIANTS_PER_GENE
    position = np.sort(sites.choice(np.arange(1000, 90000), m // len(CHROMOSOMES), replace=False))
    position = np.tile(position, len(CHROMOSOMES)).astype(np.int64)
    chromosome = [c for c in CHROMOSOMES for _ in range(m // len(CHROMOSOMES))]
    pairs = sites.permuted(np.tile(list("ACGT"), (m, 1)), axis=1)[:, :2]
    frequency = sites.choice([0.01, 0.02, 0.04, 0.15, 0.25, 0.8, 0.97], size=m, p=[0.3, 0.2, 0.2, 0.1, 0.05, 0.05, 0.1])
    dosage = _polymorphic_calls(rng, frequency, n)
    dosage[rng.random((m, n)) < missing_calls] = np.nan
    samples = [f"{name}{i:04d}" for i in range(n)]
    covariates = {"age": rng.normal(50, 10, n), "pc1": rng.normal(size=n)}
    covariates["pc1"][rng.random(n) < 0.02] = np.nan
    sex = rng.choice(["F", "M"], n).tolist()
    prediction = rng.normal(size=(len(CHROMOSOMES), n)) + rng.normal(size=n)
    traits = _make_traits(rng, covariates, prediction[0])
    study = Study(
        name, chromosome, position, pairs[:, 0].tolist(), pairs[:, 1].tolist(), np.arange(m) % 3 != 2, dosage, samples,
        traits, ("cc",), covariates, sex, prediction if loco else None, {}, {},
    )  # fmt: skip
    labels = list(zip(study.chromosome, study.position.tolist(), study.ref, study.alt, strict=True))
    for g in range(m // VARIANTS_PER_GENE):
        low, high = g * VARIANTS_PER_GENE, (g + 1) * VARIANTS_PER_GENE
        shared = labels[low - 1 : low] if g % GENES_PER_CHROMOSOME else []
        study.sets[f"GENE{g + 1}"] = shared + labels[low:high]
    category = sites.choice(["LoF", "missense", "synonymous"], m, p=[0.4, 0.4, 0.2])
    study.annotations.update(zip(study.keys(), category.tolist(), strict=True))
    return study


def _polymorphic_calls(rng: np.random.Generator, frequency: Floats, n: int) -> Floats:
    """Return calls (m, n) in which both alleles are seen several times."""
    dosage = rng.binomial(2, frequency[:, None], size=(len(frequency), n)).astype(np.float64)
    for row, f in zip(dosage, frequency, strict=True):
        chosen = rng.choice(n, 4, replace=False)
        row[chosen] = [1, 1, 1, 1] if f < 0.5 else [1, 1, 2, 1]
    return dosage


def _make_traits(rng: np.random.Generator, covariates: Mapping[str, Floats], score: Floats) -> dict[str, Floats]:
    """Return traits that depend on covariates and on the prediction."""
    n = len(score)
    base = 0.02 * covariates["age"] + 0.5 * score
    traits = {name: 3 + base + rng.normal(size=n) for name in ("y", "w", "z")}
    gone = rng.random(n) < 0.1
    traits["y"][gone] = traits["w"][gone] = np.nan
    cases = (rng.random(n) < 1 / (1 + np.exp(-(base - 1.5)))).astype(np.float64)
    cases[rng.random(n) < 0.08] = np.nan
    traits["cc"] = cases
    return traits


def write_meta_config(path: Path, bundles: Sequence[Path], study: Study, **changes: Any) -> Path:
    """Write genes and a configuration of `locomass meta` beside them."""
    write_genes(path.parent, study.sets, study.annotations)
    config = {
        "studies": [str(b) for b in bundles],
        "genes": {"sets": "sets.txt", "annotations": "annotations.txt", "masks": "masks.txt"},
        "tests": {"names": ["burden", "skat"], "max_maf": [0.05, 0.5], "weights": ["flat", "beta_1_25"]},
        **changes,
    }
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path

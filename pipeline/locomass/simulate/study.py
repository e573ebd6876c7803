"""A consortium on disk: studies, genes, GWAS summary statistics, LD reference, configurations and the truth."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from locomass.errors import ConfigError, suggest
from locomass.files.atomic import atomic_path
from locomass.files.yaml_text import load_yaml
from locomass.genotypes.write_bed import FilesetWriter, open_writer
from locomass.simulate.genotypes import Chromosome, Variants, simulate_genotypes
from locomass.simulate.gwas import SumstatsWriter, regress_marginally, residualise
from locomass.simulate.parameters import TRAITS, Parameters, Stream, check_parameters, make_rng
from locomass.simulate.phenotypes import (
    GeneticValues,
    People,
    annotate_rare,
    count_candidates,
    recruit,
    simulate_genetic_values,
    simulate_people,
)

BUILD = "GRCh38"
MASKS = {"LoF": "LoF", "LoF_missense": "LoF,missense", "all": "LoF,missense,synonymous"}


@dataclass(frozen=True, slots=True)
class SimulatedStudies:
    """What was written.

    Attributes:
        directory: the folder.
        studies: configuration of every study, for `locomass run`.
        consortium: configuration of the meta-analysis, for `locomass meta` after the studies ran with
            ``--out DIRECTORY/results/STUDY``.
        truth: truth.json - parameters, causal genes and variants with effects, variances that came out.
    """

    directory: Path
    studies: tuple[Path, ...]
    consortium: Path
    truth: Path


def simulate_demo(directory: str | Path, seed: int = 1) -> SimulatedStudies:
    """Write the demonstration data, in seconds: two studies, 22 chromosomes, one quantitative and one binary trait.

    Args:
        directory: folder to fill; made if absent, files of the same names are replaced.
        seed: seed of every random number.

    Returns:
        Paths of the configurations and of the truth.
    """
    return simulate_study(directory, Parameters(seed=seed))


def simulate_study(directory: str | Path, parameters: Parameters) -> SimulatedStudies:
    """Simulate studies, an independent GWAS and an LD reference from one population, and write them.

    Everybody copies from the same founders. Study k has ``studyk/array.bed`` (common variants), ``studyk/sequence.bed``
    (the rare variants seen in it), ``studyk/pheno.tsv`` and ``studyk/covar.tsv``. In every study but the first some
    variants are absent and some are written with A1 = REF. Genotypes are simulated twice, chromosome by chromosome:
    once for the traits, which decide who is recruited, and once to be written; memory holds one chromosome.

    Args:
        directory: folder to fill.
        parameters: what to simulate.

    Raises:
        ConfigError: parameters out of range, or that contradict each other.
        InputError: the folder cannot be written, or msprime is asked for and absent.
    """
    p = parameters
    check_parameters(p)
    root = Path(directory)
    n_sequenced = sum(count_candidates(p))
    n_reference = p.n_reference if p.n_gwas else 0
    n = n_sequenced + n_reference + p.n_gwas
    values = simulate_genetic_values(p, simulate_genotypes(p, n, n_sequenced))
    people = simulate_people(p, values)
    groups = _Groups(recruit(p, people), np.arange(n_sequenced, n - p.n_gwas), np.arange(n - p.n_gwas, n))
    with ExitStack() as stack:
        outputs = [_StudyOutput(p, k, who, people, root, stack) for k, who in enumerate(groups.studies)]
        gwas = _Gwas(p, people, groups, root, stack) if p.n_gwas else None
        genes = _GeneTables()
        for chromosome in simulate_genotypes(p, n, n_sequenced):
            genes.add(chromosome, p)
            for output in outputs:
                output.write(chromosome)
            if gwas is not None:
                gwas.add(chromosome)
    if gwas is not None:
        gwas.write(root / "gwas")
    genes.write(root / "genes")
    for k, who in enumerate(groups.studies):
        _write_tables(p, k, who, people, root)
    return _write_configurations(p, root, _describe_truth(p, values, people, groups))


@dataclass(frozen=True, slots=True)
class _Groups:
    """Numbers of the people in every study, the LD reference and the GWAS."""

    studies: list[NDArray[np.int64]]
    reference: NDArray[np.int64]
    gwas: NDArray[np.int64]


def gene_name(number: int, p: Parameters) -> str:
    """Return a gene's name, such as GENE3_2 for the second gene of chromosome 3."""
    chromosome, place = divmod(number, p.genes_per_chromosome)
    return f"GENE{chromosome + 1}_{place + 1}"


def _label_samples(prefix: str, n: int) -> list[str]:
    """Return n sample labels."""
    width = max(4, len(str(n)))
    return [f"{prefix}-{i:0{width}d}" for i in range(1, n + 1)]


class _StudyOutput:
    """The two filesets of one study, and the flaws that its genotypes get."""

    def __init__(
        self, p: Parameters, k: int, who: NDArray[np.int64], people: People, root: Path, stack: ExitStack
    ) -> None:
        self.who = who
        self.missing = p.missing_calls
        self.absent, self.swapped = (p.absent, p.swapped) if k else (0.0, 0.0)
        self.rng = make_rng(p.seed, Stream.WRITING, k)
        labels = _label_samples(f"s{k + 1}", who.size)
        sex = people.covariates["sex"][who].astype(int).tolist()
        folder = root / f"study{k + 1}"
        self.array = stack.enter_context(open_writer(folder / "array.bed", labels, sex=sex))
        self.sequence = stack.enter_context(open_writer(folder / "sequence.bed", labels, sex=sex))

    def write(self, chromosome: Chromosome) -> None:
        """Write one chromosome; a variant that nobody in the study carries is left out of its sequence."""
        self._write_block(self.array, chromosome.common, chromosome.dosage[:, self.who], seen_only=False)
        for _, rows in chromosome.genes():
            dosage = chromosome.decode_rare(rows)[:, self.who]
            self._write_block(self.sequence, chromosome.rare.take(rows), dosage, seen_only=True)

    def _write_block(
        self, writer: FilesetWriter, variants: Variants, dosage: NDArray[np.int8], *, seen_only: bool
    ) -> None:
        """Drop, swap and lose calls at random, then write."""
        keep = self.rng.random(len(variants)) >= self.absent
        if seen_only:
            keep &= dosage.any(axis=1)
        rows = np.flatnonzero(keep)
        swapped = self.rng.random(rows.size) < self.swapped
        dosage = dosage[rows]
        dosage[swapped] = 2 - dosage[swapped]
        dosage[self.rng.random(dosage.shape, dtype=np.float32) < self.missing] = -1
        if rows.size:
            writer.write_dosage(variants.make_table(rows, swapped), dosage.T)


class _Gwas:
    """Regressions of both traits on all common variants, and the LD reference that goes with them."""

    def __init__(self, p: Parameters, people: People, groups: _Groups, root: Path, stack: ExitStack) -> None:
        who = groups.gwas
        self.groups = groups
        labels = _label_samples("ref", groups.reference.size)
        self.reference = stack.enter_context(open_writer(root / "reference.bed", labels))
        traits = np.vstack((people.y[who], people.cc[who].astype(float)))
        self.residuals = residualise(traits, np.column_stack([c[who] for c in people.covariates.values()]))
        cases = (None, int(people.cc[who].sum()))
        rngs = [make_rng(p.seed, Stream.WRITING, 1000 + t) for t in range(len(TRAITS))]
        self.writers = [SumstatsWriter(t, who.size, c, r) for t, c, r in zip(TRAITS, cases, rngs, strict=True)]

    def add(self, chromosome: Chromosome) -> None:
        """Regress on the variants of one chromosome and write them to the reference."""
        effects = regress_marginally(chromosome.dosage[:, self.groups.gwas], self.residuals)
        for t, writer in enumerate(self.writers):
            writer.add(chromosome.common, effects.beta[t], effects.se[t], effects.frequency)
        rows = np.arange(len(chromosome.common))
        table = chromosome.common.make_table(rows, np.zeros(rows.size, bool))
        self.reference.write_dosage(table, chromosome.dosage[:, self.groups.reference].T)

    def write(self, folder: Path) -> None:
        """Write one file per trait."""
        for writer in self.writers:
            writer.write(folder / f"{writer.trait}.tsv.gz", BUILD)


class _GeneTables:
    """Set list, annotations and masks in REGENIE's formats."""

    def __init__(self) -> None:
        self.sets: list[str] = []
        self.annotations: list[str] = []

    def add(self, chromosome: Chromosome, p: Parameters) -> None:
        """Collect the genes of one chromosome."""
        annotation, keys = annotate_rare(chromosome, p), chromosome.rare.keys
        for number, rows in chromosome.genes():
            name, members = gene_name(number, p), [keys[row] for row in rows.tolist()]
            first = chromosome.rare.position[rows[0]]
            self.sets.append(f"{name} {chromosome.label} {first} {','.join(members)}\n")
            self.annotations += [
                f"{key} {name} {annotation.category[row]} {annotation.score[row]:.4f}\n"
                for key, row in zip(members, rows.tolist(), strict=True)
            ]

    def write(self, folder: Path) -> None:
        """Write the three files."""
        _write_text(folder / "sets.txt", self.sets)
        _write_text(folder / "annotations.txt", self.annotations)
        _write_text(folder / "masks.txt", [f"{name} {categories}\n" for name, categories in MASKS.items()])


def _write_text(path: Path, lines: Iterable[str]) -> None:
    """Write lines atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def _write_tables(p: Parameters, k: int, who: NDArray[np.int64], people: People, root: Path) -> None:
    """Write phenotypes and covariates of one study; each trait has its own missing values."""
    labels = _label_samples(f"s{k + 1}", who.size)
    missing = make_rng(p.seed, Stream.WRITING, 2000 + k).random((2, who.size)) < p.missing_phenotypes
    y = ["NA" if gone else f"{value:.6f}" for value, gone in zip(people.y[who].tolist(), missing[0], strict=True)]
    cc = ["NA" if gone else f"{value:d}" for value, gone in zip(people.cc[who].tolist(), missing[1], strict=True)]
    rows = (f"{s}\t{s}\t{a}\t{b}\n" for s, a, b in zip(labels, y, cc, strict=True))
    _write_text(root / f"study{k + 1}" / "pheno.tsv", ["FID\tIID\ty\tcc\n", *rows])
    columns = [people.covariates[name][who].tolist() for name in ("age", "sex", "pc1", "pc2")]
    lines = (f"{s}\t{s}\t{a:g}\t{x:.0f}\t{u:g}\t{v:g}\n" for s, a, x, u, v in zip(labels, *columns, strict=True))
    _write_text(root / f"study{k + 1}" / "covar.tsv", ["FID\tIID\tage\tsex\tpc1\tpc2\n", *lines])


def _describe_truth(p: Parameters, values: GeneticValues, people: People, groups: _Groups) -> dict[str, object]:
    """Return what truth.json holds."""
    traits = {}
    for t, (name, total) in enumerate(zip(TRAITS, (people.y, people.liability), strict=True)):
        genes = [
            {
                "gene": gene_name(g.gene, p),
                "chromosome": g.chromosome,
                "variance_explained": p.gene_variance,
                "effects": dict(zip(g.variants, g.effects, strict=True)),
            }
            for g in values.causal_genes[t]
        ]
        traits[name] = {
            "kind": "quantitative" if name == "y" else "binary",
            "h2": p.h2,
            "h2_per_study": [float(np.var(values.polygenic[t, w]) / np.var(total[w])) for w in groups.studies],
            "causal_common_variants": values.causal_common[t],
            "causal_genes": genes,
        }
    cases = [int(people.cc[who].sum()) for who in groups.studies]
    return {"parameters": msgspec.to_builtins(p), "cases_per_study": cases, "traits": traits}


def _write_configurations(p: Parameters, root: Path, truth: dict[str, object]) -> SimulatedStudies:
    """Write a configuration per study, one for the consortium, and the truth."""
    names = [f"study{k + 1}" for k in range(len(p.study_sizes))]
    paths = tuple(root / f"{name}.yaml" for name in names)
    for name, path in zip(names, paths, strict=True):
        predictor = _PREDICTOR.format(name=name) if p.n_gwas else ""
        _write_text(path, [_STUDY.format(name=name, build=BUILD), predictor, _GENES, f"output: results/{name}\n"])
    bundles = ", ".join(f"results/{name}/bundle" for name in names)
    consortium = root / "consortium.yaml"
    note = (
        "# After the studies ran with --out results/NAME beside this file:  locomass meta consortium.yaml --out DIR\n"
    )
    _write_text(consortium, [note, f"studies: [{bundles}]\nmaf: joint\n", _GENES, "output: results/consortium\n"])
    _write_text(root / "truth.json", [json.dumps(truth, indent=1), "\n"])
    return SimulatedStudies(root, paths, consortium, root / "truth.json")


_STUDY = """\
# Simulated; run with:  locomass run {name}.yaml --out DIR
study: {name}
genome_build: {build}
genotypes: {name}/sequence.bed
phenotypes:
  file: {name}/pheno.tsv
  quantitative: [y]
  binary: [cc]
covariates:
  file: {name}/covar.tsv
  quantitative: [age, pc1, pc2]
  categorical: [sex]
"""
_PREDICTOR = """\
predictor:
  method: ridge
  summary_statistics: {{y: gwas/y.tsv.gz, cc: gwas/cc.tsv.gz}}
  genotypes: {name}/array.bed
  ld_reference: reference.bed
  use: covariate
"""
_GENES = """\
genes:
  sets: genes/sets.txt
  annotations: genes/annotations.txt
  masks: genes/masks.txt
tests:
  names: [burden, skat, acat-v, acat-o]
  max_maf: [0.01, 0.05]
  weights: [flat, beta_1_25]
"""


def parse_parameters(settings: Iterable[str]) -> Parameters:
    """Return the parameters that ``KEY=VALUE`` settings describe; values are written as in YAML.

    Raises:
        ConfigError: a setting is not KEY=VALUE, its key is unknown, or its value out of range.
    """
    values: dict[str, object] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"setting '{text}' is not KEY=VALUE, such as h2=0.3")
        if key not in Parameters.__struct_fields__:
            raise ConfigError(f"unknown simulation parameter '{key}'{suggest(key, Parameters.__struct_fields__)}")
        values[key] = load_yaml(value, f"setting {key}")
    try:
        return msgspec.convert(values, Parameters)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$.")
        raise ConfigError(f"simulation parameter {where.rstrip('`')}: {message}") from None

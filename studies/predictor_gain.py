"""What a predictor is worth: null calibration and noncentrality gain against 1/(1 - R2), on simulated data.

Traits have polygenic effects on chromosomes 1 to 20 and one causal gene of rare variants on each of them; chromosomes
21 and 22 are null. Every trait has effects of its own and a GWAS in other people. Genes are tested by burden with the
null models of the pipeline.

    python -m studies.predictor_gain            # the table of docs/predictors.md, about two minutes
    python -m studies.predictor_gain --write    # and put it there
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
import yaml
from numpy.typing import NDArray
from scipy.stats import chi2, norm

from locomass.config import RunConfig, load_config
from locomass.denoise import fit_null_models
from locomass.executors import ThreadExecutor
from locomass.genotypes.fileset import Fileset, open_fileset
from locomass.null_models.base import NullModels
from locomass.null_models.registry import trait_model
from locomass.predict import predict
from locomass.simulate.parameters import Parameters
from locomass.simulate.study import simulate_study
from locomass.tables.cohort import open_cohort

Floats = NDArray[np.float64]
NULL_CHROMOSOMES = ("21", "22")
DOCS = Path(__file__).parents[1] / "docs" / "predictors.md"
BEGIN, END = "<!-- predictor gain: begin -->", "<!-- predictor gain: end -->"


@dataclass(frozen=True)
class World:
    """Simulated cohort and traits.

    Attributes:
        folder: files.
        traits: names.
        chromosome: (G,) of every gene.
        burden: (n, G) rare alleles per person of the cohort.
        causal: (G,) whether the gene acts on the traits.
    """

    folder: Path
    traits: tuple[str, ...]
    chromosome: NDArray[np.str_]
    burden: Floats
    causal: NDArray[np.bool_]


@dataclass(frozen=True)
class Outcome:
    """Tests of all genes and traits with one predictor.

    Attributes:
        r2: mean over traits and causal chromosomes of the R2 that the prediction adds.
        expected: mean of 1/(1 - R2).
        causal: (T, causal genes) chi2; null: (T, genes of the null chromosomes) chi2.
    """

    r2: float
    expected: float
    causal: Floats
    null: Floats


def read_dosage(fileset: Fileset) -> Floats:
    """Return (n, m) A1 dosages."""
    everybody = np.arange(fileset.n_samples, dtype=np.int32)
    rows = np.arange(fileset.n_variants)
    return fileset.select(rows).dosage(everybody, fileset.n_samples)[0].T.astype(np.float64)


def build_world(
    folder: Path, *, n: int, n_gwas: int, n_traits: int, h2: float, gene_variance: float, genes: int, seed: int
) -> World:
    """Simulate genotypes, traits, their GWAS and external weights.

    Args:
        folder: where to write.
        n: people of the cohort; n_gwas: of the GWAS, others.
        n_traits: traits, each with effects of its own.
        h2: variance from common variants; gene_variance: of each of 20 causal genes.
        genes: genes per chromosome.
        seed: seed of everything.
    """
    simulate_study(
        folder,
        Parameters(
            study_sizes=[n, n_gwas], n_gwas=500, n_reference=2000, genes_per_chromosome=genes, variants_per_gene=6,
            missing_calls=0, missing_phenotypes=0, absent=0, swapped=0, causal_genes=0, max_maf=0.02, seed=seed,
        ),
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    array = [open_fileset(folder / f"study{k}/array.bed") for k in (1, 2)]
    G = [read_dosage(fileset) for fileset in array]
    label = array[0].variants["chromosome"].to_numpy(str)
    chromosome, burdens = _count_burdens(folder)
    causal = np.zeros(len(chromosome), bool)
    for c in sorted(set(chromosome) - set(NULL_CHROMOSOMES)):
        gene = np.flatnonzero(chromosome == c)[0]
        causal[gene] = True
        # the rarest variant of the array belongs to the gene, so that common variants tag it, as they do real genes
        here = np.flatnonzero(label == c)
        rarest = here[np.argmin(np.minimum(G[1][:, here].mean(axis=0), 2 - G[1][:, here].mean(axis=0)))]
        for k in (0, 1):
            burdens[k][:, gene] += G[k][:, rarest]
    traits = tuple(f"y{t + 1}" for t in range(n_traits))
    sd = np.vstack(G).std(axis=0)
    weight = np.where(rng.random((len(label), n_traits)) < 0.1, rng.standard_normal((len(label), n_traits)), 0)
    weight[np.isin(label, NULL_CHROMOSOMES)] = 0
    weight = np.divide(weight, sd[:, None], out=np.zeros_like(weight), where=sd[:, None] > 0)
    weight *= np.sqrt(h2) / (np.vstack(G) @ weight).std(axis=0)
    gene_sd = np.vstack(burdens)[:, causal].std(axis=0)
    noise = np.sqrt(1 - h2 - causal.sum() * gene_variance)
    y = [
        g @ weight + (b[:, causal] * np.sqrt(gene_variance) / gene_sd).sum(axis=1)[:, None]
        + noise * rng.standard_normal((len(g), n_traits))
        for g, b in zip(G, burdens, strict=True)
    ]  # fmt: skip
    table = pd.DataFrame(y[0], columns=list(traits))
    table.insert(0, "FID", array[0].fid)
    table.insert(1, "IID", array[0].iid)
    table.to_csv(folder / "traits.tsv", sep="\t", index=False)
    _write_gwas(folder, array[1], G[1], y[1], traits)
    # a published score: the true weights, blurred so that it keeps half of the heritability
    blurred = weight + rng.standard_normal(weight.shape) * np.sqrt((weight**2).mean(axis=0))
    _write_external(folder, array[0], blurred, traits)
    return World(folder, traits, chromosome, burdens[0], causal)


def _count_burdens(folder: Path) -> tuple[NDArray[np.str_], list[Floats]]:
    """Return chromosomes of the genes with ten rare alleles or more in both groups of people, and their burdens."""
    lines = [line.split() for line in (folder / "genes/sets.txt").read_text().splitlines()]
    burdens = []
    for k in (1, 2):
        fileset = open_fileset(folder / f"study{k}/sequence.bed")
        place = {key: j for j, key in enumerate(fileset.variants["id"])}
        G = read_dosage(fileset)
        columns = [[place[v] for v in line[3].split(",") if v in place] for line in lines]
        burdens.append(np.column_stack([G[:, c].sum(axis=1) for c in columns]))
    seen = np.all([b.sum(axis=0) >= 10 for b in burdens], axis=0)
    return np.array([line[1] for line in lines])[seen], [b[:, seen] for b in burdens]


def _write_gwas(folder: Path, fileset: Fileset, G: Floats, y: Floats, traits: Sequence[str]) -> None:
    """Write marginal regressions of every trait."""
    g, r = G - G.mean(axis=0), y - y.mean(axis=0)
    gg, rr, v = (g**2).sum(axis=0), (r**2).sum(axis=0), fileset.variants
    beta = g.T @ r / gg[:, None]
    se = np.sqrt((rr - beta**2 * gg[:, None]) / ((len(y) - 2) * gg[:, None]))
    for t, trait in enumerate(traits):
        table = pd.DataFrame(
            {
                "chromosome": v["chromosome"], "base_pair_location": v["position"], "effect_allele": v["a1"],
                "other_allele": v["a2"], "beta": beta[:, t], "standard_error": se[:, t],
                "effect_allele_frequency": G.mean(axis=0) / 2, "p_value": 2 * norm.sf(np.abs(beta / se)[:, t]),
                "variant_id": v["id"], "n": len(y),
            }
        )  # fmt: skip
        table.to_csv(folder / f"{trait}.gwas.tsv", sep="\t", index=False)


def _write_external(folder: Path, fileset: Fileset, weight: Floats, traits: Sequence[str]) -> None:
    """Write weights in the columns of a PGS Catalog file."""
    v = fileset.variants
    for t, trait in enumerate(traits):
        pd.DataFrame(
            {
                "chr_name": v["chromosome"], "chr_position": v["position"], "effect_allele": v["a1"],
                "other_allele": v["a2"], "effect_weight": weight[:, t],
            }
        ).to_csv(folder / f"{trait}.external.txt", sep="\t", index=False)  # fmt: skip


def predictor_sections(traits: Sequence[str]) -> dict[str, dict[str, object]]:
    """Return the predictor section of every method compared."""
    files = {t: f"{t}.gwas.tsv" for t in traits}
    common = {"genotypes": "study1/array.bed", "ld_reference": "reference.bed", "ld_cache": "ld_cache"}
    external = {"method": "weights", "weights": {t: f"{t}.external.txt" for t in traits}}
    return {
        "none": {"method": "none"},
        "ridge": {"method": "ridge", "summary_statistics": files, **common},
        "LDpred2-auto": {"method": "ldpred2-auto", "summary_statistics": files, **common},
        "stacked ridge": {"method": "block-ridge", **common},
        "stacked ridge + external": {"method": "stack", "stack": [{"method": "block-ridge"}, external], **common},
    }


def run_genes(world: World, method: str, traits: Sequence[str]) -> tuple[Outcome, Outcome | None]:
    """Run the predictor and the null models of the pipeline and test every gene in every trait.

    Args:
        world: the simulation.
        method: a key of `predictor_sections`.
        traits: traits to use.

    Returns:
        The outcome, and for contrast that with the chromosome of the gene left in the prediction.
    """
    section = predictor_sections(traits)[method]
    config = {
        "study": "gain", "genotypes": "study1/array.bed", "predictor": section, "genes": {"regions": "none.bed"},
        "phenotypes": {"file": "traits.tsv", "quantitative": list(traits)},
    }  # fmt: skip
    path = world.folder / "gain.yaml"
    path.write_text(yaml.safe_dump(config))
    options = load_config(path, RunConfig)
    cohort = open_cohort(options, world.folder)
    prediction = predict(options.predictor, world.folder, cohort, world.folder / "out", ThreadExecutor())

    def test(loco: xr.DataArray | None) -> Outcome:
        return _collect(world, fit_null_models(cohort, loco, options.predictor.role), traits)

    if prediction is None:
        return test(None), None
    loco = prediction.loco
    # the sum of the LOCO predictions over C chromosomes is C - 1 times the whole score
    whole = loco.sum("chromosome") / (loco.sizes["chromosome"] - 1)
    whole = whole.expand_dims(chromosome=loco["chromosome"]).transpose("chromosome", "sample", "trait")
    return test(loco), test(whole)


def _collect(world: World, models: NullModels, traits: Sequence[str]) -> Outcome:
    """Test the genes: U = G'(y - mu)/sigma2, V = (G'G - |Z'G|^2)/sigma2 with covariates and LOCO column in Z."""
    statistic = np.empty((len(traits), len(world.chromosome)))
    for c in sorted(set(world.chromosome)):
        model, here = models.model(c), np.flatnonzero(world.chromosome == c)
        g = world.burden[:, here]
        for t, trait in enumerate(traits):
            null = trait_model(models, model, trait)
            U = g.T @ null.residual / null.sigma2
            V = ((g**2).sum(axis=0) - ((null.Z.T @ g) ** 2).sum(axis=0)) / null.sigma2
            statistic[t, here] = U**2 / V
    null = np.isin(world.chromosome, NULL_CHROMOSOMES)
    r2 = np.array([r["r2"] or 0.0 for r in models.rows if r["chromosome"] not in NULL_CHROMOSOMES])
    return Outcome(float(r2.mean()), float((1 / (1 - r2)).mean()), statistic[:, world.causal], statistic[:, null])


def compute_gain(outcome: Outcome, without: Outcome) -> float:
    """Return the ratio of noncentralities, ``(mean chi2 - 1)`` with and without the prediction."""
    return float((outcome.causal.mean() - 1) / (without.causal.mean() - 1))


def make_table(world: World, few: Sequence[str]) -> list[str]:
    """Return the lines of the table."""
    lines = [
        "| predictor | R2 (LOCO) | 1/(1-R2) | gain | ratio | gain, chromosome left in | null mean chi2 | type I |",
        "|---|---|---|---|---|---|---|---|",
    ]
    without = {len(names): run_genes(world, "none", names)[0] for names in (world.traits, few)}
    for method in predictor_sections(few):
        names = world.traits if method in ("none", "ridge") else few
        found, left_in = run_genes(world, method, names)
        gain = compute_gain(found, without[len(names)])
        inside = "" if left_in is None else f"{compute_gain(left_in, without[len(names)]):.2f}"
        rate = float((found.null > chi2.isf(0.05, 1)).mean())
        lines.append(
            f"| {method} | {found.r2:.3f} | {found.expected:.3f} | {gain:.3f} | {gain / found.expected:.3f} | {inside} "
            f"| {found.null.mean():.3f} ({found.null.size:,}) | {rate:.4f} |"
        )
    return lines


def main() -> None:
    """Print the table; with ``--write`` also into docs/predictors.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/predictors.md")
    parser.add_argument("--traits", type=int, default=100, help="traits for none and ridge; the others use 12")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        world = build_world(
            Path(folder), n=3000, n_gwas=8000, n_traits=arguments.traits, h2=0.4, gene_variance=0.005, genes=25,
            seed=arguments.seed,
        )  # fmt: skip
        lines = make_table(world, world.traits[:12])
    print("\n".join(lines))
    if arguments.write:
        text = DOCS.read_text(encoding="utf-8")
        head, rest = text.split(BEGIN)
        tail = rest.split(END)[1]
        DOCS.write_text("\n".join([head + BEGIN, *lines, END]) + tail, encoding="utf-8")


if __name__ == "__main__":
    main()

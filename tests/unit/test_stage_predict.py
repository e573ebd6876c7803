"""The predictor stage: weights, LD cache, overlap guard, exports, on a simulated study with and without overlap."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sys
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import chi2, norm

from locomass import cli
from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
from locomass.config import Predictor, RunConfig, load_config
from locomass.denoise import fit_null_models
from locomass.errors import ConfigError, FormatError, InputError, MatchError
from locomass.executors import ThreadExecutor
from locomass.genotypes.fileset import open_fileset
from locomass.predict import predict
from locomass.predict.individual import marginal_effects, residual_trait
from locomass.predict.kept import Kept
from locomass.predict.reference import FilesetReference, StoredReference
from locomass.simulate.parameters import Parameters
from locomass.simulate.study import simulate_study
from locomass.tables.cohort import Cohort, open_cohort
from locomass.tables.ld_store import LdBlock, digest_ld, find_layout, is_intact, read_banded, read_ld, write_ld
from locomass_predictors.block_ridge import GenotypeBlock, predict_level_0
from studies.predictor_gain import World, build_world, compute_gain, run_genes

PARAMETERS = Parameters(
    study_sizes=[1500],
    n_gwas=1500,
    n_reference=1000,
    n_chromosomes=8,
    common_per_chromosome=250,
    genes_per_chromosome=3,
    variants_per_gene=8,
    missing_phenotypes=0.0,
    polygenicity=0.3,
    spacing=20_000,
    ld_decay=30_000.0,
    causal_genes=1,
)
EXECUTOR = ThreadExecutor(2)


class Study:
    """A simulated study, its configuration and its cohort."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        simulate_study(folder, PARAMETERS)
        self.config = load_config(folder / "study1.yaml", RunConfig)
        self.cohort: Cohort = open_cohort(self.config, folder)
        for trait in ("y", "cc"):
            self._add_cohort_to_gwas(trait)

    def gwas(self, trait: str = "y", suffix: str = "") -> pd.DataFrame:
        return pd.read_csv(self.folder / f"gwas/{trait}{suffix}.tsv.gz", sep="\t")

    def write_gwas(self, table: pd.DataFrame, name: str) -> str:
        table.to_csv(self.folder / "gwas" / name, sep="\t", index=False)
        return f"gwas/{name}"

    def _add_cohort_to_gwas(self, trait: str) -> None:
        """Write the fixed-effects meta-analysis of the independent GWAS and this cohort: full overlap."""
        gwas, target = self.gwas(trait), open_fileset(self.folder / "study1/array.bed")
        correlation, n = marginal_effects(target, self.cohort, trait, EXECUTOR)
        own = pd.DataFrame({"id": target.variants["id"], "a1": target.variants["a1"], "r": correlation})
        m = gwas.merge(own, left_on="variant_id", right_on="id")
        sd = np.sqrt(2 * m["effect_allele_frequency"] * (1 - m["effect_allele_frequency"]))
        y = self.cohort.y[:, [t.name for t in self.cohort.traits].index(trait)]
        unit = residual_trait(self.cohort, trait, np.isfinite(y)).std()
        unit = unit if trait == "y" else 1 / np.sqrt(y.mean() * (1 - y.mean()))
        beta = m["r"] * np.where(m["effect_allele"] == m["a1"], 1, -1) * unit / sd
        w, own_w = m["standard_error"] ** -2, (unit / sd / np.sqrt(n)) ** -2
        m["beta"] = (w * m["beta"] + own_w * beta) / (w + own_w)
        m["standard_error"] = (w + own_w) ** -0.5
        m["p_value"] = 2 * norm.sf(np.abs(m["beta"] / m["standard_error"]))
        m["n"] += n
        if trait == "cc":
            m["n_cases"] += int(y.sum())
            m["n_controls"] += int(n - y.sum())
        self.write_gwas(m[gwas.columns], f"{trait}_with.tsv.gz")

    def predictor(self, **changes) -> Predictor:
        return msgspec.structs.replace(
            self.config.predictor, **{"summary_statistics": {"y": "gwas/y.tsv.gz"}, **changes}
        )

    def predict(self, out: Path, **changes):
        return predict(self.predictor(**changes), self.folder, self.cohort, out, EXECUTOR, "GRCh38")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    return Study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def ridge(study, tmp_path_factory):
    """Output folder and prediction of ridge."""
    out = tmp_path_factory.mktemp("ridge")
    return out, study.predict(out)


def polygenic(folder: Path) -> np.ndarray:
    from locomass.null_models.store import read_array

    return read_array(folder / "predict" / "polygenic_score.zarr", "polygenic_score").values


# --- methods -------------------------------------------------------------------------------------------------------


def test_ridge__is_calibrated_in_an_independent_cohort(ridge):
    record = ridge[1].record["y"]
    assert abs(record["r2_promised"] - record["r2_observed"]) < 0.02
    # the slope's standard error is 0.07
    assert 0.85 < record["slope"] < 1.15
    assert record["ld_score_intercept"] in ("free", "fixed at 1")


def test_predict__leaves_each_chromosome_out(ridge):
    out, prediction = ridge
    parts = polygenic(out)
    assert parts.shape[0] == PARAMETERS.n_chromosomes
    expected = parts.sum(axis=0)[None] - parts
    assert np.allclose(prediction.loco.values, expected, atol=1e-12)


#: of the R2 of ridge: the trait is polygenic, where no method is much better, and clumping loses most
LEAST = {"lassosum2": 0.9, "ldpred2-grid": 0.9, "clump-threshold": 0.5}


@pytest.mark.parametrize("method", LEAST)
def test_predict__tuned_methods_come_near_ridge_and_the_promise(study, ridge, tmp_path, method):
    options = {"p_values": [0.03, 0.3, 1.0], "h2_factors": [0.7, 1.0]} if method == "ldpred2-grid" else {}
    record = study.predict(tmp_path, method=method, options=options).record["y"]
    assert ridge[1].record["y"]["r2_observed"] > 0.1
    assert record["r2_observed"] > LEAST[method] * ridge[1].record["y"]["r2_observed"]
    assert record["verdict"].startswith(f"R2 {record['r2_observed']:.3f} (SE ")
    if method != "clump-threshold":
        # 1,500 people: R2 has a standard error of 0.02
        assert record["r2_promised"] == pytest.approx(record["r2_observed"], abs=0.05)
        assert record["overlap"] == "no sign of overlap"
    verdicts = pd.read_csv(tmp_path / "predict/verdicts.tsv", sep="\t").set_index("trait")
    assert verdicts.loc["y", "r2_observed"] == pytest.approx(record["r2_observed"])


@pytest.mark.parametrize("method", ["block-ridge", "mixture"])
def test_predict__from_the_cohort_itself(study, tmp_path, method):
    options = {"n_chains": 2, "burn_in": 60, "n_keep": 40} if method == "mixture" else {}
    given = {"method": method} if method == "block-ridge" else {"method": "auto"}
    prediction = study.predict(tmp_path, summary_statistics={}, options=options, **given)
    record = prediction.record["y"]
    assert record["method"] == method
    # h2 0.4 in 1,500 people and 2,000 variants; the slope has a standard error of 0.07
    assert record["r2_observed"] > 0.08
    assert 0.75 < record["slope"] < 1.25
    assert 0.5 < prediction.record["cc"]["slope"] < 1.5
    loco = prediction.loco
    assert dict(loco.sizes) == {"chromosome": 8, "sample": 1500, "trait": loco.sizes["trait"]}
    assert np.isfinite(loco.sel(trait="y").values).all()


SHORT_CHAINS = {"n_chains": 10, "burn_in": 100, "n_keep": 50}


def test_ldpred2_auto__writes_its_chains_and_repeats(study, tmp_path):
    first = study.predict(tmp_path / "a", method="ldpred2-auto", options=SHORT_CHAINS, seed=3)
    again = study.predict(tmp_path / "b", method="ldpred2-auto", options=SHORT_CHAINS, seed=3)
    other = study.predict(tmp_path / "c", method="ldpred2-auto", options=SHORT_CHAINS, seed=4)
    assert np.array_equal(first.loco.values, again.loco.values)
    assert not np.array_equal(first.loco.values, other.loco.values)
    chains = pd.read_parquet(tmp_path / "a/predict/chains-y.parquet")
    record = json.loads((tmp_path / "a/predict/record.json").read_text())["traits"]["y"]
    assert chains["chain"].nunique() == record["n_chains"] == 10
    assert (chains.groupby("chain").size() == record["burn_in"] + record["n_keep"]).all()
    assert chains.groupby("chain")["kept"].first().sum() == record["n_kept"]
    for candidate in record["candidates"][:-1]:
        jumps = candidate["name"] == "chains with sign jumps"
        kept = chains[chains["kept"] & (chains["jumps"] == jumps) & (chains["sweep"] >= record["burn_in"])]
        assert np.isclose(kept["h2"].mean(), candidate["h2"])
    assert record["candidates"][-1]["name"] == "ridge"
    assert record["chains"] == "chains-y.parquet"
    assert (tmp_path / "a/predict/chains-y.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert 0.93 < first.record["y"]["slope"] < 1.15


def test_ldpred2_auto__fallbacks_are_reported(study, tmp_path, monkeypatch):
    monkeypatch.setattr("locomass_predictors.ldpred2.select_chains", lambda ranges: np.zeros(len(ranges), bool))
    prediction = study.predict(tmp_path, method="ldpred2-auto", options=SHORT_CHAINS)
    record = json.loads((tmp_path / "predict/record.json").read_text())["traits"]["y"]
    assert record["method"] == "ridge"
    assert len(record["fallbacks"]) == 5
    assert any("ridge weights instead of LDpred2-auto" in m and "trait 'y'" in m for m in prediction.messages)


def test_stack__keeps_the_better_and_stays_linear(study, tmp_path):
    noise = study.gwas()
    rng = np.random.default_rng(1)
    noise["beta"] = rng.standard_normal(len(noise)) * noise["standard_error"]
    noise["p_value"] = 2 * norm.sf(np.abs(noise["beta"] / noise["standard_error"]))
    name = study.write_gwas(noise, "noise.tsv.gz")
    parts = [
        Predictor(method="ridge", summary_statistics={"y": "gwas/y.tsv.gz"}),
        Predictor(method="ridge", summary_statistics={"y": name}, heritability=0.3),
    ]
    prediction = study.predict(tmp_path, method="stack", stack=parts, summary_statistics={})
    record = prediction.record["y"]
    assert record["weights"][0] > 0.8
    assert record["weights"][1] < 0.2
    assert (tmp_path / "predict/part1/y.weights.txt.gz").exists()
    assert (tmp_path / "predict/part2/y.weights.txt.gz").exists()
    scores = polygenic(tmp_path)
    assert np.allclose(prediction.loco.values, scores.sum(axis=0)[None] - scores, atol=1e-12)


@pytest.mark.parametrize("leave_one_out", [False, True])
def test_block_ridge__with_fewer_samples_than_variants(leave_one_out):
    """Level 0 by the kernel equals ridge refitted without each fold or sample, from the definition."""
    rng = np.random.default_rng(0)
    G, y = rng.binomial(2, 0.3, (40, 60)).astype(float), rng.standard_normal((40, 2))
    basis = np.full((40, 1), 40**-0.5)
    y -= y.mean(axis=0)
    folds, penalties = rng.permutation(np.arange(40) % 4), np.array([3.0, 200.0])
    block = GenotypeBlock("1", 60, lambda: G)
    found = predict_level_0(
        block, y=y, basis=basis, penalties=penalties, folds=folds, leave_one_out=leave_one_out, nested=False
    )
    Z = (G - G.mean(axis=0)) / G.std(axis=0)
    for i, penalty in enumerate(penalties):
        for left_out in range(40) if leave_one_out else range(4):
            out = np.arange(40) == left_out if leave_one_out else folds == left_out
            w = np.linalg.solve(Z[~out].T @ Z[~out] + penalty * np.eye(60), Z[~out].T @ y[~out])
            assert np.allclose(found.predictions[:, out, i], (Z[out] @ w).T, atol=1e-6)  # float32


def test_loco__contigs_belong_to_their_chromosome_and_unplaced_variants_are_dropped(study, tmp_path):
    source, array = study.folder / "study1/array", tmp_path / "array"
    for suffix in (".bed", ".fam"):
        shutil.copy(source.with_suffix(suffix), array.with_suffix(suffix))
    bim = pd.read_csv(source.with_suffix(".bim"), sep="\t", header=None, dtype=str)
    where = bim.groupby(0).cumcount()
    bim.loc[(bim[0] == "1") & (where >= 100), 0] = "1_KI270706v1_random"
    bim.loc[(bim[0] == "2") & (where >= 50), 0] = "0"
    bim.to_csv(array.with_suffix(".bim"), sep="\t", header=False, index=False)
    out = tmp_path / "out"
    prediction = study.predict(out, method="block-ridge", summary_statistics={}, genotypes=str(array) + ".bed")
    assert any("200 variants of" in m and "on no chromosome" in m for m in prediction.messages)
    assert prediction.record["y"]["variants"] == 1_800
    scores = polygenic(out)
    assert scores.shape[0] == 8
    loco = prediction.loco.sel(trait="y").transpose("chromosome", "sample").values
    total = scores[:, :, 0].sum(axis=0)
    # chromosome 1 is left out with its contig: nothing of it is in its own prediction
    np.testing.assert_allclose(loco[0], total - scores[0, :, 0], atol=1e-12)
    assert np.corrcoef(scores[0, :, 0], scores[0, :, 1])[0, 1] < 1


def test_predictor_of_one_chromosome__is_none_there_and_works_elsewhere(study, ridge, tmp_path):
    table = pd.read_csv(ridge[0] / "predict/y.weights.txt.gz", sep="\t", comment="#")
    column = next(c for c in table.columns if c in ("chr_name", "hm_chr"))
    table[table[column] == 1].to_csv(tmp_path / "one.txt", sep="\t", index=False)
    prediction = study.predict(
        tmp_path, method="weights", weights={"y": str(tmp_path / "one.txt")}, summary_statistics={}
    )
    models = fit_null_models(study.cohort, prediction.loco, "covariate")
    use = {row["chromosome"]: row["use"] for row in models.rows if row["trait"] == "y"}
    assert use["1"] == "none"
    assert {use[c] for c in use if c != "1"} == {"covariate"}
    r2 = {row["chromosome"]: row["r2"] for row in models.rows if row["trait"] == "y"}
    assert r2["2"] > 0.005


# --- LD on disk ----------------------------------------------------------------------------------------------------


def test_ld_cache__is_used_and_rebuilt_when_damaged(study, ridge, tmp_path, monkeypatch):
    cache, expected = tmp_path / "cache", ridge[1].loco.values
    study.predict(tmp_path / "a", ld_cache=str(cache))
    files = sorted(cache.glob("chr*.npz"))
    assert len(files) == 8
    stamps = [f.stat().st_mtime_ns for f in files]
    with monkeypatch.context() as patch:
        patch.setattr("locomass.predict.reference.correlation_from_dosage", None)
        again = study.predict(tmp_path / "b", ld_cache=str(cache))
    assert np.array_equal(again.loco.values, expected)
    assert [f.stat().st_mtime_ns for f in files] == stamps
    content = files[0].read_bytes()
    files[0].write_bytes(content[: len(content) // 2])
    damaged = bytearray(files[1].read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    files[1].write_bytes(bytes(damaged))
    repaired = study.predict(tmp_path / "c", ld_cache=str(cache))
    assert np.array_equal(repaired.loco.values, expected)
    assert files[0].read_bytes()[:100] == content[:100]
    assert not list(cache.glob(".*"))
    study.predict(tmp_path / "d", ld_cache=str(cache), max_block_variants=150)
    assert len(list(cache.glob("chr*.npz"))) == 16


def test_read_ld__raises_on_other_inputs(tmp_path):
    rows = np.arange(3)
    digest = digest_ld(["a"], rows, 10)
    assert digest != digest_ld(["b"], rows, 10) != digest_ld(["a"], rows, 11)
    write_ld(tmp_path / "x.npz", digest, [LdBlock(rows, np.eye(3, dtype=np.float32))])
    assert is_intact(tmp_path / "x.npz", digest)
    assert not is_intact(tmp_path / "x.npz", "other")
    assert read_ld(tmp_path / "x.npz", digest)[0].R.dtype == np.float32
    with pytest.raises(FormatError, match="other inputs"):
        read_ld(tmp_path / "x.npz", "other")
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(FormatError, match="damaged LD"):
        read_ld(tmp_path / "x.npz", digest)


@pytest.fixture(scope="module")
def blocks(study, tmp_path_factory):
    """The reference fileset and its blocks."""
    fileset = open_fileset(study.folder / "reference.bed")
    reference = FilesetReference.open(fileset, tmp_path_factory.mktemp("cache"), EXECUTOR, Kept())
    return reference, reference.compute_blocks(np.arange(fileset.n_variants), 1000, EXECUTOR)


def write_prscs(folder: Path, reference: FilesetReference, blocks: list[LdBlock]) -> None:
    h5py = pytest.importorskip("h5py")
    folder.mkdir()
    v = reference.variants
    table = pd.DataFrame(
        {"CHR": v["chromosome"], "SNP": v["id"], "BP": v["position"], "A1": v["a1"], "A2": v["a2"]}
    ).assign(MAF=reference.frequency)
    table.to_csv(folder / "snpinfo_test", sep="\t", index=False)
    for chromosome in v["chromosome"].unique():
        mine = [b for b in blocks if v["chromosome"][b.rows[0]] == chromosome]
        with h5py.File(folder / f"ldblk_test_chr{chromosome}.hdf5", "w") as store:
            for k, block in enumerate(mine):
                group = store.create_group(f"blk_{k + 1}")
                group["ldblk"] = block.R.astype(np.float64)
                group["snplist"] = v["id"].to_numpy(object)[block.rows].astype("S")


def write_viprs(folder: Path, reference: FilesetReference, blocks: list[LdBlock], dtype: str) -> None:
    """Write version 2 Zarr groups by hand: they are JSON and raw bytes."""
    v = reference.variants
    for chromosome in v["chromosome"].unique():
        root = folder / f"chr_{chromosome}"
        mine = [b for b in blocks if v["chromosome"][b.rows[0]] == chromosome]
        rows = [R[i, i + 1 :] for R in (b.R for b in mine) for i in range(len(R))]
        at = np.concatenate([b.rows for b in mine])
        data = np.concatenate(rows)
        data = np.round(data * 127).astype(np.int8) if dtype == "int8" else data.astype(dtype)
        write_array(root / "matrix/data", data)
        write_array(root / "matrix/indptr", np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.int64))
        for name, column in (("snps", "id"), ("bp", "position"), ("a1", "a1"), ("a2", "a2")):
            values = v[column].to_numpy()[at]
            write_array(root / "metadata" / name, values if name == "bp" else values.astype("S"))
        write_array(root / "metadata/maf", reference.frequency[at])
        for group in (root, root / "matrix", root / "metadata"):
            (group / ".zgroup").write_text('{"zarr_format": 2}')
        (root / ".zattrs").write_text(json.dumps({"Chromosome": int(chromosome), "Sample size": 1000}))


def write_array(path: Path, values: np.ndarray) -> None:
    path.mkdir(parents=True)
    meta = {"zarr_format": 2, "shape": [len(values)], "chunks": [len(values)], "dtype": values.dtype.str}
    meta |= {"compressor": None, "fill_value": None, "order": "C", "filters": None}
    (path / ".zarray").write_text(json.dumps(meta))
    (path / "0").write_bytes(values.tobytes())


def test_prscs_reference__gives_the_same_prediction(study, ridge, blocks, tmp_path):
    write_prscs(study.folder / "ldblk_test", *blocks)
    # the stored blocks hold more variants than survive quality control, so they are cut in other places
    prediction = study.predict(tmp_path, ld_reference="ldblk_test")
    assert np.corrcoef(prediction.loco.values.ravel(), ridge[1].loco.values.ravel())[0, 1] > 0.999
    (study.folder / "ldblk_test/ldblk_test_chr2.hdf5").write_bytes(b"no")
    with pytest.raises(FormatError, match=r"ldblk_test_chr2\.hdf5.*not a PRS-CS LD file"):
        study.predict(tmp_path / "b", ld_reference="ldblk_test")


def test_prscs_reference__says_when_h5py_is_absent(study, tmp_path, monkeypatch):
    folder = tmp_path / "ldblk_x"
    folder.mkdir()
    (folder / "ldblk_x_chr1.hdf5").write_bytes(b"")
    (folder / "snpinfo_x").write_text("CHR SNP BP A1 A2 MAF\n1 rs1 5 A G 0.2\n")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match="pip install h5py"):
        StoredReference.open(folder, Kept()).compute_blocks(np.array([0]), 100, EXECUTOR)


@pytest.mark.parametrize(("dtype", "least"), [("float32", 0.999), ("int8", 0.995)])
def test_viprs_reference__gives_the_same_prediction(study, ridge, blocks, tmp_path, dtype, least):
    folder = study.folder / f"viprs_{dtype}"
    write_viprs(folder, *blocks, dtype)
    assert find_layout(folder) == "viprs"
    prediction = study.predict(tmp_path, ld_reference=folder.name)
    assert np.corrcoef(prediction.loco.values.ravel(), ridge[1].loco.values.ravel())[0, 1] > least
    band, first = read_banded(folder, "1"), blocks[1][0]
    assert np.allclose(band.cut(0, len(first.rows)), first.R, atol=0 if dtype == "float32" else 0.5 / 127 + 1e-6)
    (folder / "chr_1/matrix/indptr/0").write_bytes(np.zeros(len(band.indptr), np.int64).tobytes())
    with pytest.raises(FormatError, match="strict upper triangle"):
        read_banded(folder, "1")


def test_find_layout__raises_on_an_unknown_folder(tmp_path):
    with pytest.raises(InputError, match="neither ldblk"):
        find_layout(tmp_path)


# --- overlap -------------------------------------------------------------------------------------------------------


def test_overlap__silent_without(ridge):
    assert ridge[1].record["y"]["overlap"] == "no sign of overlap"
    assert not any("may include this cohort" in m for m in ridge[1].messages)


def test_overlap__quantitative_warns_and_subtraction_silences(study, ridge, tmp_path):
    with_cohort = {"y": "gwas/y_with.tsv.gz"}
    alarm = study.predict(tmp_path / "a", summary_statistics=with_cohort)
    assert any("may include this cohort" in m and "subtract the cohort" in m for m in alarm.messages)
    # half of that GWAS's people are this cohort: its R2 is that of people who were trained on
    assert alarm.record["y"]["overlap_share"] == pytest.approx(1.0, abs=0.2)
    assert ridge[1].record["y"]["overlap_share"] < 3 * ridge[1].record["y"]["overlap_share_se"]
    without = study.predict(tmp_path / "b", summary_statistics=with_cohort, subtract_cohort=True)
    assert not any("may include this cohort" in m for m in without.messages)
    assert without.record["y"]["cohort_subtracted"] == 1500
    # what is left is the independent GWAS
    loco = [p.loco.sel(trait="y").values.ravel() for p in (without, ridge[1])]
    assert np.corrcoef(*loco)[0, 1] > 0.98


def test_overlap__binary_stops_the_run_with_exit_code_2(study, tmp_path, monkeypatch, capsys):
    def run(**changes) -> tuple[int, str]:
        config = yaml.safe_load((study.folder / "study1.yaml").read_text())
        config["predictor"] |= {"summary_statistics": {"cc": "gwas/cc_with.tsv.gz"}, "use": "offset", **changes}
        path = study.folder / "overlap.yaml"
        path.write_text(yaml.safe_dump(config))
        out = tmp_path / f"out{len(changes)}"
        monkeypatch.setattr("sys.argv", ["locomass", "predict", str(path), "--out", str(out)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code or 0, " ".join(capsys.readouterr().err.split())

    code, text = run()
    assert code == 2
    assert "trait 'cc': the training GWAS may include this cohort" in text
    assert "breaks the test of a binary trait" in text
    assert run(subtract_cohort=True)[0] == 0
    # as a covariate its level holds
    assert run(use="covariate", seed=1)[0] == 0


def test_overlap__binary_goes_on_when_allowed_or_independent(study, tmp_path):
    allowed = study.predict(
        tmp_path / "a", summary_statistics={"cc": "gwas/cc_with.tsv.gz"}, allow_overlap=True, use="offset"
    )
    assert any("going on because overlap was allowed" in m for m in allowed.messages)
    clean = study.predict(tmp_path / "b", summary_statistics={"cc": "gwas/cc.tsv.gz"})
    assert clean.record["cc"]["overlap"] == "no sign of overlap"
    with pytest.raises(InputError, match="the GWAS lists the cohort"):
        study.predict(tmp_path / "c", summary_statistics={"cc": "gwas/cc.tsv.gz"}, cohort_in_gwas=True, use="offset")


def test_overlap__is_seen_in_a_list_of_the_samples_of_the_gwas(study, tmp_path):
    shared, strange = tmp_path / "shared.txt", tmp_path / "strange.txt"
    shared.write_text("".join(f"{f} {i}\n" for f, i in zip(study.cohort.fid[:3], study.cohort.iid[:3], strict=True)))
    strange.write_text("X1 X1\nX2 X2\n")
    with pytest.raises(InputError, match="the GWAS lists the cohort"):
        study.predict(
            tmp_path / "a", summary_statistics={"cc": "gwas/cc.tsv.gz"}, gwas_samples=str(shared), use="offset"
        )
    clean = study.predict(tmp_path / "b", summary_statistics={"cc": "gwas/cc.tsv.gz"}, gwas_samples=str(strange))
    assert clean.record["cc"]["overlap"] == "no sign of overlap"


def test_overlap__a_part_of_a_stack_is_judged_too(study, tmp_path):
    parts = [
        Predictor(method="ridge", summary_statistics={"cc": "gwas/cc_with.tsv.gz"}),
        Predictor(method="ridge", summary_statistics={"cc": "gwas/cc.tsv.gz"}),
    ]
    with pytest.raises(InputError, match="breaks the test of a binary trait"):
        study.predict(tmp_path, method="stack", stack=parts, summary_statistics={}, use="offset")


def test_ascertained__is_off_by_default(study, tmp_path):
    rare = {"summary_statistics": {"cc": "gwas/cc.tsv.gz", "y": "gwas/y.tsv.gz"}, "prevalence": {"cc": 0.01}}
    off = study.predict(tmp_path / "a", **rare)
    assert off.record["cc"]["used"] is False
    assert off.loco["trait"].values.tolist() == ["y"]
    assert any("de-noising is off" in m for m in off.messages)
    on = study.predict(tmp_path / "b", **rare, allow_ascertained=True)
    assert sorted(on.loco["trait"].values.tolist()) == ["cc", "y"]


# --- flawed summary statistics -------------------------------------------------------------------------------------


def exchange(table: pd.DataFrame) -> pd.DataFrame:
    return table.rename(columns={"effect_allele": "other_allele", "other_allele": "effect_allele"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (exchange, "or effect allele and other allele are exchanged"),
        (lambda t: t.assign(base_pair_location=t["base_pair_location"] + 1_234_567), "build"),
        (lambda t: t.assign(n=t["n"] * 4), r"sample sizes look (3\.[6-9]|4|4\.[0-4])\d? times"),
        (lambda t: t[t["chromosome"] != 3], "chromosome 3 has .* no matching summary statistics"),
    ],
    ids=["swapped", "build", "n", "chromosome"],
)
def test_flaws__have_their_own_message(study, tmp_path, change, message):
    name = study.write_gwas(change(study.gwas()), "flawed.tsv.gz")
    try:
        text = "\n".join(study.predict(tmp_path, summary_statistics={"y": name}).messages)
    except InputError as error:
        text = str(error)
    assert re.search(message, text), text


def test_flaws__swapped_order_of_all_alleles_changes_nothing(study, ridge, tmp_path):
    table = exchange(study.gwas())
    table["beta"] *= -1
    table["effect_allele_frequency"] = 1 - table["effect_allele_frequency"]
    name = study.write_gwas(table, "turned.tsv.gz")
    prediction = study.predict(tmp_path, summary_statistics={"y": name})
    assert np.allclose(prediction.loco.values, ridge[1].loco.values, atol=1e-6)


# --- exports -------------------------------------------------------------------------------------------------------


def test_exported_weights__score_the_same(study, ridge, tmp_path):
    path = ridge[0] / "predict/y.weights.txt.gz"
    again = study.predict(tmp_path, method="weights", weights={"y": str(path)}, summary_statistics={})
    assert np.allclose(again.loco.values, ridge[1].loco.values, atol=1e-8)
    assert again.record["y"]["coverage"] == pytest.approx(1.0)
    assert again.record["y"]["genome_build"] == "GRCh38"


def test_weights__of_a_gwas_with_the_cohort(study, ridge, tmp_path):
    file = str(ridge[0] / "predict/y.weights.txt.gz")
    options = {"method": "weights", "summary_statistics": {}, "cohort_in_gwas": True, "use": "offset"}
    warned = study.predict(tmp_path / "a", weights={"y": file}, **options)
    assert any("loses power" in m for m in warned.messages)
    with pytest.raises(InputError, match=r"trait 'cc'.*breaks the test of a binary trait"):
        study.predict(tmp_path / "b", weights={"cc": file}, **options)
    allowed = study.predict(tmp_path / "c", weights={"cc": file}, allow_overlap=True, **options)
    assert any("overlap was allowed" in m for m in allowed.messages)


def test_weights__other_build_and_low_coverage_are_errors(study, ridge, tmp_path):
    path = ridge[0] / "predict/y.weights.txt.gz"
    table = pd.read_csv(path, sep="\t", comment="#")
    few = tmp_path / "few.txt"
    shifted = table.copy()
    half = np.arange(len(table)) % 10 < 6
    column = next(c for c in table.columns if c in ("chr_position", "hm_pos"))
    shifted.loc[half, column] += 7
    shifted.to_csv(few, sep="\t", index=False)
    with pytest.raises(MatchError, match="of the predictor's variance"):
        study.predict(tmp_path, method="weights", weights={"y": str(few)}, summary_statistics={})
    options = study.predictor(method="weights", weights={"y": str(path)}, summary_statistics={})
    with pytest.raises(ConfigError, match="chain_file"):
        predict(options, study.folder, study.cohort, tmp_path, EXECUTOR, "GRCh37")


@pytest.fixture(scope="module")
def runs(study, ridge, tmp_path_factory):
    """Gene tests with the prediction as covariate, and with its exported .loco as offset."""
    config = yaml.safe_load((study.folder / "study1.yaml").read_text())
    folder = tmp_path_factory.mktemp("runs")
    tables = {}
    loco = {t: str(folder / f"direct/predict/{t}.loco") for t in ("y", "cc")}
    for name, section in (
        ("direct", config["predictor"]),
        ("offset", {"method": "loco", "loco": loco, "use": "offset"}),
        ("none", {"method": "none"}),
    ):
        path = study.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**config, "predictor": section}))
        out = run_study(path, folder / name, Resources(threads=2), "meta").path
        tables[name] = pd.read_parquet(out / "gene_tests.parquet").query("test == 'burden'")
    return tables


def test_exported_loco__as_offset_gives_nearly_the_same_tests(runs):
    keys = ["gene", "mask", "max_maf", "weights", "trait"]
    joined = runs["direct"].merge(runs["offset"], on=keys).merge(runs["none"], on=keys)
    for trait in ("y", "cc"):
        j = joined[joined["trait"] == trait]
        assert len(j) > 50
        z = [np.sign(j[f"beta{s}"]) * np.sqrt(j[f"statistic{s}"]) for s in ("_x", "_y", "")]
        near, far = np.sqrt(np.mean((z[0] - z[1]) ** 2)), np.sqrt(np.mean((z[0] - z[2]) ** 2))
        # one slope for all chromosomes instead of one each: far closer than no prediction at all
        assert near < 0.05
        assert near < 0.25 * far


def test_pred_list__is_read_back(study, ridge, tmp_path):
    again = study.predict(tmp_path, method="loco", loco=str(ridge[0] / "predict/pred.list"), summary_statistics={})
    mine, theirs = again.loco.sel(trait="y").values, ridge[1].loco.sel(trait="y").values
    assert np.abs(np.corrcoef(mine[0], theirs[0])[0, 1] - 1) < 1e-9
    # exported again it stays in REGENIE's unit
    again2 = study.predict(
        tmp_path / "b", method="loco", loco=str(tmp_path / "predict/pred.list"), summary_statistics={}
    )
    assert np.allclose(again2.loco.values, again.loco.values, rtol=1e-8)


# --- worth and calibration -----------------------------------------------------------------------------------------


def check_gain(world, *, mean_within: float) -> None:
    """Null genes are calibrated, and the noncentrality grows by 1/(1 - R2)."""
    without = run_genes(world, "none", world.traits)[0]
    found, left_in = run_genes(world, "ridge", world.traits)
    assert found.r2 > 0.1
    assert compute_gain(found, without) == pytest.approx(found.expected, rel=0.07)
    assert compute_gain(left_in, without) < 0.97 * compute_gain(found, without)
    assert abs(found.null.mean() - 1) < mean_within
    assert 0.044 < (found.null > chi2.isf(0.05, 1)).mean() < 0.056


def add_null_genes(world: World, n_genes: int) -> World:
    """Add genes on the null chromosomes whose carriers are drawn at random."""
    rng = np.random.default_rng(5)
    carriers = rng.random((len(world.burden), n_genes)) < rng.uniform(0.005, 0.05, n_genes)
    return dataclasses.replace(
        world,
        chromosome=np.concatenate([world.chromosome, np.repeat(["21", "22"], n_genes // 2)]),
        burden=np.hstack([world.burden, carriers]),
        causal=np.concatenate([world.causal, np.zeros(n_genes, bool)]),
    )


@pytest.mark.ci
def test_gain__is_what_r2_promises_and_null_genes_are_calibrated(tmp_path):
    world = build_world(tmp_path, n=1500, n_gwas=4000, n_traits=12, h2=0.4, gene_variance=0.008, genes=4, seed=2)
    # 20,000 tests: standard errors 0.010 of the mean and 0.0015 of the rate
    check_gain(add_null_genes(world, 1700), mean_within=0.03)


@pytest.mark.slow
def test_gain__with_simulated_null_genes(tmp_path):
    world = build_world(tmp_path, n=3000, n_gwas=8000, n_traits=110, h2=0.4, gene_variance=0.005, genes=25, seed=3)
    # 5,000 tests: standard errors 0.020 of the mean and 0.0031 of the rate
    check_gain(world, mean_within=0.03)

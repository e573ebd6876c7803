"""PLINK 2 filesets: the same calls as .bed give the same carriers, dosages, scores and tables, to the bit."""

from __future__ import annotations

import pickle
import threading
from pathlib import Path

import numpy as np
import pgenlib
import pyarrow as pa
import pytest

from locomass.bundle.study import Bundle
from locomass.commands.run import Resources, run_study
from locomass.errors import FormatError, InputError, LocomassError
from locomass.genotypes import pgen
from locomass.genotypes.fileset import open_fileset
from locomass.genotypes.labelled import _read_block, open_genotypes
from locomass.genotypes.write_pgen import open_pgen_writer
from locomass.simulate.rare import write_rare_fileset
from tests.factories import make_study, random_calls, write_fileset
from tests.golden.cohorts import DATA, shared

N, M = 530, 60
SAMPLES = [(f"F{i}", f"I{i}") for i in range(N)]
EVERYBODY = np.arange(N, dtype=np.int32)


def write_pgen(prefix: Path, calls: np.ndarray, variants, samples, *, sexes=None, dosages=None) -> Path:
    """Write ALT counts (m, n), -1 missing, as .pgen, .pvar and .psam; ``dosages`` are written in their place."""
    m, n = calls.shape
    options = {"variant_ct": m, "nonref_flags": False, "dosage_present": dosages is not None}
    with pgenlib.PgenWriter(str(prefix.with_suffix(".pgen")).encode(), n, **options) as writer:
        for j in range(m):
            if dosages is None:
                writer.append_biallelic(np.where(calls[j] < 0, -9, calls[j]).astype(np.int8))
            else:
                writer.append_dosages(np.where(np.isnan(dosages[j]), -9, dosages[j]).astype(np.float32))
    write_tables(prefix, variants, samples, sexes)
    return prefix.with_suffix(".pgen")


def write_tables(prefix, variants, samples, sexes=None):
    rows = "".join(f"{c}\t{p}\t{name}\t{ref}\t{alt}\n" for c, p, name, alt, ref in variants)
    prefix.with_suffix(".pvar").write_text("##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\n" + rows)
    sexes = sexes or ["NA"] * len(samples)
    people = "".join(f"{f}\t{i}\t{s}\n" for (f, i), s in zip(samples, sexes, strict=True))
    prefix.with_suffix(".psam").write_text("#FID\tIID\tSEX\n" + people)


def variants(m=M, chromosome="1"):
    return [(chromosome, 100 + 10 * j, f"rs{j}", "A", "G") for j in range(m)]


@pytest.fixture(scope="module")
def calls():
    rng = np.random.default_rng(4)
    some = random_calls(rng, M, N, missing=0.01)
    for j in range(0, M, 2):  # as rare as a list of carriers holds
        some[j] = 0
        some[j, rng.choice(N, 4, replace=False)] = [1, 1, 2, -1]
    some[10] = some[8]  # stored as its difference from the one before
    some[11, :] = 2
    some[11, 5] = 1
    return some


@pytest.fixture(scope="module")
def pair(tmp_path_factory, calls):
    folder = tmp_path_factory.mktemp("pgen")
    sexes = ["1" if i % 3 == 0 else "2" if i % 3 == 1 else "NA" for i in range(N)]
    bed = write_fileset(folder / "geno", calls, variants(), SAMPLES)
    return open_fileset(bed), open_fileset(write_pgen(folder / "plink2", calls, variants(), SAMPLES, sexes=sexes))


@pytest.mark.parametrize("kept", [N, 200])
def test_carriers__are_those_of_the_bed_to_the_bit(pair, kept):
    people = EVERYBODY if kept == N else np.where(EVERYBODY % 2 == 0, EVERYBODY // 2, -1).astype(np.int32)
    for rows in (np.arange(M), np.array([1, 8, 10, 11, 59]), np.array([], np.int64)):
        bed, pgen = (fileset.select(rows).carriers(people) for fileset in pair)
        for name in bed._fields:
            np.testing.assert_array_equal(getattr(pgen, name), getattr(bed, name), err_msg=name)
            assert getattr(pgen, name).dtype == getattr(bed, name).dtype


def test_dosage_and_scores__are_those_of_the_bed_to_the_bit(pair):
    rows, people = np.arange(M), np.where(EVERYBODY % 3 == 0, EVERYBODY // 3, -1).astype(np.int32)
    n = int((people >= 0).sum())
    (bed, f), (pgen, g) = (fileset.select(rows).dosage(people, n) for fileset in pair)
    np.testing.assert_array_equal(pgen, bed)
    np.testing.assert_array_equal(g, f)
    weights = np.random.default_rng(1).normal(size=(M, 3))
    scores = [np.zeros((N, 3)) for _ in pair]
    frequencies = [fileset.select(rows).add_scores(weights, out) for fileset, out in zip(pair, scores, strict=True)]
    np.testing.assert_array_equal(scores[1], scores[0])
    np.testing.assert_array_equal(frequencies[1], frequencies[0])


def test_labels_sex_and_cost(pair):
    bed, pgen = pair
    for name in ("chromosome", "position", "id", "a1", "a2"):
        assert pgen.variants[name].astype(str).tolist() == bed.variants[name].astype(str).tolist()
    assert pgen.fid.tolist() == bed.fid.tolist()
    assert pgen.sex[:3].tolist() == [1, 2, 0]
    assert (pgen.ref_known, bed.ref_known) == (True, False)
    cost, found = pgen.cost(np.arange(M)), pgen.select(np.arange(M)).carriers(EVERYBODY)
    assert cost.carriers[0] < 10 < cost.carriers.max() == N
    assert (cost.most >= np.diff(found.indptr)).all()
    assert cost.read.sum() < pgen.parts[0].path.stat().st_size
    assert pgen.same_calls(8, 10)
    assert not pgen.same_calls(8, 12)


def test_labelled_view__is_the_same_of_both(pair):
    views = [open_genotypes(fileset.parts[0].path) for fileset in pair]
    np.testing.assert_array_equal(views[1].values, views[0].values)
    for name in ("fid", "iid", "snp", "pos", "a0", "a1"):
        assert views[1][name].values.astype(str).tolist() == views[0][name].values.astype(str).tolist()


def test_bim_and_fam__may_stand_in_for_pvar_and_psam(tmp_path, calls, pair):
    path = write_pgen(tmp_path / "x", calls, variants(), SAMPLES)
    path.with_suffix(".pvar").unlink()
    path.with_suffix(".psam").unlink()
    for suffix in (".bim", ".fam"):
        path.with_suffix(suffix).write_bytes(pair[0].parts[0].path.with_suffix(suffix).read_bytes())
    fileset = open_fileset(tmp_path / "x")  # the prefix is enough
    assert not fileset.ref_known
    assert fileset.variants["a1"].tolist() == pair[1].variants["a1"].tolist()


def test_compressed_pvar(tmp_path, calls):
    path = write_pgen(tmp_path / "x", calls, variants(), SAMPLES)
    pvar = path.with_suffix(".pvar")
    with pa.output_stream(str(pvar) + ".zst", compression="zstd") as stream:
        stream.write(pvar.read_bytes())
    pvar.unlink()
    assert open_fileset(path).variants["id"].tolist() == [f"rs{j}" for j in range(M)]


def test_every_alt_is_a_variant(tmp_path, monkeypatch):
    """0/1, 1/2, 2/2, a half call, a missing one: what plink2 counts of each ALT."""
    codes = np.zeros((2, N, 2), np.int32)
    codes[0, :5] = [[0, 1], [1, 2], [2, 2], [-9, -9], [0, 2]]
    codes[1, 7] = [0, 1]
    path = tmp_path / "x.pgen"
    offsets = np.array([0, 3, 5], np.uintp)
    with pgenlib.PgenWriter(str(path).encode(), N, variant_ct=2, nonref_flags=False, allele_ct_limit=3) as writer:
        for row, count in zip(codes, np.diff(offsets), strict=True):
            writer.append_alleles(row.reshape(-1), allele_ct=int(count))
    write_tables(path, [("1", 100, "a", "C,T", "G"), ("1", 200, "b", "A", "G")], SAMPLES)
    fileset = open_fileset(path)
    assert fileset.variants[["position", "a1", "a2"]].to_numpy().tolist() == [
        [100, "C", "G"], [100, "T", "G"], [200, "A", "G"],
    ]  # fmt: skip
    found = fileset.select(np.arange(3)).carriers(EVERYBODY)
    lists = [
        dict(zip(found.sample[a:b].tolist(), found.dosage[a:b].tolist(), strict=True))
        for a, b in zip(found.indptr[:-1], found.indptr[1:], strict=True)
    ]
    assert lists == [{0: 1, 1: 1, 3: -1}, {1: 1, 2: 2, 3: -1, 4: 1}, {7: 1}]
    # in a worker process, which has read no .pvar
    rows = pickle.dumps(fileset.select(np.arange(3)))
    monkeypatch.setattr(pgen, "_OFFSETS", {})
    monkeypatch.setattr(pgen, "_LOCAL", threading.local())
    for one, other in zip(pickle.loads(rows).carriers(EVERYBODY), found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_dosages__near_whole_numbers_are_calls_where_rare(tmp_path):
    dosages = np.zeros((2, N), np.float32)
    dosages[0, :4] = [0.05, 0.95, 0.5, np.nan]  # rare
    dosages[1] = np.linspace(0, 2, N)  # common
    path = write_pgen(tmp_path / "x", np.zeros((2, N), int), variants(2), SAMPLES, dosages=dosages)
    found = open_fileset(path).select(np.arange(2)).carriers(EVERYBODY)
    assert found.dosage.dtype == np.float32
    first = slice(0, found.indptr[1])
    assert found.sample[first].tolist() == [1, 2, 3]
    np.testing.assert_allclose(found.dosage[first], [1, 0.5, -1], atol=1e-4)
    second = slice(found.indptr[1], found.indptr[2])
    counted = dosages[1] if found.a1_counted[1] else 2 - dosages[1]
    np.testing.assert_allclose(found.dosage[second], counted[counted != 0], atol=1e-4)


@pytest.mark.parametrize("loco", [False, pytest.param(True, marks=pytest.mark.ci)])
def test_run__tables_are_those_of_the_bed_to_the_bit(tmp_path, loco):
    """Chromosome files, missing calls, three kinds of traits; A1 is ALT in the .bed, as plink2 writes it."""
    study = make_study(3, 180, loco=loco)
    study.a1_is_alt[:] = True
    bed = run_study(study.write(tmp_path / "bed"), tmp_path / "out_bed", Resources(threads=1), "meta").path
    config = study.write(tmp_path / "pgen", genotypes="chr{chrom}.pgen")
    alt = np.where(np.isnan(study.dosage), -1, study.dosage).astype(np.int64)
    people = [(f"F{s}", s) for s in study.samples]
    for chromosome in sorted(set(study.chromosome)):
        rows = [j for j, c in enumerate(study.chromosome) if c == chromosome]
        named = [(chromosome, int(study.position[j]), study.keys()[j], study.alt[j], study.ref[j]) for j in rows]
        write_pgen(tmp_path / "pgen" / f"chr{chromosome}", alt[rows], named, people)
    (tmp_path / "pgen" / "geno.bed").unlink()
    other = run_study(config, tmp_path / "out_pgen", Resources(threads=1), "meta").path
    for name in ("gene_tests.parquet", "single_variants.parquet", "mask_audit.tsv", "null_models.tsv"):
        assert (other / name).read_bytes() == (bed / name).read_bytes(), name


@pytest.mark.parametrize("cohort", ["cohort_a", "cohort_b"])
def test_golden_cohorts__carriers_and_dosages_are_those_of_the_bed(tmp_path, cohort):
    assert_same_as_pgen(open_fileset(DATA / f"{cohort}.bed"), tmp_path)


def test_1000_genomes__carriers_and_dosages_are_those_of_the_bed(tmp_path):
    folder = shared("kg_chr22_five_cohorts")
    assert_same_as_pgen(open_fileset(folder / "chr22.bed"), tmp_path)


def assert_same_as_pgen(bed, folder):
    """Write the calls of a .bed as .pgen with the product's writer, and compare all carriers and some dosages."""
    n, m = bed.n_samples, min(bed.n_variants, 20_000)
    everybody = np.arange(n, dtype=np.int32)
    with open_pgen_writer(folder / "x.pgen", bed.iid.tolist(), n_variants=m, fid=bed.fid.tolist()) as writer:
        for start in range(0, m, 500):
            rows = np.arange(start, min(start + 500, m))
            calls = _read_block(bed.select(rows))
            writer.write_dosage(bed.variants.iloc[rows], np.where(np.isnan(calls), -1, calls).astype(np.int8))
    pgen = open_fileset(folder / "x.pgen")
    one, two = (fileset.select(np.arange(m)).carriers(everybody) for fileset in (bed, pgen))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)
    rows = np.arange(0, m, max(1, m // 200))
    for a, b in zip(*(fileset.select(rows).dosage(everybody, n) for fileset in (bed, pgen)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_write_rare_fileset__the_same_as_pgen(tmp_path):
    for kind in ("bed", "pgen"):
        write_rare_fileset(tmp_path / kind / f"x.{kind}", 400, 300, seed=3)
        assert f"genotypes: x.{kind}\n" in (tmp_path / kind / "x.yaml").read_text()
    bed, pgen = (open_fileset(tmp_path / kind / f"x.{kind}") for kind in ("bed", "pgen"))
    everybody = np.arange(400, dtype=np.int32)
    for a, b in zip(*(f.select(np.arange(300)).carriers(everybody) for f in (bed, pgen)), strict=True):
        np.testing.assert_array_equal(a, b)
    with (
        pytest.raises(InputError, match="0 variants were written, 3 were announced"),
        open_pgen_writer(tmp_path / "y.pgen", ["a", "b"], n_variants=3),
    ):
        pass
    assert not (tmp_path / "y.pgen").exists()


@pytest.mark.ci
def test_run__leaves_out_missing_and_badly_imputed_variants(tmp_path):
    """Gene by gene, the variants that remain are those that the definition keeps; the rest is counted."""
    study = make_study(3, 180, loco=False, missing_calls=0.05)
    folder = tmp_path / "in"
    config = study.write(folder, genotypes="x.pgen", score_statistics={"max_missing": 0.06, "min_info": 0.7})
    rng = np.random.default_rng(1)
    dosage = study.dosage.copy()
    some = rng.random(len(dosage)) < 0.3  # badly imputed: half of what a call says, for everybody alike
    dosage[some] = 0.5 * dosage[some] + 0.3
    named = zip(study.chromosome, study.position.tolist(), study.keys(), study.alt, study.ref, strict=True)
    people = [(f"F{s}", s) for s in study.samples]
    write_pgen(folder / "x", np.zeros(dosage.shape, int), list(named), people, dosages=dosage)
    bundle = Bundle(run_study(config, tmp_path / "out", Resources(threads=1), "score-statistics").path / "bundle")
    analysed = np.any([study.observed(t) for t in study.traits], axis=0)
    d = dosage[:, analysed]
    missing = np.isnan(d).mean(axis=1)
    mean = np.nanmean(d, axis=1)
    with np.errstate(invalid="ignore"):
        info = np.nanvar(d, axis=1) / (mean * (1 - mean / 2))
    assert bundle.info["variants_over_max_missing"] == (missing > 0.06).sum() > 0
    assert bundle.info["variants_under_min_info"] == (info < 0.7).sum() > 0
    keep = (missing <= 0.06) & (info >= 0.7)
    for gene in study.sets:
        expected = sorted(int(study.position[j]) for j in study.rows_of(gene) if keep[j])
        assert bundle.read_genes([gene])[gene].position.tolist() == expected


# ---- damaged, or not what it says ----


@pytest.fixture
def damaged(tmp_path, calls):
    return write_pgen(tmp_path / "x", calls, variants(), SAMPLES)


def refused(path) -> str:
    with pytest.raises(LocomassError) as caught:
        open_fileset(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b"", "not a PLINK 2 .pgen: expected the bytes 6c 1b, found an empty file"),
        (lambda b: b"PK" + b[2:], "expected the bytes 6c 1b, found 50 4b"),
        (lambda b: b[:2] + b"\x01" + b[3:], "a PLINK 1 .bed by its first bytes"),
        (lambda b: b[: len(b) - 40], "truncated"),
        (lambda b: b[:30], "truncated"),
    ],
)
def test_open__raises_on_a_damaged_pgen(damaged, change, message):
    damaged.write_bytes(change(damaged.read_bytes()))
    text = refused(damaged)
    assert "x.pgen" in text
    assert message in text


def test_open__raises_on_files_of_another_pgen(damaged):
    for suffix in (".pvar", ".psam"):
        beside = damaged.with_suffix(suffix)
        whole = beside.read_text()
        beside.write_text("".join(whole.splitlines(keepends=True)[:-1]))
        assert f"x{suffix} has" in refused(damaged)
        beside.write_text(whole)


@pytest.mark.parametrize("suffix", [".pvar", ".psam"])
def test_open__raises_without_the_files_beside_it(damaged, suffix):
    damaged.with_suffix(suffix).unlink()
    with pytest.raises(InputError, match=rf"no such file: .*x\{suffix}; beside x\.pgen one of x\{suffix}"):
        open_fileset(damaged)


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (4, "1\tmany\trs1\tG\tA\n", r"x\.pvar.*line 4.*POS.*'many' is not a whole number"),
        (5, "1\t120\trs2\t\tA\n", r"line 5.*REF.*is not an allele"),
        (6, "1\t130\trs3\tG\n", r"not a table of 5 tab-separated columns"),
        (2, "#CHROM\tPOS\tID\tREF\n", r"line 2.*header lacks ALT"),
    ],
)
def test_open__raises_on_a_pvar_line(damaged, line, text, message):
    pvar = damaged.with_suffix(".pvar")
    lines = pvar.read_text().splitlines(keepends=True)
    lines[line - 1] = text
    pvar.write_text("".join(lines))
    with pytest.raises(FormatError, match=message):
        open_fileset(damaged)


def test_carriers__raise_when_the_file_is_cut_while_running(damaged):
    rows = open_fileset(damaged).select(np.arange(M))
    damaged.write_bytes(damaged.read_bytes()[:-200])
    with pytest.raises(LocomassError, match=r"x\.pgen"):
        rows.carriers(EVERYBODY)


@pytest.mark.ci
def test_mutations__are_one_message_or_the_right_result(damaged, pair):
    """300 random changes of the three files' sizes and headers."""
    rng = np.random.default_rng(1)
    expected = pair[1].select(np.arange(M)).carriers(EVERYBODY)
    whole = {suffix: damaged.with_suffix(suffix).read_bytes() for suffix in (".pgen", ".pvar", ".psam")}
    outcomes = {"message": 0, "right": 0}
    for _ in range(300):
        suffix = rng.choice([".pgen", ".pvar", ".psam"])
        data = bytearray(whole[suffix])
        kind = rng.integers(3)
        if kind == 0:
            data = data[: rng.integers(len(data))]
        elif kind == 1:
            data[rng.integers(12)] ^= 1 << rng.integers(8)
        else:
            data += bytes(rng.integers(0, 256, rng.integers(1, 50), dtype=np.uint8))
        damaged.with_suffix(suffix).write_bytes(bytes(data))
        try:
            found = open_fileset(damaged).select(np.arange(M)).carriers(EVERYBODY)
        except LocomassError:
            outcomes["message"] += 1
        else:
            if suffix == ".pgen":
                for one, other in zip(found, expected, strict=True):
                    np.testing.assert_array_equal(one, other)
            outcomes["right"] += 1
        damaged.with_suffix(suffix).write_bytes(whole[suffix])
    assert outcomes["message"] > 50

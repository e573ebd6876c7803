"""BGEN, VCF, BCF and VCF Zarr: the same calls as .bed give the same carriers, dosages and tables, to the bit."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import numpy as np
import pysam
import pytest
import zarr
from bgen import BgenReader, BgenWriter

from locomass.commands.run import Resources, run_study
from locomass.errors import ConfigError, FormatError, InputError, LocomassError
from locomass.genotypes import extras
from locomass.genotypes.fileset import open_fileset
from tests.factories import make_study, random_calls, write_fileset

N, M = 90, 40
SAMPLES = [("0", f"I{i}") for i in range(N)]
EVERYBODY = np.arange(N, dtype=np.int32)
KINDS = ("bgen", "vcf.gz", "bcf", "vcz")


def variants(m=M):
    return [("1", 100 + 10 * j, f"rs{j}", "A", "G") for j in range(m)]


def write_vcf(path: Path, rows, samples, *, texts, fmt="GT", mode="z") -> Path:
    """Write a VCF of (chromosome, position, id, alt, ref) and (m, n) call texts, with its index."""
    contigs = "".join(f"##contig=<ID={c},length=100000000>\n" for c in dict.fromkeys(r[0] for r in rows))
    head = '##FORMAT=<ID=GT,Number=1,Type=String,Description="">\n##FORMAT=<ID=DS,Number=A,Type=Float,Description="">\n'
    names = "\t".join(iid for _, iid in samples)
    lines = [f"##fileformat=VCFv4.2\n{contigs}{head}#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\t{names}\n"]
    for (c, p, name, alt, ref), calls in zip(rows, texts, strict=True):
        lines.append("\t".join([c, str(p), name, ref, alt, ".", ".", ".", fmt, *calls]) + "\n")
    plain = path.with_name("plain.vcf")
    plain.write_text("".join(lines))
    if mode == "z":
        pysam.tabix_compress(str(plain), str(path), force=True)
        pysam.tabix_index(str(path), preset="vcf", csi=True, force=True)
    else:
        with pysam.VariantFile(str(plain)) as source, pysam.VariantFile(str(path), "wb", header=source.header) as out:
            for record in source:
                out.write(record)
        pysam.tabix_index(str(path), preset="bcf", force=True)
    return path


def texts_of(calls):
    return [[{0: "0/0", 1: "0/1", 2: "1/1", -1: "./."}[int(g)] for g in row] for row in calls]


def write_bgen(path: Path, calls, rows, samples, *, bits=8, compression="zstd") -> Path:
    """Write a BGEN of ALT counts, or of dosages spread over two neighbouring calls, with its index and .sample."""
    with BgenWriter(str(path), len(samples), [i for _, i in samples], compression=compression, layout=2) as writer:
        for row, (c, p, name, alt, ref) in zip(calls, rows, strict=True):
            low = np.floor(np.minimum(row, 1)).astype(float)
            share = row - low
            p3 = np.zeros((len(row), 3))
            for k in (0, 1):
                p3[low == k, k] = (1 - share)[low == k]
                p3[low == k, k + 1] = share[low == k]
            p3[row < 0] = np.nan
            writer.add_variant(name, name, c, p, [ref, alt], p3, bit_depth=bits)
    write_index(path)
    body = "".join(f"{f} {i} 0 {1 + k % 2}\n" for k, (f, i) in enumerate(samples))
    path.with_suffix(".sample").write_text("ID_1 ID_2 missing sex\n0 0 0 D\n" + body)
    return path


def write_index(path: Path) -> None:
    """Write what bgenix does."""
    index = path.with_name(path.name + ".bgi")
    index.unlink(missing_ok=True)
    with BgenReader(str(path), delay_parsing=True) as reader:
        rows = [
            (v.chrom, v.pos, v.rsid, len(v.alleles), v.alleles[0], v.alleles[1], v.fileoffset,
             v.next_variant_offset - v.fileoffset)
            for v in reader
        ]  # fmt: skip
    connection = sqlite3.connect(index)
    connection.execute(
        "CREATE TABLE Variant (chromosome TEXT, position INT, rsid TEXT, number_of_alleles INT, allele1 TEXT, "
        "allele2 TEXT, file_start_position INT, size_in_bytes INT)"
    )
    connection.executemany("INSERT INTO Variant VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
    connection.commit()
    connection.close()


def write_vcz(path: Path, calls, rows, samples) -> Path:
    """Write the arrays of bio2zarr that are read."""
    root = zarr.open_group(str(path), mode="w", zarr_format=2)
    text = np.dtypes.StringDType()
    contigs = list(dict.fromkeys(r[0] for r in rows))
    pairs = np.stack([np.where(calls < 0, -1, calls > 1), np.where(calls < 0, -1, calls > 0)], axis=2).astype(np.int8)
    arrays = {
        "contig_id": np.array(contigs, text),
        "variant_contig": np.array([contigs.index(r[0]) for r in rows], np.int8),
        "variant_position": np.array([r[1] for r in rows], np.int32),
        "variant_id": np.array([r[2] for r in rows], text),
        "variant_allele": np.array([[r[4], r[3]] for r in rows], text),
        "sample_id": np.array([i for _, i in samples], text),
        "call_genotype": pairs,
    }
    for name, values in arrays.items():
        root.create_array(name, data=values)
    return path


def write_kind(kind: str, folder: Path, calls, rows, samples, stem="x") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}.{kind}"
    if kind == "bgen":
        return write_bgen(path, calls, rows, samples)
    if kind == "vcz":
        return write_vcz(path, calls, rows, samples)
    return write_vcf(path, rows, samples, texts=texts_of(calls), mode="b" if kind == "bcf" else "z")


@pytest.fixture(scope="module")
def calls():
    return random_calls(np.random.default_rng(8), M, N, missing=0.02)


@pytest.fixture(scope="module")
def bed(tmp_path_factory, calls):
    return open_fileset(write_fileset(tmp_path_factory.mktemp("bed") / "x", calls, variants(), SAMPLES))


@pytest.fixture(scope="module", params=KINDS)
def other(request, tmp_path_factory, calls):
    return open_fileset(write_kind(request.param, tmp_path_factory.mktemp("other"), calls, variants(), SAMPLES))


@pytest.mark.parametrize("rows", [np.arange(M), np.array([3, 4, 9, 30]), np.array([], np.int64)])
def test_carriers_and_dosages__are_those_of_the_bed_to_the_bit(bed, other, rows):
    people = np.where(EVERYBODY % 3 == 0, EVERYBODY // 3, -1).astype(np.int32)
    one, two = (fileset.select(rows).carriers(people) for fileset in (bed, other))
    for name in one._fields:
        np.testing.assert_array_equal(getattr(two, name), getattr(one, name), err_msg=name)
        assert getattr(two, name).dtype == getattr(one, name).dtype
    for a, b in zip(*(fileset.select(rows).dosage(people, N // 3) for fileset in (bed, other)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_scores_and_labels__are_those_of_the_bed(bed, other):
    weights = np.random.default_rng(1).normal(size=(M, 2))
    scores = [np.zeros((N, 2)), np.zeros((N, 2))]
    for fileset, out in zip((bed, other), scores, strict=True):
        fileset.select(np.arange(M)).add_scores(weights, out)
    np.testing.assert_array_equal(*scores)
    assert other.iid.tolist() == bed.iid.tolist()
    for name in ("chromosome", "position", "id", "a1", "a2"):
        assert other.variants[name].astype(str).tolist() == bed.variants[name].astype(str).tolist()
    assert (other.cost(np.arange(M)).most == N).all()
    if other.kind == "BGEN":
        assert other.sex[:3].tolist() == [1, 2, 1]


@pytest.mark.ci
@pytest.mark.parametrize("kind", ["bgen", "vcf.gz", "vcz"])
def test_run__tables_are_those_of_the_bed_to_the_bit(tmp_path, kind):
    study = make_study(3, 120, loco=False)
    study.a1_is_alt[:] = True
    bed = run_study(study.write(tmp_path / "bed"), tmp_path / "out_bed", Resources(threads=1), "meta").path
    config = study.write(tmp_path / "other", genotypes=f"x.{kind}")
    alt = np.where(np.isnan(study.dosage), -1, study.dosage).astype(np.int64)
    labels = zip(study.chromosome, study.position.tolist(), study.keys(), study.alt, study.ref, strict=True)
    people = [(f"F{s}", s) for s in study.samples]
    write_kind(kind, tmp_path / "other", alt, list(labels), people)
    if kind != "bgen":  # no family labels: the tables go by IID
        for name in ("pheno.tsv", "covar.tsv"):
            rows = [line.split("\t") for line in (tmp_path / "other" / name).read_text().splitlines()]
            (tmp_path / "other" / name).write_text("".join("\t".join(row[1:]) + "\n" for row in rows))
    other = run_study(config, tmp_path / "out", Resources(threads=1), "meta").path
    for name in ("gene_tests.parquet", "single_variants.parquet", "mask_audit.tsv", "null_models.tsv"):
        assert (other / name).read_bytes() == (bed / name).read_bytes(), name


# ---- what a format has of its own ----


def test_vcf__every_alt_half_calls_haploid_calls_and_dosages(tmp_path):
    samples = SAMPLES[:6]
    rows = [("1", 100, "a", "C,T", "G"), ("1", 100, "b", "A", "GA"), ("1", 300, "c", "A", "G")]
    texts = [
        ["0/1", "1|2", "2/2", "./1", "0/0", "./."],
        ["0", "1", "0/1", ".", "0/0", "0/0"],
        ["0/0:0.1", "0/1:0.9", "0/1:1.3", "./.:.", "0/0:0", "0/0:0"],
    ]
    texts[0] = [f"{t}:." for t in texts[0]]
    texts[1] = [f"{t}:." for t in texts[1]]
    path = write_vcf(tmp_path / "x.vcf.gz", rows, samples, texts=texts, fmt="GT:DS")
    fileset = open_fileset(path)
    assert fileset.variants["a1"].tolist() == ["C", "T", "A", "A"]
    people = np.arange(6, dtype=np.int32)
    dosage = np.array([fileset.select(np.array([k])).read()[0] for k in range(4)])
    assert np.isnan(dosage[:3]).all()  # DS is there, and missing
    np.testing.assert_allclose(dosage[3], [0.1, 0.9, 1.3, np.nan, 0, 0], atol=1e-6)
    plain = write_vcf(tmp_path / "y.vcf.gz", rows, samples, texts=[[t.split(":")[0] for t in row] for row in texts])
    read = open_fileset(plain).select(np.arange(4)).read()
    expected = [
        [1, 1, 0, np.nan, 0, np.nan],
        [0, 1, 2, np.nan, 0, np.nan],
        [0, 2, 1, np.nan, 0, 0],
        [0, 1, 1, np.nan, 0, 0],
    ]
    np.testing.assert_array_equal(read, np.array(expected, np.float32))
    assert open_fileset(plain).select(np.array([3])).carriers(people).sample.tolist() == [1, 2, 3]


def test_vcf__sexes_and_families_of_a_table_beside_it(tmp_path, calls):
    path = write_kind("vcf.gz", tmp_path, calls, variants(), SAMPLES)
    people = "".join(f"FAM{k % 7}\tI{k}\t{'M' if k % 2 else 'F'}\n" for k in reversed(range(N)))
    (tmp_path / "x.psam").write_text("#FID\tIID\tSEX\n" + people)
    fileset = open_fileset(path)
    assert fileset.sex[:3].tolist() == [2, 1, 2]
    assert fileset.fid[:3].tolist() == ["FAM0", "FAM1", "FAM2"]


@pytest.mark.parametrize(("bits", "compression"), [(8, "zlib"), (8, "zstd"), (16, "zstd"), (16, None)])
def test_bgen__dosages(tmp_path, bits, compression):
    rng = np.random.default_rng(2)
    dosage = rng.uniform(0, 2, (5, N))
    path = write_bgen(tmp_path / "x.bgen", dosage, variants(5), SAMPLES, bits=bits, compression=compression)
    found = open_fileset(path).select(np.arange(5)).read()
    np.testing.assert_allclose(found, dosage, rtol=0, atol=2.0 / (2**bits - 1))


def test_absent_package__is_one_sentence_with_the_command(monkeypatch, tmp_path, calls):
    path = write_kind("bgen", tmp_path, calls, variants(), SAMPLES)
    monkeypatch.setattr(extras, "import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    with pytest.raises(ConfigError, match=r"^BGEN files need .*: pip install 'locomass\[bgen\]'$"):
        open_fileset(path)


# ---- damaged, or not what it says ----


@pytest.mark.parametrize("kind", KINDS[:3])
@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b"XXXX" + b[4:], lambda b: b[: len(b) // 2]])
def test_open__raises_on_a_damaged_file(tmp_path, calls, kind, damage):
    path = write_kind(kind, tmp_path, calls, variants(), SAMPLES)
    data = damage(path.read_bytes())
    if kind == "bgen" and data.startswith(b"XXXX"):
        data = path.read_bytes()[:16] + b"XXXX" + path.read_bytes()[20:]
    path.write_bytes(data)
    with pytest.raises(FormatError, match=rf"x\.{kind}"):
        open_fileset(path)


@pytest.mark.parametrize(("kind", "index"), [("bgen", "x.bgen.bgi"), ("vcf.gz", "x.vcf.gz.csi"), ("bcf", "x.bcf.csi")])
def test_open__raises_without_the_index(tmp_path, calls, kind, index):
    path = write_kind(kind, tmp_path, calls, variants(), SAMPLES)
    (tmp_path / index).unlink()
    with pytest.raises(InputError, match=r"no such file: .*; make the index: "):
        open_fileset(path)


def test_bgen__raises_on_index_and_samples_of_another_file(tmp_path, calls):
    path = write_kind("bgen", tmp_path, calls, variants(), SAMPLES)
    write_kind("bgen", tmp_path / "less", calls[:-1], variants(M - 1), SAMPLES)
    own = (tmp_path / "x.bgen.bgi").read_bytes()
    (tmp_path / "x.bgen.bgi").write_bytes((tmp_path / "less" / "x.bgen.bgi").read_bytes())
    with pytest.raises(FormatError, match=r"39 variants, but x\.bgen has 40; it is the index of another file"):
        open_fileset(path)
    (tmp_path / "x.bgen.bgi").write_bytes(b"nonsense")
    with pytest.raises(FormatError, match=r"not an index of bgenix"):
        open_fileset(path)
    (tmp_path / "x.bgen.bgi").write_bytes(own)
    sample = tmp_path / "x.sample"
    sample.write_text("".join(sample.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(FormatError, match=r"90 samples, but x\.sample has 89"):
        open_fileset(path)


def test_vcf__raises_on_a_stale_index(tmp_path, calls):
    path = write_kind("vcf.gz", tmp_path, calls, variants(), SAMPLES)
    os.utime(tmp_path / "x.vcf.gz.csi", (1, 1))
    with pytest.raises(InputError, match=r"csi is older than x\.vcf\.gz: it may be the index of another file"):
        open_fileset(path)


def test_vcz__raises_on_what_is_not_one(tmp_path, calls):
    path = write_kind("vcz", tmp_path, calls, variants(), SAMPLES)
    zarr.open_group(str(path), mode="r+").create_array(
        "sample_id", data=np.array(["a"], np.dtypes.StringDType()), overwrite=True
    )
    with pytest.raises(FormatError, match=r"call_genotype is \(40, 90\); expected \(40, 1\)"):
        open_fileset(path)
    (tmp_path / "y.vcz").mkdir()
    with pytest.raises(LocomassError, match=r"y\.vcz"):
        open_fileset(tmp_path / "y.vcz")

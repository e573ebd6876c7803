"""PLINK filesets: four ways to read the same genotypes agree, and what a damaged fileset says."""

from __future__ import annotations

import numpy as np
import pytest

from locomass.errors import FormatError, InputError, MatchError
from locomass.genotypes.fileset import open_fileset
from locomass.genotypes.labelled import open_genotypes
from locomass.genotypes.packed import scan_carriers
from tests.factories import pack_row, random_calls, write_fileset
from tests.reference import decode_row

N, M = 37, 50
SAMPLES = [(f"F{i}", f"I{i}") for i in range(N)]


def variants(m=M, chromosome="1", start=100):
    return [(chromosome, start + 10 * j, f"rs{chromosome}_{j}", "A", "G") for j in range(m)]


@pytest.fixture
def calls():
    return random_calls(np.random.default_rng(4), M, N)


@pytest.fixture
def bed(tmp_path, calls):
    return write_fileset(tmp_path / "geno", calls, variants(), SAMPLES)


@pytest.fixture
def split(tmp_path, calls):
    """The same genotypes in one file per chromosome: 2, 10 and X."""
    write_fileset(tmp_path / "c10", calls[20:35], variants(15, "10"), SAMPLES)
    write_fileset(tmp_path / "c2", calls[:20], variants(20, "2"), SAMPLES)
    write_fileset(tmp_path / "cX", calls[35:], variants(15, "X"), SAMPLES)
    return tmp_path / "c{chrom}.bed"


def read_packed(fileset, rows):
    """Packed rows of one file or several."""
    chosen = fileset.select(rows)
    parts = getattr(chosen, "parts", (chosen,))
    return np.concatenate([np.empty((0, (N + 3) // 4), np.uint8), *(part.packed() for part in parts)])


def test_open_fileset__labels(bed):
    fileset = open_fileset(bed)
    assert (fileset.n_samples, fileset.n_variants) == (N, M)
    assert fileset.variants["position"].tolist() == [100 + 10 * j for j in range(M)]
    assert fileset.variants["chromosome"].astype(str).unique().tolist() == ["1"]
    assert fileset.variants[["a1", "a2"]].iloc[0].tolist() == ["A", "G"]
    assert list(zip(fileset.fid, fileset.iid, strict=True)) == SAMPLES
    assert [p.name for p in fileset.paths] == ["geno.bed", "geno.bim", "geno.fam"]


def test_open_fileset__takes_the_prefix(bed):
    assert open_fileset(bed.with_suffix("")).n_variants == M


def test_read_packed__any_increasing_rows(bed, calls):
    fileset = open_fileset(bed)
    for rows in ([0], [M - 1], [0, 1, 2, 7, 8, 30, 49], list(range(M)), []):
        packed = read_packed(fileset, np.array(rows, np.int64))
        assert packed.shape == (len(rows), (N + 3) // 4)
        assert [decode_row(bytes(row), N) for row in packed] == calls[rows].tolist()


@pytest.mark.parametrize("kind", ["bed", "split"])
def test_view__equals_own_decoding(kind, calls, request):
    fileset = open_fileset(request.getfixturevalue(kind))
    view = open_genotypes(request.getfixturevalue(kind))
    assert view.dims == ("sample", "variant")
    assert view.shape == (N, M)
    expected = np.where(calls < 0, np.nan, calls).T
    np.testing.assert_array_equal(view.values, expected)
    packed = read_packed(fileset, np.arange(M))
    indptr, sample, dosage, a1_counted = scan_carriers(packed, N, np.arange(N, dtype=np.int32), N)
    own = np.where(a1_counted, 0.0, 2.0) * np.ones((N, 1))
    for j in range(M):
        at = slice(indptr[j], indptr[j + 1])
        counts = np.where(dosage[at] < 0, np.nan, dosage[at].astype(float))
        own[sample[at], j] = counts if a1_counted[j] else 2 - counts
    np.testing.assert_array_equal(own, expected)


def test_open_fileset__one_file_per_chromosome(split, calls):
    fileset = open_fileset(split)
    assert [part.path.name for part in fileset.parts] == ["c2.bed", "c10.bed", "cX.bed"]
    assert fileset.variants["chromosome"].astype(str).unique().tolist() == ["2", "10", "23"]
    rows = np.array([0, 19, 20, 21, 34, 35, 49])
    packed = read_packed(fileset, rows)
    assert [decode_row(bytes(row), N) for row in packed] == calls[rows].tolist()


@pytest.mark.parametrize(
    ("written", "read"), [("chr7", "7"), ("07", "7"), ("X", "23"), ("chrMT", "26"), ("GL000", "GL000")]
)
def test_open_fileset__normalises_chromosomes(tmp_path, written, read):
    bed = write_fileset(tmp_path / "g", np.ones((1, N)), variants(1, written), SAMPLES)
    assert open_fileset(bed).variants["chromosome"].astype(str).tolist() == [read]


def test_open_fileset__alleles_are_upper_case(tmp_path):
    bed = write_fileset(tmp_path / "g", np.ones((1, N)), [("1", 5, "x", "a", "gt")], SAMPLES)
    assert open_fileset(bed).variants[["a1", "a2"]].iloc[0].tolist() == ["A", "GT"]


# ---- damage ----


def replace_line(path, number, text):
    lines = path.read_text().splitlines(keepends=True)
    lines[number - 1] = text
    path.write_text("".join(lines))


@pytest.mark.parametrize(
    ("magic", "message"),
    [
        (b"\x6c\x1b\x00", r"geno\.bed: .*6c 1b 00.*sample-major: rewrite it with `plink --make-bed`"),
        (b"\x1f\x8b\x08", r"geno\.bed: .*expected the bytes 6c 1b 01, found 1f 8b 08"),
        (b"", r"geno\.bed: .*an empty file"),
    ],
)
def test_open_fileset__raises_on_magic(bed, magic, message):
    bed.write_bytes(magic + (bed.read_bytes()[3:] if magic else b""))
    with pytest.raises(FormatError, match=message):
        open_fileset(bed)


@pytest.mark.parametrize(("change", "word"), [(lambda b: b[:-1], "truncated"), (lambda b: b + b"\0", "too long")])
def test_open_fileset__raises_on_size(bed, change, word):
    bed.write_bytes(change(bed.read_bytes()))
    with pytest.raises(
        FormatError, match=rf"geno\.bed: {word}: 50\d bytes, but 37 samples .* 50 variants .* make\s+503"
    ):
        open_fileset(bed)


def test_open_fileset__raises_on_bim_and_fam_of_another_bed(bed):
    fam = bed.with_suffix(".fam")
    fam.write_text("".join(fam.read_text().splitlines(keepends=True)[:-4]))
    with pytest.raises(FormatError, match="do not belong together"):
        open_fileset(bed)


@pytest.mark.parametrize("suffix", [".bed", ".bim", ".fam"])
def test_open_fileset__raises_on_missing_file(bed, suffix):
    bed.with_suffix(suffix).unlink()
    with pytest.raises(InputError, match=rf"no such file: .*geno\{suffix}"):
        open_fileset(bed)


@pytest.mark.parametrize("suffix", [".bim", ".fam"])
def test_open_fileset__raises_on_a_folder_in_place_of_a_file(bed, suffix):
    bed.with_suffix(suffix).unlink()
    bed.with_suffix(suffix).mkdir()
    with pytest.raises(InputError, match=rf"geno\{suffix}"):
        open_fileset(bed)


@pytest.mark.parametrize(
    ("suffix", "text", "message"),
    [
        (".bim", "1 rs 0 100 A\n", r"geno\.bim, line 3: expected 6 fields .* found 5"),
        (".bim", "1 rs 0 12x A G\n", r"geno\.bim, line 3, column 4: position '12x'"),
        (".bim", "1 rs 0 -5 A G\n", r"geno\.bim, line 3, column 4: position '-5'"),
        (".fam", "F I 0 0\n", r"geno\.fam, line 3: expected 6 fields .* found 4"),
    ],
)
def test_open_fileset__raises_on_malformed_line(bed, suffix, text, message):
    replace_line(bed.with_suffix(suffix), 3, text)
    with pytest.raises(FormatError, match=message):
        open_fileset(bed)


@pytest.mark.parametrize("suffix", [".bim", ".fam"])
def test_open_fileset__raises_on_empty_tables(bed, suffix):
    bed.with_suffix(suffix).write_text("")
    with pytest.raises(FormatError, match=rf"geno\{suffix}: no (variants|samples)"):
        open_fileset(bed)


def test_open_fileset__raises_on_sample_given_twice(bed):
    replace_line(bed.with_suffix(".fam"), 9, "F2 I2 0 0 0 -9\n")
    with pytest.raises(MatchError, match=r"geno\.fam: sample F2 I2 is listed twice, on lines 3 and 9"):
        open_fileset(bed)


@pytest.mark.parametrize(("a1", "a2", "column"), [("A" * 300_000, "G", "A1"), ("A", "G" * 300_000, "A2")])
def test_open_fileset__raises_on_an_endless_allele(bed, a1, a2, column):
    replace_line(bed.with_suffix(".bim"), 5, f"1 long 0 140 {a1} {a2}\n")
    with pytest.raises(
        FormatError, match=rf"geno\.bim, line 5, column {column}: an allele of [\d,]+ (or more )?characters"
    ) as error:
        open_fileset(bed)
    assert len(str(error.value)) < 500


def test_open_fileset__raises_on_different_samples_between_files(split):
    replace_line(split.parent / "c10.fam", 4, "F3 other 0 0 0 -9\n")
    with pytest.raises(InputError, match=r"c10\.fam and .*c2\.fam list different samples"):
        open_fileset(split)


def test_open_fileset__raises_when_no_chromosome_has_a_file(tmp_path):
    with pytest.raises(InputError, match=r"no file matches .*q\{chrom\}\.bed"):
        open_fileset(tmp_path / "q{chrom}.bed")


def test_read_packed__raises_on_truncation_after_opening(bed):
    fileset = open_fileset(bed)
    bed.write_bytes(bed.read_bytes()[:-30])
    with pytest.raises(
        InputError, match=r"geno\.bed ends at byte 473, before byte 503 .* truncated after the run began"
    ):
        fileset.select(np.arange(M)).packed()
    assert len(fileset.select(np.array([0, 1])).packed()) == 2


def test_read_packed__raises_when_the_file_is_gone(bed):
    fileset = open_fileset(bed)
    bed.unlink()
    with pytest.raises(InputError, match=r"cannot read .*geno\.bed"):
        fileset.select(np.array([3])).packed()


def test_pack_row__is_the_format(bed, calls):
    """The writer of the tests itself: first byte of the first row, by hand."""
    codes = {2: 0, -1: 1, 1: 2, 0: 3}
    byte = sum(codes[int(c)] << (2 * k) for k, c in enumerate(calls[0, :4]))
    assert bed.read_bytes()[:4] == bytes([0x6C, 0x1B, 0x01, byte])
    assert pack_row([2, 1, 0, -1, 0]) == bytes([0b01_11_10_00, 0b11])

"""Gene sets, annotations, masks, frequencies: against plain dictionaries built line by line."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from locomass.errors import FormatError
from locomass.tables.annotations import Annotations, Masks, read_annotations, read_frequencies, read_masks
from locomass.tables.gene_sets import read_groups, read_regions, read_sets
from locomass.variants.keys import encode_labels, find_repeated, join_variant_keys, parse_variant_keys
from locomass.variants.match import make_identifiers

SHARED = Path("/work/shared")
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="shared folder is absent")

SETS = "BRCA1 17 41196312 17:41196312:A:G,17:41196400:C:T\nPCSK9 chr1 55039839 chr1:55039839:t:c,\n"
ANNOTATIONS = "17:41196312:A:G BRCA1 LoF\n17:41196400:C:T BRCA1 missense\n1:55039839:T:C PCSK9 synonymous\n"


@pytest.fixture
def write(tmp_path):
    def _write(text, name="file.txt"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return _write


def test_read_sets__normalises_and_bounds(write):
    sets = read_sets(write(SETS))
    assert sets.gene.tolist() == ["BRCA1", "PCSK9"]
    assert sets.chromosome.tolist() == ["17", "1"]
    assert sets.start.tolist() == [41196312, 55039839]
    assert sets.end.tolist() == [41196400, 55039839]
    assert sets.offsets.tolist() == [0, 2, 3]
    assert sets.variants.tolist() == ["17:41196312:A:G", "17:41196400:C:T", "1:55039839:T:C"]
    assert [one.variants.tolist() for one in sets] == [sets.variants[:2].tolist(), sets.variants[2:].tolist()]
    assert (sets[1].gene, sets[1].start, len(sets)) == ("PCSK9", 55039839, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A 1 5 1:5:A:G\n\nB 1 9 1:9:A:G\nA 1 7 1:7:A:G\n", r"file.txt: gene 'A' is on lines 1 and 4; merge them"),
        (
            "A 1 5 rs12,1:x:A:G\n",
            r"line 1: no variant can be used; variant 'rs12' of gene 'A' is not",
        ),
        ("A 1 5 1:0:A:G\n", r"line 1: .*variant '1:0:A:G' of gene 'A' is not"),
        ("A 1 5 1:5:A:G,2:6:A:G\n", r"line 1: gene 'A' is on chromosome 1, but its variant 2:6:A:G is not"),
        ("A 2 5 1:5:A:G\n", r"line 1: gene 'A' is on chromosome 2, but its variant 1:5:A:G is not"),
        ("A 1 five 1:5:A:G\n", r"line 1, column start: expected a position, got 'five'"),
        ("A 1 5\n", r"line 1: expected 4 fields \(gene, chromosome, start, variants joined by commas\), found 3"),
        ("A 1 5 1:5:A:G\nB 1 6\n", r"line 2: expected 4 fields, found 3"),
        ("A 1 5 ,\n", r"line 1: gene 'A' has no variants; remove the line"),
        ("", "is empty"),
    ],
)
def test_read_sets__raises_on_malformed(write, text, message):
    with pytest.raises(FormatError, match=message):
        read_sets(write(text))


def test_read_sets__a_bad_name_costs_that_name(write, caplog):
    sets = read_sets(write("A 1 5 1:5:A:G,rs9,,1:5:a:g,1:6:A:G\nB 1 9 rs12\nC 1 9 1:9:A:AT,1:9:AT:A\n"))
    assert sets.gene.tolist() == ["A", "C"]
    assert [one.variants.tolist() for one in sets] == [["1:5:A:G", "1:6:A:G"], ["1:9:A:AT", "1:9:AT:A"]]
    assert "3 of 8 variant names are not chrom:pos:ref:alt and are left out: 'rs9' of gene 'A' (line 1)" in caplog.text
    assert "1 genes have no variant left and are left out: B" in caplog.text


BIM = pd.DataFrame(
    {"chromosome": ["1", "1", "1"], "position": [5, 9, 9], "id": ["rs1", "rs2", "rs2"], "a1": ["G", "T", "A"],
     "a2": ["A", "C", "C"]}
)  # fmt: skip


def test_lists_by_identifier__are_matched_by_the_name_of_the_fileset(write, caplog):
    identifiers = make_identifiers(lambda: BIM)
    with caplog.at_level("INFO", "locomass"):
        sets = read_sets(write("A 1 5 rs1,1:7:A:G,rs2,rs3\n"), identifiers)
        annotations = read_annotations(write("rs1 A LoF\n1:7:A:G A missense\n", "annotations"), identifiers=identifiers)
        frequencies = read_frequencies(write("rs1 0.1\nrs3 0.2\n", "aaf"), identifiers)
    assert sets.variants.tolist() == annotations.variant.tolist() == ["1:5:A:G", "1:7:A:G"]
    assert frequencies.variant.tolist() == ["1:5:A:G"]
    assert "1 variants are matched by identifier" in caplog.text
    # rs2 names two variants, rs3 none
    assert "2 of 4 variant names are not chrom:pos:ref:alt nor in the fileset and are left out: 'rs2'" in caplog.text


def test_read_groups__a_bad_name_takes_its_annotation_along(write):
    sets, annotations = read_groups(write("G1 var 1:1:A:C x 1:3:A:C\nG1 anno lof mis syn\nG1 weight 1 2 3\n"))
    assert sets.variants.tolist() == annotations.variant.tolist() == ["1:1:A:C", "1:3:A:C"]
    assert [annotations.categories[k] for k in annotations.category] == ["lof", "syn"]
    assert annotations.weights["weight_1"].tolist() == [1.0, 3.0]


def test_frequencies__of_substitutions_in_either_order_and_of_indels_as_written(write):
    table = read_frequencies(write("1:5:A:G 0.1\n1:9:A:AT 0.2\n1:9:A:AT 0.2\n"))
    wanted = zip(*[("1", 5, "A", "G"), ("1", 5, "G", "A"), ("1", 9, "A", "AT"), ("1", 9, "AT", "A")], strict=True)
    found = table.find(*(np.array(c, object) if k != 1 else np.array(c) for k, c in enumerate(wanted)))
    np.testing.assert_array_equal(found, [0.1, 0.9, 0.2, np.nan])


def test_read_regions__is_half_open(write):
    regions = read_regions(write("track name=genes\n#chrom start end gene\nchr7\t0\t10\tA\t.\t+\nX 99 200 B\n"))
    assert regions.variants is None
    assert regions.chromosome.tolist() == ["7", "23"]
    # BED (0, 10] holds 1-based positions 1 to 10
    assert (regions.start.tolist(), regions.end.tolist()) == ([1, 100], [10, 200])
    assert regions[0].variants is None
    assert regions.line.tolist() == [3, 4]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 5 9 A\n1 20 20 B\n", r"line 2: region of gene 'B' is empty: start 20 is not below end 20"),
        ("1 5 9\n", r"line 1: expected 4 fields \(chrom, start, end, gene\), found 3"),
        ("1 -5 9 A\n", r"line 1, column start: expected a position, got '-5'"),
        ("1 5 9 A\n2 5 9 A\n", r"gene 'A' is on lines 1 and 2"),
        ("#only a comment\n", "holds no region"),
    ],
)
def test_read_regions__raises_on_malformed(write, text, message):
    with pytest.raises(FormatError, match=message):
        read_regions(write(text))


def test_read_regions__raises_on_plink_bed(tmp_path):
    (tmp_path / "genes.bed").write_bytes(b"\x6c\x1b\x01\x00\xff")
    with pytest.raises(FormatError, match="is a binary file; expected text"):
        read_regions(tmp_path / "genes.bed")


def test_read_groups__reads_epacts(write):
    sets, annotations = read_groups(write("APOL1\t22:36661906_A/G\t22:36662034_T/G\nX1\tchrX:5_A/ATT\n"))
    assert annotations is None
    assert sets.variants.tolist() == ["22:36661906:A:G", "22:36662034:T:G", "23:5:A:ATT"]
    assert sets.chromosome.tolist() == ["22", "23"]
    assert (sets.start.tolist(), sets.end.tolist()) == ([36661906, 5], [36662034, 5])


SAIGE = "G1 var 1:1:A:C 1:20:A:C\nG1 anno lof missense\nG1 weight 7.8 3.9\nG2 var 1:20:A:C\nG2 anno lof\nG2 weight 1\n"


def test_read_groups__reads_saige(write):
    sets, annotations = read_groups(write(SAIGE))
    assert sets.gene.tolist() == ["G1", "G2"]
    assert sets.line.tolist() == [1, 4]
    rows = annotations.find_rows(sets)
    assert rows.tolist() == [0, 1, 2]
    assert [annotations.categories[c] for c in annotations.category] == ["lof", "missense", "lof"]
    assert annotations.weights["weight_1"].tolist() == [7.8, 3.9, 1.0]
    no_weights = read_groups(write("G1 var 1:1:A:C\nG1 anno lof\n"))[1]
    assert no_weights.weights == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("G1 var 1:1:A:C 1:2:A:C\nG1 anno lof\n", r"line 2: gene 'G1' has 2 variants but 1 entries of 'anno'"),
        ("G1 var 1:1:A:C\nG2 anno lof\n", r"line 2: 'anno' of gene 'G2' must follow the 'var' line"),
        ("G1 var 1:1:A:C\nG2 var 1:2:A:C\n", r"line 1: gene 'G1' has no 'anno' line"),
        ("G1 var 1:1:A:C\nG1 anno lof\nG1 anno lof\n", r"line 3: 'anno' of gene 'G1' must follow .* once"),
        (
            "G1 var 1:1:A:C\nG1 note lof\n",
            r"line 2, column 2: expected 'var', 'anno' or 'weight' after the gene, got 'note'",
        ),
        ("G1 var\nG1 anno\n", r"line 1: gene 'G1' has no variants"),
        (SAIGE + "G3 var 1:5:A:C\nG3 anno lof\n", r"line 7: gene 'G3' has no 'weight' line, although others have"),
        (SAIGE.replace("7.8", "high"), r"line 3: expected a weight for gene 'G1', got 'high'"),
        ("A 1:5_A/G\nA 1:6_A/G\n", r"gene 'A' is on lines 1 and 2"),
        ("A 1:5_A/G 2:5_A/G\n", r"line 1: gene 'A' is on chromosome 1, but its variant 2:5:A:G is not"),
        ("A\n", r"line 1: gene 'A' has no variants"),
    ],
)
def test_read_groups__raises_on_malformed(write, text, message):
    with pytest.raises(FormatError, match=message):
        read_groups(write(text))


def test_read_annotations__joins_by_gene_and_variant(write):
    text = ANNOTATIONS + "17:41196312:A:G NBR2 downstream\n"
    annotations = read_annotations(write(text))
    rows = annotations.find_rows(read_sets(write(SETS, "sets.txt")))
    assert rows.tolist() == [0, 1, 2]
    pairs = (["NBR2", "NBR2", "none", "BRCA1"], ["17:41196312:A:G", "1:55039839:T:C", "1:1:A:C", "17:41196400:C:T"])
    found = annotations.find_variant_rows(*(np.array(x, dtype=object) for x in pairs))
    assert found.tolist() == [3, -1, -1, 1]


def test_read_annotations__random_join_equals_dictionary(write):
    rng = np.random.default_rng(5)
    lines, truth = [], {}
    for _ in range(800):
        gene, position = f"G{rng.integers(30)}", int(rng.integers(1, 200))
        truth.setdefault((gene, f"1:{position}:A:C"), ["x", "y", "z"][(position * 7) % 3])
        lines.append(f"1:{position}:A:C\t{gene}\t{truth[gene, f'1:{position}:A:C']}")
    annotations = read_annotations(write("\n".join(lines)))
    asked = [(f"G{rng.integers(40)}", f"1:{rng.integers(1, 250)}:A:C") for _ in range(2000)]
    gene, variant = (np.array(column, dtype=object) for column in zip(*asked, strict=True))
    rows = annotations.find_variant_rows(gene, variant)
    assert {(row >= 0) for row in rows} == {True, False}
    for key, row in zip(asked, rows, strict=True):
        assert truth.get(key) == (annotations.categories[annotations.category[row]] if row >= 0 else None)


def test_read_annotations__weight_and_domain_columns(write):
    weights = read_annotations(write("1:1:A:C G LoF 0.5 2\n1:2:A:C G LoF NA 3\n"), weight_names=["cadd", "revel"])
    assert weights.domain is None
    np.testing.assert_array_equal(weights.weights["cadd"], [0.5, np.nan])
    assert weights.weights["revel"].tolist() == [2, 3]
    domain = read_annotations(write("1:1:A:C G kinase LoF 0.5\n1:2:A:C G SH2 missense 1\n"))
    assert domain.domain.tolist() == ["kinase", "SH2"]
    assert domain.categories == ("LoF", "missense")
    assert domain.weights["weight_1"].tolist() == [0.5, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1:1:A:C G\n", r"line 1: expected at least 3 fields \(variant, gene, category\), found 2"),
        ("rs5 G LoF\n", r"line 1: no variant can be used; variant 'rs5' is not chrom:pos:ref:alt"),
        ("1:1:A:C G LoF\n1:2:A:C G\n", r"line 2: expected 3 fields, found 2"),
        ("1:1:A:C G LoF 1\n1:2:A:C G LoF 2\n1:3:A:C G LoF x\n", r"line 3, column 4: expected a number, got 'x'"),
        ("1:1:A:C G LoF\n\n1:1:a:c G miss\n", r"variant 1:1:A:C of gene 'G' is 'LoF' on line 1 and 'miss' on line 3"),
    ],
)
def test_read_annotations__raises_on_malformed(write, text, message):
    with pytest.raises(FormatError, match=message):
        read_annotations(write(text))


def test_read_annotations__repeated_line_and_names(write):
    annotations = read_annotations(write("1:1:A:C G LoF\n1:1:A:C G LoF\n"))
    rows = annotations.find_variant_rows(np.array(["G"], dtype=object), np.array(["1:1:A:C"], dtype=object))
    assert rows.tolist() == [0]
    with pytest.raises(FormatError, match=r"has 1 weight columns, but 2 names are given: a, b"):
        read_annotations(write("1:1:A:C G LoF 1\n"), weight_names=["a", "b"])


def test_read_masks__selects_by_category(write):
    annotations = read_annotations(write(ANNOTATIONS))
    masks = read_masks(write("M1 LoF\nM2 LoF,missense\nrest NULL, synonymous\n", "masks.txt"), annotations.categories)
    assert masks.names == ("M1", "M2", "rest")
    selected = masks.select(annotations, np.array([0, 1, 2, -1]))
    assert selected.tolist() == [[True, False, False, False], [True, True, False, False], [False, False, True, True]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "M3 missence\n",
            r"^unknown mask category 'missence' in masks.txt line 1; "
            r"annotations define: LoF, missense, synonymous; did you mean 'missense'\?$",
        ),
        (
            "M1 zzz\n",
            r"^unknown mask category 'zzz' in masks.txt line 1; annotations define: LoF, missense, synonymous$",
        ),
        ("M1\n", r"line 1: mask 'M1' has no category"),
        ("M1 LoF\nM1 missense\n", r"line 2: mask 'M1' is defined twice"),
        (",\n", r"line 1: mask '' has no category"),
        ("\n", "defines no mask"),
    ],
)
def test_read_masks__raises_on_malformed(write, text, message):
    with pytest.raises(FormatError, match=message):
        read_masks(write(text, "masks.txt"), ["missense", "synonymous", "LoF"])


def test_read_masks__a_category_that_nobody_has_is_a_warning(write, caplog):
    text = "M1 LoF\nM2 LoF,missence\nM3 stop_gained\n"
    masks = read_masks(write(text, "masks.txt"), ["missense", "LoF"])
    assert masks.categories == {"M1": ("LoF",), "M2": ("LoF",)}
    assert "'missence' in masks.txt line 2" in caplog.text
    assert "did you mean 'missense'?; mask M2 is without it" in caplog.text
    assert "mask M3 is left out" in caplog.text


def test_read_frequencies__regenie(write):
    frequencies = read_frequencies(write("7:6187101:C:T 1.5e-05 1\nchr7:5:a:g 0.25 0\n"))
    assert frequencies.variant.tolist() == ["7:6187101:C:T", "7:5:A:G"]
    assert frequencies.frequency.tolist() == [1.5e-05, 0.25]
    assert frequencies.singleton.tolist() == [True, False]
    assert read_frequencies(write("7:5:A:G 0.25\n")).singleton is None


def test_read_frequencies__afreq(write):
    text = "#CHROM\tID\tREF\tALT\tALT_FREQS\tOBS_CT\nchrX\tX:100:G:A\tA\tG\t0.25\t10\n"
    frequencies = read_frequencies(write(text))
    # the key follows REF and ALT of the row, whose ALT is counted, not the order in the name
    assert frequencies.variant.tolist() == ["23:100:A:G"]
    text = "#CHROM\tPOS\tID\tREF\tALT\tALT_FREQS\tOBS_CT\n1\t7\trs1\ta\tg\t0.5\t10\n"
    assert read_frequencies(write(text)).variant.tolist() == ["1:7:A:G"]


AFREQ = "#CHROM\tID\tREF\tALT\tALT_FREQS\tOBS_CT\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1:5:A:G 1.5\n", r"line 1, column 2: expected a frequency between 0 and 1, got '1.5'"),
        ("1:5:A:G NA\n", r"line 1, column 2: expected a number, got 'NA'"),
        ("1:5:A:G 0.1\n1:5:a:g 0.2\n", r"variant 1:5:A:G is on lines 1 and 2 with different frequencies"),
        ("1:5 0.1\n", r"line 1: no variant can be used; variant '1:5' is not chrom:pos:ref:alt"),
        ("1:5:A:G 0.1 0 7\n", r"line 1: expected 2 or 3 fields \(variant, frequency, singleton\), found 4"),
        (AFREQ + "1\trs7\tA\tG\t0.1\t10\n", r"line 2: variant 'rs7' is not .*; write positions with `plink2 --freq"),
        (AFREQ + "1\t1:7:A:G\tA\tG,T\t0.1,0.2\t10\n", r"line 2, column ALT: has several ALT alleles"),
        (
            AFREQ.replace("ID", "ID\tPOS") + "1\trs7\t7.5\tA\tG\t0.1\t10\n",
            r"line 2, column POS: expected a position, got '7.5'",
        ),
        (
            AFREQ.replace("ID", "ID\tPOS") + "1\trs7\tNA\tA\tG\t0.1\t10\n",
            r"line 2, column POS: expected a number, got 'NA'",
        ),
        (AFREQ.replace("ALT_FREQS", "FREQ") + "1\t1:7:A:G\tA\tG\t0.1\t10\n", r"line 1: has no column ALT_FREQS"),
    ],
)
def test_read_frequencies__raises_on_malformed(write, text, message):
    with pytest.raises(FormatError, match=message):
        read_frequencies(write(text))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("1:5:A:G", "1:5:A:G"),
        ("chr1:5:A:G", "1:5:A:G"),
        ("chrX_5_a_gt", "23:5:A:GT"),
        ("22:16150801_T/A", "22:16150801:T:A"),
        ("22-16150801-T-A", "22:16150801:T:A"),
        ("chr22-16150801-TA-t", "22:16150801:TA:T"),
        ("22:16150801:-:A", "22:16150801:-:A"),
        ("22:16150801:T:0", "22:16150801:T:0"),
        ("01:0005:A:*", "1:5:A:*"),
        ("MT:5:A:<DEL>", "26:5:A:<DEL>"),
        ("GL000192.1:5:A:G", "GL000192.1:5:A:G"),
    ],
)
def test_parse_variant_keys__accepts_spellings(name, key):
    # alone, and beside a name that sends the batch down the other branch
    for names in ([name], ["1:1:A:C", name], [name, "junk"]):
        keys = parse_variant_keys(names)
        i = names.index(name)
        assert keys.key[i] == key
        assert keys.chromosome[i] == key.split(":")[0]
        assert keys.position[i] == int(key.split(":")[1])
        assert i not in keys.malformed


@pytest.mark.parametrize("name", ["", "rs1", "1:5", "1:5:A", "1:A:5:G", "1:0:A:G", "1:5:A:G:T", "1:-5:A:G", "1:5:A:7"])
def test_parse_variant_keys__reports_malformed(name):
    assert parse_variant_keys(["1:1:A:C", name]).malformed.tolist() == [1]


def test_parse_variant_keys__long_allele_and_empty():
    long = "A" * 300_000
    assert parse_variant_keys([f"1:5:{long}:C"]).key[0] == f"1:5:{long}:C"
    assert parse_variant_keys([]).key.shape == (0,)
    joined = join_variant_keys(np.array(["1"], dtype=object), np.array([5]), ["A"], ["C"])
    assert joined.tolist() == ["1:5:A:C"]


def test_find_repeated__equals_a_dictionary():
    rng = np.random.default_rng(2)
    for _ in range(50):
        owner = rng.integers(0, 4, 12)
        key = np.array([str(k) for k in rng.integers(0, 12, 12)], dtype=object)
        seen, expected = {}, None
        for i, pair in enumerate(zip(owner.tolist(), key.tolist(), strict=True)):
            if pair in seen:
                expected = (seen[pair], i)
                break
            seen[pair] = i
        assert find_repeated(owner, key) == expected
    a, b = encode_labels(np.array(["x", "y"], dtype=object), np.array(["y", "z"], dtype=object))
    assert a[1] == b[0]
    assert len({*a.tolist(), *b.tolist()}) == 3


@needs_data
@pytest.mark.parametrize("folder", ["golden", "data/kg_chr22_five_cohorts", "data/geuvadis_chr22_exons"])
def test_shared_files__equal_a_line_by_line_reading(folder):
    folder = SHARED / folder
    truth = {}
    for line in (folder / "annotations.txt").read_text().splitlines():
        variant, gene, category = line.split()
        truth[gene, variant] = category
    wanted = dict(line.split() for line in (folder / "masks.txt").read_text().splitlines())
    sets, annotations = read_sets(folder / "sets.txt"), read_annotations(folder / "annotations.txt")
    masks = read_masks(folder / "masks.txt", annotations.categories)
    selected = masks.select(annotations, annotations.find_rows(sets))
    assert isinstance(annotations, Annotations)
    assert isinstance(masks, Masks)
    for i, line in enumerate((folder / "sets.txt").read_text().splitlines()):
        gene, chromosome, start, variants = line.split()
        one = sets[i]
        assert (one.gene, one.chromosome, one.start) == (gene, chromosome, int(start))
        assert one.variants.tolist() == variants.split(",")
        assert one.end == max(int(v.split(":")[1]) for v in variants.split(","))
        for m, name in enumerate(masks.names):
            expected = [truth[gene, v] in wanted[name].split(",") for v in variants.split(",")]
            assert selected[m, sets.offsets[i] : sets.offsets[i + 1]].tolist() == expected


@needs_data
def test_read_regions__shared_file():
    regions = read_regions(SHARED / "data/eur_array_ukb_sumstats/genes.bed")
    rows = [line.split() for line in (SHARED / "data/eur_array_ukb_sumstats/genes.bed").read_text().splitlines()]
    assert regions.gene.tolist() == [row[3] for row in rows]
    assert regions.start.tolist() == [int(row[1]) + 1 for row in rows]
    assert set(regions.chromosome) == {"20", "22"}

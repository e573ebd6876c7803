"""Predictor weights: each program's file, and the PGS Catalog file written and read back."""

import gzip

import numpy as np
import pytest

from locomass.errors import FormatError
from locomass.tables.weights import VariantWeights, read_weights, write_weights

PGS = """###PGS CATALOG SCORING FILE - see https://www.pgscatalog.org/downloads/#dl_ftp_scoring
#format_version=2.0
##POLYGENIC SCORE (PGS) INFORMATION
#pgs_id=PGS000117
#genome_build=hg19
rsID\tchr_name\tchr_position\teffect_allele\tother_allele\teffect_weight\tlocus_name
rs1\t1\t1000\tg\tA\t0.5\tGENE
\tX\t2000\tT\t\t-1e-3\t
"""
HARMONISED = """#pgs_id=PGS000118
#genome_build=GRCh37
#HmPOS_build=GRCh38
rsID\tchr_name\tchr_position\teffect_allele\teffect_weight\thm_source\thm_rsID\thm_chr\thm_pos\thm_inferOtherAllele
rs1\t1\t1000\tG\t0.5\tENSEMBL\trs1\t1\t1100\tA
rs2\t1\t2000\tT\t-1\tENSEMBL\trs2\t\t\tC/G
"""


@pytest.fixture
def write(tmp_path):
    def _write(text, name="weights.txt"):
        (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
        return tmp_path / name

    return _write


def places(found):
    columns = (found.chromosome, found.position, found.id, found.effect_allele, found.other_allele)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize("name", ["w.txt", "w.txt.gz"])
def test_read_weights__pgs_catalog(write, name):
    found = read_weights(write(PGS, name))
    assert (found.format, found.names, found.genome_build) == ("PGS Catalog", ("PGS000117",), "GRCh37")
    assert places(found) == [("1", 1000, "rs1", "G", "A"), ("23", 2000, "", "T", "")]
    assert found.weights.tolist() == [[0.5], [-1e-3]]
    assert found.metadata["format_version"] == "2.0"
    assert found.dropped == {}
    assert len(found) == 2


def test_read_weights__pgs_catalog_harmonised(write):
    found = read_weights(write(HARMONISED))
    assert found.genome_build == "GRCh38"
    # the second row could not be placed in GRCh38 and is known by its rsID only; its other allele is ambiguous
    assert places(found) == [("1", 1100, "rs1", "G", "A"), ("", 0, "rs2", "T", "")]


def test_read_weights__prs_cs_and_bolt_and_gctb(write):
    expected = [("1", 1000, "rs1", "G", "A"), ("23", 2000, "rs2", "T", "C")]
    prs_cs = read_weights(write("1\trs1\t1000\tG\tA\t5e-1\n23\trs2\t2000\tT\tC\t-1.0e-03\n", "trait_pst.txt"))
    bolt = read_weights(
        write(
            "SNP\tCHR\tBP\tGENPOS\tALLELE1\tALLELE0\tBETA\nrs1\t1\t1000\t0\tG\tA\t.5\nrs2\t23\t2000\t0\tT\tC\t-.001\n"
        )
    )
    gctb = read_weights(
        write(
            "Id Name Chrom Position A1 A2 A1Frq A1Effect SE PIP\n"
            " 1  rs1 1 1000 G A 0.1 0.5 0.1 1\n 2  rs2 X 2000 T C 0.1 -0.001 0.1 0\n"
        )
    )
    for found, name in ((prs_cs, "PRS-CS"), (bolt, "BOLT-LMM"), (gctb, "GCTB")):
        assert found.format == name
        assert places(found) == expected
        assert found.weights.tolist() == [[0.5], [-0.001]]
        assert found.genome_build is None
    assert prs_cs.names == ("trait_pst",)
    sbayesrc = read_weights(write("SNP\tA1\tBETA\tPIP\tBETAlast\nrs1\tG\t0.5\t1\t0\n"))
    assert sbayesrc.format == "SBayesRC"
    assert places(sbayesrc) == [("", 0, "rs1", "G", "")]


def test_read_weights__plink_score(write):
    found = read_weights(write("1:1000:A:G G 0.5\nrs2 T -1\n1:5:C:T A 3\n"))
    assert (found.format, found.names) == ("PLINK score", ("weights",))
    # the other allele follows from the name, unless the effect allele is not in it
    assert places(found) == [("1", 1000, "1:1000:A:G", "G", "A"), ("", 0, "rs2", "T", ""), ("1", 5, "1:5:C:T", "A", "")]
    several = read_weights(
        write("ID\tREF\tA1\theight\tbmi\nrs1\tA\tG\t1\t2\nrs2\tC\tT\t3\t4\n"), score_columns=[1, 3, 4, 5]
    )
    assert several.names == ("height", "bmi")
    assert several.weights.tolist() == [[1, 2], [3, 4]]
    assert several.effect_allele.tolist() == ["G", "T"]


def test_read_weights__column_map(write):
    columns = {"chromosome": "c", "position": "p", "effect_allele": "a", "weight": "w"}
    found = read_weights(write("c,p,a,w\nchr1,1000,g,0.5\n"), columns=columns)
    assert places(found) == [("1", 1000, "", "G", "")]
    assert found.names == ("w",)


def test_read_weights__counts_what_it_drops(write):
    rows = ["rs1\t1\t5\tA\tG\t1", "\t\t\tA\tG\t1", "rs2\t1\t6\tP\tN\t1", "rs3\t1\t7\tA\tG\tNA", "rs4\t1\t7\tA\tG\t1"]
    header = "rsID\tchr_name\tchr_position\teffect_allele\tother_allele\teffect_weight\n"
    found = read_weights(write(header + "\n".join([*rows, rows[0].replace("rs1", "rs9")])))
    assert found.id.tolist() == ["rs1", "rs4", "rs9"]
    reasons = ["no position and no id", "allele is not written in A, C, G, T", "weight is missing"]
    assert found.dropped == dict.fromkeys(reasons, 1)
    with pytest.raises(FormatError, match=r"weights.txt: only 2 of 5 rows are usable \(no position and no id: 1, "):
        read_weights(write(header + "\n".join(rows)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PGS.replace("0.5", "big"), r"line 7, column effect_weight: expected a number, got 'big'"),
        (PGS.replace("1000", "1k"), r"line 7, column chr_position: expected a number, got '1k'"),
        (PGS.replace("\t0.5\tGENE", "\t0.5"), r"line 7: expected 7 fields, found 6"),
        (
            PGS.replace("locus_name", "is_dominant").replace("GENE", "True"),
            r"line 7, column is_dominant: the weight is not additive \(is_dominant\)",
        ),
        (
            PGS.replace("locus_name", "is_interaction").replace("GENE", "TRUE"),
            r"line 7, column is_interaction: the weight is not additive",
        ),
        (
            PGS.replace("locus_name", "dosage_1_weight"),
            r"column dosage_1_weight: weights per genotype are not supported",
        ),
        (PGS.replace("rsID", "x").replace("chr_name", "z"), r"line 6: has neither rsID nor chr_name and chr_position"),
        ("rs1 G 0.5\nrs2 T much\n", r"line 2, column 3: expected a number, got 'much'"),
        ("rs1 G\n", r"line 1: expected at least 3 fields \(id, allele, weight\), found 2"),
        ("ID A1 W\n", r"only 0 of 0 rows are usable \(there are none\)"),
        (
            "SNP CHR BP ALLELE1 ALLELE0 BETA SE P_BOLT_LMM\n",
            r"has p-values \(column P_BOLT_LMM\): these are summary stat",
        ),
        ("", "is empty; expected a table"),
        ("rs\tG 0.5\nrs \n", r"line 1: expected at least 3 fields .*, found 2"),
        (PGS.replace("1000", "99999999999999999999"), r"line 7, column chr_position: expected a position, got '9999"),
        (PGS.replace("1000", "0"), r"line 7, column chr_position: expected a position, got '0'"),
    ],
)
def test_read_weights__raises_on_malformed(write, text, message):
    with pytest.raises(FormatError, match=message):
        read_weights(write(text))


@pytest.mark.parametrize("flag", ["False", "", "NA", "0"])
def test_read_weights__accepts_additive_flags(write, flag):
    found = read_weights(write(PGS.replace("locus_name", "is_recessive").replace("GENE", flag)))
    assert len(found) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"columns": {"id": "ID", "effect_alele": "A1"}},
            r"unknown field 'effect_alele'; did you mean 'effect_allele'\?",
        ),
        (
            {"columns": {"id": "IDD", "effect_allele": "A1"}},
            r"line 1: column map: no column 'IDD' for id; did you mean 'ID'",
        ),
        ({"columns": {"id": "ID", "effect_allele": "A1"}}, r"column map lacks weight"),
        ({"columns": {"effect_allele": "A1", "weight": "W"}}, r"column map lacks id, or chromosome and position"),
        ({"score_columns": [1, 2]}, r"score_columns must name id, allele and at least one weight.*got \[1, 2\]"),
        ({"score_columns": [1, 2, 9]}, r"line 1: expected at least 9 fields \(id, allele, weight\), found 3"),
    ],
)
def test_read_weights__raises_on_wrong_columns(write, arguments, message):
    with pytest.raises(FormatError, match=message):
        read_weights(write("ID A1 W\nrs1 G 1\n"), **arguments)


def make_weights(n=60):
    rng = np.random.default_rng(8)
    alleles = np.array(["A", "C", "G", "TTA"], dtype=object)
    return VariantWeights(
        path="memory",
        format="fit",
        names=("height", "bmi"),
        chromosome=np.array([str(c) for c in rng.integers(1, 27, n)], dtype=object),
        position=rng.integers(1, 2**31 - 1, n),
        id=np.array([f"rs{i}" for i in range(n)], dtype=object),
        effect_allele=alleles[rng.integers(0, 2, n)],
        other_allele=alleles[rng.integers(2, 4, n)],
        weights=rng.normal(size=(n, 2)) * 10.0 ** rng.integers(-300, 5, (n, 1)),
        genome_build="GRCh38",
    )


@pytest.mark.parametrize("name", ["bmi.txt", "bmi.txt.gz"])
def test_write_weights__round_trip_is_exact(tmp_path, name):
    weights = make_weights()
    write_weights(tmp_path / name, weights, score="bmi", provenance={"method": "ridge", "input_sha256": "ab\ncd"})
    back = read_weights(tmp_path / name)
    assert (back.format, back.names, back.genome_build) == ("PGS Catalog", ("bmi",), "GRCh38")
    assert places(back) == places(weights)
    np.testing.assert_array_equal(back.weights[:, 0], weights.weights[:, 1])
    assert back.metadata["method"] == "ridge"
    assert back.metadata["input_sha256"] == "ab cd"
    assert back.metadata["variants_number"] == "60"


def test_write_weights__same_input_same_bytes(tmp_path):
    for name in ("a.txt.gz", "b.txt.gz"):
        write_weights(tmp_path / name, make_weights(), score="height")
    assert (tmp_path / "a.txt.gz").read_bytes() == (tmp_path / "b.txt.gz").read_bytes()


def test_write_weights__unknown_positions_stay_unknown(tmp_path, write):
    write_weights(tmp_path / "out.txt", read_weights(write("rs1 G 0.25\nrs2 T 1e-17\n")))
    back = read_weights(tmp_path / "out.txt")
    assert places(back) == [("", 0, "rs1", "G", ""), ("", 0, "rs2", "T", "")]
    assert back.weights.tolist() == [[0.25], [1e-17]]
    assert back.genome_build is None


def test_write_weights__raises_on_unclear_score(tmp_path):
    with pytest.raises(ValueError, match=r"several scores \(height, bmi\): say which one to write"):
        write_weights(tmp_path / "x", make_weights())
    with pytest.raises(ValueError, match=r"no score 'hieght'; did you mean 'height'\?"):
        write_weights(tmp_path / "x", make_weights(), score="hieght")
    assert list(tmp_path.iterdir()) == []


def ratio_rows(n=60):
    """Odds ratios around 1, with their logarithms."""
    logs = 0.1 * np.sin(np.arange(n))
    return logs, "".join(f"rs{k}\tA\t{ratio:.10g}\n" for k, ratio in enumerate(np.exp(logs)))


@pytest.mark.parametrize("name", ["OR", "odds_ratio", "HR", "hazard_ratio"])
def test_ratios_by_the_name_of_their_column(write, name):
    logs, rows = ratio_rows(3)
    found = read_weights(write(f"SNP\tA1\t{name}\n{rows}"))
    np.testing.assert_allclose(found.weights[:, 0], logs, atol=1e-9)
    assert found.messages == ()


@pytest.mark.parametrize(("header", "taken"), [("", True), ("#weight_type=NR\n", True), ("#weight_type=beta\n", False)])
def test_ratios_by_their_distribution(write, header, taken):
    logs, rows = ratio_rows()
    found = read_weights(write(f"{header}rsID\teffect_allele\teffect_weight\n{rows}"))
    np.testing.assert_allclose(found.weights[:, 0], logs if taken else np.exp(logs), atol=1e-9)
    (message,) = found.messages
    assert "column effect_weight: weights are all positive around 1, as odds ratios are" in message
    assert ("their logarithms are taken" in message) == taken


@pytest.mark.parametrize("value", [lambda k: "1", lambda k: str(1 + k % 3), lambda k: f"{0.01 * (k + 1)}"])
def test_weights_that_are_no_ratios(write, value):
    """Counts of risk alleles are weighted by whole numbers; effects of risk alleles are all positive, and small."""
    rows = "".join(f"rs{k}\tA\t{value(k)}\n" for k in range(50))
    found = read_weights(write(f"SNP\tA1\tBETA\n{rows}"))
    assert found.weights[:, 0].tolist() == [float(value(k)) for k in range(50)]
    assert found.messages == ()


def test_row_names_of_r(write):
    found = read_weights(write('"SNP" "A1" "BETA"\n"1" "rs1" "A" 0.1\n"2" "rs2" "T" -0.2\n'))
    assert (found.id.tolist(), found.effect_allele.tolist(), found.weights[:, 0].tolist()) == (
        ["rs1", "rs2"], ["A", "T"], [0.1, -0.2],
    )  # fmt: skip


def test_losses_above_five_per_cent_are_said(write):
    rows = "".join(f"rs{k}\tA\t{'NA' if k < 4 else 0.1 * k}\n" for k in range(40))
    assert read_weights(write("SNP\tA1\tBETA\n" + rows)).messages == (
        "4 of 40 rows (10%) are left out: weight is missing",
    )
    assert read_weights(write("SNP\tA1\tBETA\n" + rows.replace("NA", "0.1", 3))).messages == ()

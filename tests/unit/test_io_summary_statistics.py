"""GWAS summary statistics: each program's columns, derived quantities against scipy."""

import csv
import gzip
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from locomass.errors import FormatError
from locomass.tables import delimited, summary_statistics
from locomass.tables.summary_layouts import FIELDS, LAYOUTS
from locomass.tables.summary_rows import log10p_from_z
from locomass.tables.summary_statistics import normalise_build, read_metadata, read_summary_statistics

BOLT = Path("/work/shared/data/eur_array_ukb_sumstats/bolt.sumstats.txt.gz")
needs_data = pytest.mark.skipif(not BOLT.is_file(), reason="shared data folder is absent")


def tabbed(header, *rows):
    """Return a tab-separated file; REGENIE's is separated by blanks."""
    return "".join("\t".join(line.split()) + "\n" for line in (header, *rows))


#: one file per format, two variants: 1:1000, effect allele G, beta 0.1, se 0.02; 23:2000, effect allele T, beta -0.3
FILES = {
    "GWAS-SSF": tabbed(
        "chromosome base_pair_location effect_allele other_allele beta standard_error effect_allele_frequency "
        "p_value rsid n info",
        "1 1000 G A 0.1 0.02 0.25 5.7e-7 rs1 1000 0.9",
        "X 2000 T C -0.3 0.1 0.5 0.0027 rs2 900 1",
    ),
    "GWAS Catalog harmonised": tabbed(
        "hm_variant_id hm_rsid hm_chrom hm_pos hm_other_allele hm_effect_allele hm_beta hm_odds_ratio "
        "hm_effect_allele_frequency chromosome base_pair_location effect_allele other_allele beta "
        "standard_error p_value n info",
        "1_1000_A_G rs1 1 1000 A G 0.1 NA 0.25 1 900 A G -0.1 0.02 5.7e-7 1000 0.9",
        "X_2000_C_T rs2 X 2000 C T -0.3 NA 0.5 X 1900 T C -0.3 0.1 0.0027 900 1",
    ),
    "BOLT-LMM": tabbed(
        "SNP CHR BP GENPOS ALLELE1 ALLELE0 A1FREQ N INFO CHISQ_LINREG P_LINREG BETA SE P_BOLT_LMM_INF",
        "rs1 1 1000 0.1 G A 0.25 1000 0.9 25 5.7e-7 0.1 0.02 5.7e-7",
        "rs2 23 2000 0.1 T C 0.5 900 1 9 0.0027 -0.3 0.1 0.0027",
    ),
    "REGENIE": tabbed(
        "CHROM GENPOS ID ALLELE0 ALLELE1 A1FREQ INFO N TEST BETA SE CHISQ LOG10P EXTRA",
        "1 1000 rs1 A G 0.25 0.9 1000 ADD 0.1 0.02 25 6.24163 NA",
        "1 1000 rs1 A G 0.25 0.9 1000 DOM 0.5 0.02 25 6.24163 NA",
        "23 2000 rs2 C T 0.5 1 900 ADD -0.3 0.1 9 2.56879 NA",
    ),
    "PLINK 2": tabbed(
        "#CHROM POS ID REF ALT PROVISIONAL_REF? A1 OMITTED A1_FREQ MACH_R2 TEST OBS_CT BETA SE T_STAT P ERRCODE",
        "1 1000 rs1 G A N G A 0.25 0.9 ADD 1000 0.1 0.02 5 5.7e-7 .",
        "1 1000 rs1 G A N G A 0.25 0.9 AGE 1000 9 0.02 5 5.7e-7 .",
        "X 2000 rs2 C T N T C 0.5 1 ADD 900 -0.3 0.1 -3 0.0027 .",
    ),
    "SAIGE": tabbed(
        "CHR POS MarkerID Allele1 Allele2 AC_Allele2 AF_Allele2 imputationInfo BETA SE Tstat var p.value N",
        "1 1000 rs1 A G 500 0.25 0.9 0.1 0.02 250 2500 5.7e-7 1000",
        "chrX 2000 rs2 C T 900 0.5 1 -0.3 0.1 -30 100 0.0027 900",
    ),
    "METAL": tabbed(
        "MarkerName Allele1 Allele2 Freq1 FreqSE Weight Effect StdErr P-value Direction",
        "chr1:1000:A:G g a 0.25 0 1000 0.1 0.02 5.7e-7 ++",
        "X:2000_C_T t c 0.5 0 900 -0.3 0.1 0.0027 --",
    ),
}
FILES["REGENIE"] = FILES["REGENIE"].replace("\t", " ")


@pytest.fixture
def write(tmp_path):
    def _write(text, name="gwas.txt"):
        (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
        return tmp_path / name

    return _write


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("suffix", [".txt", ".txt.gz"])
def test_read__every_program_gives_the_same_numbers(write, name, suffix):
    found = read_summary_statistics(write(FILES[name], "gwas" + suffix))
    assert found.format == name
    assert found.chromosome.tolist() == ["1", "23"]
    assert found.position.tolist() == [1000, 2000]
    assert found.effect_allele.tolist() == ["G", "T"]
    assert found.other_allele.tolist() == ["A", "C"]
    assert found.beta.tolist() == [0.1, -0.3]
    assert found.se.tolist() == [0.02, 0.1]
    assert found.eaf.tolist() == [0.25, 0.5]
    assert found.n.tolist() == [1000, 900]
    assert found.n_eff.tolist() == [1000, 900]
    # the files carry two digits of p
    np.testing.assert_allclose(10.0**-found.log10p, [5.7e-7, 0.0027], rtol=0.02)
    if name != "METAL":
        assert found.id.tolist() == ["rs1", "rs2"]
        assert found.info.tolist() == [0.9, 1]
    else:
        assert np.isnan(found.info).all()
    others = {k: v for k, v in found.dropped.items() if k != "test is not ADD"}
    assert others == {}
    assert found.dropped.get("test is not ADD", 0) == (name in ("REGENIE", "PLINK 2"))


def test_read__bgzip_members_and_small_blocks(tmp_path, monkeypatch):
    header, *rows = FILES["GWAS-SSF"].splitlines()
    many = [rows[i % 2].replace("rs", f"rs{i}_") for i in range(500)]
    many[123] = many[123].replace("0.02", "bad").replace("\t0.1\t5", "\tbad\t5").replace("0.0027", "bad")
    members = [gzip.compress(("\n".join(part) + "\n").encode()) for part in ([header], many[:200], many[200:])]
    (tmp_path / "x.tsv.gz").write_bytes(b"".join(members))
    monkeypatch.setattr(delimited.DelimitedFile.blocks, "__kwdefaults__", {"size": 999, "skip_ragged": False})
    found = read_summary_statistics(tmp_path / "x.tsv.gz")
    assert len(found) == 499
    assert found.dropped == {"p_value is not a number": 1}
    assert found.examples == ((125, "p_value is not a number"),)
    assert found.id.tolist() == [f"rs{i}_{i % 2 + 1}" for i in range(500) if i != 123]


def test_read__odds_ratios_and_plink_alleles(write):
    text = """#CHROM POS ID REF ALT A1 FIRTH? TEST OBS_CT OR LOG(OR)_SE Z_STAT P
1 5 a A G G N ADD 100 2 0.1 6.9 0.01
1 6 b A G A N ADD 100 0.5 0.1 -6.9 0.01
1 7 c A G,T G N ADD 100 0.5 0.1 -6.9 0.01
1 8 d A G T N ADD 100 0.5 0.1 -6.9 0.01
1 9 e A G G N ADD 100 0 0.1 -6.9 0.01
1 9 f A G G N ADD 100 1.5 0.1 4 0.01
"""
    found = read_summary_statistics(write(text))
    np.testing.assert_allclose(found.beta, [math.log(2), math.log(0.5), math.log(1.5)], rtol=1e-15)
    assert found.other_allele.tolist() == ["A", "G", "A"]
    assert found.dropped == {"effect allele is neither REF nor ALT": 2, "odds ratio is not positive": 1}
    assert [line for line, _ in found.examples] == [4, 5, 6]


def test_read__ldsc_standardises_z(write):
    found = read_summary_statistics(write("SNP\tA1\tA2\tN\tZ\nrs1\tA\tG\t400\t2\n1:77\tA\tG\t100\t-40\n"))
    assert found.format == "LDSC"
    assert found.beta.tolist() == [0.1, -4.0]
    assert found.se.tolist() == [0.05, 0.1]
    assert found.chromosome.tolist() == ["", "1"]
    assert found.position.tolist() == [0, 77]
    # log10 of the two-sided tail at z = 40: scipy's logsf is exact in log space
    np.testing.assert_allclose(found.log10p, -(stats.norm.logsf([2, 40]) + math.log(2)) / math.log(10), rtol=1e-13)


def test_read__sample_size_from_the_caller_or_an_error(write):
    path = write("SNP A1 A2 Z\nrs1 A G 2\n")
    assert read_summary_statistics(path, n_samples=400).beta.tolist() == [0.1]
    with pytest.raises(FormatError, match="has Z scores but no sample size; set n_samples"):
        read_summary_statistics(path)
    # the file's own N comes first
    assert read_summary_statistics(write("SNP A1 A2 Z N\nrs1 A G 2 100\n"), n_samples=4).n.tolist() == [100]


def test_read__effective_sample_size(write):
    text = "CHR POS MarkerID Allele1 Allele2 BETA SE p.value N_case N_ctrl\n1 5 a A G 0.1 0.1 0.3 100 300\n"
    found = read_summary_statistics(write(text))
    assert found.n.tolist() == [400]
    assert found.n_eff.tolist() == [4 / (1 / 100 + 1 / 300)]


COLUMNS = {"chromosome": "c", "position": "b", "effect_allele": "ea", "other_allele": "oa", "beta": "eff", "p": "pv"}
MAPPED = "c,b,ea,oa,eff,pv\n"


@pytest.mark.parametrize("z", [0.5, 2.0, 9.0, 36.0])
def test_read__se_from_p_inverts_p_from_se(write, z):
    p = float(2 * stats.norm.sf(z))
    found = read_summary_statistics(write(MAPPED + f"1,5,A,G,-0.3,{p!r}\n"), columns=COLUMNS)
    np.testing.assert_allclose(found.se, 0.3 / z, rtol=1e-12)
    assert found.format == "column map"
    assert found.id.tolist() == [""]


@pytest.mark.parametrize(("field", "value"), [("z", -2.5), ("chisq", 6.25)])
def test_read__se_from_another_statistic(write, field, value):
    columns = {**{k: v for k, v in COLUMNS.items() if k != "p"}, field: "pv"}
    found = read_summary_statistics(write(MAPPED + f"1,5,A,G,-0.3,{value}\n"), columns=columns)
    np.testing.assert_allclose(found.se, 0.3 / 2.5, rtol=1e-12)
    np.testing.assert_allclose(10**-found.log10p, 2 * stats.norm.sf(2.5), rtol=1e-12)


def test_read__p_beyond_double_precision(write):
    text = (
        MAPPED.replace("pv", "pv,s")
        + "1,5,A,G,4,1.5e-400,0.1\n1,6,A,G,4,0,0.1\n1,7,A,G,4,3e-310,0.1\n1,8,A,G,4,1,0.1\n"
    )
    found = read_summary_statistics(write(text), columns={**COLUMNS, "se": "s"})
    from_z = -(stats.norm.logsf(40) + math.log(2)) / math.log(10)
    expected = [400 - math.log10(1.5), from_z, 310 - math.log10(3), 0]
    np.testing.assert_allclose(found.log10p, expected, rtol=1e-13)
    # no se in the file: p = 1e-400 still gives one
    found = read_summary_statistics(write(MAPPED + "1,5,A,G,4,1.5e-400\n"), columns=COLUMNS)
    z = 4 / found.se[0]
    np.testing.assert_allclose(-(stats.norm.logsf(z) + math.log(2)) / math.log(10), 400 - math.log10(1.5), rtol=1e-10)


def test_log10p_from_z__no_underflow():
    z = np.array([0.0, 1.959963984540054, -5.0, 40.0, 1000.0])
    expected = -(stats.norm.logsf(np.abs(z)) + math.log(2)) / math.log(10)
    np.testing.assert_allclose(log10p_from_z(z), expected, rtol=1e-14, atol=1e-16)


def test_read__counts_what_it_drops(write):
    header = (
        "chromosome base_pair_location effect_allele other_allele beta standard_error p_value effect_allele_frequency\n"
    )
    good = [f"1 {i} A G 0.1 0.02 0.5 0.5" for i in range(1, 21)]
    bad = {
        "1 5 A G 0.1 0 0.5 0.5": "standard error is not positive and finite",
        "1 5 A G 0.1 -1 0.5 0.5": "standard error is not positive and finite",
        "1 5 A G inf 1 0.5 0.5": "standard error is not positive and finite",
        "1 5 A G 0.1 0.02 1.5 0.5": "p-value outside [0, 1]",
        "1 5 A G 0.1 0.02 -0.1 0.5": "p-value outside [0, 1]",
        "1 5 A G 0.1 0.02 0.5 1.5": "allele frequency outside [0, 1]",
        "1 5 A G x 0.02 0.5 0.5": "beta is not a number",
        "1 5 A G NA 0.02 0.5 0.5": "effect or standard error is missing",
        "1 5 A G 0 NA 1 0.5": "effect or standard error is missing",
        "1 NA A G 0.1 0.02 0.5 0.5": "no chromosome or position",
        "NA 5 A G 0.1 0.02 0.5 0.5": "no chromosome or position",
        "1 5.5 A G 0.1 0.02 0.5 0.5": "no chromosome or position",
        "1 5 A <DEL> 0.1 0.02 0.5 0.5": "allele is not written in A, C, G, T",
        "1 5 A NA 0.1 0.02 0.5 0.5": "allele is not written in A, C, G, T",
        "1 5 A a 0.1 0.02 0.5 0.5": "effect and other allele are equal",
        "1 5 A G 0.1": "wrong number of fields",
    }
    lines = good[:10] + list(bad) + good[10:]
    found = read_summary_statistics(write(header + "\n".join(lines) + "\n"))
    assert len(found) == 20
    expected: dict[str, int] = {}
    for reason in bad.values():
        expected[reason] = expected.get(reason, 0) + 1
    assert found.dropped == expected
    assert found.examples == tuple((12 + i, reason) for i, reason in enumerate(bad.values()))
    with pytest.raises(
        FormatError, match=r"gwas.txt, line 12: 16 of 31 rows cannot be used \(.*p-value .*: 2.*the first is"
    ):
        read_summary_statistics(write(header + "\n".join(good[:10] + list(bad) + good[10:15])))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "SNP A1 A2 BETA\nrs1 A G 1\n",
            r"line 1: the header fits no known format \(.*\); nearest is PRS-CS input, .* P or SE;",
        ),
        (FILES["BOLT-LMM"].replace("ALLELE0", "ALELE0"), r"nearest is BOLT-LMM, which also has ALLELE0; .*'ALELE0'"),
        (FILES["REGENIE"].replace("ADD", "REC"), r"has no row with TEST = ADD"),
        ("SNP A1 A2 N Z\n", "has a header but no rows"),
        ("", "is empty"),
    ],
)
def test_read__raises_on_unusable_files(write, text, message):
    with pytest.raises(FormatError, match=message):
        read_summary_statistics(write(text))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({**COLUMNS, "bta": "eff"}, r"column map: unknown field 'bta'; did you mean 'beta'\?"),
        ({**COLUMNS, "beta": "efff"}, r"line 1: column map: no column 'efff' for beta; did you mean 'eff'\?"),
        (
            {"effect_allele": "ea"},
            r"column map lacks id, or chromosome and position; beta, odds_ratio or z; se, p, log10p",
        ),
        ({k: v for k, v in COLUMNS.items() if k != "effect_allele"}, r"column map lacks effect_allele$"),
    ],
)
def test_read__raises_on_wrong_column_map(write, columns, message):
    with pytest.raises(FormatError, match=message):
        read_summary_statistics(write(MAPPED + "1,5,A,G,0.1,0.5\n"), columns=columns)


META = "genome_assembly: GRCh38\ncoordinate_system: 0-based\nsamples:\n- {sample_size: 300}\n- {sample_size: 100}\n"


@pytest.mark.parametrize("name", ["gwas.tsv.gz-meta.yaml", "gwas.tsv-meta.yaml", "gwas-meta.yaml"])
def test_read__uses_the_metadata_beside_the_file(write, name):
    write(META, name)
    text = FILES["GWAS-SSF"].replace("\tn\t", "\tm\t")
    found = read_summary_statistics(write(text, "gwas.tsv.gz"))
    assert found.genome_build == "GRCh38"
    assert found.position.tolist() == [1001, 2001]
    assert found.n.tolist() == [400, 400]


def test_read_metadata__absent_or_malformed(write):
    path = write(FILES["GWAS-SSF"], "gwas.tsv")
    assert read_metadata(path) == {}
    assert read_summary_statistics(path).genome_build is None
    write("- a\n- b\n", "gwas.tsv-meta.yaml")
    with pytest.raises(FormatError, match=r"gwas.tsv-meta.yaml: expected a YAML mapping"):
        read_metadata(path)
    write("a: [1\n", "gwas.tsv-meta.yaml")
    with pytest.raises(FormatError, match=r"gwas.tsv-meta.yaml, line 2: not valid YAML"):
        read_metadata(path)


def test_normalise_build__knows_the_usual_names():
    names = ["GRCh37", "hg19", "b37", "GRCh38.p13", "HG38", "38", "NR", "", None, "T2T"]
    expected = ["GRCh37", "GRCh37", "GRCh37", "GRCh38", "GRCh38", "GRCh38", None, None, None, "T2T"]
    assert [normalise_build(name) for name in names] == expected


def test_layouts__are_told_apart_and_use_known_fields():
    assert all(set(layout.columns) <= set(FIELDS) for layout in LAYOUTS)
    for name, text in FILES.items():
        header = text.splitlines()[0].lstrip("#").split()
        assert next(layout.name for layout in LAYOUTS if not layout.missing(header)) == name
    assert len({layout.name for layout in LAYOUTS}) == len(LAYOUTS)


@needs_data
def test_read__real_bolt_file_equals_a_plain_reading():
    found = read_summary_statistics(BOLT, n_samples=337_000)
    with gzip.open(BOLT, "rt") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    assert len(found) == len(rows) == 82_448
    assert found.dropped == {}
    for i in range(0, len(rows), 997):
        row = rows[i]
        assert (found.chromosome[i], found.position[i], found.id[i]) == (row["CHR"], int(row["BP"]), row["SNP"])
        assert (found.effect_allele[i], found.other_allele[i]) == (row["ALLELE1"], row["ALLELE0"])
        assert (found.beta[i], found.se[i]) == (float(row["BETA"]), float(row["SE"]))
        assert (found.eaf[i], found.info[i]) == (float(row["A1FREQ"]), float(row["INFO"]))
        # P_BOLT_LMM has two digits, CHISQ_BOLT_LMM six
        np.testing.assert_allclose(10 ** -found.log10p[i], float(row["P_BOLT_LMM"]), rtol=0.06)
        np.testing.assert_allclose(10 ** -found.log10p[i], stats.chi2.sf(float(row["CHISQ_BOLT_LMM"]), 1), rtol=1e-12)
    assert (found.n == 337_000).all()
    assert summary_statistics.SummaryStatistics is type(found)


@pytest.mark.parametrize("code", ["-9", "-9.0", " -9", "-9.000000e+00"])
def test_minus_nine_is_missing_where_nothing_is_negative(write, code):
    """A frequency, a p-value or a sample size of -9 is unknown, and costs its row nothing that is not needed."""
    head = "chromosome\tbase_pair_location\teffect_allele\tother_allele\tbeta\tstandard_error\t"
    head += "effect_allele_frequency\tp_value\tn\n"
    rows = f"1\t100\tA\tG\t-9\t0.5\t{code}\t{code}\t{code}\n1\t101\tA\tG\t0.1\t{code}\t0.3\t0.3\t1000\n"
    found = read_summary_statistics(write(head + rows))
    assert found.beta.tolist() == [-9.0, 0.1]  # an effect may be
    assert np.isnan(found.eaf[0])
    assert np.isnan(found.n[0])
    assert found.se[1] == pytest.approx(0.1 / 1.0364334, rel=1e-6)  # from p
    assert found.messages == ()

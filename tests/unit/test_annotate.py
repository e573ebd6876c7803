"""`locomass annotate`: VEP and SnpEff examples give the masks of a hand-made table; rules, transcripts, bad input."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from locomass.cli import cli
from locomass.commands.annotate import AnnotateRequest, annotate
from locomass.errors import FormatError, InputError
from locomass.tables.annotation.rule_file import read_rules
from locomass.tables.annotation.rules import parse_expression
from locomass.tables.annotations import read_annotations, read_masks
from locomass.tables.gene_sets import read_sets

CSQ = "Allele|Consequence|IMPACT|SYMBOL|Gene|Feature|CANONICAL|MANE_SELECT|LoF|REVEL"
HEAD = (
    f'##fileformat=VCFv4.2\n##INFO=<ID=CSQ,Number=.,Type=String,Description="Consequence annotations. Format: {CSQ}">\n'
)
COLUMNS = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
MANE = "AAA|ENSG1|ENST1|YES|NM_1"
VEP = [
    # position, REF, ALT, entries
    (100, "C", "T", [f"T|stop_gained|HIGH|{MANE}|HC|", "T|intron_variant|MODIFIER|AAA|ENSG1|ENST2||||"]),
    (110, "G", "A", [f"A|stop_gained|HIGH|{MANE}|LC|"]),
    (120, "A", "G", [f"G|missense_variant|MODERATE|{MANE}||0.9"]),
    (130, "A", "G", [f"G|missense_variant&splice_region_variant|MODERATE|{MANE}||0.1"]),
    (140, "TC", "T,TCA", [f"-|frameshift_variant|HIGH|{MANE}|HC|", f"CA|synonymous_variant|LOW|{MANE}||"]),
    (150, "T", "C", [f"C|intron_variant|MODIFIER|{MANE}||", "C|stop_gained|HIGH|AAA|ENSG1|ENST2|||HC|"]),
    (160, "T", "C", ["C|synonymous_variant|LOW|BBB|ENSG2|ENST3|YES|||"]),
]
BY_HAND = {
    ("AAA", "1:100:C:T"): "pLoF",
    ("AAA", "1:110:G:A"): "missense",  # LOFTEE: low confidence
    ("AAA", "1:120:A:G"): "damaging",
    ("AAA", "1:130:A:G"): "missense",
    ("AAA", "1:140:TC:T"): "pLoF",
    ("AAA", "1:140:TC:TCA"): "synonymous",
    ("BBB", "1:160:T:C"): "synonymous",  # no MANE transcript: all are used
}


def write_vep(path, rows=VEP, head=HEAD):
    lines = [f"chr1\t{p}\t.\t{r}\t{a}\t.\t.\tAC=1;CSQ={','.join(e)}\n" for p, r, a, e in rows]
    path.write_text(head + COLUMNS + "".join(lines))
    return path


def read_back(folder):
    """Return (gene, variant) -> category, through the readers of `locomass run`."""
    sets = read_sets(folder / "sets.txt")
    found = read_annotations(folder / "annotations.txt")
    read_masks(folder / "masks.txt", found.categories)
    listed = {(s.gene, key) for s in sets for key in s.variants}
    rows = zip(found.gene_code, found.variant, found.category, strict=True)
    out = {(found.genes[g], v): found.categories[c] for g, v, c in rows}
    assert listed == set(out)
    return out


def test_vep_vcf__gives_the_table_made_by_hand(tmp_path):
    path = write_vep(tmp_path / "vep.vcf")
    result = CliRunner().invoke(cli, ["annotate", str(path), "--out", str(tmp_path / "out")], catch_exceptions=False)
    assert result.exit_code == 0
    assert read_back(tmp_path / "out") == BY_HAND
    report = dict(x.split("\t") for x in (tmp_path / "out" / "report.tsv").read_text().splitlines())
    assert report["category pLoF"] == "2"
    assert report["mask pLoF_damaging"] == "3"
    assert report["mask pLoF_missense"] == "5"
    assert report["records of other transcripts"] == "2"
    assert report["variants"] == "8"
    assert (tmp_path / "out" / "masks.txt").read_text().splitlines()[1] == "pLoF_damaging pLoF,damaging"


def test_transcripts__all_takes_the_first_category_of_any(tmp_path):
    annotate(AnnotateRequest([write_vep(tmp_path / "vep.vcf")], transcripts="all"), tmp_path / "out")
    assert read_back(tmp_path / "out") == BY_HAND | {("AAA", "1:150:T:C"): "pLoF"}


def test_vep_tab__gives_the_same(tmp_path):
    lines = [
        "## ENSEMBL VARIANT EFFECT PREDICTOR\n",
        "#Uploaded_variation\tLocation\tAllele\tGene\tFeature\tConsequence\tExtra\n",
    ]
    names = CSQ.split("|")
    for position, ref, alts, entries in VEP:
        for entry in entries:
            row = dict(zip(names, entry.split("|"), strict=True))
            alt = next(a for a in alts.split(",") if len(alts.split(",")) == 1 or (a[1:] or "-") == row["Allele"])
            extra = ";".join(
                f"{n}={row[n].strip()}"
                for n in ("IMPACT", "SYMBOL", "CANONICAL", "MANE_SELECT", "LoF", "REVEL")
                if row[n].strip()
            )
            lines.append(
                f"1_{position}_{ref}/{alt}\t1:{position}\t{row['Allele']}\t{row['Gene']}\t{row['Feature']}\t{row['Consequence']}\t{extra}\n"
            )
    (tmp_path / "vep.tsv").write_text("".join(lines))
    annotate(AnnotateRequest([tmp_path / "vep.tsv"]), tmp_path / "out")
    assert read_back(tmp_path / "out") == BY_HAND


def test_snpeff__gives_the_table_made_by_hand(tmp_path):
    ann = (
        "Allele | Annotation | Annotation_Impact | Gene_Name | Gene_ID | Feature_Type | Feature_ID | Transcript_BioType"
    )
    head = (
        f"##fileformat=VCFv4.2\n##INFO=<ID=ANN,Number=.,Type=String,Description=\"Functional annotations: '{ann}'\">\n"
    )
    rows = [
        "1\t100\t.\tC\tT\t.\t.\tANN=T|stop_gained|HIGH|AAA|ENSG1|transcript|ENST1|protein_coding;LOF=(AAA|ENSG1|1|1.00)",
        "1\t120\t.\tA\tG,T\t.\t.\tANN=G|missense_variant|MODERATE|AAA|ENSG1|transcript|ENST1|protein_coding,"
        "T|synonymous_variant|LOW|AAA|ENSG1|transcript|ENST1|protein_coding",
        "1\t140\t.\tTC\tT\t.\t.\tANN=T|frameshift_variant|HIGH|AAA|ENSG1|transcript|ENST1|protein_coding",
    ]
    (tmp_path / "ann.vcf").write_text(head + COLUMNS + "\n".join(rows) + "\n")
    (tmp_path / "am.tsv").write_text("#CHROM\tPOS\tREF\tALT\tam_pathogenicity\nchr1\t120\tA\tG\t0.99\n")
    with pytest.raises(InputError, match=r"no transcript is flagged as mane .* give --transcripts all"):
        annotate(AnnotateRequest([tmp_path / "ann.vcf"]), tmp_path / "out")
    annotate(AnnotateRequest([tmp_path / "ann.vcf"], [tmp_path / "am.tsv"], transcripts="all"), tmp_path / "out")
    assert read_back(tmp_path / "out") == {
        ("AAA", "1:100:C:T"): "pLoF",
        ("AAA", "1:120:A:G"): "damaging",
        ("AAA", "1:120:A:T"): "synonymous",
        ("AAA", "1:140:TC:T"): "pLoF",
    }


def test_dbnsfp_and_favor_columns__a_rule_of_ones_own(tmp_path):
    (tmp_path / "db.tsv").write_text(
        "#chr\tpos(1-based)\tref\talt\tgenename\tREVEL_score\n1\t5\tA\tC\tAAA;AAA\t.;0.7\n1\t6\tA\tC\tAAA\t0.2\n"
    )
    (tmp_path / "favor.csv").write_text("variant_vcf,cadd_phred\n1-5-A-C,31\n1-6-A-C,12\n")
    rules = tmp_path / "rules.yaml"
    rules.write_text("categories:\n  bad: REVEL > 0.5 and CADD_PHRED >= 20\n  rest: not (REVEL > 0.5)\n")
    request = AnnotateRequest([tmp_path / "db.tsv"], [tmp_path / "favor.csv"], rules, "all")
    annotate(request, tmp_path / "out")
    assert read_back(tmp_path / "out") == {("AAA", "1:5:A:C"): "bad", ("AAA", "1:6:A:C"): "rest"}


def test_windows__hold_every_variant_of_their_stretch(tmp_path):
    report = annotate(AnnotateRequest([write_vep(tmp_path / "vep.vcf")], window=40, step=20), tmp_path / "out")
    windows = {s.gene: s.variants.tolist() for s in read_sets(tmp_path / "out" / "sets.txt") if ":" in s.gene}
    positions = [100, 110, 120, 130, 140, 140, 150, 160]
    assert report["windows"] == len(windows)
    for name, variants in windows.items():
        low, high = map(int, name.split(":")[1].split("-"))
        assert high - low == 39
        assert (low - 1) % 20 == 0
        assert len(variants) == sum(low <= p <= high for p in positions)
    assert sum(map(len, windows.values())) == 2 * len(positions)


@pytest.mark.parametrize(
    ("rule", "record", "holds"),
    [
        ("IMPACT=HIGH and LoF=HC", {"IMPACT": "HIGH", "LoF": "HC"}, True),
        ("IMPACT=HIGH and LoF=HC", {"IMPACT": "HIGH"}, False),
        ("A=1 or B=1 and C=1", {"A": "1"}, True),  # and binds tighter
        ("(A=1 or B=1) and C=1", {"A": "1"}, False),
        ("not A=1 and B=1", {"B": "1"}, True),
        ("REVEL>0.5", {"REVEL": ".;0.4;0.6"}, True),
        ("REVEL>0.5", {"REVEL": "."}, False),
        ("REVEL!=0.5", {"REVEL": "."}, True),
        ("REVEL = .", {"REVEL": "NA"}, True),
        ("X <= 1e-3", {"X": "0.001"}, True),
        ("Consequence in (stop_gained, 'a b')", {"Consequence": "x&stop_gained"}, True),
        ('Consequence in ("a b")', {"Consequence": "a b"}, True),
    ],
)
def test_rules__hold(rule, record, holds):
    assert parse_expression(rule).holds(record) is holds


@pytest.mark.parametrize(
    ("rule", "match"),
    [
        ("IMPACT", "expected a comparison after 'IMPACT', found the end"),
        ("IMPACT = ", "expected a value, found the end"),
        ("(A = 1", r"expected '\)', found the end"),
        ("A = 1 B = 2", "expected 'and', 'or' or the end, found 'B'"),
        ("A > high", "expected a number to compare A with, got 'high'"),
        ("A in (1 2)", r"expected ',' or '\)', found '2'"),
        ("A = 'x", "a quote is not closed"),
        ("and A = 1", "expected a field, found 'and'"),
        ("__import__('os').system('x')", "expected a comparison after '__import__'"),
    ],
)
def test_rules__raise_on_what_they_do_not_understand(rule, match):
    with pytest.raises(InputError, match=match):
        parse_expression(rule)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("categories:\n  a: B >\n", "rules.yaml, line 2, column a: rule 'B >': expected a value"),
        ("categories:\n  a: B = 1\nmasks:\n  M: a, c\n", "mask 'M': unknown category 'c'"),
        ("rules: 1\n", "expected the keys categories and masks"),
        ("categories:\n  a b: C = 1\n", "'a b' must be one word"),
        ("a: [\n", "not valid YAML"),
    ],
)
def test_rule_file__raises(text, match, tmp_path):
    (tmp_path / "rules.yaml").write_text(text)
    with pytest.raises(FormatError, match=match):
        read_rules(tmp_path / "rules.yaml")


def test_a_field_that_no_file_has_is_named(tmp_path):
    (tmp_path / "rules.yaml").write_text("categories:\n  a: REVELL > 0.5\n")
    request = AnnotateRequest([write_vep(tmp_path / "vep.vcf")], rules=tmp_path / "rules.yaml")
    with pytest.raises(InputError, match=r"category 'a' reads the field REVELL, .* did you mean 'REVEL'\?"):
        annotate(request, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.replace("ID=CSQ", "ID=CSX"), "line 3: the header declares no INFO field CSQ"),
        (lambda t: t.replace("chr1\t100\t", "chr1\tten\t"), "line 4: expected the 8 columns of a VCF"),
        (
            lambda t: t.replace("T|stop_gained|HIGH|AAA|ENSG1|ENST1|YES|NM_1|HC|", "T|stop_gained|HIGH"),
            "CSQ has 3 values",
        ),
        (
            lambda t: t.replace("CSQ=-|frame", "CSQ=G|frame"),
            "line 8, column INFO: allele 'G' of CSQ is none of the ALT",
        ),
    ],
)
def test_vcf__raises_on_damage(change, match, tmp_path):
    path = write_vep(tmp_path / "vep.vcf")
    path.write_text(change(path.read_text()))
    with pytest.raises(FormatError, match=match):
        annotate(AnnotateRequest([path], transcripts="all"), tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("gene\tscore\nA\t1\n", "line 1: expected a column with the variant's name"),
        ("chr\tpos\tref\talt\tx\n1\tten\tA\tC\t1\n", "line 2, column pos: expected a position, got 'ten'"),
        ("variant\tx\nrs12\t1\n", "line 2, column variant: 'rs12' is not chrom:pos:ref:alt"),
        ("variant\tx\n1:2:A:C\n", "line 2: expected 2 fields, found 1"),
    ],
)
def test_columns__raise_on_damage(text, match, tmp_path):
    (tmp_path / "table.tsv").write_text(text)
    with pytest.raises(FormatError, match=match):
        annotate(AnnotateRequest([tmp_path / "table.tsv"], transcripts="all"), tmp_path / "out")

"""`propose_configuration`: what it finds in a folder, and that the proposal loads and passes `locomass check`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from locomass.commands.check import check_study
from locomass.commands.init import propose_configuration
from locomass.config import RunConfig, load_config
from locomass.errors import InputError
from locomass.genotypes.fileset import open_fileset
from tests.factories import write_fileset

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "data"


@pytest.fixture
def folder(tmp_path):
    """A fileset of four people and nothing else."""
    calls = [[0, 1, 2, 0], [1, 0, 0, 0]]
    write_fileset(
        tmp_path / "exome.bed",
        calls,
        [("1", 10, "a", "A", "C"), ("1", 20, "b", "G", "T")],
        [("0", f"i{k}") for k in range(4)],
    )
    return tmp_path


def propose(folder):
    text = propose_configuration(folder)
    path = folder / "proposed.yaml"
    path.write_text(text)
    return text, yaml.safe_load(text), path


def table(path, header, *rows):
    path.write_text("\n".join("\t".join(map(str, r)) for r in (header, *rows)) + "\n")


def test_proposal_for_a_complete_folder__passes_check(tmp_path):
    for path in GOLDEN.glob("*.*"):
        if path.suffix != ".yaml" and "cohort_b" not in path.name:
            shutil.copy(path, tmp_path / path.name)
    text, data, path = propose(tmp_path)
    assert data["genotypes"] == "cohort_a.bed"
    assert data["phenotypes"] == {"file": "cohort_a.pheno.tsv", "quantitative": ["y"], "binary": ["cc"]}
    assert data["covariates"] == {
        "file": "cohort_a.covar.tsv", "quantitative": ["age", "pc1", "pc2"], "categorical": ["sex"]
    }  # fmt: skip
    assert data["genes"] == {"sets": "sets.txt", "annotations": "annotations.txt", "masks": "masks.txt"}
    assert "#   loco: {y: cohort_a.loco}" in text
    assert "samples: 1,200 of 1,200 in the .fam are analysed" in check_study(path, tmp_path / "out").lines


def test_bare_fileset__proposes_what_is_missing(folder):
    text, data, path = propose(folder)
    assert data["genotypes"] == "exome.bed"
    assert "file: PHENOTYPES.tsv" in text
    assert "none was found" in text
    assert "# covariates:" in text
    assert isinstance(load_config(path, RunConfig), RunConfig)


def test_kinds_of_columns(folder):
    header = ("FID", "IID", "ldl", "cad", "stage", "note")
    rows = [("0", f"i{k}", 1.5 * k, 1 + k % 2, k % 2, "text") for k in range(4)]
    table(folder / "traits.tsv", header, *rows)
    text, data, _ = propose(folder)
    assert data["phenotypes"]["quantitative"] == ["ldl"]
    assert data["phenotypes"]["binary"] == ["cad", "stage"]
    assert data["phenotypes"]["binary_coding"] == "12"
    assert "left out, they hold text: note" in text


def test_many_columns_alike__become_a_pattern(folder):
    names = [f"PROT{k}" for k in range(6)]
    table(folder / "traits.tsv", ("IID", *names, "bmi"), *[(f"i{k}", *range(k, k + 6), 20.5 + k) for k in range(4)])
    _, data, path = propose(folder)
    assert data["phenotypes"]["quantitative"] == ["PROT*", "bmi"]
    assert load_config(path, RunConfig).phenotypes.quantitative == ["PROT*", "bmi"]


def test_one_fileset_per_chromosome__is_one_pattern(folder):
    for suffix in (".bed", ".bim", ".fam"):
        for chromosome in ("1", "2", "X"):
            shutil.copy(folder / f"exome{suffix}", folder / f"seq.chr{chromosome}.hg38{suffix}")
        (folder / f"exome{suffix}").unlink()
    _, data, _ = propose(folder)
    assert data["genotypes"] == "seq.chr{chrom}.hg38.bed"


def test_summary_statistics_and_array__propose_a_predictor(folder):
    for suffix in (".bed", ".bim", ".fam"):
        shutil.copy(folder / f"exome{suffix}", folder / f"array{suffix}")
    (folder / "ldl.sumstats.gz").write_bytes(b"")
    table(folder / "traits.tsv", ("IID", "ldl"), *[(f"i{k}", k / 3) for k in range(4)])
    text, data, _ = propose(folder)
    assert data["genotypes"] == "exome.bed"
    assert "#   summary_statistics: {ldl: ldl.sumstats.gz}" in text
    assert "#   genotypes: array.bed" in text
    path = folder / "uncommented.yaml"
    head, tail = text.split("# predictor:")
    section, rest = tail.split("\n\n", 1)
    path.write_text(head + "predictor:" + section.replace("\n#   ", "\n  ") + "\n\n" + rest)
    assert load_config(path, RunConfig).predictor.method == "ldpred2-auto"


@pytest.mark.parametrize(
    ("name", "content", "key"),
    [
        ("genes.bed", "1\t5\t30\tG1\n", "regions"),
        ("g.group.txt", "G1 var 1:10:C:A 1:20:T:G\nG1 anno lof lof\n", "groups"),
        ("my.setlist", "G1 1 10 1:10:C:A,1:20:T:G\n", "sets"),
    ],
)
def test_gene_files__are_told_by_their_content(folder, name, content, key):
    (folder / name).write_text(content)
    _, data, _ = propose(folder)
    assert data["genes"] == {key: name}


def test_prediction_list__is_used(folder):
    (folder / "fit_pred.list").write_text("ldl fit_1.loco\n")
    _, data, _ = propose(folder)
    assert data["predictor"] == {"method": "loco", "loco": "fit_pred.list"}


def test_odd_names__are_quoted(folder):
    table(folder / "a: b.tsv", ("IID", "yes", "1e5"), *[(f"i{k}", k / 3, k / 7) for k in range(4)])
    _, data, path = propose(folder)
    assert data["phenotypes"]["file"] == "a: b.tsv"
    assert load_config(path, RunConfig).phenotypes.quantitative == ["yes", "1e5"]


def test_no_fileset__is_an_error(tmp_path):
    with pytest.raises(InputError, match="holds no genotype file"):
        propose_configuration(tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        propose_configuration(tmp_path / "absent")


def test_plink_files__gene_list_coding_and_missing_values_are_found(tmp_path):
    """What a PLINK user has: 1/2 and -9 in the phenotypes, a gene list without a suffix."""
    from tests.factories import make_study

    study = make_study(1, n=70)
    study.write(tmp_path / "in")
    folder = tmp_path / "mine"
    folder.mkdir()
    for suffix in (".bed", ".bim", ".fam"):
        (folder / f"seq{suffix}").write_bytes((tmp_path / "in" / f"geno{suffix}").read_bytes())
    ids = [line.split()[:2] for line in (folder / "seq.fam").read_text().splitlines()]
    rows = [f"{f} {i} {-9 if k < 5 else k / 7:g} {-9 if k < 3 else 1 + k % 2}" for k, (f, i) in enumerate(ids)]
    (folder / "traits.txt").write_text("\n".join(["FID IID bmi t2d", *rows]) + "\n")
    positions = [int(line.split()[3]) for line in (folder / "seq.bim").read_text().splitlines()]
    chromosome = (folder / "seq.bim").read_text().split()[0]
    (folder / "glist-hg38").write_text(f"{chromosome} {min(positions) - 1} {max(positions)} GENE\n")
    path = folder / "study.yaml"
    path.write_text(propose_configuration(folder))
    for line in ("  regions: glist-hg38", '  binary_coding: "12"', '  missing_codes: ["-9"]', "  quantitative: [bmi]"):
        assert line in path.read_text()
    record = check_study(path, tmp_path / "out").record
    assert [(t["name"], t["samples"], t["cases"]) for t in record["traits"]] == [("bmi", 65, None), ("t2d", 67, 34)]
    text = path.read_text().replace('missing_codes: ["-9"]', "missing_codes: []").replace("binary: [t2d]", "binary: []")
    path.write_text(text)
    assert (
        check_study(path, tmp_path / "out").record["traits"][0]["samples"] == 70
    )  # those with any trait: -9 is a value


@pytest.mark.parametrize("name", ["calls.vcf", "calls.ped"])
def test_genotypes__of_other_formats_say_how_to_convert_them(tmp_path, name):
    with pytest.raises(InputError, match=r"is not read; convert it: plink2 --.* --make-pgen"):
        open_fileset(tmp_path / name)

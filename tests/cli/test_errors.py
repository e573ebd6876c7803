"""What a user can get wrong: exit code 2, one message that names the place and the mending, nothing half-written."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from locomass import cli
from tests.factories import Study, make_study, write_meta_config


@pytest.fixture
def locomass(monkeypatch, capsys):
    """Run the command line in this process: (exit code, stdout, stderr)."""

    def _run(*args):
        monkeypatch.setattr("sys.argv", ["locomass", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return _run


def results_left(out):
    """Whatever a failed run must not leave: results, half-written files, the lock."""
    if not out.is_dir():
        return []
    names = (
        "gene_tests*",
        "single_variants*",
        "mask_audit*",
        "report.html",
        "*.partial",
        ".*.partial",
        "*.old",
        ".lock",
    )
    return [str(p.relative_to(out)) for name in names for p in out.rglob(name)]


def assert_one_message(code, out, err, folder, expected):
    """Exit code 2, one line ``error: ...`` that holds what is expected, no traceback, no results."""
    assert code == 2, err
    messages = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(messages) == 1, err
    for text in expected:
        assert text in messages[0]
    assert "Traceback" not in out + err
    assert len(messages[0]) < 700
    assert results_left(folder) == []


@dataclasses.dataclass(frozen=True)
class Case:
    """One mistake: made in memory, or in the files that were written."""

    expected: tuple[str, ...]
    study: Callable[[Study], Any] = lambda study: None
    files: Callable[[Path], Any] = lambda folder: None
    config: dict[str, Any] = dataclasses.field(default_factory=dict)


def edit(name, old, new, count=1):
    def _edit(folder):
        path = folder / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, count))

    return _edit


def rewrite(name, change):
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def lines(change):
    """Change the lines of a file."""
    return lambda content: b"".join(change(content.splitlines(keepends=True)))


def set_trait(name, value):
    return lambda study: study.traits.__setitem__(name, np.where(np.isfinite(study.traits[name]), value, np.nan))


def add_covariate(name, of):
    return lambda study: study.covariates.__setitem__(name, of(study))


def only_cc(study):
    study.traits = {"cc": study.traits["cc"]}


def spoil_cell(row, column, text):
    """Replace one cell of a tab-separated row."""
    cells = row.rstrip(b"\n").split(b"\t")
    cells[column] = text
    return b"\t".join(cells) + b"\n"


def mark_cases(study):
    return 9 * np.nan_to_num(study.traits["cc"]) + np.random.default_rng(1).normal(size=study.n)


TESTS = {"names": ["burden"], "max_maf": [0.05], "weights": ["flat"]}
CASES = {
    "unknown annotation in a mask": Case(
        ("masks.txt line 1", "'missence'", "LoF, missense, synonymous", "did you mean 'missense'"),
        files=rewrite("masks.txt", lambda text: b"M1 missence\n"),
    ),
    "no sample in common": Case(
        ("pheno.tsv", ".fam", "Fstudy0000", "Fother0000"),
        files=rewrite("pheno.tsv", lambda text: text.replace(b"study0", b"other0")),
    ),
    "families differ": Case(
        ("pheno.tsv", "drop FID"), files=rewrite("pheno.tsv", lambda text: text.replace(b"Fstudy", b"Gstudy"))
    ),
    "chromosomes do not meet": Case(
        ("no chromosome is shared", "11, 12, 13", "sets.txt has 1, 2, 3"),
        files=rewrite("geno.bim", lines(lambda rows: [b"1" + row for row in rows])),
    ),
    "missing covariate column": Case(
        ("covar.tsv", "'pc9'", "did you mean 'pc1'"),
        config={"covariates": {"file": "covar.tsv", "quantitative": ["age", "pc9"]}},
    ),
    "missing trait column": Case(
        ("pheno.tsv", "'yy'"), config={"phenotypes": {"file": "pheno.tsv", "quantitative": ["yy"]}}
    ),
    "phenotype with text": Case(
        ("pheno.tsv", "line 2", "column z", "'tall'", "NA"),
        files=rewrite("pheno.tsv", lines(lambda r: [r[0], spoil_cell(r[1], 4, b"tall"), *r[2:]])),
    ),
    "binary trait coded 1 and 2": Case(
        ("pheno.tsv", "column cc", "binary_coding"), study=lambda s: s.traits.update(cc=s.traits["cc"] + 1)
    ),
    "singular covariates": Case(
        ("covariates are singular", "'twice'", "age", "remove one"),
        study=add_covariate("twice", lambda s: 2 * s.covariates["age"] + 1),
    ),
    "constant covariate": Case(
        ("covariates are singular", "'five'", "remove one"), study=add_covariate("five", lambda s: np.full(s.n, 5.0))
    ),
    "constant prediction": Case(
        ("'y'", "LOCO prediction is constant"), study=lambda s: s.loco.__setitem__(slice(None), 1.0)
    ),
    "prediction lacks a chromosome": Case(
        ("chromosome 3", "1, 2"), files=rewrite("all.loco", lines(lambda rows: rows[:-1]))
    ),
    "prediction of other samples": Case(
        ("all.loco",), files=rewrite("all.loco", lambda text: text.replace(b"Fstudy", b"Fother"))
    ),
    ".loco in place of a pred.list": Case(
        ("all.loco",), config={"predictor": {"method": "loco", "loco": "all.loco", "use": "covariate"}}
    ),
    "prediction of an unknown trait": Case(
        ("predictor.loco", "'zz'"), config={"predictor": {"method": "loco", "loco": {"zz": "all.loco"}}}
    ),
    "unknown configuration key": Case(("study.yaml", "line", "'test'", "did you mean 'tests'"), config={"test": TESTS}),
    "unknown test": Case(
        ("study.yaml", "'burdn'", "did you mean 'burden'"), config={"tests": {**TESTS, "names": ["burdn"]}}
    ),
    "unknown weights": Case(("'bta_1_25'", "beta_1_25"), config={"tests": {**TESTS, "weights": ["bta_1_25"]}}),
    "unknown annotation column": Case(
        ("'cadd'", "tests.weights"), config={"tests": {**TESTS, "weights": ["annotation:cadd"]}}
    ),
    "wrong magic": Case(("geno.bed", "6c 1b 01", "00 00 01"), files=rewrite("geno.bed", lambda b: b"\0\0" + b[2:])),
    "truncated bed": Case(("geno.bed", "truncated", "723"), files=rewrite("geno.bed", lambda b: b[:-9])),
    "bim of another bed": Case(
        ("geno.bed", "do not belong together"), files=rewrite("geno.bim", lines(lambda rows: rows[:-1]))
    ),
    "fam of another bed": Case(
        ("geno.bed", "do not belong together"), files=rewrite("geno.fam", lines(lambda rows: rows[:-5]))
    ),
    "sample twice in the fam": Case(
        ("geno.fam", "lines 1 and 2"), files=rewrite("geno.fam", lines(lambda r: [r[0], r[0], *r[2:]]))
    ),
    "sample twice in the phenotypes": Case(
        ("pheno.tsv", "lines 2 and 3"), files=rewrite("pheno.tsv", lines(lambda r: [r[0], r[1], r[1], *r[3:]]))
    ),
    "variant twice": Case(
        ("geno.bim", "lines 1 and 2"), files=rewrite("geno.bim", lines(lambda r: [r[0], r[0], *r[2:]]))
    ),
    "gene twice": Case(
        ("sets.txt", "GENE1", "lines 1 and 2"), files=rewrite("sets.txt", lines(lambda r: [r[0], r[0], *r[2:]]))
    ),
    "endless allele": Case(
        ("geno.bim", "line 2", "column A1", "10,000"),
        files=rewrite("geno.bim", lines(lambda r: [r[0], b"1 x 0 5 " + b"A" * 300_000 + b" C\n", *r[2:]])),
    ),
    "missing genotypes": Case(("geno.bim",), files=lambda folder: (folder / "geno.bim").unlink()),
    "missing phenotypes": Case(("pheno.tsv",), files=lambda folder: (folder / "pheno.tsv").unlink()),
    "missing covariates": Case(("covar.tsv",), files=lambda folder: (folder / "covar.tsv").unlink()),
    "missing genes": Case(("sets.txt",), files=lambda folder: (folder / "sets.txt").unlink()),
    "missing annotations": Case(("annotations.txt",), files=lambda folder: (folder / "annotations.txt").unlink()),
    "missing prediction": Case(("all.loco",), files=lambda folder: (folder / "all.loco").unlink()),
    "folder in place of a table": Case(
        ("sets.txt",), files=lambda folder: ((folder / "sets.txt").unlink(), (folder / "sets.txt").mkdir())
    ),
    "empty keep list": Case(
        ("keep.txt",), files=lambda f: (f / "keep.txt").write_text(""), config={"keep_samples": "keep.txt"}
    ),
    "everybody removed": Case(
        ("no sample", "60 in remove_samples"),
        files=lambda f: (f / "gone.txt").write_text("".join(f"Fstudy{i:04d} study{i:04d}\n" for i in range(60))),
        config={"remove_samples": "gone.txt"},
    ),
    "no traits": Case(
        ("phenotypes", "quantitative, binary or time_to_event"), config={"phenotypes": {"file": "pheno.tsv"}}
    ),
}


#: mistakes that cost a trait, and no other
UNFIT = {
    "constant trait": Case(("trait 'y'", "constant"), study=set_trait("y", 4.2)),
    "no cases": Case(("trait 'cc'", "no cases"), study=set_trait("cc", 0)),
    "no controls": Case(("trait 'cc'", "no controls"), study=set_trait("cc", 1)),
    "trait without any value": Case(
        ("'y'",),
        study=lambda s: s.traits.update(y=np.full(s.n, np.nan)),
    ),
    "cases separated by a covariate": Case(
        ("trait 'cc'", "separat", "remove or merge"),
        study=add_covariate("marker", mark_cases),
    ),
    "constant prediction of a binary trait": Case(
        ("trait 'cc'", "LOCO prediction is constant"),
        study=lambda s: (only_cc(s), s.loco.__setitem__(slice(None), 1.0)),
    ),
    "prediction that is the trait": Case(
        ("trait 'z'", "prediction"), study=lambda s: s.loco.__setitem__(slice(None), s.traits["z"])
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_run__a_trait_that_cannot_be_fitted_costs_that_trait(name, locomass, tmp_path):
    case = UNFIT[name]
    study = make_study(1, n=60)
    case.study(study)
    config = study.write(tmp_path / "in", **case.config)
    out = tmp_path / "out"
    code, stdout, stderr = locomass("denoise", config, "--out", out, "--threads", 1)
    trait = next(text.split("'")[1] for text in case.expected if "'" in text)
    if list(study.traits) == [trait]:
        assert_one_message(code, stdout, stderr, out, case.expected)
        return
    assert code == 3, stderr
    assert "Traceback" not in stdout + stderr
    models = pd.read_csv(out / "null_models.tsv", sep="\t")
    (reason,) = set(models.loc[models["trait"] == trait, "note"])
    for text in case.expected:
        assert text.replace(f"trait '{trait}'", "").strip() in f"'{trait}' {reason}"
        assert text in stderr
    assert models.loc[models["trait"] != trait, "note"].isna().all()


@pytest.mark.parametrize("name", CASES)
def test_run__ends_with_one_message(name, locomass, tmp_path):
    case = CASES[name]
    study = make_study(1, n=60)
    case.study(study)
    config = study.write(tmp_path / "in", **case.config)
    case.files(tmp_path / "in")
    out = tmp_path / "out"
    code, stdout, stderr = locomass("run", config, "--out", out, "--threads", 1)
    assert_one_message(code, stdout, stderr, out, case.expected)
    # a test or weights that do not exist, or a bad input, cost no computation
    assert not (out / "bundle").exists()


def test_chromosome_prefixes_are_no_error(locomass, tmp_path):
    config = make_study(1, n=60).write(tmp_path / "in")
    rewrite("geno.bim", lines(lambda rows: [b"chr" + row for row in rows]))(tmp_path / "in")
    code, _, stderr = locomass("score-statistics", config, "--out", tmp_path / "out", "--threads", 1)
    assert code == 0, stderr


def test_a_later_error_leaves_earlier_results_alone(locomass, tmp_path):
    """A finished study, spoiled and run again: the error leaves the first results as they were."""
    study = make_study(1, n=60)
    config = study.write(tmp_path / "in")
    out = tmp_path / "out"
    assert locomass("score-statistics", config, "--out", out, "--threads", 1)[0] == 0
    before = {p: p.read_bytes() for p in (out / "bundle").rglob("*") if p.is_file()}
    study.covariates["five"] = np.full(60, 5.0)  # no trait can be fitted
    study.write(tmp_path / "in")
    code, stdout, stderr = locomass("score-statistics", config, "--out", out, "--threads", 1)
    assert_one_message(code, stdout, stderr, out, ("covariates are singular", "'five'"))
    assert {p: p.read_bytes() for p in (out / "bundle").rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("place", ["file/below", "locked"])
def test_output_that_cannot_be_written(place, locomass, tmp_path):
    config = make_study(1, n=60).write(tmp_path / "in")
    if place == "locked":
        out = Path("/proc/locomass")  # nobody can make a folder there, root included
    else:
        (tmp_path / "file").write_text("")
        out = tmp_path / place
    code, stdout, stderr = locomass("score-statistics", config, "--out", out)
    assert_one_message(code, stdout, stderr, tmp_path / "nothing", ("cannot write", str(out)))


def test_output_that_is_a_file(locomass, tmp_path):
    config = make_study(1, n=60).write(tmp_path / "in")
    (tmp_path / "file").write_text("keep me")
    code, _, stderr = locomass("score-statistics", config, "--out", tmp_path / "file")
    assert code == 2
    assert "is a file" in stderr
    assert (tmp_path / "file").read_text() == "keep me"


@pytest.mark.parametrize("command", ["run", "check", "score-statistics", "denoise", "predict", "meta"])
def test_configuration_that_is_not_there(command, locomass, tmp_path):
    code, stdout, stderr = locomass(command, tmp_path / "no.yaml")
    assert_one_message(code, stdout, stderr, tmp_path, ("no.yaml", "No such file"))


def test_check__finds_the_same_mistakes(locomass, tmp_path):
    for name in (
        "unknown annotation in a mask",
        "no sample in common",
        "truncated bed",
        "unknown test",
        "missing prediction",
    ):
        case = CASES[name]
        folder = tmp_path / name.replace(" ", "-")
        study = make_study(1, n=60)
        config = study.write(folder, **case.config)
        case.files(folder)
        code, stdout, stderr = locomass("check", config, "--out", folder / "out")
        assert_one_message(code, stdout, stderr, folder / "out", case.expected)
        assert not (folder / "out").exists()


# ---- meta-analysis ----


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    from locomass.commands.outcome import Resources
    from locomass.commands.run import run_study

    folder = tmp_path_factory.mktemp("study")
    study = make_study(1, n=60, loco=False)
    out = run_study(study.write(folder / "in"), folder / "out", Resources(threads=1), "score-statistics")
    return study, out.path / "bundle"


def test_meta__genes_of_another_naming(bundle, locomass, tmp_path):
    study = dataclasses.replace(bundle[0], sets={f"ENSG{k}": v for k, v in bundle[0].sets.items()})
    config = write_meta_config(tmp_path / "meta.yaml", [bundle[1]], study)
    code, stdout, stderr = locomass("meta", config, "--out", tmp_path / "out")
    assert_one_message(code, stdout, stderr, tmp_path / "out", ("sets.txt", "ENSGGENE1", "GENE1"))


@pytest.mark.parametrize(
    ("studies", "expected"),
    [
        ([], ("meta.yaml", "studies", "--study")),
        (["nowhere/bundle"], ("meta.yaml", "nowhere/bundle", "locomass run")),
        (["SELF", "SELF"], ("study 'study' is given twice",)),
    ],
)
def test_meta__studies_that_cannot_be_combined(bundle, studies, expected, locomass, tmp_path):
    named = [bundle[1] if s == "SELF" else s for s in studies]
    config = write_meta_config(tmp_path / "meta.yaml", named, bundle[0])
    code, stdout, stderr = locomass("meta", config, "--out", tmp_path / "out")
    assert_one_message(code, stdout, stderr, tmp_path / "out", expected)


def test_meta__a_folder_that_is_no_bundle(bundle, locomass, tmp_path):
    config = write_meta_config(tmp_path / "meta.yaml", [], bundle[0])
    code, stdout, stderr = locomass("meta", config, "--study", tmp_path, "--out", tmp_path / "out")
    assert_one_message(code, stdout, stderr, tmp_path / "out", ("not a study bundle", "study.json"))


def test_meta__a_trait_of_two_kinds(bundle, locomass, tmp_path):
    other = make_study(2, n=60, name="other", loco=False)
    other.traits = {"z": (other.traits["z"] > 4).astype(float)}
    other.binary = ("z",)
    assert locomass("score-statistics", other.write(tmp_path / "in"), "--out", tmp_path / "b", "--threads", 1)[0] == 0
    config = write_meta_config(tmp_path / "meta.yaml", [bundle[1], tmp_path / "b" / "bundle"], bundle[0])
    code, stdout, stderr = locomass("meta", config, "--out", tmp_path / "out")
    assert_one_message(
        code, stdout, stderr, tmp_path / "out", ("trait 'z'", "quantitative in study study", "binary in study other")
    )


def test_meta__a_damaged_bundle(bundle, locomass, tmp_path):
    import shutil

    copy = shutil.copytree(bundle[1], tmp_path / "copy")
    part = min((copy / "genes").iterdir())
    part.write_bytes(part.read_bytes()[:40])
    config = write_meta_config(tmp_path / "meta.yaml", [copy], bundle[0])
    code, stdout, stderr = locomass("meta", config, "--out", tmp_path / "out")
    assert_one_message(code, stdout, stderr, tmp_path / "out", (part.name, "differs from its digest"))

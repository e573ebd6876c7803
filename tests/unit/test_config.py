"""The configuration: what is read, what is refused, and that a refusal names file, line and key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from locomass.config import ExternalMaf, MetaConfig, RunConfig, describe_keys, load_config, per_trait
from locomass.errors import ConfigError

RUN = """\
study: s1
genotypes: geno.bed
phenotypes:
  file: pheno.tsv
  quantitative: [y]
genes:
  sets: sets.txt
"""
META = "studies: [a/bundle, b/bundle]\ngenes: {regions: genes.bed}\n"


@pytest.fixture
def load(tmp_path):
    def _load(text, kind=RunConfig):
        path = tmp_path / "c.yaml"
        path.write_text(text)
        return load_config(path, kind)

    return _load


def test_load_config__defaults(load):
    config = load(RUN)
    assert config.study == "s1"
    assert config.predictor.method == "none"
    assert config.tests.max_maf == [0.01, 0.05]
    assert config.tests.weights == ["flat", "beta_1_25"]
    assert config.tests.frequency == "maf"
    assert config.score_statistics.missing == "mean"
    assert config.maf == "joint"
    assert config.covariates is None
    assert config.output == "results"


@pytest.mark.parametrize(
    ("predictor", "role"),
    [
        ("{}", "covariate"),
        ("{method: loco, loco: p}", "offset"),
        ("{method: loco, loco: p, use: covariate}", "covariate"),
    ],
)
def test_load_config__how_a_prediction_is_used(load, predictor, role):
    assert load(f"{RUN}predictor: {predictor}\n").predictor.role == role


@pytest.mark.parametrize(
    ("text", "maf"), [("joint", "joint"), ("study", "study"), ("{external: f.afreq}", ExternalMaf("f.afreq"))]
)
def test_load_config__frequency_policy(load, text, maf):
    assert load(f"{META}maf: {text}\n", MetaConfig).maf == maf


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("test: {names: [burden]}\n", r"c\.yaml, line 8: unknown key 'test'; did you mean 'tests'\?"),
        ("tests:\n  name: [burden]\n", r"c\.yaml, line 9: unknown key 'name'; did you mean 'names'\?"),
        ("tests:\n  max_maf: [0.01, 1.5]\n", r"c\.yaml, line 9, key tests\.max_maf.*1"),
        ("tests:\n  max_maf: [0]\n", r"c\.yaml, line 9, key tests\.max_maf"),
        ("tests:\n  max_maf: []\n", r"c\.yaml, line 9, key tests\.max_maf"),
        ("tests:\n  max_maf: 0.01\n", r"c\.yaml, line 9, key tests\.max_maf: Expected `array`"),
        ("predictor:\n  method: rigde\n", r"c\.yaml, line 9, key predictor\.method.*rigde"),
        (
            "predictor:\n  method: ridge\n  options:\n    shrnk: 1\n",
            r"c\.yaml, line 10, key predictor\.options.*no option 'shrnk'; did you mean 'shrink'\?",
        ),
        (
            "predictor:\n  method: ldpred2-auto\n  options:\n    burn_in: -1\n",
            r"c\.yaml, line 11, key predictor\.options\.burn_in: Expected `int` >= 0",
        ),
        (
            "predictor:\n  method: stack\n  stack:\n  - {method: none}\n  - method: lassosum2\n"
            "    options: {deltas: 1}\n",
            r"c\.yaml, line 13, key predictor\.stack\.1\.options\.deltas: Expected `array`, got `int`",
        ),
        ("predictor:\n  options: {shrink: 1}\n", r"line 9, key predictor\.options: none has no option 'shrink'"),
        ("predictor:\n  max_block_variants: 3\n", r"c\.yaml, line 9, key predictor\.max_block_variants"),
        ("genome_build: hg19\n", r"c\.yaml, line 8, key genome_build"),
        ("score_statistics: {missing: drop}\n", r"c\.yaml, line 8, key score_statistics\.missing"),
        ("score_statistics: {min_cell: -1}\n", r"c\.yaml, line 8, key score_statistics\.min_cell"),
        ("study: again\n", r"c\.yaml, line 8: .*key 'study' is given twice"),
        ("covariates: {quantitative: [age]}\n", r"c\.yaml, line 8, key covariates: .*`file`"),
    ],
)
def test_load_config__raises_and_names_line_and_key(load, extra, message):
    with pytest.raises(ConfigError, match=message):
        load(RUN + extra)


@pytest.mark.parametrize(
    ("genes", "message"),
    [
        ("{}", "found none"),
        ("{sets: a, regions: b}", "found sets and regions"),
        ("{sets: a, annotations: b}", "annotations and masks belong together"),
        ("{sets: a, masks: b}", "annotations and masks belong together"),
    ],
)
def test_load_config__raises_unless_genes_come_from_one_source(load, genes, message):
    with pytest.raises(ConfigError, match=rf"c\.yaml: key genes: .*{message}"):
        load(f"genes: {genes}\n", MetaConfig)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected `key: value` lines, found NoneType"),
        ("- a\n- b\n", "expected `key: value` lines, found list"),
        ("study: [a\n", "line 2: not valid YAML"),
        ("study: a\0b\n", "not valid YAML"),
        ("? [a, b]\n: 1\n", r"line 1: .*(not valid YAML|not a word)"),
        ("study: 12\n" + RUN.split("\n", 1)[1], r"line 1, key study: Expected `str`"),
        ("study: a/b\n" + RUN.split("\n", 1)[1], r"line 1, key study"),
        (RUN.split("\n", 1)[1], r"missing required field `study`"),
    ],
)
def test_load_config__raises_on_what_is_no_configuration(load, text, message):
    with pytest.raises(ConfigError, match=rf"c\.yaml.*{message}"):
        load(text)


def test_load_config__raises_on_a_missing_or_binary_file(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read configuration .*no\.yaml: No such file"):
        load_config(tmp_path / "no.yaml", RunConfig)
    with pytest.raises(ConfigError, match="cannot read configuration"):
        load_config(tmp_path, RunConfig)
    (tmp_path / "latin.yaml").write_bytes(b"study: \xe9\n")
    with pytest.raises(ConfigError, match=r"latin\.yaml is not UTF-8"):
        load_config(tmp_path / "latin.yaml", RunConfig)


def test_per_trait__spreads_one_value():
    assert per_trait("f.txt", ["y", "z"], "predictor.loco") == {"y": "f.txt", "z": "f.txt"}
    assert per_trait({"z": 3}, ["y", "z"], "k") == {"z": 3}
    assert per_trait(None, ["y"], "k") == {}


def test_per_trait__raises_on_a_trait_that_is_not_analysed():
    with pytest.raises(
        ConfigError, match=r"key predictor\.loco: 'heigth' is not an analysed trait; did you mean 'height'\?"
    ):
        per_trait({"heigth": "f"}, ["height", "bmi"], "predictor.loco")


@pytest.mark.parametrize("kind", [RunConfig, MetaConfig])
def test_describe_keys__every_key_has_a_line_of_help(kind):
    rows = describe_keys(kind)
    assert len({key for key, *_ in rows}) == len(rows) > 10
    without = [key for key, _, _, text in rows if not text]
    assert without in ([], ["maf"])
    assert ("tests.max_maf", "list of float", "[0.01,0.05]") in [row[:3] for row in rows]


def test_describe_keys__every_default_can_be_written_down(load):
    """Every key with its default, written to a file, is read back as the same configuration."""
    tree: dict = yaml.safe_load(RUN)
    for key, _, default, _ in describe_keys(RunConfig):
        *sections, name = key.split(".")
        if default == "required" or sections == ["covariates"] or key in ("phenotypes.quantitative", "genes.sets"):
            continue
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = yaml.safe_load(default)
    assert load(yaml.safe_dump(tree)) == load(RUN)


def kind_of(text):
    return MetaConfig if re.search(r"^studies:", text, re.M) else RunConfig


def test_shared_configurations__load_unmodified(shared):
    files = sorted([*shared.glob("golden/*.yaml"), *shared.glob("data/*/*.yaml")])
    assert len(files) >= 12
    for path in files:
        load_config(path, kind_of(path.read_text()))


def test_own_configurations__load():
    folder = Path(__file__).resolve().parents[2] / "configs"
    files = sorted(folder.glob("*.yaml"))
    if not files:
        pytest.skip("no configs/ in this tree")
    for path in files:
        load_config(path, kind_of(path.read_text()))

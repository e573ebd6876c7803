"""The files of configs/ load, and configs/every-key.yaml holds every key at its default."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import yaml

from locomass.commands.init import EXAMPLES, document_keys
from locomass.config import MetaConfig, RunConfig, describe_keys, export_schema, load_config
from locomass.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
KINDS = {"quickstart": RunConfig, "cohort": RunConfig, "every-key": RunConfig, "consortium": MetaConfig}
BASE = {"study": "s", "genotypes": "g.bed", "phenotypes": {"file": "p.tsv"}, "genes": {"regions": "r.bed"}}


def test_every_file_is_loaded_by_this_test():
    assert {p.stem for p in CONFIGS.glob("*.yaml")} == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_file_loads(name):
    config = load_config(CONFIGS / f"{name}.yaml", KINDS[name])
    assert isinstance(config, KINDS[name])


def test_consortium__its_groups_hold_every_study_once(tmp_path):
    text = (CONFIGS / "consortium.yaml").read_text()
    (line,) = (x for x in text.splitlines() if x.startswith("# groups:"))
    path = tmp_path / "consortium.yaml"
    path.write_text(text.replace(line, line.removeprefix("# ")))
    config = load_config(path, MetaConfig)
    assert len(config.groups) > 1
    studies = [study for members in config.groups.values() for study in members]
    assert studies == [Path(name).name for name in config.studies]


def test_every_key_is_written_and_up_to_date():
    text = (CONFIGS / "every-key.yaml").read_text()
    hint = "locomass config show --yaml > configs/every-key.yaml"
    assert text == document_keys(), f"a key of pipeline/locomass/config.py changed; run: {hint}"


@pytest.mark.parametrize("kind", [RunConfig, MetaConfig])
def test_document_keys__has_each_key_at_its_default(kind, tmp_path):
    path = tmp_path / "all.yaml"
    path.write_text(document_keys(kind))
    data = yaml.safe_load(path.read_text())
    for key, _, default, _ in describe_keys(kind):
        value = data
        for part in key.split("."):
            value = value[part]
        if key not in EXAMPLES:
            assert value == msgspec.json.decode(default.encode()), key
    assert isinstance(load_config(path, kind), kind)


@pytest.mark.parametrize("kind", [RunConfig, MetaConfig])
def test_export_schema__knows_the_keys_of_every_section(kind):
    schema = export_schema(kind)
    definitions = schema["$defs"]
    top = definitions[kind.__name__]
    assert set(top["properties"]) == set(kind.__struct_fields__)
    assert top["additionalProperties"] is False
    assert definitions["Tests"]["properties"]["max_maf"]["description"] == "frequency bins, upper bounds (inclusive)"
    if kind is RunConfig:
        assert "ridge" in definitions["Predictor"]["properties"]["method"]["enum"]
        assert set(top["required"]) == {"study", "genotypes", "phenotypes", "genes"}


@pytest.mark.parametrize(
    ("changes", "key", "said"),
    [
        ({"predictor": {"method": "rigde"}}, "predictor.method", "'rigde'; did you mean 'ridge'?"),
        ({"predictor": {"stack": [{"method": "ridg"}]}}, "predictor.stack.0.method", "did you mean 'ridge'?"),
        ({"score_statistics": {"missing": "zeros"}}, "score_statistics.missing", "did you mean 'zero'?"),
        ({"genome_build": "hg19"}, "genome_build", "'hg19'; known: GRCh37, GRCh38"),
        ({"maf": "jiont"}, "maf", "did you mean 'joint'?"),
    ],
)
def test_wrong_word__suggests_the_closest(tmp_path, changes, key, said):
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({**BASE, **changes}))
    with pytest.raises(ConfigError) as caught:
        load_config(path, RunConfig)
    assert f"key {key}: " in str(caught.value)
    assert said in str(caught.value)

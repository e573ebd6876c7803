"""A dropped file belongs to the trait of the longest name that fits, and to no other."""

from __future__ import annotations

import json

import pytest

from locomass.commands import watch as watching
from locomass.commands.dropped import find_owners
from locomass.commands.outcome import Resources
from locomass.commands.watch import watch
from locomass.tables.summary_statistics import find_metadata


def test_watch__a_file_of_y_adj_is_not_one_of_y(open_case, monkeypatch):
    monkeypatch.setattr(watching, "SETTLE_SECONDS", 0.01)
    case = open_case("22-watch-trait-name-prefix")
    out = case.folder / "out"
    found = watch(case.folder / "study.yaml", case.folder / "incoming", out, Resources(threads=1), once=True)
    assert not found.failures
    state = json.loads((out / "watch.json").read_text())
    assert list(state) == ["y.adj"]
    config = (found.outcome.path / "config.yaml").read_text()
    assert "y: first.tsv" in config
    assert "/y.adj.2026.tsv" in config


TRAITS = {"y": "first.tsv", "y.adj": "in/second.tsv", "z": "z.adj.tsv"}


@pytest.mark.parametrize(
    ("name", "owners"),
    [
        ("y.tsv", ["y"]), ("y.2026.tsv.gz", ["y"]), ("y.2026-11-30.regenie", ["y"]), ("y.gz", ["y"]), ("y.TXT", ["y"]),
        ("y.adj.tsv", ["y.adj"]), ("y.adj.2026.tsv", ["y.adj"]), ("y.adjusted.tsv", ["y"]),
        ("y.log10.v2.tsv", []), ("y.log10.tsv", []),  # a column that is not watched
        ("first.tsv", ["y"]), ("second.tsv", ["y.adj"]), ("z.adj.tsv", ["z"]), ("yy.tsv", []), ("y_2026.tsv", []),
        ("y", []), ("y.2026", []), ("y.2026.docx", []), ("other.tsv", []),
    ],
)  # fmt: skip
def test_find_owners(name, owners):
    assert find_owners(name, TRAITS, ["y.log10", "age"]) == owners


def test_find_owners__a_configured_name_shared_by_traits(tmp_path):
    assert find_owners("first.tsv", {"a": "x/first.tsv", "b": "first.tsv"}) == ["a", "b"]


def test_metadata_of_y_are_not_those_of_y_adj(tmp_path):

    (tmp_path / "y-meta.yaml").write_text("{}")
    for name in ("y.adj.tsv", "y.adj.tsv.gz"):
        assert find_metadata(tmp_path / name) is None
    for name in ("y.tsv", "y.tsv.gz", "y.h.tsv.gz"):
        assert find_metadata(tmp_path / name) == tmp_path / "y-meta.yaml"

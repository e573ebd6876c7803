"""Case 47: no control or direction mark of a bundle reaches a terminal, a file or a page."""

from __future__ import annotations

import json

import pytest

from tests.cases.damage import change_column, change_json, refuse

ESC, BIDI, C1 = "\x1b[31m", "\u202e", "\x9b"


@pytest.mark.parametrize(
    "change",
    [
        lambda i: i.update(genome_build=ESC + "GRCh37"),
        lambda i: i.update(study=f"north{C1}31m{BIDI}gnp.txt"),
        lambda i: i.update(notes=["fine", "a\u2066b"]),
        lambda i: i.update(predictor="a\u200bb"),
        lambda i: i.update({"odd" + ESC: 1}),
        lambda i: i.update(deep=json.loads("[" * 100 + "]" * 100)),
        lambda i: i.update(long="x" * 20_000),
    ],
)
def test_47_texts_of_study_json(bundle, change):
    change_json(bundle, change)
    refuse(bundle, r"study\.json: \$")


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("genes/*.parquet", "gene"), ("genes/*.parquet", "note"), ("variants.parquet", "ref"),
        ("variants.parquet", "chromosome"), ("collapsed/*.parquet", "mask"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("odd", [f"{ESC}\nFAKE 1 2 3", BIDI, "\u200f", "\u2028", "\ufeff", "\x7f"])
def test_47_texts_of_tables(bundle, pattern, name, odd):
    change_column(bundle, pattern, name, lambda v: [x + odd for x in v])
    refuse(bundle, f"column '{name}' has .*: a control or direction character in a name")

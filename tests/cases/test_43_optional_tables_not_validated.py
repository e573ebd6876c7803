"""Case 43: the optional tables of a bundle are validated like all others."""

from __future__ import annotations

import shutil

import pytest

from locomass.bundle.check_optional import CHECKS
from locomass.bundle.open import open_bundle, validate_bundle
from locomass.bundle.write import sign_bundle
from locomass.schema import OPTIONAL_TABLES
from tests.cases.damage import change_column, refuse


def test_the_bundle_as_it_is_passes(bundle):
    validate_bundle(open_bundle(bundle))
    assert {table.name for table in OPTIONAL_TABLES} <= {p.name for p in bundle.iterdir()}


def test_every_optional_table_has_a_check():
    assert CHECKS.keys() == {table.name for table in OPTIONAL_TABLES}


NUMBER = {
    "negative-number": ("number", lambda v: [-1 - x for x in v], "number is -1"),
    "same-number": ("number", lambda v: [0 for _ in v], "each row of variants.parquet once"),
    "negative-variance": ("V", -1.0, "V is .* expected positive variances"),
    "zero-variance": ("V", 0.0, "V is .* expected positive variances"),
    "infinite-variance": ("V", float("inf"), "V is .* expected positive variances"),
}


@pytest.mark.parametrize("mode", NUMBER)
def test_43_calibrated(bundle, mode):
    name, value, match = NUMBER[mode]
    change = value if callable(value) else lambda v: [[value for _ in row] for row in v]
    change_column(bundle, "calibrated/*.parquet", name, change)
    refuse(bundle, rf"calibrated/00000\.parquet: .*{match}")


def test_43_calibrated_rows_in_two_parts(bundle):
    shutil.copy(bundle / "calibrated" / "00000.parquet", bundle / "calibrated" / "00001.parquet")
    sign_bundle(bundle)
    refuse(bundle, "calibrated/00001.parquet: number .* each row in one file")


@pytest.mark.parametrize(
    ("folder", "name", "change", "match"),
    [
        ("collapsed", "gene", lambda v: ["NOWHERE", *v[1:]], "gene 'NOWHERE' in row 0 is not in genes/"),
        ("collapsed", "mode", lambda v: ["both", *v[1:]], "mode is both"),
        ("collapsed", "mask", lambda v: [v[0]] * len(v), "is listed twice"),
        ("collapsed", "threshold", lambda v: [v[0][::-1], *v[1:]], "thresholds must rise"),
        ("collapsed", "threshold", lambda v: [v[0][:-1], *v[1:]], "list length"),
        ("collapsed", "carriers", lambda v: [[10**6] * len(v[0]), *v[1:]], "carriers must be"),
        ("collapsed", "V", lambda v: [[-1.0] * len(row) for row in v], "withheld together|negative variance"),
        ("collapsed", "V", lambda v: [[float("inf")] * len(row) for row in v], "must be finite"),
        ("replicates", "gene", lambda v: ["NOWHERE", *v[1:]], "is not in genes/"),
        ("replicates", "trait", lambda v: ["q", *v[1:]], "trait is q"),
        ("replicates", "variant", lambda v: [[-x for x in v[0]], *v[1:]], "lists other variants"),
        ("replicates", "variant", lambda v: [[v[0][0]] * len(v[0]), *v[1:]], "lists other variants"),
        ("replicates", "U", lambda v: [v[0][:-1], *v[1:]], "length of U"),
        ("replicates", "U", lambda v: [[float("nan"), *v[0][1:]], *v[1:]], "expected finite numbers"),
    ],
)
def test_43_collapsed_and_replicates(bundle, folder, name, change, match):
    change_column(bundle, f"{folder}/00000.parquet", name, change)
    refuse(bundle, match)


def test_43_a_part_without_genes_beside_it(bundle):
    shutil.copy(bundle / "collapsed" / "00000.parquet", bundle / "collapsed" / "77777.parquet")
    sign_bundle(bundle)
    refuse(bundle, "collapsed/77777.parquet has no genes/77777.parquet")

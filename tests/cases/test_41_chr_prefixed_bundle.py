"""Case 41: a bundle whose chromosomes are not spelled as in the house is refused, and voids no meta-analysis."""

from __future__ import annotations

import pytest

from tests.cases.damage import change_column, change_json, refuse


@pytest.mark.parametrize("label", ["chr1", "CHR1", "01", "X", "chrX", " 1", "1 "])
def test_41_chromosome_names(bundle, label):
    change_column(bundle, "variants.parquet", "chromosome", lambda v: [label, *v[1:]])
    refuse(bundle, r"variants\.parquet: chromosome is .* in row 0; expected names without chr")


def test_41_all_prefixed_as_in_the_case(bundle):
    for pattern in ("variants.parquet", "genes/*.parquet"):
        change_column(bundle, pattern, "chromosome", lambda v: [f"chr{x}" for x in v])
    change_json(
        bundle, lambda i: [t.update(sigma2={f"chr{c}": s for c, s in t["sigma2"].items()}) for t in i["traits"]]
    )
    refuse(bundle, "chromosome 'chr1'; expected names without chr")

"""Case 42: a study that has next to none of the listed variants stops `meta` with its cause; alleles that cannot be."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from locomass.commands.meta import run_meta_analysis
from locomass.commands.outcome import Resources
from locomass.errors import BundleError, ConfigError
from tests.cases.damage import change_column, refuse


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("alt", lambda v: [v[0].lower(), *v[1:]], "alt is .* expected an allele in upper case"),
        ("ref", lambda v: ["A C", *v[1:]], "ref is A C in row 0"),
        ("n_obs", lambda v: [[0] * len(v[0]), *v[1:]], "genotype counts|U is"),
        ("alt_frequency", lambda v: [[-0.1] * len(v[0]), *v[1:]], "alt_frequency is"),
    ],
)
def test_42_variants(bundle, name, value, match):
    change_column(bundle, "variants.parquet", name, value)
    refuse(bundle, match)


def test_42_ref_equals_alt(bundle):
    ref = pq.read_table(bundle / "variants.parquet").column("ref").to_pylist()
    change_column(bundle, "variants.parquet", "alt", lambda v: ref)
    refuse(bundle, "alt is .* expected another allele than ref")


def test_42_scores_of_people_without_a_call(bundle):
    none = lambda v: [[0] * len(v[0]), *v[1:]]  # noqa: E731
    for name in ("n_obs", "n_ref", "n_het", "n_alt"):
        change_column(bundle, "variants.parquet", name, none)
    refuse(bundle, "U is .* in row 0; expected 0, as V, for a trait none of whose samples has a call")


@pytest.mark.parametrize(
    ("shift", "cause"), [(1_000_000, "positions do not agree: another genome build"), (0, "with other alleles")]
)
def test_42_a_study_that_matches_nothing_stops_meta_with_its_cause(runs, bundle, tmp_path, shift, cause):
    change_column(bundle, "variants.parquet", "position", lambda v: [x + shift for x in v])
    if not shift:
        change_column(bundle, "variants.parquet", "alt", lambda v: ["GATTACAGATTACA" + x for x in v])
    studies, config = [runs / "a" / "bundle", bundle], runs / "data" / "consortium.yaml"
    with pytest.raises(BundleError, match=rf"has [02] of the .* listed variants .*{cause}.*--allow no-match"):
        run_meta_analysis(config, studies, tmp_path / "out", Resources(threads=1), "meta")
    with pytest.raises(ConfigError, match="--allow no-mach: no such check; did you mean 'no-match'"):
        run_meta_analysis(config, studies, tmp_path / "out", Resources(threads=1), "meta", allow=["no-mach"])

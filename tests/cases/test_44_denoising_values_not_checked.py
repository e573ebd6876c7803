"""Case 44: what `denoising` of study.json says is checked: no traceback, no endless loop."""

from __future__ import annotations

import pytest

from tests.cases.damage import change_json, refuse

DENOISING = {
    "number": 5,
    "list-of-numbers": [5],
    "no-chromosome": [{"use": "covariate"}],
    "text-slope": [{"chromosome": "1", "slope": "abc"}],
    "long-integer": [{"chromosome": "1", "slope": 10**400}],
    "huge-error": [{"chromosome": "1", "slope_se": 1e308}],
    "huge-slope": [{"chromosome": "1", "slope": 1.7e308}],
    "negative-error": [{"chromosome": "1", "slope_se": -1.0}],
    "r2-above-one": [{"chromosome": "1", "r2": 1.5}],
    "many": [{"chromosome": "1"}] * 2_000,
    "prefixed": [{"chromosome": "chr1"}],
}


@pytest.mark.parametrize("mode", DENOISING)
def test_44_denoising(bundle, mode):
    change_json(bundle, lambda i: [t.update(denoising=DENOISING[mode]) for t in i["traits"]])
    refuse(bundle, r"study\.json")

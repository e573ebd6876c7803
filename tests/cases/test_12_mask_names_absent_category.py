"""A mask that names a category which nobody has is the mask without it, and a warning says so."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture(scope="module")
def case(open_case):
    return open_case("12-mask-names-absent-category")


def test_masks__without_the_category(case, caplog):
    known, absent = (case.tests(case.run(name)).set_index("mask")["p"] for name in ("known", "absent"))
    np.testing.assert_allclose(known[["M1", "M2", "M3"]], [0.4588, 0.7166, 0.6446], rtol=1e-3)
    np.testing.assert_allclose(absent[["M1", "M2", "M3"]], known[["M1", "M2", "M3"]], rtol=1e-12)
    assert absent["M4"] == absent["M1"]
    assert "unknown mask category 'stop_gained' in unknown.masks line 4" in caplog.text

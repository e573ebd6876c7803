import inspect

import numpy as np
import pytest

from predictors.base import BlockStatistics, PredictorError, promised_r2, split_by_block
from predictors.registry import METHODS, find_method


def test_methods__take_what_they_say():
    assert set(METHODS) == {"ridge", "ldpred2-auto", "ldpred2-grid", "lassosum2"}
    for name, method in METHODS.items():
        assert find_method(name) is method
        parameters = inspect.signature(method.fit).parameters
        assert {"blocks", "h2", "map_function"} <= set(parameters)
        assert ("tune" in parameters) == method.needs_tuning
        assert ("seed" in parameters) == method.seeded


@pytest.mark.parametrize(
    ("name", "hint"), [("ldpred2-atuo", "did you mean 'ldpred2-auto'?"), ("zzz", "known: ridge, ldpred2-auto")]
)
def test_find_method__raises_on_unknown_name(name, hint):
    with pytest.raises(PredictorError, match="unknown predictor") as raised:
        find_method(name)
    assert hint in str(raised.value)


def test_block_statistics__raises_on_shapes():
    with pytest.raises(PredictorError, match=r"block of 3 effects has n of shape \(2,\)"):
        BlockStatistics(np.ones(3), np.ones(2), np.eye(3))


def test_split_by_block__and_promised_r2():
    R = np.array([[1.0, 0.5], [0.5, 1.0]])
    blocks = [BlockStatistics(np.ones(2), np.ones(2), R), BlockStatistics(np.ones(1), np.ones(1), np.eye(1))]
    weights = split_by_block(blocks, np.array([0.1, 0.2, 0.3]))
    assert [w.tolist() for w in weights] == [[0.1, 0.2], [0.3]]
    assert promised_r2(blocks, weights) == pytest.approx(0.01 + 0.04 + 2 * 0.5 * 0.02 + 0.09)
    with pytest.raises(PredictorError, match=r"weights of shape \(2,\) for blocks of 3 variants"):
        split_by_block(blocks, np.ones(2))

import inspect
from pathlib import Path
from typing import get_type_hints

import msgspec
import numpy as np
import pytest

from locomass_predictors.base import BlockStatistics, PredictorError, PredictorFit, score_variance, split_by_block
from locomass_predictors.method import Method, Need, Options, Source
from locomass_predictors.registry import METHODS, find_method, methods_from, read_options
from locomass_predictors.ridge import Ridge


def test_methods__are_named_once_and_take_what_they_say():
    for name, method in METHODS.items():
        assert find_method(name) is method
        assert method.name == name
        assert method.help
        assert (method.fit is not None) == (method.source in (Source.SUMMARY, Source.COHORT))
        for name, hint in get_type_hints(method.options, include_extras=True).items():
            assert any(meta.description for meta in hint.__metadata__), (method.name, name)
    for method in methods_from(Source.SUMMARY).values():
        parameters = set(inspect.signature(method.fit).parameters) - {"blocks", "options", "map_function"}
        assert parameters == {need.value for need in method.needs - {Need.POSITIONS}}
        assert method.tags.quick is None or isinstance(method.tags.quick, method.options)


def test_fit_summary__gives_a_method_what_it_needs_and_no_more():
    seen = {}

    def fit(blocks, options, *, h2, map_function):
        seen.update(h2=h2)
        return PredictorFit([], None)

    method = Method(name="x", help="x", source=Source.SUMMARY, fit=fit, needs=frozenset({Need.H2}))
    method.fit_summary([], Options(), h2=0.2, seed=1, tune=None, map_function=map)
    assert seen == {"h2": 0.2}


def test_read_options__raises_on_unknown_names_and_values_out_of_range():
    assert read_options("ridge", {"shrink": 0.9}) == Ridge(shrink=0.9)
    with pytest.raises(PredictorError, match=r"ridge has no option 'shrnk'; did you mean 'shrink'\?"):
        read_options("ridge", {"shrnk": 0.9})
    with pytest.raises(PredictorError, match="loco has no option 'shrink'; loco takes no options"):
        read_options("loco", {"shrink": 0.9})
    with pytest.raises(msgspec.ValidationError, match=r"<= 1.0 - at `\$.shrink`"):
        read_options("ridge", {"shrink": 2.0})


@pytest.mark.parametrize(
    ("name", "hint"), [("ldpred2-atuo", "did you mean 'ldpred2-auto'?"), ("zzz", "known: none, ridge, ldpred2-auto")]
)
def test_find_method__raises_on_unknown_name(name, hint):
    with pytest.raises(PredictorError, match="unknown predictor") as raised:
        find_method(name)
    assert hint in str(raised.value)


def test_block_statistics__raises_on_shapes():
    with pytest.raises(PredictorError, match=r"block of 3 effects has n of shape \(2,\)"):
        BlockStatistics(np.ones(3), np.ones(2), np.eye(3))
    with pytest.raises(PredictorError, match=r"positions of shape \(2,\)"):
        BlockStatistics(np.ones(3), np.ones(3), np.eye(3), "1", np.arange(2))


def test_split_by_block__and_score_variance():
    R = np.array([[1.0, 0.5], [0.5, 1.0]])
    blocks = [BlockStatistics(np.ones(2), np.ones(2), R), BlockStatistics(np.ones(1), np.ones(1), np.eye(1))]
    weights = split_by_block(blocks, np.array([0.1, 0.2, 0.3]))
    assert [w.tolist() for w in weights] == [[0.1, 0.2], [0.3]]
    assert score_variance(blocks, weights) == pytest.approx(0.01 + 0.04 + 2 * 0.5 * 0.02 + 0.09)
    with pytest.raises(PredictorError, match=r"weights of shape \(2,\) for blocks of 3 variants"):
        split_by_block(blocks, np.ones(2))


def test_docs__list_the_options_of_every_method():
    page = (Path(__file__).parents[2] / "docs/predictors.md").read_text()
    for method in METHODS.values():
        options = ", ".join(f"`{name}`" for name in method.options.__struct_fields__)
        assert not options or f"| `{method.name}` | {options} |" in page

"""Predictors on real genotypes and real UK Biobank summary statistics (skipped where the shared data are absent)."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
from locomass.null_models.store import read_array
from tests.golden.cohorts import read_results, shared


def run(tmp_path: Path, upto: str, **predictor) -> Path:
    """Run the study with changed predictor keys."""
    data = shared("eur_array_ukb_sumstats")
    config = yaml.safe_load((data / "run.yaml").read_text())
    config["predictor"] |= predictor
    for path in data.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    return run_study(tmp_path / "config.yaml", tmp_path / "out", Resources(), upto).path


@pytest.mark.slow
@pytest.mark.parametrize(
    "predictor",
    [
        pytest.param({"method": "ridge"}, id="ridge"),
        pytest.param({"method": "block-ridge", "use": "offset"}, id="block-ridge"),
        pytest.param({"method": "lassosum2"}, id="lassosum2"),
        pytest.param({"method": "ldpred2-auto"}, id="ldpred2-auto"),
        pytest.param(
            {
                "method": "stack",
                "summary_statistics": {},
                "stack": [
                    {"method": "ridge", "summary_statistics": "bolt.sumstats.txt.gz", "n_samples": 337000},
                    {"method": "block-ridge"},
                ],
            },
            id="stack",
        ),
    ],
)
def test_method__runs_on_real_data(tmp_path, predictor):
    check_results(run(tmp_path, "meta", **predictor))


def check_results(out: Path) -> None:
    """Every gene test and every LOCO prediction is there."""
    results = read_results(out)
    assert set(results["trait"]) == {"y", "z"}
    assert np.isfinite(results["log10p"].to_numpy(float)).mean() > 0.9
    loco = read_array(out / "predict" / "loco_prediction.zarr", "loco_prediction")
    assert loco.sizes["chromosome"] == 22
    assert loco.sizes["sample"] == 489
    assert np.isfinite(loco.values).all()


def test_ridge__the_simulated_trait_is_predicted_and_noise_is_not(tmp_path):
    run(tmp_path, "predict", method="ridge")
    record = yaml.safe_load((tmp_path / "out/predict/record.json").read_text())["traits"]
    assert record["y"]["r2_observed"] > 0.05
    assert record["z"]["r2_observed"] < 0.02
    # 83 % of the rows that match name the alleles in the other order, and that is no error
    matched = record["y"]["matched"]
    assert 0.8 < matched["swapped"] / (matched["swapped"] + matched["same"]) < 0.86
    assert record["y"]["coverage"] == pytest.approx(1.0)

"""Studies of the golden cohorts, run once per test session and configuration."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from locomass.commands.meta import run_meta_analysis
from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
from tests.golden.cohorts import DATA


@pytest.fixture(scope="session")
def run_golden(tmp_path_factory) -> Callable[..., Path]:
    """Return a function that runs a golden cohort with changed keys, each configuration once."""
    done: dict[str, Path] = {}

    def run(cohort: str, **changes) -> Path:
        config = yaml.safe_load((DATA / f"{cohort}.yaml").read_text())
        config |= changes
        key = repr((cohort, sorted(changes.items(), key=str)))
        if key not in done:
            folder = tmp_path_factory.mktemp(cohort)
            for path in DATA.glob("*.*"):
                (folder / path.name).symlink_to(path)
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
            done[key] = run_study(folder / "config.yaml", folder / "out", Resources(), "meta").path
        return done[key]

    return run


@pytest.fixture(scope="session")
def run_golden_meta(tmp_path_factory) -> Callable[..., Path]:
    """Return a function that combines bundles of the golden cohorts with changed keys."""

    def run(bundles: list[Path], **changes) -> Path:
        config = yaml.safe_load((DATA / "consortium.yaml").read_text()) | changes
        folder = tmp_path_factory.mktemp("consortium")
        for name in ("sets.txt", "annotations.txt", "masks.txt"):
            shutil.copy(DATA / name, folder / name)
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        return run_meta_analysis(folder / "config.yaml", bundles, folder / "out", Resources(), "meta").path

    return run

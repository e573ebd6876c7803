"""Genuine files of other programs, skipped where ../shared/data is absent, and commands as a user gives them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import yaml
from click.testing import CliRunner

from locomass.cli import cli
from tests.golden.cohorts import shared

RAREMETAL = ("QT1.singlevar.score.txt.gz", "QT1.singlevar.cov.txt.gz")
RVTESTS = ("rvtests.MetaScore.assoc.gz", "rvtests.MetaCov.assoc.gz")


def peers() -> Path:
    return shared("peers")


def command(*words: object) -> str:
    """Give a command and return what it says; it must end well."""
    result = CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def import_pair(program: str, study: int, out: Path, sets: Path | None = None) -> str:
    """Import a study's score and covariance file of rvtests or RAREMETALWORKER."""
    folder, (score, cov) = {
        "raremetal": ("raremetalworker", RAREMETAL),
        "rvtests": ("rvtests", RVTESTS),
    }[program]
    files = [peers() / folder / f"STUDY{study}.{name}" for name in (score, cov)]
    sets = sets or peers() / "raremetalworker" / "group.file"
    options = ("--scores", files[0], "--covariance", files[1], "--sets", sets, "--trait", "QT1")
    return command("import", program, *options, "--study", f"STUDY{study}", "--out", out)


def combine(bundles: list[Path], folder: Path, **keys: object) -> Path:
    """Combine bundles with a configuration of these keys; return the folder of results."""
    config, out = folder / "meta.yaml", folder / "meta"
    config.write_text(yaml.safe_dump({"studies": [], **keys}))
    command("meta", config, *[word for b in bundles for word in ("--study", b)], "--out", out, "--quiet")
    return out


def gene_tests(out: Path) -> pd.DataFrame:
    return pd.read_parquet(out / "gene_tests.parquet")

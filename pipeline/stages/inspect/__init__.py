"""Find what is wrong with study bundles before they are combined: one at a time, and against each other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from pipeline.errors import BundleError
from pipeline.io.bundle_open import open_bundle, validate_bundle, verify_digests
from pipeline.stages.inspect.single import check_calibration, check_definite, check_scale, check_sexes
from pipeline.stages.inspect.studies import ERROR, NOTE, WARNING, Finding, load_studies
from pipeline.stages.inspect.together import (
    check_alleles,
    check_builds,
    check_duplicate,
    check_overlap,
    check_variances,
    check_x_coding,
)

__all__ = ["ERROR", "NOTE", "WARNING", "Finding", "inspect_bundles"]


def inspect_bundles(paths: Sequence[Path], scratch: Path | None = None) -> list[Finding]:
    """Check bundles, each alone and all together.

    Args:
        paths: directories, or .tar files.
        scratch: folder in which .tar files are unpacked.

    Returns:
        Findings, errors first; empty when nothing is wrong.
    """
    findings: list[Finding] = []
    bundles = []
    for path in paths:
        try:
            bundle = open_bundle(path, scratch)
            validate_bundle(bundle)
        except BundleError as error:
            findings.append(Finding(ERROR, str(path), "refused", str(error), "ask the study for an intact bundle"))
            continue
        bundles.append(bundle)
        if not verify_digests(bundle.path):
            fix = "changes on the way would not be seen; write it with this release"
            findings.append(Finding(NOTE, bundle.study, "the bundle is not signed", str(bundle.path), fix))
    studies = load_studies(bundles)
    for study in studies:
        findings += [
            *check_scale(study),
            *check_calibration(study),
            *check_definite(study.bundle),
            *check_sexes(study.bundle),
        ]
    findings += [*check_builds(bundles), *check_x_coding(bundles), *check_variances(studies), *check_alleles(studies)]
    for one, other in combinations(studies, 2):
        finding = check_duplicate(one, other) or check_overlap(one, other)
        findings += [finding] if finding else []
    order = {ERROR: 0, WARNING: 1, NOTE: 2}
    return sorted(findings, key=lambda f: order[f.severity])

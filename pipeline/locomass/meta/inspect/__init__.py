"""Find what is wrong with study bundles before they are combined: one at a time, and against each other."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import combinations
from pathlib import Path

from locomass.bundle.open import open_bundle, validate_bundle, verify_digests
from locomass.bundle.study import Bundle
from locomass.errors import BundleError, ConfigError, suggest
from locomass.meta.inspect.disclosure import check_disclosure
from locomass.meta.inspect.single import Definiteness, check_calibration, check_scale, check_sexes, check_sizes
from locomass.meta.inspect.studies import ERROR, NOTE, WARNING, Finding, load_studies
from locomass.meta.inspect.together import (
    check_alleles,
    check_builds,
    check_duplicate,
    check_overlap,
    check_trait_names,
    check_transforms,
    check_variances,
    check_x_coding,
)

__all__ = [
    "ERROR",
    "NOTE",
    "WARNING",
    "Finding",
    "disclosed_by",
    "inspect_bundles",
    "inspect_opened",
    "refuse_errors",
    "validate_and_inspect",
]

#: Checks whose errors `--allow` accepts
NAMES = (
    "genome-build",
    "inflation",
    "no-match",
    "not-definite",
    "same-people",
    "scale",
    "sexes",
    "sizes",
    "swapped-alleles",
    "traits",
    "x-coding",
)


def inspect_bundles(paths: Sequence[Path], scratch: Path | None = None) -> list[Finding]:
    """Check bundles, each alone and all together.

    Args:
        paths: directories, or .tar files.
        scratch: folder in which .tar files are unpacked.

    Returns:
        Findings, errors first; empty when nothing is wrong.
    """
    findings: list[Finding] = []
    bundles: list[Bundle] = []
    for path in paths:
        try:
            bundle = open_bundle(path, scratch)
            findings += validate_and_inspect(bundle)
        except BundleError as error:
            findings.append(Finding(ERROR, str(path), "refused", str(error), "ask the study for an intact bundle"))
            continue
        bundles.append(bundle)
        if not verify_digests(bundle.path):
            fix = "changes on the way would not be seen; write it with this release"
            findings.append(Finding(NOTE, bundle.study, "the bundle is not signed", str(bundle.path), fix, "unsigned"))
    return sort_findings([*findings, *inspect_opened(bundles)])


def disclosed_by(paths: Sequence[Path], min_cell: int, scratch: Path | None = None) -> list[Finding]:
    """Return what bundles give away of fewer than ``min_cell`` people, or a certificate for each that gives nothing.

    Raises:
        BundleError: a bundle is damaged or unsafe.
    """
    bundles = [open_bundle(path, scratch) for path in paths]
    for bundle in bundles:
        validate_bundle(bundle)
    return sort_findings([finding for bundle in bundles for finding in check_disclosure(bundle, min_cell)])


def validate_and_inspect(bundle: Bundle) -> list[Finding]:
    """Validate a bundle and return what is wrong with its gene matrices, which are read once for both.

    Raises:
        BundleError: see `validate_bundle`.
    """
    definite = Definiteness(bundle)
    validate_bundle(bundle, definite.see)
    return list(definite.findings())


def inspect_opened(bundles: Sequence[Bundle]) -> list[Finding]:
    """Return what is wrong with bundles that `validate_and_inspect` saw, each alone and all together."""
    findings: list[Finding] = []
    studies = load_studies(bundles)
    for study in studies:
        findings += [
            *check_scale(study),
            *check_calibration(study),
            *check_sizes(study),
            *check_sexes(study.bundle),
        ]
    findings += [*check_builds(bundles), *check_x_coding(bundles), *check_trait_names(bundles)]
    findings += check_transforms(bundles)
    findings += [*check_variances(studies), *check_alleles(studies)]
    for one, other in combinations(studies, 2):
        finding = check_duplicate(one, other) or check_overlap(one, other)
        findings += [finding] if finding else []
    return sort_findings(findings)


def sort_findings(findings: Sequence[Finding]) -> list[Finding]:
    """Return findings, errors first."""
    order = {ERROR: 0, WARNING: 1, NOTE: 2}
    return sorted(findings, key=lambda f: order[f.severity])


def refuse_errors(findings: Sequence[Finding], allowed: Collection[str]) -> None:
    """Raise where an error was found that nobody allowed.

    Args:
        findings: of `inspect_opened`.
        allowed: names of checks whose errors are known, and accepted.

    Raises:
        BundleError: names each error, its fix, and how to go on all the same.
        ConfigError: an allowed name is that of no check.
    """
    unknown = sorted(set(allowed) - set(NAMES))
    if unknown:
        raise ConfigError(f"--allow {unknown[0]}: no such check{suggest(unknown[0], NAMES)}")
    errors = [f for f in findings if f.severity == ERROR and f.name not in allowed]
    if errors:
        names = " ".join(f"--allow {name}" for name in dict.fromkeys(f.name for f in errors))
        told = "; ".join(f"{f.study}: {f.what} [{f.where}]; {f.fix}" for f in errors)
        raise BundleError(f"{told}; where this is known and accepted: {names}")

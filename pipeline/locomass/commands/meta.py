"""A meta-analysis: bundles found, checked, combined and tested, under the lock of the output directory."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import msgspec

from locomass.bundle.open import open_bundle, validate_bundle
from locomass.bundle.study import Bundle
from locomass.commands.outcome import Outcome, Resources, announce, find_finished, open_output, record_run
from locomass.commands.tested_genes import TestedGenes, check_columns, check_named_tests, run_tests
from locomass.config import MetaConfig, load_config
from locomass.errors import BundleError, ConfigError
from locomass.files.atomic import PARTIAL
from locomass.meta.groups import assign_groups
from locomass.meta.inspect import (
    ERROR,
    WARNING,
    Finding,
    inspect_opened,
    refuse_errors,
    sort_findings,
    validate_and_inspect,
)
from locomass.meta.inspect.listed import check_listed
from locomass.meta.tasks import check_genes
from locomass.run.directory import RunDirectory
from locomass.run.inputs import gene_files
from locomass.run.provenance import write_json
from locomass.schema import INSPECTION
from locomass.tables.catalogue import open_catalogue

log = logging.getLogger("locomass")


def run_meta_analysis(
    config_path: Path,
    studies: Sequence[Path],
    out: Path | None,
    resources: Resources,
    upto: str = "report",
    allow: Collection[str] = (),
) -> Outcome:
    """Combine study bundles.

    Args:
        config_path: the configuration file.
        studies: bundles; they replace the configuration's list when any is given.
        out: output directory; the configuration's ``output`` when None.
        resources: workers, threads, progress.
        upto: ``meta`` or ``report``.
        allow: names of checks whose errors are known, and accepted (see `locomass.meta.inspect`).
    """
    started = time.time()
    config = load_config(config_path, MetaConfig)
    check_named_tests(config, config_path)
    folder = config_path.resolve().parent
    bundles = name_bundles(config, config_path, studies)
    directory = RunDirectory(out or Path(config.output))
    with open_output(directory), unpacked_below(directory.path) as scratch:
        options = [msgspec.to_builtins(config), sorted(allow)]
        digest = directory.run_digest(options, [*bundles, *gene_files(config, folder)])
        finished = find_finished(directory, digest, upto)
        if finished is not None:
            return finished
        directory.start_reading()
        opened, genes, findings = open_consortium(config, config_path, bundles, scratch)
        refuse_errors(findings, allow)
        tell_findings(findings)
        write_json(directory.path / INSPECTION, [asdict(finding) for finding in findings])
        paths = [bundle.path for bundle in opened]
        with resources.open() as executor:
            announce(executor, config_path, directory.path)
            failed = run_tests(
                directory, paths, genes, config.tests, executor, resources.progress, with_report=upto == "report"
            )
        record_run(directory, config, started)
        directory.finish_run(digest, failed)
    return Outcome(directory.path, failed)


def name_bundles(config: MetaConfig, config_path: Path, studies: Sequence[Path] = ()) -> list[Path]:
    """Return the bundles to combine: those given, or those of the configuration.

    Raises:
        ConfigError: there are none.
    """
    folder = config_path.resolve().parent
    bundles = list(studies) or [find_bundle(name, folder, config_path) for name in config.studies]
    if not bundles:
        raise ConfigError(f"{config_path}: key studies: no study bundle is named; list them, or give --study")
    return bundles


def open_consortium(
    config: MetaConfig, config_path: Path, paths: Sequence[Path], scratch: Path
) -> tuple[list[Bundle], TestedGenes, list[Finding]]:
    """Open everything that a meta-analysis reads, and check it before the first gene.

    Returns:
        The bundles, what is tested, and what `locomass inspect` would say of them; errors first.

    Raises:
        BundleError: a bundle is damaged, unsafe or given twice.
        ConfigError: groups, weights or genes that do not fit.
    """
    of_genes: list[Finding] = []
    bundles = check_bundles(paths, scratch, validate=lambda bundle: of_genes.extend(validate_and_inspect(bundle)))
    try:
        groups = assign_groups(config.groups, [bundle.study for bundle in bundles])
    except ConfigError as error:
        raise ConfigError(f"{config_path}, {error}") from None
    folder = config_path.resolve().parent
    catalogue = open_catalogue(config.genes, folder)
    check_columns(catalogue, config)
    check_genes(catalogue, bundles)
    findings = sort_findings([*of_genes, *inspect_opened(bundles), *check_listed(bundles, catalogue)])
    return bundles, TestedGenes(catalogue, config.tests, config.maf, folder, groups), findings


def tell_findings(findings: Sequence[Finding]) -> None:
    """Log what was found: errors that were allowed, and warnings."""
    for finding in findings:
        if finding.severity == ERROR:
            log.warning("allowed by --allow %s: %s", finding.name, finding)
        elif finding.severity == WARNING:
            log.warning("%s", finding)


@contextmanager
def unpacked_below(out: Path) -> Iterator[Path]:
    """Give a folder in which .tar files are unpacked; what a killed run left of it goes at the next start."""
    with tempfile.TemporaryDirectory(prefix=".unpacked-", suffix=PARTIAL, dir=out) as folder:
        yield Path(folder)


def find_bundle(name: str, folder: Path, config_path: Path) -> Path:
    """Return a bundle named in a configuration: beside the file, or else below the working directory.

    Raises:
        BundleError: it is in neither place.
    """
    places = [folder / name, Path(name)]
    for place in places:
        if (place / "study.json").exists() or (place.is_file() and place.suffix == ".tar"):
            return place
    raise BundleError(
        f"{config_path}: no study bundle {name}: looked for {' and '.join(f'{p}/study.json' for p in places)}; "
        f"run the study first (locomass run STUDY.yaml --out {Path(name).parent}), or give --study"
    )


def check_bundles(
    paths: Sequence[Path], scratch: Path | None = None, validate: Callable[[Bundle], None] = validate_bundle
) -> list[Bundle]:
    """Open bundles, which may come from strangers, and check that they can be combined.

    Args:
        paths: bundle folders, or .tar files of them.
        scratch: where .tar files are unpacked.
        validate: what validates each.

    Raises:
        BundleError: a bundle is damaged or unsafe, or a study is given twice.
    """
    bundles = [open_bundle(path, scratch) for path in paths]
    for bundle in bundles:
        validate(bundle)
    for path in (path for path in paths if path.is_symlink()):
        log.info("%s is a link: %s is read", path, path.resolve())
    seen: dict[str, Path] = {}
    for bundle in bundles:
        if bundle.study in seen:
            raise BundleError(
                f"study '{bundle.study}' is given twice: {seen[bundle.study]} and {bundle.path}; give each study once"
            )
        seen[bundle.study] = bundle.path
    return bundles

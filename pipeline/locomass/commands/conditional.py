"""Gene tests given index variants, from study bundles."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from locomass.commands.meta import name_bundles, open_consortium, unpacked_below
from locomass.commands.outcome import Resources
from locomass.commands.report import rewrite_report
from locomass.commands.tested_genes import check_named_tests
from locomass.config import MetaConfig, load_config
from locomass.errors import InputError
from locomass.meta.inspect import refuse_errors
from locomass.run.directory import RunDirectory
from locomass.run.inputs import gene_files

ONE_THREAD = Resources(threads=1)


def run_conditional_analysis(
    config_path: Path,
    studies: Sequence[Path],
    index: Sequence[str] | Literal["auto"],
    max_p: float,
    out: Path | None,
    resources: Resources = ONE_THREAD,
    *,
    allow: Collection[str] = (),
) -> Path:
    """Test genes given index variants, from study bundles; return the table's path.

    Args:
        config_path: configuration as for `run_meta_analysis`.
        studies: bundles; they replace the configuration's list when any is given.
        index: index variants as chromosome:position:ref:alt, or ``auto`` for stepwise selection.
        max_p: p of entry for ``auto``.
        out: output directory; the configuration's ``output`` when None.
        resources: workers, threads, progress.
        allow: names of checks whose errors are known, and accepted.
    """
    from locomass.meta.conditional import run_conditional

    config = load_config(config_path, MetaConfig)
    check_named_tests(config, config_path)
    bundles = name_bundles(config, config_path, studies)
    directory = RunDirectory(out or Path(config.output))
    with directory.lock(), unpacked_below(directory.path) as scratch:
        directory.note_inputs([*bundles, *gene_files(config, config_path.resolve().parent)])
        opened, genes, findings = open_consortium(config, config_path, bundles, scratch)
        refuse_errors(findings, allow)
        with resources.open() as executor, resources.progress("conditional tests", None) as done:
            table = run_conditional(
                [bundle.path for bundle in opened],
                genes.catalogue,
                config.tests,
                index,
                directory.path,
                genes.policy,
                max_p,
                external=genes.external,
                singleton=genes.singleton,
                studies=genes.groups,
                executor=executor,
                done=done,
            )
        try:
            directory.verify_inputs()
        except InputError:
            table.unlink()
            raise
    if (directory.path / "gene_tests.parquet").exists() and (directory.path / "provenance.json").exists():
        rewrite_report(directory.path)
    return table

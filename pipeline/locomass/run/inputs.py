"""Every file that a configuration names: what a run depends on, known before anything is opened."""

from __future__ import annotations

from pathlib import Path

from locomass.config import ExternalMaf, Genes, MetaConfig, Predictor, RunConfig
from locomass.genotypes.fileset import fileset_files
from locomass.tables.loco import read_prediction_list
from locomass.tables.summary_statistics import find_metadata


def study_files(config: RunConfig, folder: Path) -> list[Path]:
    """Return every input file of a study, filesets file by file.

    Args:
        config: the configuration.
        folder: what its paths are relative to.

    Raises:
        InputError: a fileset has no file, or a list of predictions is damaged.
    """
    tables = [config.phenotypes.file, config.keep_samples, config.remove_samples]
    tables += [config.covariates.file] if config.covariates else []
    files = [*fileset_files(folder / config.genotypes), *(folder / name for name in tables if name)]
    return sorted({*files, *gene_files(config, folder), *predictor_files(config.predictor, folder)})


def gene_files(config: RunConfig | MetaConfig, folder: Path) -> list[Path]:
    """Return the files that say what is tested: genes, annotations, masks, pathways, external frequencies."""
    g: Genes = config.genes
    names = [g.sets, g.annotations, g.masks, g.groups, g.regions, g.pathways]
    names += [config.maf.external] if isinstance(config.maf, ExternalMaf) else []
    return [folder / name for name in names if name]


def predictor_files(p: Predictor, folder: Path) -> list[Path]:
    """Return every file that the predictor section names, metadata beside summary statistics included."""
    files: list[Path] = []
    for name in {x for x in (p.genotypes, p.ld_reference) if x}:
        # a folder is published LD
        files += [folder / name] if (folder / name).is_dir() else fileset_files(folder / name)
    for table in (p.summary_statistics, p.loco, p.weights):
        files += [folder / x for x in ([table] if isinstance(table, str) else table.values()) if x]
    statistics = p.summary_statistics
    for x in [statistics] if isinstance(statistics, str) else statistics.values():
        files += [found for found in [find_metadata(folder / x)] if found]
    files += [folder / name for name in (p.chain_file, p.gwas_samples) if name]
    if isinstance(p.loco, str) and p.loco:
        files += list(read_prediction_list(folder / p.loco).values())
    for part in p.stack:
        files += predictor_files(part, folder)
    return sorted(set(files))

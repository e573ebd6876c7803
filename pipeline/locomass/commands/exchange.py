"""Other programs' score statistics in, and ours out in their formats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from locomass.bundle.exchange.common import ImportRequest, find_trait
from locomass.bundle.exchange.expected import check_expected
from locomass.bundle.exchange.regenie import write_regenie
from locomass.bundle.exchange.registry import find_format
from locomass.bundle.open import open_bundle
from locomass.bundle.write import write_trait_bundle
from locomass.tables.summary_statistics import normalise_build


def import_study(
    format_name: str, requests: Sequence[ImportRequest], out: Path, *, study: str, genome_build: str | None = None
) -> list[str]:
    """Write a study bundle from another program's files, one request per trait; return what matched and what not.

    V is stored as it is (p = 0, sigma2 = 1), so that the bundle combines with any other.

    Raises:
        InputError, FormatError, MatchError: see the format's reader.
    """
    reader = find_format(format_name).read
    assert reader is not None
    traits = [reader(request) for request in requests]
    for trait, request in zip(traits, requests, strict=True):
        if request.expected is not None:
            trait.notes.extend(check_expected(trait, request.expected))
    build = None if genome_build is None else normalise_build(genome_build)
    write_trait_bundle(out, traits, study=study, genome_build=build)
    return [f"{t.trait}: {note}" for t in traits for note in t.notes]


def export_study(format_name: str, bundle: Path, out: Path, *, trait: str | None = None) -> list[Path]:
    """Write one trait of a bundle in another program's format; return the files.

    Args:
        format_name: one of the formats that are written.
        bundle: a bundle directory.
        out: file, or prefix of the files, to write.
        trait: may be left out when the bundle has one.

    Raises:
        BundleError: the bundle is damaged.
        InputError: no such format, or several traits.
    """
    writer = find_format(format_name, writes=True).write
    assert writer is not None
    opened = open_bundle(bundle)
    return writer(opened, find_trait(opened, trait), out)


def export_results(results: Path, out: Path, *, trait: str | None = None, weights: str | None = None) -> list[Path]:
    """Write the gene tests of a results directory as REGENIE step 2 does; return the file."""
    return write_regenie(results / "gene_tests.parquet", out, trait=trait, weights=weights)

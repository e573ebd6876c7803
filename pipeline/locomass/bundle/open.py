"""Open a study bundle that somebody else wrote: a directory, or a plain .tar unpacked into a folder of the caller's.

Of a tar, only the files of a bundle are written, by name, as ordinary files: no path that leaves the folder, no link,
no device, no compressed tar (Parquet is compressed already; a compressed tar may hide any size).
"""

from __future__ import annotations

import json
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from locomass.bundle.check import check_complete, check_genes, list_values
from locomass.bundle.check_optional import CHECKS, Context
from locomass.bundle.study import Bundle, StudyGene
from locomass.bundle.tables import MAX_FILE_BYTES, MAX_JSON_BYTES, check_file, read_bundle_table
from locomass.bundle.write import DIGESTS, bundle_files
from locomass.errors import BundleError
from locomass.files.parts import digest_content
from locomass.schema import BUNDLE_GENES, OPTIONAL_TABLES

MAX_PARTS = 20_000
PART = re.compile(r"(?:genes|laws|calibrated|collapsed|replicates)/[A-Za-z0-9_.-]{1,100}\.parquet")
BUNDLE_GENES_FOLDER = "genes"
DIGEST = re.compile(r"[0-9a-f]{32}")


def open_bundle(path: str | Path, scratch: Path | None = None) -> Bundle:
    """Open a bundle after checking its files, study.json, variants.parquet and, where it is signed, its digests.

    A link to a bundle, which the caller names, is followed once: what is read is what was checked, also when the link
    moves on meanwhile. Within a bundle there are no links. The matrices of genes are checked by `validate_bundle`, or
    file by file as they are read.

    >>> study = locomass.open_bundle("results/cohort_a/bundle")
    >>> study.study, sorted(study.traits)
    ('cohort_a', ['cc', 'y'])

    Args:
        path: a directory, or a .tar of one.
        scratch: folder in which a .tar is unpacked (into a new subfolder, which the caller removes).

    Raises:
        BundleError: says which file, and why it is refused.
    """
    path = Path(path)
    if path.exists():
        path = path.resolve()
    if path.is_file():
        if scratch is None:
            raise BundleError(f"{path} is a file; unpack it first (tar -xf), or give a folder to unpack it in")
        path = unpack_tar(path, scratch)
    check_tree(path)
    bundle = Bundle(path)
    verify_digests(path)
    bundle.variant_file.check()
    return bundle


def check_tree(path: Path) -> None:
    """Check that a directory holds the files of a bundle, none of them a link.

    Raises:
        BundleError: a file is missing, a link, oversized, or there are too many.
    """
    if not path.is_dir():
        raise BundleError(f"{path}: no such bundle; give the folder that holds study.json")
    if not (path / "study.json").exists() and not (path / "genes").exists():
        raise BundleError(
            f"{path} is not a study bundle: it has no study.json; give the `bundle` folder that `locomass run` left"
        )
    if (path / "genes").is_symlink() or not (path / "genes").is_dir():
        raise BundleError(f"{path}/genes is no ordinary folder; the bundle is incomplete")
    for name in (table.name for table in OPTIONAL_TABLES):
        if (path / name).is_symlink():
            raise BundleError(f"{path}/{name} is a link; a bundle has no links")
    names = bundle_files(path)
    if len(names) > MAX_PARTS:
        raise BundleError(f"{path}/genes has {len(names):,} files; the most accepted is {MAX_PARTS:,}")
    for name in names:
        if "/" in name and not PART.fullmatch(name):
            raise BundleError(f"{path}: {name[:100]!r} is no name of a bundle's file")
        check_file(path / name, MAX_FILE_BYTES)


def verify_digests(path: Path) -> bool:
    """Compare the files of a bundle with digests.json; return False where the bundle is not signed.

    Raises:
        BundleError: a file was changed, added or removed after signing, or digests.json is malformed.
    """
    file = path / DIGESTS
    if not file.exists() and not file.is_symlink():
        return False
    check_file(file, MAX_JSON_BYTES)
    try:
        digests = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{file} is not valid JSON: {error}") from None
    if not isinstance(digests, dict) or not all(isinstance(d, str) and DIGEST.fullmatch(d) for d in digests.values()):
        raise BundleError(f"{file}: expected file names with their 32-digit digests")
    names = set(bundle_files(path))
    if names != set(digests):
        odd = sorted(names ^ set(digests))[0]
        what = "is signed but absent" if odd in digests else "is not among the signed files"
        raise BundleError(f"{path}: {odd[:100]} {what}; ask the study for the bundle again")
    for name in sorted(names):
        if digest_content(path / name) != digests[name]:
            raise BundleError(
                f"{path}/{name} differs from its digest in {DIGESTS}: damaged or changed; ask for it again"
            )
    return True


def validate_bundle(bundle: Bundle, visit: Callable[[dict[str, StudyGene]], None] | None = None) -> None:
    """Check everything that a bundle holds, gene matrices included; memory is bounded by one file of genes/.

    Args:
        bundle: of `open_bundle`.
        visit: called with the genes of each file of genes/ once they passed, so that nobody has to read them again.

    Raises:
        BundleError: says which file, and what is wrong.
    """
    info, variants = bundle.info, bundle.variant_file
    variants.check()
    where: dict[str, str] = {}
    seen: dict[str, set[Any]] = {table.name: set() for table in OPTIONAL_TABLES}
    names = [name.split("/") for name in bundle_files(bundle.path) if "/" in name]
    genes_parts = {part for folder, part in names if folder == BUNDLE_GENES_FOLDER}
    for folder, part in names:
        if part not in genes_parts:
            raise BundleError(f"{bundle.path}: {folder}/{part} has no genes/{part} beside it")
    for part in sorted(genes_parts):
        path = bundle.path / BUNDLE_GENES_FOLDER / part
        table = read_bundle_table(path, BUNDLE_GENES)
        check_genes(table, info, variants, path)
        check_complete(table, info, path)
        for gene in dict.fromkeys(table.column("gene").to_pylist()):
            if where.setdefault(gene, part) != part:
                raise BundleError(f"{bundle.path}: gene '{gene[:40]}' is in genes/{where[gene]} and in genes/{part}")
        members = dict(zip(*_gene_rows(table), strict=True))
        for schema in OPTIONAL_TABLES:
            other = bundle.path / schema.name / part
            if other.exists():
                context = Context(info, variants, members, seen[schema.name])
                CHECKS[schema.name](read_bundle_table(other, schema), context, other)
        if visit is not None:
            visit(bundle.decode(table))


def _gene_rows(table: pa.Table) -> tuple[list[str], list[NDArray[np.int64]]]:
    """Return the genes of a part of genes/, and their rows of variants.parquet."""
    flat, length = list_values(table, "variant")
    rows = np.split(flat.astype(np.int64), np.cumsum(length)[:-1])
    return table.column("gene").to_pylist(), rows[: table.num_rows]  # numpy makes one piece of none


def unpack_tar(path: Path, scratch: Path) -> Path:
    """Write the files of a bundle from a plain tar into a new folder below ``scratch``; return the folder.

    Raises:
        BundleError: compressed or damaged; a member that is a link or device, absolute, above the folder or no file of
            a bundle, there twice, too large, or one of too many. What was written is removed.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bundle-", dir=scratch))
    try:
        _unpack(path, folder)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, tarfile.TarError | OSError | ValueError | OverflowError | EOFError):
            raise BundleError(
                f"{path} is no plain tar, or is damaged: {error}; send bundles as uncompressed .tar"
            ) from None
        raise
    return folder


def _unpack(path: Path, folder: Path) -> None:
    """Write the members of a tar that make a bundle."""
    roots, total, written = set[str](), 0, set[str]()
    free = shutil.disk_usage(folder).free
    (folder / "genes").mkdir()
    with tarfile.open(path, "r:") as tar:
        for count, member in enumerate(tar, 1):
            if count > MAX_PARTS:
                raise BundleError(f"{path}: more than {MAX_PARTS:,} members")
            name = _safe_name(member, path)
            if member.isdir():
                continue
            root, name = _split_root(name, path)
            roots.add(root)
            total += member.size
            limit = MAX_JSON_BYTES if name.endswith(".json") else MAX_FILE_BYTES
            if member.size > limit or total > free:
                raise BundleError(f"{path}: member {name} of {member.size:,} bytes is more than may be unpacked here")
            if name.casefold() in written or len(roots) > 1:
                raise BundleError(f"{path}: {name} is listed twice (capitals aside), or in two folders")
            written.add(name.casefold())
            (folder / name).parent.mkdir(exist_ok=True)
            _write_member(tar, member, folder / name, path)
    if "study.json" not in written:
        raise BundleError(f"{path}: no study.json in it; pack the bundle folder (tar -cf STUDY.tar FOLDER)")


def _safe_name(member: tarfile.TarInfo, path: Path) -> str:
    """Return the name of a member, relative and clean."""
    name = member.name
    shown = name[:100].encode("unicode_escape").decode()
    if member.issym() or member.islnk():
        raise BundleError(f"{path}: member {shown} is a link to {member.linkname[:100]!r}; a bundle has no links")
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise BundleError(f"{path}: member {shown} is no ordinary file (type {member.type!r})")
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or "\x00" in name:
        raise BundleError(f"{path}: member {shown} would be written outside the folder")
    return str(pure)


def _split_root(name: str, path: Path) -> tuple[str, str]:
    """Return the leading folder (or "") and the name of a bundle's file."""
    parts = PurePosixPath(name).parts
    for depth in (0, 1):
        rest = "/".join(parts[depth:])
        if rest in ("study.json", "variants.parquet", DIGESTS) or PART.fullmatch(rest):
            return "/".join(parts[:depth]), rest
    raise BundleError(f"{path}: member {name[:100]!r} is no file of a bundle")


def _write_member(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path, path: Path) -> None:
    """Copy one member."""
    source = tar.extractfile(member)
    assert source is not None
    with source, open(target, "xb") as handle:
        shutil.copyfileobj(source, handle)
        if handle.tell() != member.size:
            raise BundleError(f"{path}: member {member.name[:100]!r} is cut short")

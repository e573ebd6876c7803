"""Any score vector and information matrix as text, genetic or not.

scores: ``name U`` and, where there are any, ``set`` (gene; ``all`` without the column), ``n`` (samples; else --n) and
``frequency`` (0.5 without it: such a component is in the widest bin only). covariance: ``name_1 name_2 V`` (with
``set`` when the scores have it), one triangle or both, zeros may be left out. A name such as ``1:1000:A:G`` is that
variant; any other becomes position 1 of chromosome 1 with REF = N and ALT = <NAME>, upper-case, so that studies meet by
name.
"""

from __future__ import annotations

import re

import numpy as np

from locomass.bundle.exchange.common import WITHHELD, ImportRequest
from locomass.bundle.exchange.triplets import fill_matrix, group_rows, open_table, read_entries
from locomass.bundle.write import GeneStatistics, TraitStatistics
from locomass.errors import FormatError, InputError
from locomass.files.arrow import decode_strings
from locomass.variants.keys import parse_variant_keys

ALLOWED = re.compile(r"[^:,<>\s]+")  # a name must survive as a symbolic allele of a set list


def read_generic(request: ImportRequest) -> TraitStatistics:
    """Read a score vector and its information matrix.

    Raises:
        FormatError: a repeated or unusable name, a number that is not finite, a matrix that lacks a diagonal entry.
        InputError: the number of samples is nowhere.
    """
    path = request.scores
    block = open_table(path, ("name", "U"))
    columns = block.table.column_names
    has_sets = "set" in columns
    covariance = request.need("covariance", "the table `name_1 name_2 V`")
    entries = read_entries(covariance, ("name_1", "name_2", "V"), "set" if has_sets else None)
    names, U = decode_strings(block.table["name"]), block.numbers("U", missing=())
    sets = decode_strings(block.table["set"]) if has_sets else np.full(len(names), "", object)
    n = block.numbers("n") if "n" in columns else np.full(len(names), np.nan)
    frequency = block.numbers("frequency") if "frequency" in columns else np.full(len(names), 0.5)
    n = np.where(np.isfinite(n), n, np.nan if request.n_samples is None else request.n_samples)
    if np.isnan(n).any():
        raise InputError(f"{path}: no column n; give --n, the number of samples")
    for row in np.flatnonzero(~((frequency >= 0) & (frequency <= 1)))[:1]:
        raise FormatError("expected a frequency from 0 to 1", path=path, line=block.line(row), column="frequency")
    labels: dict[str, tuple[str, int, str, str]] = {}
    for row, name in enumerate(names.tolist()):
        labels[name] = _label(name)
        if not ALLOWED.fullmatch(labels[name][3].strip("<>")):
            raise FormatError(f"name '{name}' holds one of : , < >", path=path, line=block.line(row), column="name")
    known = list(labels)
    if len(set(labels.values())) < len(known):
        raise FormatError("two names differ in upper and lower case only", path=path)
    first = {name: int(row) for row, name in reversed(list(enumerate(names.tolist())))}
    rows = np.array([first[name] for name in known])
    place = {name: k for k, name in enumerate(known)}
    diagonal = np.zeros(len(known))
    genes = []
    for gene, members in group_rows(sets).items():
        if len(set(names[members])) < len(members):
            raise FormatError(f"a name is listed twice in set '{gene or 'all'}'", path=path)
        V = fill_matrix(entries, gene, names[members])
        variant = np.array([place[name] for name in names[members]], np.int64)
        diagonal[variant] = np.diag(V)
        places = [labels[name][1] for name in names[members]]
        where = labels[names[members[0]]][0]
        genes.append(GeneStatistics(gene or "all", where, min(places), max(places), variant, V))
    chromosome, position, ref, alt = (np.array([labels[name][k] for name in known], object) for k in range(4))
    withheld = np.full(len(known), WITHHELD)
    return TraitStatistics(
        trait=request.trait,
        kind=request.kind,
        n_samples=request.n_samples or int(n.max()),
        n_cases=request.n_cases,
        chromosome=chromosome,
        position=position.astype(np.int64),
        ref=ref,
        alt=alt,
        n_obs=n[rows].astype(np.int64),
        n_ref=withheld,
        n_het=withheld,
        n_alt=withheld,
        alt_frequency=frequency[rows],
        U=U[rows],
        V=diagonal,
        genes=genes,
        source="generic",
    )


def _label(name: str) -> tuple[str, int, str, str]:
    """Return chromosome, position, REF and ALT of a name."""
    parsed = parse_variant_keys([name])
    if not len(parsed.malformed):
        chromosome, position, ref, alt = parsed.key[0].split(":")
        return chromosome, int(position), ref, alt
    return "1", 1, "N", f"<{name.upper()}>"

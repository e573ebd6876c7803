"""The pages of the genes with the smallest p-values: all their tests, their variants, forest and drivers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from locomass.numbers import Floats
from locomass.report.embed import pack_codes, pack_column, shorten
from locomass.report.evidence import read_conditional, read_drivers, read_searches
from locomass.report.forests import Burden, pack_burden, read_burdens
from locomass.report.tables import Coded, GeneTests, encode_column, iterate_variants
from locomass.schema import CONDITIONAL, DRIVERS, MASK_VARIANTS, PERMUTATION_TESTS, SINGLE_VARIANTS
from locomass.tables.catalogue import ALL_VARIANTS
from locomass.tables.mask_variants import Membership, read_mask_variants

Codes = NDArray[np.int64]
Label = tuple[str, int, str, str]  # chromosome, position, ref, alt
MAX_GENES = 200
MAX_TRAITS = 6  # traits on a gene's page
MAX_VARIANTS = 300  # variants on a gene's page
ALL_MASKS = "all masks"  # of the omnibus, which has no burden
COLUMNS = (
    "chromosome",
    "position",
    "ref",
    "alt",
    "trait",
    "n_samples",
    "alt_frequency",
    "alt_count",
    "U",
    "V",
    "log10p",
)
NUMBERS = COLUMNS[5:]


@dataclass(frozen=True)
class Panel:
    """One gene's page: the gene, its rows of gene_tests, the traits it shows (codes, smallest p-value first)."""

    gene: str
    chromosome: str
    start: int
    end: int
    rows: Codes
    traits: Codes


def choose_panels(tests: GeneTests) -> list[Panel]:
    """Return the genes with the smallest p-values, and of each the traits with the smallest p-values."""
    gene, trait = tests.label["gene"], tests.label["trait"]
    value = np.nan_to_num(tests.log10p, nan=-1.0)
    best = np.full(len(gene.labels), -2.0)
    np.maximum.at(best, gene.codes, value)
    top = np.argsort(-best, kind="stable")[:MAX_GENES]
    top = top[best[top] > -2]
    order = np.argsort(gene.codes, kind="stable")
    bounds = np.searchsorted(gene.codes[order], np.arange(len(gene.labels) + 1))
    panels = []
    for code in top.tolist():
        rows = order[bounds[code] : bounds[code + 1]]
        ranked = rows[np.argsort(-value[rows], kind="stable")]
        traits = trait.codes[ranked][np.sort(np.unique(trait.codes[ranked], return_index=True)[1])][:MAX_TRAITS]
        first = rows[0]
        chromosome = tests.label["chromosome"]
        panels.append(
            Panel(
                gene.labels[code],
                chromosome.labels[chromosome.codes[first]],
                int(tests.number["start"][first]),
                int(tests.number["end"][first]),
                rows[np.isin(trait.codes[rows], traits)],
                traits,
            )
        )
    return panels


def make_panels(tests: GeneTests, results: Path, audit: pa.Table | None) -> dict[str, Any]:
    """Return what the gene pages show, by gene.

    Args:
        tests: the gene tests.
        results: folder of the tables single_variants, mask_variants, drivers, forests, leave_one_out,
            permutation_tests, conditional_tests.
        audit: mask_audit.tsv.
    """
    panels = choose_panels(tests)
    names, genes = tests.label["trait"].labels, {p.gene for p in panels}
    membership = read_mask_variants(results / MASK_VARIANTS.name, genes)
    annotated = membership if set(tests.label["mask"].labels) - {ALL_VARIANTS, ALL_MASKS, ""} else {}
    singles = _read_singles(
        results / SINGLE_VARIANTS.name, panels, membership, sorted({names[t] for p in panels for t in p.traits})
    )
    burdens = read_burdens(results, genes)
    audits = _audit_by_gene(audit, genes)
    drivers = read_drivers(results / DRIVERS.name, genes)
    conditional = read_conditional(results / CONDITIONAL.name, genes)
    searches = read_searches(results / PERMUTATION_TESTS.name, genes)
    return {
        p.gene: {
            "chromosome": p.chromosome,
            "start": p.start,
            "end": p.end,
            "traits": [names[t] for t in p.traits],
            "tests": _pack_tests(tests, p.rows),
            "audit": _choose_audit(audits.get(p.gene, []), names[p.traits[0]] if len(p.traits) else ""),
            "drivers": drivers.get(p.gene, []),
            "conditional": conditional.get(p.gene, []),
            "searches": searches.get(p.gene, []),
            **_variant_panel(
                p,
                [names[t] for t in p.traits],
                membership.get(p.gene),
                singles,
                burdens.get(p.gene, []),
                with_masks=p.gene in annotated,
            ),
        }
        for p in panels
    }


def _pack_tests(tests: GeneTests, rows: Codes) -> dict[str, Any]:
    """Return rows of gene_tests as packed columns."""
    codes = {"trait": "trait", "test": "row_test", "mask": "mask", "note": "note"}
    packed: dict[str, Any] = {
        name: pack_codes(tests.label[column].codes[rows], len(tests.label[column].labels))
        for name, column in codes.items()
    }
    packed["bin"] = pack_codes(tests.bin[rows], len(tests.bins))
    return packed | {n: pack_column(tests.number[n][rows], "f4") for n in ("log10p", "beta", "se", "n_variants", "mac")}


def _audit_by_gene(audit: pa.Table | None, genes: set[str]) -> dict[str, list[list[Any]]]:
    """Return the rows of mask_audit.tsv of some genes."""
    found: dict[str, list[list[Any]]] = {}
    if audit is None:
        return found
    at = [k for k, gene in enumerate(audit.column("gene").to_pylist()) if gene in genes]
    columns = [c for c in audit.column_names if c != "gene"]
    for row in audit.take(pa.array(at, pa.int64())).to_pylist():
        found.setdefault(row["gene"], []).append([row[c] for c in columns])
    return found


def _choose_audit(rows: list[list[Any]], trait: str) -> list[list[Any]]:
    """Return the audit of the samples that a trait is observed in: mask, bound, counts."""
    return [[*row[:2], *row[3:]] for row in rows if trait in row[2].split(",")]


@dataclass(frozen=True)
class _Singles:
    """Rows of single_variants near the genes shown.

    Attributes:
        variant: (v,) distinct variants.
        place: variant, alleles in alphabetical order -> index.
        index: (trait, variant index) of every row as one increasing number; row: which row that is.
        number: numeric columns.
    """

    variant: list[Label]
    place: dict[Label, int]
    traits: dict[str, int]
    index: Codes
    row: Codes
    number: dict[str, Floats]

    def find(self, trait: str, variants: Codes) -> tuple[Codes, Codes]:
        """Return the rows of a trait's variants, and which variants they are; those without a row are left out."""
        wanted = self.traits.get(trait, -1) * len(self.variant) + variants
        at = np.minimum(np.searchsorted(self.index, wanted), max(0, len(self.index) - 1))
        there = self.index[at] == wanted if len(self.index) else np.zeros(len(wanted), np.bool_)
        return self.row[at[there]], np.flatnonzero(there)


def _read_singles(path: Path, panels: Sequence[Panel], listed: dict[str, Membership], traits: list[str]) -> _Singles:
    """Read the single-variant rows between the ends of the genes shown."""
    low, high = _spans(panels, listed)
    parts = []
    for table in iterate_variants(path, COLUMNS, traits):
        position = table.column("position").to_numpy()
        at = np.searchsorted(low, position, side="right") - 1
        parts.append(table.filter(pa.array((at >= 0) & (position <= high[np.maximum(at, 0)]))))
    if not parts:
        return _Singles([], {}, {}, np.empty(0, np.int64), np.empty(0, np.int64), {n: np.empty(0) for n in NUMBERS})
    rows = pa.concat_tables(parts)
    text = {name: encode_column(rows.column(name)) for name in ("chromosome", "ref", "alt", "trait")}
    labels, variant = _number_variants(text, rows.column("position").to_numpy())
    place = {(c, p, min(a, b), max(a, b)): k for k, (c, p, a, b) in enumerate(labels)}
    index = text["trait"].codes * len(labels) + variant
    order = np.argsort(index, kind="stable")
    codes = {name: k for k, name in enumerate(text["trait"].labels)}
    number = {n: rows.column(n).to_numpy().astype(np.float64) for n in NUMBERS}
    return _Singles(labels, place, codes, index[order], order, number)


def _number_variants(text: dict[str, Coded], position: Codes) -> tuple[list[Label], Codes]:
    """Return the distinct variants of some rows, and which of them each row is."""
    alt, ref, chromosome = text["alt"], text["ref"], text["chromosome"]
    alleles, pair = np.unique(ref.codes * len(alt.labels) + alt.codes, return_inverse=True)
    key = (chromosome.codes * (1 << 32) + position) * max(1, len(alleles)) + pair
    _, first, variant = np.unique(key, return_index=True, return_inverse=True)
    labels = [
        (chromosome.labels[c], p, ref.labels[a], alt.labels[b])
        for c, p, a, b in zip(
            chromosome.codes[first].tolist(),
            position[first].tolist(),
            ref.codes[first].tolist(),
            alt.codes[first].tolist(),
            strict=True,
        )
    ]
    return labels, variant.astype(np.int64)


def _spans(panels: Sequence[Panel], listed: dict[str, Membership]) -> tuple[Codes, Codes]:
    """Return starts, increasing, and the furthest end up to each, of the stretches that the genes cover."""
    spans = []
    for panel in panels:
        positions = listed[panel.gene].position.tolist() if panel.gene in listed else []
        spans.append((min([panel.start, *positions]), max([panel.end, *positions])))
    low, high = np.array(sorted(spans), np.int64).reshape(-1, 2).T
    return (low, np.maximum.accumulate(high)) if len(low) else (np.zeros(1, np.int64), np.zeros(1, np.int64) - 1)


def _variant_panel(
    panel: Panel,
    traits: list[str],
    listed: Membership | None,
    singles: _Singles,
    burdens: Sequence[Burden],
    *,
    with_masks: bool,
) -> dict[str, Any]:
    """Return the variants of a gene, per trait, and its burdens, in the order of position.

    They are those that it lists, and of a region those between its ends.
    """
    if listed is None:
        own = [
            k
            for k, (c, position, _, _) in enumerate(singles.variant)
            if c == panel.chromosome and panel.start <= position <= panel.end
        ]
        places = np.array(own, np.int64)
    else:
        places = np.array([singles.place.get((panel.chromosome, *key), -1) for key in listed.place], np.int64)
    known = np.flatnonzero(places >= 0)
    by_trait = {t: singles.find(t, places[known]) for t in traits}
    kept = _strongest(len(places), known, by_trait, singles.number["log10p"])
    kept = kept[np.argsort([singles.variant[places[k]][1] for k in kept], kind="stable")]
    shown = {int(k): i for i, k in enumerate(kept)}
    labels = [singles.variant[places[k]] for k in kept]
    return {
        "n_variants": len(known),
        "position": [v[1] for v in labels],
        "ref": [shorten(v[2]) for v in labels],
        "alt": [shorten(v[3]) for v in labels],
        **_annotations(labels, listed if with_masks else None),
        "by_trait": [_trait_columns(*by_trait[t], known, shown, singles.number) for t in traits],
        "burdens": [pack_burden(b, traits, [_key(label) for label in labels]) for b in burdens if b.trait in traits],
    }


def _annotations(labels: Sequence[Label], membership: Membership | None) -> dict[str, list[str]]:
    """Return category and masks of the variants shown; nothing where no mask but that of all variants was tested."""
    if membership is None:
        return {"category": [], "masks": []}
    known = dict(zip(membership.place, zip(membership.category, membership.masks, strict=True), strict=True))
    found = [known.get(_key(label), ("", ())) for label in labels]
    return {"category": [category for category, _ in found], "masks": [", ".join(masks) for _, masks in found]}


def _key(label: Label) -> tuple[int, str, str]:
    """Return position and alleles in alphabetical order."""
    return (label[1], min(label[2], label[3]), max(label[2], label[3]))


def _strongest(n: int, known: Codes, by_trait: dict[str, tuple[Codes, Codes]], log10p: Floats) -> Codes:
    """Return the variants to show: those with the smallest p-value in any of the traits."""
    best = np.full(n, -1.0)
    for rows, which in by_trait.values():
        np.maximum.at(best, known[which], np.nan_to_num(log10p[rows], nan=0.0))
    chosen = np.argsort(-best, kind="stable")[:MAX_VARIANTS]
    return np.sort(chosen[best[chosen] >= 0])


def _trait_columns(
    rows: Codes, which: Codes, known: Codes, shown: dict[int, int], number: dict[str, Floats]
) -> dict[str, Any]:
    """Return one trait's columns of a gene's variants, packed; ``variant`` is the place in the list shown."""
    place = np.array([shown.get(int(k), -1) for k in known[which]], np.int64)
    keep = np.flatnonzero(place >= 0)
    keep = keep[np.argsort(place[keep], kind="stable")]
    packed = {name: pack_column(number[name][rows[keep]], "f4") for name in NUMBERS}
    return {"variant": pack_column(place[keep], "u2"), **packed}

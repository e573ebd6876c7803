"""Every join of variants against a slow definition: two filesets with random orientations, indels, multi-allelic sites,
unseen alleles and duplicates."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locomass.bundle.exchange.common import find_variants
from locomass.bundle.study import Bundle
from locomass.bundle.write import TraitStatistics, write_trait_bundle
from locomass.errors import MatchError
from locomass.meta.inspect.listed import _hash
from locomass.meta.inspect.studies import load_studies
from locomass.meta.tasks import GeneRequest
from locomass.meta.unite import unite_gene
from locomass.variants.identity import canonical_alleles, number_places, variant_keys
from locomass.variants.match import match_variants
from locomass_predictors.base import PredictorError
from locomass_predictors.harmonise import VariantTable, harmonise
from tests import reference_variants as slow

POSITIONS = (100, 200, 300)
BASE = {100: "A", 200: "G", 300: "T"}
EXAMPLES = settings(max_examples=60, deadline=None)


def variants_of(position: int) -> list[tuple[int, str, str]]:
    """Substitutions, insertions and deletions that a genome can have at a place."""
    b = BASE[position]
    others = [(b, x) for x in "ACGT" if x != b] + [(b + "C", x + "C") for x in "ACGT" if x != b][:1]
    return [
        (position, r, a) for r, a in [*others, (b, b + "A"), (b + "A", b), (b, b + "AA"), (b + "AA", b), (b + "C", b)]
    ]


SITES = [v for p in POSITIONS for v in variants_of(p)]
lists = st.lists(st.sampled_from(SITES), min_size=1, max_size=12, unique=True)
bits = st.integers(0, 2**12 - 1)


@st.composite
def filesets(draw):
    """Rows (position, A1, A2, name): orientation, name and unseen alleles at random; each variant once."""
    rows = []
    for position, ref, alt in draw(lists):
        name = draw(st.sampled_from([None, (ref, alt)]))
        a1, a2 = (alt, ref) if draw(st.booleans()) else (ref, alt)
        unseen = draw(st.sampled_from(["", "", "", "a1", "a2"]))
        a1, a2 = ("0" if unseen == "a1" else a1), ("." if unseen == "a2" else a2)
        rows.append((position, a1, a2, name))
    kept, seen = [], set()
    for row in rows:
        ref, alt, _ = slow.orient(*row[1:])
        key = (row[0], *((ref, alt) if slow.is_ordered(ref, alt) else sorted((ref, alt))))
        if key not in seen or "0" in key or "." in key:
            seen.add(key)
            kept.append(row)
    return kept


def turn_some(variants, bits):
    """Exchange REF and ALT of substitutions where a bit is set."""
    return [
        (p, a, r) if bits >> k & 1 and not slow.is_ordered(r, a) else (p, r, a) for k, (p, r, a) in enumerate(variants)
    ]


def columns(variants):
    position, ref, alt = zip(*variants, strict=True)
    return np.full(len(ref), "1", object), np.array(position), np.array(ref, object), np.array(alt, object)


def bim_of(rows):
    ids = [f"rs{k}" if name is None else f"1:{p}:{name[0]}:{name[1]}" for k, (p, _, _, name) in enumerate(rows)]
    table = pd.DataFrame({"chromosome": "1", "position": [r[0] for r in rows], "id": ids})
    return table.assign(a1=[r[1] for r in rows], a2=[r[2] for r in rows])


@EXAMPLES
@given(rows=filesets(), wanted=lists, turn=st.booleans())
def test_match_variants__is_the_slow_definition(rows, wanted, turn):
    wanted = turn_some(wanted, -1 if turn else 0)
    expected = slow.match(wanted, rows)
    if max(expected) < 0:
        with pytest.raises(MatchError):
            match_variants(*columns(wanted), bim_of(rows), "sets")
        return
    found = match_variants(*columns(wanted), bim_of(rows), "sets")
    assert found.row.tolist() == expected
    for k, row in enumerate(expected):
        if row >= 0:
            _, ref, alt = wanted[k]
            a1, a2 = rows[row][1:3]
            # ALT is A1, or A1 is unseen and A2 is REF, or A2 is the allele that ALT is not
            assert found.a1_is_alt[k] == (a1 == alt if a1 not in slow.UNSEEN else a2 == ref)


@EXAMPLES
@given(rows=filesets(), extra=st.integers(0, 11), agree=st.booleans(), turned=st.booleans())
def test_match_variants__duplicates_are_one_or_an_error(rows, extra, agree, turned):
    rows = [r for r in rows if not {r[1], r[2]} & set(slow.UNSEEN)]
    if not rows:
        return
    p, a1, a2, name = rows[extra % len(rows)]
    again = [*rows, (p, a2, a1, name) if turned and (name or not slow.is_ordered(a2, a1)) else (p, a1, a2, name)]
    ref, alt, _ = slow.orient(a1, a2, name)
    wanted = columns([(p, ref, alt)])
    if not agree:
        with pytest.raises(MatchError, match=f"lines {extra % len(rows) + 1} and {len(again)}: variant 1:{p} .* twice"):
            match_variants(*wanted, bim_of(again), "sets", same_calls=lambda i, j: False)
        return
    assert match_variants(*wanted, bim_of(again), "sets", same_calls=lambda i, j: True).row[0] == extra % len(rows)


@EXAMPLES
@given(one=lists, other=lists, turn=st.integers(0, 2**12 - 1))
def test_joins_of_known_ref__are_the_slow_definition(one, other, turn):
    """Keys of tables, imports and the union of studies."""
    other = [
        (p, a, r) if turn >> k & 1 and not slow.is_ordered(r, a) else (p, r, a) for k, (p, r, a) in enumerate(other)
    ]
    one_number, other_number = slow.union([one, other])
    keys = [variant_keys(*columns(v)[1:]) for v in (one, other)]
    assert [[keys[0].index(k) if k in keys[0] else -1 for k in keys[1]]] == [
        [one_number.index(n) if n in one_number else -1 for n in other_number]
    ]
    row, swapped = find_variants(columns(other), columns(one), "scores")
    assert row.tolist() == [one_number.index(n) if n in one_number else -1 for n in other_number]
    assert [bool(s) for s, j in zip(swapped, row, strict=True) if j >= 0] == [
        other[k][2] != one[j][2] for k, j in enumerate(row) if j >= 0
    ]


def request_of(listed) -> GeneRequest:
    """The request for a gene with these variants in its one mask."""
    _, position, ref, alt = columns(listed)
    member, owner = np.ones((1, len(ref)), bool), np.ones(len(ref), bool)
    return GeneRequest(
        gene="G",
        chromosome="1",
        start=1,
        end=1000,
        position=position,
        ref=ref,
        alt=alt,
        member=member,
        columns={},
        owner=owner,
    )


class Gene:
    """As much of a study's gene as `unite_gene` reads."""

    def __init__(self, variants):
        _, self.position, self.ref, self.alt = columns(variants)


@EXAMPLES
@given(listed=lists, one=lists, other=lists, turn=st.integers(0, 2**12 - 1))
def test_unite_gene__is_the_slow_definition(listed, one, other, turn):
    listed, one = sorted(listed), sorted(one)
    other = [
        (p, a, r) if turn >> k & 1 and not slow.is_ordered(r, a) else (p, r, a) for k, (p, r, a) in enumerate(other)
    ]
    found = unite_gene(request_of(listed), {0: Gene(one), 1: Gene(other)})
    numbers = slow.union([listed, one, other])
    wanted = [n for n in numbers[0] if n in numbers[1] or n in numbers[2]]
    assert [numbers[0][k] for k in found.listed.tolist()] == wanted
    for study, variants, own in ((0, one, numbers[1]), (1, other, numbers[2])):
        _, place, sign = found.studies[study]
        assert place.tolist() == [wanted.index(n) if n in wanted else -1 for n in own]
        for k, at in enumerate(place.tolist()):
            if at >= 0:
                assert sign[k] == (1 if variants[k][2] == found.alt[at] else -1)


def test_unite_gene__an_unseen_allele_is_the_listed_variant_without_carriers():
    request = request_of([(100, "A", "C"), (100, "A", "G"), (200, "G", "GA")])
    found = unite_gene(
        request, {0: Gene([(100, "A", "C"), (100, "A", "0"), (200, "G", ".")]), 1: Gene([(100, "0", "C")])}
    )
    assert found.studies[0][1].tolist() == [0, 1, 2]
    assert (found.studies[1][1].tolist(), found.studies[1][2].tolist()) == ([0], [1.0])


def trait_of(name, variants) -> TraitStatistics:
    """Score statistics of distinct variants; U says which variant of the trait it is."""
    chromosome, position, ref, alt = columns(variants)
    n, one = len(ref), np.ones(len(ref))
    counts = [np.full(n, k, np.int64) for k in (100, 90, 8, 2)]
    return TraitStatistics(
        name, "quantitative", 100, None, chromosome, position, ref, alt, *counts, 0.06 * one, np.arange(1.0, n + 1),
        one, [], "made up",
    )  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(one=lists, other=lists, turn=st.integers(0, 2**12 - 1))
def test_bundles_and_inspection__are_the_slow_definition(one, other, turn, tmp_path_factory):
    """Traits of one bundle are laid on one list of variants; variants are numbered over bundles."""
    folder = tmp_path_factory.mktemp("bundles")
    other = turn_some(other, turn)
    numbers = slow.union([one, other])
    write_trait_bundle(folder / "both", [trait_of("a", one), trait_of("b", other)], study="both", genome_build="GRCh38")
    table = Bundle(folder / "both").variants.to_pydict()
    assert len(table["position"]) == max(numbers[1] + numbers[0]) + 1
    for t, (variants, own) in enumerate(((one, numbers[0]), (other, numbers[1]))):
        for k, (p, ref, alt) in enumerate(variants):
            (at,) = [j for j, u in enumerate(table["U"]) if abs(u[t]) == k + 1]
            there = (table["position"][at], table["ref"][at], table["alt"][at])
            assert there in ((p, ref, alt), (p, alt, ref))
            assert np.sign(table["U"][at][t]) == (1 if there[2] == alt else -1)
            mates = [j for j, n in enumerate(numbers[1 - t]) if n == own[k]]
            assert abs(table["U"][at][1 - t]) == (mates[0] + 1 if mates else 0)
    for name, variants in (("a", one), ("b", other)):
        write_trait_bundle(folder / name, [trait_of("y", variants)], study=name, genome_build="GRCh38")
    codes = []
    for study, variants in zip(load_studies([Bundle(folder / n) for n in "ab"]), (one, other), strict=True):
        rows = study.bundle.variants.select(["position", "ref", "alt"]).take(study.row).to_pylist()
        named = {tuple(row.values()): code for row, code in zip(rows, study.code.tolist(), strict=True)}
        codes.append([named.get(v, named.get((v[0], v[2], v[1]))) for v in variants])
    assert [[a == b for a in codes[0]] for b in codes[1]] == [[a == b for a in numbers[0]] for b in numbers[1]]


@EXAMPLES
@given(one=lists, other=lists, turn=st.integers(0, 2**12 - 1))
def test_report_and_listed_variants__are_the_slow_definition(one, other, turn):
    """What the report, the audit and the check of listed variants join by."""
    other = turn_some(other, turn)
    numbers = slow.union([one, other])
    expected = [n in numbers[1] for n in numbers[0]]
    names = []
    for variants in (one, other):
        _, position, ref, alt = columns(variants)
        names.append(set(zip(position.tolist(), *(x.tolist() for x in canonical_alleles(ref, alt)), strict=True)))
    assert len(names[0] & names[1]) == sum(expected)
    assert np.isin(_hash(*columns(one)), _hash(*columns(other))).tolist() == expected


@EXAMPLES
@given(
    rows=lists, reference=lists, turn=st.integers(0, 2**12 - 1), strand=st.integers(0, 2**12 - 1), again=st.booleans()
)
def test_harmonise__is_the_slow_definition(rows, reference, turn, strand, again):
    rows = [(p, a, r) if turn >> k & 1 else (p, r, a) for k, (p, r, a) in enumerate(rows)]
    rows = [(p, *slow.complement(x, y)) if strand >> k & 1 else (p, x, y) for k, (p, x, y) in enumerate(rows)]
    rows += rows[:1] if again else []
    expected = slow.harmonise(rows, reference)
    tables = []
    for variants in (rows, reference):
        chromosome, position, effect, other = columns(variants)
        tables.append(VariantTable(chromosome, position, effect, other))
    if len(expected) < 0.2 * min(len(rows), len(reference)):
        with pytest.raises(PredictorError, match="only"):
            harmonise(*tables)
        return
    found = harmonise(*tables)
    assert sorted(zip(found.source.tolist(), found.target.tolist(), found.sign.tolist(), strict=True)) == expected


def test_number_places__are_equal_for_equal_places():
    labels, position = np.array(["1", "2", "1", "2", "10"], object), np.array([5, 5, 5, 7, 5])
    place = number_places(labels, position)
    assert [[a == b for a in place] for b in place] == [
        [x == y for x in zip(labels, position, strict=True)] for y in zip(labels, position, strict=True)
    ]
    assert number_places(labels[:0], position[:0]).size == 0

"""Joins by label: samples, variants, chromosomes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pipeline.align import chromosome_order, match_samples, match_variants, sort_alleles
from pipeline.errors import MatchError


def labels(*values):
    return np.array(values, object)


FID, IID = labels("a", "a", "b"), labels("1", "2", "3")
BIM = pd.DataFrame(
    {
        "chromosome": pd.Categorical(["1", "1", "1", "2", "2"]),
        "position": [100, 100, 200, 100, 300],
        "id": ["r1", "r2", "r3", "r4", "r5"],
        "a1": ["A", "AT", "G", "C", "T"],
        "a2": ["G", "A", "C", "T", "TA"],
    }
)


def match(wanted, bim=BIM):
    chromosome, position, ref, alt = zip(*wanted, strict=True)
    return match_variants(labels(*chromosome), np.array(position), labels(*ref), labels(*alt), bim, "sets.txt")


def test_match_samples__by_family_and_individual():
    rows = match_samples(FID, IID, labels("b", "x", "a"), labels("3", "1", "2"), "pheno.tsv")
    assert rows.tolist() == [-1, 2, 0]


def test_match_samples__by_individual_alone():
    assert match_samples(FID, IID, None, labels("3", "9", "1"), "pheno.tsv").tolist() == [2, -1, 0]


def test_match_samples__individual_alone_must_be_unique():
    with pytest.raises(MatchError, match=r"pheno\.tsv has an IID column only, but IID 1 stands for several"):
        match_samples(FID, labels("1", "1", "3"), None, labels("1"), "pheno.tsv")


def test_match_samples__same_individual_of_two_families():
    rows = match_samples(labels("a", "b"), labels("1", "1"), labels("b", "a"), labels("1", "1"), "pheno.tsv")
    assert rows.tolist() == [1, 0]


def test_match_samples__raises_on_no_overlap():
    with pytest.raises(MatchError, match=r"no sample of pheno\.tsv is in the \.fam .*'a 1'.*'z 7'"):
        match_samples(FID, IID, labels("z"), labels("7"), "pheno.tsv")


def test_match_samples__says_when_only_families_differ():
    with pytest.raises(MatchError, match=r"2 IIDs agree, so the FID columns differ: drop FID from pheno\.tsv"):
        match_samples(FID, IID, labels("0", "0"), labels("1", "2"), "pheno.tsv")


def test_match_variants__in_either_order_of_alleles():
    found = match([("1", 100, "G", "A"), ("1", 200, "G", "C"), ("2", 300, "TA", "T"), ("2", 301, "A", "C")])
    assert found.row.tolist() == [0, 2, 4, -1]
    assert found.a1_is_alt.tolist() == [True, False, True, False]


def test_match_variants__tells_variants_of_one_place_apart():
    found = match([("1", 100, "A", "AT"), ("1", 100, "G", "A"), ("1", 100, "A", "C"), ("2", 100, "T", "C")])
    assert found.row.tolist() == [1, 0, -1, 3]


def test_match_variants__the_same_variant_may_be_wanted_twice():
    assert match([("1", 200, "C", "G"), ("1", 200, "C", "G")]).row.tolist() == [2, 2]


def duplicated(**changes):
    bim = pd.concat([BIM, BIM.iloc[[2]].assign(**changes)], ignore_index=True)
    bim["chromosome"] = bim["chromosome"].astype("category")
    return bim


@pytest.mark.parametrize("changes", [{}, {"a1": "C", "a2": "G"}, {"id": "other"}])
def test_match_variants__raises_on_duplicates(changes):
    with pytest.raises(MatchError, match=r"1:200 C/G stands on lines 3 and 6"):
        match([("1", 200, "C", "G")], duplicated(**changes))


def test_match_variants__duplicates_nobody_wants_are_left_alone():
    assert match([("1", 100, "G", "A")], duplicated()).row.tolist() == [0]


def test_match_variants__raises_on_other_chromosomes():
    with pytest.raises(MatchError, match=r"no chromosome is shared; the \.bim has 1, 2, sets\.txt has chr9"):
        match([("chr9", 100, "G", "A")])


def test_match_variants__raises_on_other_alleles():
    with pytest.raises(MatchError, match=r"1 positions agree but alleles do not; .* other strand"):
        match([("1", 200, "A", "T")])


def test_match_variants__raises_on_other_build():
    with pytest.raises(
        MatchError, match=r"none of the 1 variants of sets\.txt \(such as 1:77:A:T\).*different genome builds"
    ):
        match([("1", 77, "A", "T")])


def test_sort_alleles__does_not_depend_on_their_order():
    one = sort_alleles(labels("A", "T", "AT"), labels("G", "A", "A"))
    other = sort_alleles(labels("G", "A", "A"), labels("A", "T", "AT"))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (one[0] < one[1]).all()


def test_chromosome_order__numbers_first():
    assert sorted(["10", "2", "GL1", "23", "1"], key=chromosome_order) == ["1", "2", "10", "23", "GL1"]

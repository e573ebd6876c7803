"""Joins by label: samples, variants, chromosomes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from locomass.errors import MatchError
from locomass.people import join_labels, match_labels, match_samples
from locomass.variants.chromosomes import chromosome_order
from locomass.variants.identity import canonical_alleles
from locomass.variants.match import Frequencies, match_variants


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
    with pytest.raises(MatchError, match=r"pheno\.tsv must be matched by IID alone, but IID 1 is that of several"):
        match_samples(FID, labels("1", "1", "3"), None, labels("1"), "pheno.tsv")


def test_match_samples__same_individual_of_two_families():
    rows = match_samples(labels("a", "b"), labels("1", "1"), labels("b", "a"), labels("1", "1"), "pheno.tsv")
    assert rows.tolist() == [1, 0]


def test_match_samples__raises_on_no_overlap():
    with pytest.raises(MatchError, match=r"no sample of pheno\.tsv is in the \.fam .*'a 1'.*'z 7'"):
        match_samples(FID, IID, labels("z"), labels("7"), "pheno.tsv")


def test_match_samples__says_when_only_families_differ():
    with pytest.raises(MatchError, match=r"2 IIDs agree, so the FID columns differ: drop FID from pheno\.tsv"):
        match_samples(FID, IID, labels("x", "y"), labels("1", "2"), "pheno.tsv")


@pytest.mark.parametrize("fid", [("0", "0"), ("2", "1")])
def test_match_samples__by_individual_where_families_say_nothing(fid, caplog):
    with caplog.at_level("INFO", "locomass"):
        rows = match_samples(FID, IID, labels(*fid), labels("2", "1"), "pheno.tsv")
    assert rows.tolist() == [1, 0, -1]
    assert "pheno.tsv: samples are matched by IID alone" in caplog.text
    with pytest.raises(MatchError, match="IID 1 is that of several samples of the genotypes"):
        match_samples(FID, labels("1", "1", "3"), labels("0"), labels("1"), "pheno.tsv")


def test_match_samples__counts_ids_that_are_not_genotyped(caplog):
    with caplog.at_level("INFO", "locomass"):
        match_samples(FID, IID, None, labels("1", "7", "8"), "pheno.tsv")
    assert "pheno.tsv: 2 of 3 ids are not among the genotyped samples" in caplog.text


def test_labels__two_people_with_one_label_are_an_error():
    with pytest.raises(MatchError, match=r"'A_B C' and 'A B_C' are both 'A_B_C'"):
        join_labels(labels("A_B", "A"), labels("C", "B_C"), "samples")
    with pytest.raises(MatchError, match=r"label '0_1' would be that of two samples, 'f 1' and 'g 1'"):
        match_labels(labels("0_1", "0_2"), labels("f", "g"), labels("1", "1"))


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
def test_match_variants__duplicates_must_hold_the_same_calls(changes):
    with pytest.raises(MatchError, match=r"lines 3 and 6: variant 1:200 ./. is listed twice with different genotypes"):
        match([("1", 200, "C", "G")], duplicated(**changes))
    wanted = (labels("1"), np.array([200]), labels("C"), labels("G"))
    found = match_variants(*wanted, duplicated(**changes), "sets.txt", same_calls=lambda i, j: {i, j} == {2, 5})
    assert found.row.tolist() == [2]


def test_match_variants__names_the_file_of_each_line():
    bim = duplicated()
    bim.attrs["files"] = (("e1.bim", 0), ("e2.bim", 4))
    with pytest.raises(MatchError, match=r"^e1\.bim line 3 and e2\.bim line 2: variant 1:200"):
        match([("1", 200, "C", "G")], bim)


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


def test_canonical_alleles__sorts_substitutions_and_keeps_the_order_of_indels():
    one = canonical_alleles(labels("A", "T", "AT", "TA", "N"), labels("G", "A", "A", "GC", "<DEL>"))
    other = canonical_alleles(labels("G", "A", "A", "GC", "<DEL>"), labels("A", "T", "AT", "TA", "N"))
    assert list(zip(*one, strict=True)) == [("A", "G"), ("A", "T"), ("AT", "A"), ("GC", "TA"), ("<DEL>", "N")]
    assert list(zip(*other, strict=True)) == [("A", "G"), ("A", "T"), ("A", "AT"), ("GC", "TA"), ("<DEL>", "N")]


INDEL = BIM.iloc[[4]].assign(chromosome="2")  # 2:300, A1 T, A2 TA


@pytest.mark.parametrize(("name", "rows"), [("r5", [0, -1]), ("2:300:T:TA", [-1, 0]), ("2:300:TA:T", [0, -1])])
def test_match_variants__an_insertion_is_no_deletion(name, rows):
    bim = INDEL.assign(id=name).reset_index(drop=True)
    found = match([("2", 300, "TA", "T"), ("2", 300, "T", "TA")], bim)
    assert found.row.tolist() == rows
    assert found.a1_is_alt.tolist() == [name != "2:300:T:TA" and row == 0 for row in rows]


@pytest.mark.parametrize(("f", "row"), [(0.9, 0), (0.1, -1), (0.55, -1), (np.nan, -1)])
def test_match_variants__swapped_indel_where_ref_is_unknown_and_the_frequency_agrees(f, row):
    bim = INDEL.reset_index(drop=True)
    frequencies = Frequencies(np.array([f]), lambda rows: np.full(len(rows), 0.1))
    wanted = (labels("2"), np.array([300]), labels("T"), labels("TA"))
    if row < 0:
        with pytest.raises(MatchError, match="alleles do not"):
            match_variants(*wanted, bim, "sets.txt", frequencies=frequencies)
        return
    found = match_variants(*wanted, bim, "sets.txt", frequencies=frequencies)
    assert (found.row.tolist(), found.a1_is_alt.tolist()) == ([0], [False])


@pytest.mark.parametrize(
    ("a1", "a2", "row", "a1_is_alt"),
    [("0", "G", 0, True), (".", "G", 0, True), ("G", "0", 0, False), ("0", "A", 0, False)],
)
def test_match_variants__an_unseen_allele_is_people_without_it(a1, a2, row, a1_is_alt):
    bim = BIM.iloc[[0]].assign(a1=a1, a2=a2).reset_index(drop=True)
    found = match([("1", 100, "G", "A")], bim)
    assert (found.row.tolist(), found.a1_is_alt.tolist()) == ([row], [a1_is_alt])


def test_match_variants__an_unseen_allele_of_a_deletion_needs_its_ref():
    bim = BIM.iloc[[0, 2]].assign(a1="0", a2=["G", "G"]).reset_index(drop=True)
    assert match([("1", 100, "GA", "G"), ("1", 200, "G", "GA")], bim).row.tolist() == [-1, 1]


def test_chromosome_order__numbers_first():
    assert sorted(["10", "2", "GL1", "23", "1"], key=chromosome_order) == ["1", "2", "10", "23", "GL1"]

import numpy as np
import pytest

from locomass_predictors.base import PredictorError
from locomass_predictors.harmonise import VariantTable, harmonise


def table(rows, *, ids=None):
    chromosome, position, a1, a2 = zip(*rows, strict=True)
    return VariantTable(list(chromosome), list(position), list(a1), list(a2), ids)


#: filler that always matches, so that the 20 % rule does not interfere
FILLER = [("5", 1_000 + k, "A", "C") for k in range(30)]
REFERENCE = [
    ("1", 10, "A", "C"),
    ("1", 20, "A", "G"),
    ("1", 30, "T", "C"),
    ("1", 40, "A", "C"),
    ("1", 50, "A", "T"),
    ("1", 60, "AT", "A"),
    ("1", 70, "A", "C"),
    ("1", 80, "A", "C"),
    ("1", 80, "A", "G"),
    ("2", 90, "A", "C"),
    *FILLER,
]


@pytest.mark.parametrize(
    ("row", "outcome", "target", "sign"),
    [
        (("1", 10, "A", "C"), "same", 0, 1),
        (("chr1", 10, "a", "c"), "same", 0, 1),
        ((1, 20, "G", "A"), "swapped", 1, -1),
        (("1", 30, "A", "G"), "flipped", 2, 1),
        (("1", 40, "G", "T"), "swapped_flipped", 3, -1),
        (("1", 50, "A", "T"), "ambiguous", None, 0),
        (("1", 60, "AT", "A"), "same", 5, 1),
        (("1", 60, "A", "AT"), "indel_mismatch", None, 0),
        (("1", 10, "A", ""), "same", 0, 1),
        (("1", 10, "C", ""), "swapped", 0, -1),
        (("1", 80, "A", ""), "duplicate", None, 0),
        (("1", 80, "G", ""), "swapped", 8, -1),
        (("1", 50, "A", ""), "ambiguous", None, 0),
        (("1", 60, "AC", "A"), "indel_mismatch", None, 0),
        (("1", 10, "AT", "A"), "indel_mismatch", None, 0),
        (("1", 10, "A", "G"), "allele_mismatch", None, 0),
        (("1", 80, "G", "A"), "swapped", 8, -1),
        (("1", 80, "A", "C"), "same", 7, 1),
        (("1", 11, "A", "C"), "not_in_reference", None, 0),
        (("3", 10, "A", "C"), "not_in_reference", None, 0),
        (("1", 10, "A", "<DEL>"), "invalid_allele", None, 0),
        (("1", 10, "A", "A"), "invalid_allele", None, 0),
        (("1", 10, None, "A"), "invalid_allele", None, 0),
        (("1", 10, "0", "A"), "invalid_allele", None, 0),
    ],
)
def test_harmonise__one_row(row, outcome, target, sign):
    found = harmonise(table([row, *FILLER]), table(REFERENCE))
    assert found.counts[outcome] == (31 if outcome == "same" else 1)
    assert sum(found.counts.values()) == 31
    of_row = found.source == 0
    if target is None:
        assert not of_row.any()
    else:
        assert found.target[of_row].tolist() == [target]
        assert found.sign[of_row].tolist() == [sign]
    assert found.target.size == 30 + (target is not None)


def test_harmonise__drops_every_copy_of_a_duplicate():
    rows = [("1", 10, "A", "C"), ("1", 10, "C", "A"), ("1", 20, "A", "G"), *FILLER]
    found = harmonise(table(rows), table(REFERENCE))
    assert found.counts["duplicate"] == 2
    assert 0 not in found.target
    twice = harmonise(table(rows[2:]), table([*REFERENCE, ("1", 20, "A", "G")]))
    assert twice.counts["duplicate"] == 1
    assert 1 not in twice.target


def test_harmonise__without_strand_flip_keeps_ambiguous_pairs():
    rows = [("1", 50, "T", "A"), ("1", 30, "A", "G"), *FILLER]
    found = harmonise(table(rows), table(REFERENCE), strand_flip=False)
    assert found.counts["swapped"] == 1
    assert found.counts["allele_mismatch"] == 1
    assert found.sign[found.source == 0].tolist() == [-1]


def test_harmonise__prefers_the_forward_strand():
    rows = [("1", 10, "A", "C"), *FILLER]
    found = harmonise(table(rows), table([("1", 10, "T", "G"), ("1", 10, "A", "C"), *FILLER]))
    assert found.counts["same"] == 31
    assert found.target[found.source == 0].tolist() == [1]


def test_harmonise__rows_are_labels_not_places():
    rng = np.random.default_rng(3)
    rows = [(str(1 + k % 22), 100 + k, *(("A", "C") if k % 2 else ("C", "A"))) for k in range(300)]
    reference = [(c, p, "A", "C") for c, p, _, _ in rows]
    order = rng.permutation(300)
    found = harmonise(table([rows[k] for k in order]), table(reference))
    np.testing.assert_array_equal(order[found.source], np.arange(300))
    np.testing.assert_array_equal(found.sign, np.where(np.arange(300) % 2, 1.0, -1.0))
    assert found.coverage == 1.0
    assert found.messages == ()


def test_harmonise__by_identifier():
    rows = [("1", 999, "C", "A"), ("9", 1, "A", "C"), ("1", 1, "A", "C")]
    reference = [("1", 10, "A", "C"), ("1", 20, "A", "C"), ("1", 30, "A", "C")]
    statistics = table(rows, ids=["rs1", "rs2", "."])
    found = harmonise(statistics, table(reference, ids=["rs2", "rs1", "."]), match_by="id")
    assert found.source.tolist() == [1, 0]
    assert found.target.tolist() == [0, 1]
    assert found.sign.tolist() == [1, -1]
    assert found.counts["not_in_reference"] == 1


def test_harmonise__wrong_build_has_its_own_message():
    reference = [("1", 100 + 7 * k, "A", "C") for k in range(50)]
    shifted = [(c, p + 100_000, a, b) for c, p, a, b in reference]
    with pytest.raises(PredictorError, match="likely cause is a wrong genome build"):
        harmonise(table(shifted), table(reference))
    ids = [f"rs{k}" for k in range(50)]
    with pytest.raises(PredictorError, match="identifiers match but the positions do not, so the genome builds differ"):
        harmonise(table(shifted, ids=ids), table(reference, ids=ids))


def test_harmonise__wrong_alleles_and_labels_have_their_own_message():
    reference = [("1", 100 + 7 * k, "A", "C") for k in range(50)]
    with pytest.raises(PredictorError, match=r"only 0 of 50 .*allele_mismatch 50.*check the allele columns"):
        harmonise(table([(c, p, "A", "G") for c, p, _, _ in reference]), table(reference))
    with pytest.raises(PredictorError, match="no chromosome label is common to both: NC_1 against 1"):
        harmonise(table([("NC_1", p, a, b) for _, p, a, b in reference]), table(reference))


def test_harmonise__twenty_percent_of_the_smaller_table():
    reference = [("1", k, "A", "C") for k in range(100)]
    large = [("1", k, "A", "C") for k in range(80, 5_000)]
    assert harmonise(table(large), table(reference)).target.size == 20
    with pytest.raises(PredictorError, match="only 19 of"):
        harmonise(table(large[1:]), table(reference))


def test_harmonise__warns_of_coverage_and_of_a_missing_chromosome():
    reference = [(str(1 + k // 10), k, "A", "C") for k in range(100)]
    found = harmonise(table(reference[:75]), table(reference))
    assert found.messages == (
        "chromosome 9 has 10 reference variants and no matching summary statistics: it adds nothing to the "
        "prediction; is a file missing?",
        "chromosome 10 has 10 reference variants and no matching summary statistics: it adds nothing to the "
        "prediction; is a file missing?",
    )
    found = harmonise(table(reference[:69]), table(reference))
    assert found.messages[0] == "summary statistics cover 69% of 100 reference variants; 70% or more are wanted"
    assert found.coverage == pytest.approx(0.69)


@pytest.mark.parametrize(
    ("statistics", "kwargs", "message"),
    [
        (table(FILLER), {"match_by": "name"}, "must be 'position', 'id' or 'row', got 'name'"),
        (table(FILLER), {"match_by": "id"}, "needs identifiers"),
        (VariantTable(["1"], [1, 2], ["A"], ["C"]), {}, "columns of the summary statistics differ in length"),
        (VariantTable([], [], [], []), {}, "summary statistics hold no variant"),
    ],
)
def test_harmonise__raises_on_arguments(statistics, kwargs, message):
    with pytest.raises(PredictorError, match=message):
        harmonise(statistics, table(FILLER), **kwargs)


@pytest.mark.parametrize(("f", "outcome"), [(0.9, "swapped"), (0.1, "indel_mismatch"), (np.nan, "indel_mismatch")])
def test_harmonise__swapped_indels_need_a_frequency_that_agrees(f, outcome):
    rows = [("1", 60, "A", "AT"), *FILLER]
    statistics = VariantTable(*zip(*rows, strict=True), frequency=np.array([f, *np.full(len(FILLER), 0.3)]))
    reference = VariantTable(*zip(*REFERENCE, strict=True), frequency=np.full(len(REFERENCE), 0.12))
    assert harmonise(statistics, reference).counts[outcome] == 1
    # an exact partner comes first, whatever the frequency
    both = [("1", 60, "AT", "A"), *rows]
    statistics = VariantTable(*zip(*both, strict=True), frequency=np.array([0.12, f, *np.full(len(FILLER), 0.3)]))
    found = harmonise(statistics, reference)
    assert found.source[found.target == 5].tolist() == [0]
    assert found.counts["indel_mismatch"] == 1


def test_harmonise__each_row_by_what_it_has():
    rows = [("1", 10, "A", "C"), ("", 0, "G", "A"), ("", 0, "A", "C"), *FILLER]
    ids = ["rs20", "rs20", "none", *[f"f{k}" for k in range(len(FILLER))]]
    own = [f"rs{row[1]}" for row in REFERENCE]
    found = harmonise(table(rows, ids=ids), table(REFERENCE, ids=own), match_by="row")
    assert dict(zip(found.source[:2].tolist(), found.target[:2].tolist(), strict=True)) == {0: 0, 1: 1}
    assert found.counts["not_in_reference"] == 1


def test_harmonise__says_what_costs_more_than_a_twentieth():
    rows = [*FILLER, *[("1", 50, "A", "T"), ("1", 10, "A", "G"), ("1", 20, "A", "T")]]
    found = harmonise(table(rows), table(REFERENCE))
    assert any("2 of 33 rows (6%) are left out: A/T and C/G variants" in m for m in found.messages)
    assert not any("other alleles" in m for m in found.messages)

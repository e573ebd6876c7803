"""Which chromosome leaves a variant out (through the stage: test_stage_predict.py)."""

import pytest

from locomass.predict.hygiene import describe_unplaced, find_loco_chromosome, find_loco_chromosomes


@pytest.mark.parametrize(
    ("label", "chromosome"),
    [
        ("1", "1"), ("chr22", "22"), ("X", "23"), ("23", "23"), ("PAR1", "23"), ("XY", "23"), ("25", "23"), ("Y", "24"),
        ("MT", "26"), ("1_KI270706v1_random", "1"), ("chr6_GL000250v2_alt", "6"), ("chrX_KI270880v1_alt", "23"),
        ("chr17_ctg5_hap1", "17"), ("HSCHR6_MHC_APD_CTG1", "6"), ("HLA-A*01:01:01:01", "6"), ("0", ""), ("Un", ""),
        ("chrUn_KI270442v1", ""), ("GL000192.1", ""), ("KI270728.1", ""), ("NW_003315950.2", ""), (".", ""),
        ("unplaced", ""), ("scaffold_12", ""), ("29", "29"), ("2L", "2L"),
    ],
)  # fmt: skip
def test_find_loco_chromosome__names_who_leaves_a_variant_out(label, chromosome):
    assert find_loco_chromosome(label) == chromosome
    assert find_loco_chromosomes([label, label]).tolist() == [chromosome] * 2


def test_describe_unplaced__counts():
    assert describe_unplaced(0, "array.bed") == ""
    assert describe_unplaced(1234, "array.bed").startswith("1,234 variants of array.bed are on no chromosome")

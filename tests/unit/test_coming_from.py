"""docs/coming-from.md: the keys, tests and commands that it names exist, and what it says of files holds."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from locomass.errors import FormatError
from locomass.gene_tests.registry import check_tests
from locomass.tables.summary_statistics import read_summary_statistics
from locomass.tables.weights import read_weights

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "coming-from.md").read_text()
KEYS = yaml.safe_load((ROOT / "configs" / "every-key.yaml").read_text())


@pytest.mark.parametrize("program", ["REGENIE", "SAIGE", "RAREMETAL", "LDSC", "PLINK", "PGS Catalog"])
def test_every_program_has_a_table_and_its_differences(program):
    (section,) = (part for part in TEXT.split("\n## ")[1:] if part.startswith(program))
    assert section.count("\n| ") > 4
    assert "Known differences" in section


def test_keys_that_it_names_are_keys():
    named = re.findall(r"`(predictor|phenotypes|covariates|genes|tests|score_statistics)\.([a-z_]+)", TEXT)
    assert len(named) > 15
    for section, key in named:
        assert key in KEYS[section], f"{section}.{key}"


def test_gene_tests_that_it_names_are_tests():
    check_tests(["burden", "skat", "skat-o", "skat-joint", "acat-v", "acat-o", "vt"])
    for name in ("burden", "skat", "skat-o", "skat-joint", "acat-v", "acat-o", "vt"):
        assert name in TEXT


def test_plink_logistic_by_a_column_map(tmp_path):
    path = tmp_path / "plink.assoc.logistic"
    path.write_text(" CHR SNP BP A1 TEST NMISS OR STAT P\n 1 rs1 100 A ADD 1000 1.1 2.0 0.0455\n")
    columns = {"chromosome": "CHR", "position": "BP", "id": "SNP", "effect_allele": "A1", "odds_ratio": "OR", "p": "P"}
    found = read_summary_statistics(path, columns={**columns, "n": "NMISS"})
    assert (found.effect_allele[0], found.other_allele[0]) == ("A", "")
    np.testing.assert_allclose(found.beta / found.se, 2.0, rtol=1e-4)


def test_other_allele_of_plink_2_is_the_one_that_a1_is_not(tmp_path):
    path = tmp_path / "plink2.glm"
    head = "#CHROM POS ID REF ALT A1 TEST OBS_CT BETA SE P\n"
    path.write_text(head + "1 100 rs1 G A G ADD 1000 0.1 0.1 0.3\n1 101 rs2 G A A ADD 1000 0.1 0.1 0.3\n")
    found = read_summary_statistics(path)
    assert (found.effect_allele.tolist(), found.other_allele.tolist()) == (["G", "A"], ["A", "G"])


def test_names_of_ldsc_without_values_are_passed_over(tmp_path):
    path = tmp_path / "x.sumstats"
    path.write_text("SNP\tA1\tA2\tZ\tN\nrs1\tA\tG\t1.0\t1000\nrs2\t\t\t\t\nrs3\t\t\t\t\n")
    found = read_summary_statistics(path)
    assert (found.id.tolist(), found.messages) == (["rs1"], ())


@pytest.mark.parametrize(
    ("column", "value"), [("is_dominant", "True"), ("is_interaction", "TRUE"), ("dosage_0_weight", "0")]
)
def test_scores_of_the_catalog_that_are_no_sums(tmp_path, column, value):
    path = tmp_path / "PGS.txt"
    path.write_text(f"rsID\teffect_allele\teffect_weight\t{column}\nrs1\tA\t0.1\t{value}\n")
    with pytest.raises(FormatError, match=r"not additive|per genotype"):
        read_weights(path)

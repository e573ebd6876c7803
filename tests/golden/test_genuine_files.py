"""Genuine files of other programs in, those programs' own numbers out (skipped where ../shared/data is absent).

RAREMETAL 4.15's numbers are from its own test of these files (statgen/raremetal, tests/raremetal/test_tut_rm/expected:
``raremetal --burden --SKAT --MB --VT --hwe 1e-5 --callRate 0.95``), printed with six digits. Both programs' input has
six digits, too: a variance is known to 1.5e-5.
"""

import pandas as pd
import pytest

from tests.genuine import combine, gene_tests, import_pair, peers

SIX_DIGITS = 1e-5
BURDEN = {"GENE3": (-0.00101398, 0.994129), "GENE5": (0.219918, 0.253167)}  # EFFECT_SIZE, PVALUE
SINGLE = {  # POS: EFFECT_SIZE, EFFECT_SIZE_SD, PVALUE
    45411110: (0.254544, 0.357668, 0.476665),
    45412079: (-0.0459399, 0.149949, 0.759323),
    45445586: (0.219918, 0.192456, 0.253166),
    45448036: (-0.122406, 0.0636935, 0.0546313),
    45448465: (-0.100728, 0.062956, 0.109604),
}


@pytest.fixture(scope="module", params=["raremetal", "rvtests"])
def imported(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    said = [import_pair(request.param, k, folder / f"s{k}") for k in (1, 2)]
    return request.param, folder, said


def test_import_says_what_matched_and_what_not(imported):
    _, _, (one, two) = imported
    assert "994 variants, 432 samples, 6 digits" in one
    assert "none of the 31 variants" in one
    assert "in no gene: 994 of 994 variants; they count as single variants only" in one
    assert "genes: 6 of 6 have a variant in STUDY2" in two
    assert "30 of 31 listed found" in two
    assert "of one named allele, carried by everybody: 10 variants of the sets" in two
    assert "1 with no variant at the position (such as 9:45381530:G:A)" in two


def test_meta_gives_raremetal_s_numbers(imported):
    program, folder, _ = imported
    groups = {"groups": str(peers() / "raremetalworker" / "group.file")}
    tests = {"names": ["burden"], "max_maf": [0.05], "weights": ["flat"]}
    out = combine([folder / "s1", folder / "s2"], folder, genes=groups, tests=tests)
    found = gene_tests(out).set_index("gene")
    assert set(found.index) == {"GENE3", "GENE5"}
    single = pd.read_parquet(out / "single_variants.parquet").set_index("position")
    assert set(SINGLE) <= set(single.index)
    if program == "rvtests":
        return  # another scale of the trait; RAREMETAL's numbers are of its own worker's files
    for gene, (beta, p) in BURDEN.items():
        assert found.beta[gene] == pytest.approx(beta, rel=SIX_DIGITS)
        assert found.p[gene] == pytest.approx(p, rel=SIX_DIGITS)
    for position, (beta, se, p) in SINGLE.items():
        assert single.beta[position] == pytest.approx(beta, rel=SIX_DIGITS)
        assert single.se[position] == pytest.approx(se, rel=SIX_DIGITS)
        assert single.p[position] == pytest.approx(p, rel=SIX_DIGITS)

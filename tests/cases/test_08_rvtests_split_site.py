"""Case 08: a covariance file without the line of a monomorphic allele, and lines and rows that differ in other ways."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from locomass.bundle.exchange.common import ImportRequest
from locomass.bundle.exchange.registry import find_format
from locomass.errors import FormatError
from tests.genuine import command
from tests.reference_golden import chi2_mixture_sf

HERE = Path(__file__).parent / "data" / "08-rvtests-split-site"
POSITION = [3000, 3020, 3020, 3050, 3080]
ALT = ["A", "A", "T", "C", "G"]


def read_matrix(path, n_samples):
    """V of a covariance file whose lines and entries are in the same order."""
    rows = pd.read_csv(path, sep="\t", comment="#", dtype=str)["COV"].str.split(",").tolist()
    V = np.zeros((len(rows), len(rows)))
    for i, row in enumerate(rows):
        V[i, i:] = V[i:, i] = np.array(row, float) * n_samples
    return V


@pytest.mark.parametrize("name", ["none", "second"])
def test_burden_and_skat_are_those_of_the_definition(name, tmp_path):
    bundle, out = tmp_path / "bundle", tmp_path / "out"
    files = ["--scores", HERE / f"{name}.MetaScore.assoc", "--covariance", HERE / f"{name}.MetaCov.assoc"]
    more = ["--sets", HERE / "sets.txt", "--trait", "y", "--study", "g", "--out", bundle]
    command("import", "rvtests", *files, *more)
    command("meta", HERE / "meta.yaml", "--study", bundle, "--out", out, "--quiet")
    found = pd.read_parquet(out / "gene_tests.parquet").set_index("test")
    V = read_matrix(files[3], 500)
    U = pd.read_csv(files[1], sep="\t", comment="#")["U_STAT"].dropna().to_numpy()
    assert (found["n_variants"] == len(U)).all()
    # the files have ten digits
    assert found.p["burden"] == pytest.approx(stats.chi2.sf(U.sum() ** 2 / V.sum(), 1), rel=1e-7)
    assert found.p["skat"] == pytest.approx(chi2_mixture_sf(U @ U, np.linalg.eigvalsh(V))[0], rel=1e-6)
    if name == "second":
        assert found.p["burden"] == pytest.approx(0.012423, abs=1e-6)


def write_pair(folder, order, *, scored, digits=10):
    """A pair of files: ``order`` are the lines of the covariance file, ``scored`` the rows with statistics.

    Rows of the score file that are in neither are monomorphic.
    """
    rng = np.random.default_rng(3)
    G = rng.binomial(2, [0.01, 0.02, 0.03, 0.04, 0.05], (500, 5)).astype(float)
    G -= G.mean(axis=0)
    V, U = G.T @ G, G.T @ rng.normal(size=500)
    rows = ["CHROM\tPOS\tREF\tALT\tN_INFORMATIVE\tAF\tN_REF\tN_HET\tN_ALT\tU_STAT\tSQRT_V_STAT"]
    for j in range(5):
        values = f"{U[j]:.{digits}g}\t{np.sqrt(V[j, j]):.{digits}g}" if j in scored else "NA\tNA"
        if j in scored or j not in order:
            rows.append(f"5\t{POSITION[j]}\tREF\t{ALT[j]}\t500\t0.01\t490\t10\t0\t{values}".replace("REF", "ACG"))
    lines = ["CHROM\tSTART_POS\tEND_POS\tNUM_MARKER\tMARKER_POS\tCOV"]
    for k, j in enumerate(order):
        rest = order[k:]
        values = ",".join(f"{V[j, i] / 500:.{digits}g}" for i in rest)
        lines.append(f"5\t{POSITION[j]}\t3080\t{len(rest)}\t{','.join(str(POSITION[i]) for i in rest)}\t{values}")
    paths = folder / "s.txt", folder / "c.txt"
    for path, text in zip(paths, (rows, lines), strict=True):
        path.write_text("\n".join(text) + "\n")
    (folder / "sets.txt").write_text(
        "GE 5 3000 " + ",".join(f"5:{p}:ACG:{a}" for p, a in zip(POSITION, ALT, strict=True)) + "\n"
    )
    return ImportRequest(*paths, None, folder / "sets.txt"), U, V


@pytest.mark.parametrize(
    ("order", "scored"),
    [
        ((0, 1, 3, 4), (0, 1, 3, 4)),  # the second allele is monomorphic and has no line
        ((0, 2, 3, 4), (0, 2, 3, 4)),  # the first one
        ((0, 1, 2, 3, 4), (0, 2, 3, 4)),  # filtered from the score file, still in the covariance file
        ((0, 1, 2, 3, 4), (0, 1, 3, 4)),
        ((0, 2, 1, 3, 4), (0, 1, 2, 3, 4)),  # in the other order
        ((0, 3, 4), (0, 3, 4)),  # neither
    ],
)
@pytest.mark.parametrize("digits", [6, 10])
def test_lines_find_their_variants(order, scored, digits, tmp_path):
    request, U, V = write_pair(tmp_path, order, scored=scored, digits=digits)
    found = find_format("rvtests").read(request)
    (gene,) = found.genes
    rows = [list(zip(POSITION, ALT, strict=True)).index(key) for key in zip(found.position, found.alt, strict=True)]
    here = [k for k, j in enumerate(rows) if j in scored]
    mine = [rows[k] for k in here]
    place = [gene.variant.tolist().index(k) for k in here]
    np.testing.assert_allclose(found.U[here], U[mine], rtol=10.0 ** (1 - digits))
    scale = np.sqrt(np.outer(np.diag(V)[mine], np.diag(V)[mine]))
    np.testing.assert_allclose(
        gene.V[np.ix_(place, place)] / scale, V[np.ix_(mine, mine)] / scale, atol=20.0**1 * 10.0**-digits
    )
    assert not found.V[[k for k, j in enumerate(rows) if j not in scored]].any()


def test_lines_that_could_be_of_either_variant_are_refused(tmp_path):
    request, _, _ = write_pair(tmp_path, (0, 1, 1, 3, 4), scored=(0, 1, 3, 4))
    with pytest.raises(FormatError, match="line 4: a second line for the variant at position 3020"):
        list(find_format("rvtests").read(request).genes)

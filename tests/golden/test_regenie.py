"""Every row of REGENIE 4.1.2 step 2 (data/README.md), and every row of ours, from the definition.

REGENIE's rows are compared with ours at the tolerances of the README where nothing sets them apart. What does is proven
by formulas written out here (and in tests/reference_golden.py): with REGENIE's rules they give its row, with ours ours.

1. In a mask a missing call counts as zero (``missing: zero``), in SKAT it is the mean (``missing: mean``). Of a sample
   that has no call in the whole mask REGENIE takes the mean: that is one row, a singleton alone in its mask.
2. With a LOCO file the residual variance is that of the scaled trait minus the prediction *without* projecting the
   covariates out of the prediction: U is the same, the variance is larger by what covariates explain of the prediction.
3. ACAT sets p above 0.999 to 0.999, as ours does.
4. ACATO combines ACATV and the eight p-values inside SKAT-O by Cauchy; ours combines SKAT, burden and ACAT-V by
   half-Cauchy.
5. The last rho is 0.999, where one eigenvalue dominates. Davies' method gives up there, and Kuonen's saddlepoint
   approximation steps in, or Liu's four moments after that. In one mask of three variants this happens at every rho.
"""

import math
import re

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import optimize, stats

from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
from tests.golden.cohorts import DATA, read_regenie, read_results
from tests.reference_gene_tests import half_cauchy
from tests.reference_golden import (
    NullModel,
    Scores,
    chi2_mixture_sf,
    fit_linear,
    mixture,
    read_sets,
    score,
    skat_o_published,
)

GRID = np.array([0.0, 0.01, 0.04, 0.09, 0.16, 0.25, 0.5])
KEYS = ["gene", "mask", "bin", "TEST"]
SINGLETONS = 6e-4  # between one and two alleles in 1191 samples, some calls missing
LOCO = {"method": "loco", "loco": {"y": "cohort_a.loco", "cc": "cohort_a.loco"}, "use": "offset"}
PREDICTORS = {"none": {"method": "none"}, "loco": LOCO}
BURDEN = {"names": ["burden"], "max_maf": [SINGLETONS, 0.01, 0.05], "weights": ["flat"], "frequency": "aaf"}
COMPONENTS = {
    "names": ["skat", "skat-o-published", "acat-v", "acat-o"], "max_maf": [0.05], "weights": ["beta_1_25"],
    "frequency": "aaf", "collapse_mac": 0,
}  # fmt: skip
NAMES = {
    "burden": "ADD",
    "skat": "ADD-SKAT",
    "skat-o-published": "ADD-SKATO",
    "acat-v": "ADD-ACATV",
    "acat-o": "ADD-ACATO",
}
TWO_PER_CENT = math.log10(1.02)


def kuonen_sf(q: float, lam: np.ndarray) -> float:
    """P(sum lambda_i chi2_1 > q) by the saddlepoint approximation: Phi(-w - log(u / w) / w) (Kuonen 1999)."""
    low = 0.0 if q > lam.sum() else -0.5 * len(lam) / q
    t = optimize.brentq(lambda t: (lam / (1 - 2 * t * lam)).sum() - q, low, 0.5 / lam.max() * (1 - 2e-8), xtol=1e-18)
    w = math.copysign(math.sqrt(2 * (q * t + 0.5 * np.log(1 - 2 * t * lam).sum())), t)
    u = t * math.sqrt((2 * (lam / (1 - 2 * t * lam)) ** 2).sum())
    return float(stats.norm.sf(w + math.log(u / w) / w))


def liu_sf(q: float, lam: np.ndarray) -> float:
    """P(sum lambda_i chi2_1 > q) by four moments, kurtosis matched (Lee, Wu & Lin 2012)."""
    c1, c2, c3, c4 = (float((lam**k).sum()) for k in (1, 2, 3, 4))
    s1, s2 = c3 / c2**1.5, c4 / c2**2
    a = 1 / (s1 - math.sqrt(s1**2 - s2)) if s1**2 > s2 else math.sqrt(1 / s2)
    shift = max(0.0, s1 * a**3 - a**2) if s1**2 > s2 else 0.0
    df = a * a - 2 * shift
    return float(stats.ncx2.sf((q - c1) / math.sqrt(c2) * a + df + shift, df, shift))


def acat(p: np.ndarray, w: np.ndarray, top: float) -> float:
    """Return the Cauchy combination, p no larger than ``top``."""
    t = np.tan((0.5 - np.minimum(p, top)) * np.pi)
    return 0.5 - math.atan(float(w @ t) / w.sum()) / math.pi


def burden_p(s: Scores, null: NullModel, chosen: np.ndarray, variance: float, absent: str) -> float:
    """Return p of the sum of ALT alleles; a missing call is zero, or the mean where the sample has no call at all."""
    calls = s.calls[:, chosen]
    g, gone = np.nansum(calls, axis=1), np.isnan(calls).all(axis=1)
    if absent == "mean":
        g[gone] = g[~gone].mean()
    return float(stats.chi2.sf((g @ null.residual) ** 2 / variance / (g @ null.project(g)), 1))


def weigh(s: Scores) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (u, A, ACAT's weights) of the variants below 5 % with Beta(1, 25) weights, in units of our variance."""
    j = s.frequency <= 0.05
    f = s.frequency[j]
    w = 25 * (1 - f) ** 24
    return w * s.U[j], w[:, None] * s.V[np.ix_(j, j)] * w, w * w * f * (1 - f)


def rho_p(u: np.ndarray, A: np.ndarray, rho: float, tail=lambda q, lam: chi2_mixture_sf(q, lam)[0]) -> float:
    """Return p of Q_rho."""
    return float(tail((1 - rho) * (u @ u) + rho * u.sum() ** 2, mixture(A, rho)))


def rows_of_regenie(u: np.ndarray, A: np.ndarray, w: np.ndarray) -> dict[str, list[float]]:
    """Return by test the p-values REGENIE may give: one, or one per tail approximation."""
    v = acat(stats.chi2.sf(u * u / A.diagonal(), 1), w, 0.999)
    if len(u) == 1:
        return {"ADD-SKAT": [rho_p(u, A, 0)], "ADD-SKATO": [rho_p(u, A, 0)], "ADD-ACATV": [v], "ADD-ACATO": [v]}
    p = np.array([rho_p(u, A, r) for r in GRID])
    k = np.array([rho_p(u, A, r, kuonen_sf) for r in (*GRID, 0.999)])
    exact, liu = rho_p(u, A, 0.999), rho_p(u, A, 0.999, liu_sf)
    smallest = min(p.min(), exact)
    return {
        "ADD-SKAT": [p[0], k[0]],
        "ADD-SKATO": [min(skat_o_published(A, smallest, np.append(GRID, 0.999)), 8 * smallest)],
        "ADD-ACATV": [v],
        "ADD-ACATO": [acat(np.array([v, *x]), np.ones(9), 0.999) for x in ((*p, exact), (*p, k[-1]), (*p, liu), k)],
    }


def rows_of_ours(u: np.ndarray, A: np.ndarray, w: np.ndarray) -> dict[str, list[float]]:
    """Return by test our p-value from its definition."""
    p = np.array([rho_p(u, A, r) for r in (*GRID, 1.0)])
    v = acat(stats.chi2.sf(u * u / A.diagonal(), 1), w, 0.999)
    o = p[0] if len(u) == 1 else min(skat_o_published(A, p.min(), np.append(GRID, 1.0)), 8 * p.min())
    return {
        "ADD-SKAT": [p[0]],
        "ADD-SKATO": [o],
        "ADD-ACATV": [v],
        "ADD-ACATO": [half_cauchy([p[0], p[-1], v])],
    }


def defined_rows(name: str, is_regenie: bool) -> pd.DataFrame:
    """Return all rows of a file by one set of rules: -log10 p of every candidate."""
    rows = []
    for gene, (chromosome, masks) in read_sets().items():
        null = fit_linear("cohort_a", offset=chromosome if name == "loco" else None)
        variance, absent = (null.unprojected, "mean") if is_regenie else (null.variance, "zero")
        for mask, names in masks.items():
            s = score("cohort_a", null, names)
            for label, chosen in (
                ("singleton", s.count == 1), ("0.01", s.frequency <= 0.01), ("0.05", s.frequency <= 0.05)
            ):  # fmt: skip
                if chosen.any():
                    rows.append((gene, mask, label, "ADD", [burden_p(s, null, chosen, variance, absent)]))
            u, A, w = weigh(s)
            found = rows_of_regenie(u * s.shrink, A, w) if is_regenie else rows_of_ours(u, A, w)
            rows += [(gene, mask, "0.05", test, p) for test, p in found.items()]
    table = pd.DataFrame(rows, columns=[*KEYS, "p"])
    table["defined"] = [-np.log10(p) for p in table.pop("p")]
    return table


def our_rows(run_golden, name: str) -> pd.DataFrame:
    """Return our rows under REGENIE's names."""
    chosen = {"predictor": PREDICTORS[name]}
    folders = (
        run_golden("cohort_a", tests=BURDEN, score_statistics={"missing": "zero"}, **chosen),
        run_golden("cohort_a", tests=COMPONENTS, **chosen),
    )
    ours = pd.concat([read_results(folder) for folder in folders]).query("trait == 'y'").copy()
    ours["TEST"] = ours["test"].map(NAMES)
    ours["bin"] = ours["max_maf"].map({SINGLETONS: "singleton", 0.01: "0.01", 0.05: "0.05"})
    return ours


@pytest.mark.parametrize("name", ["none", "loco"])
def test_every_row_of_regenie_follows_from_its_rules(name):
    theirs = read_regenie(name)
    joined = theirs.merge(defined_rows(name, is_regenie=True), on=KEYS)
    assert len(joined) == len(theirs) == 251
    joined["error"] = [np.abs(c - x).min() for c, x in zip(joined["defined"], joined["LOG10P"], strict=True)]
    exact = np.array([c[0] for c in joined["defined"]])
    # six digits are printed; Davies' method is good to 1e-6
    for test, rows in joined.groupby("TEST"):
        assert rows["error"].max() < (TWO_PER_CENT if test == "ADD-SKATO" else 5e-5), test
    skat = joined["TEST"] == "ADD-SKAT"
    approximated = joined[skat & (np.abs(exact - joined["LOG10P"]) > 3e-5)]
    assert approximated["ID"].tolist() == ["GENE2C.M1.0.05"]


@pytest.mark.ci
@pytest.mark.parametrize("name", ["none", "loco"])
def test_every_row_of_ours_follows_from_its_definition(run_golden, name):
    expected = defined_rows(name, is_regenie=False)
    joined = expected.merge(our_rows(run_golden, name), on=KEYS)
    assert len(joined) == len(expected) == 251
    error = np.abs(joined["log10p"] - [c[0] for c in joined["defined"]])
    is_skat_o = joined["TEST"] == "ADD-SKATO"
    assert error[~is_skat_o].max() < 3e-6
    assert error[is_skat_o].max() < 1e-4


def test_rows_agree_with_regenie_directly(run_golden):
    """At the README's tolerances: burden and singletons 1e-5, SKAT 1e-3, SKAT-O 2 %, ACAT-V as SKAT."""
    joined = read_regenie("none").merge(our_rows(run_golden, "none"), on=KEYS)
    error = np.abs(10 ** (joined["LOG10P"] - joined["log10p"]) - 1)
    burden, alone = joined["TEST"] == "ADD", joined["ID"] == "GENE2C.M1.singleton"
    assert burden.sum() == 107
    # -log10 p is printed with six digits
    assert np.abs(joined["LOG10P"] - joined["log10p"])[burden & ~alone].max() < 1e-5
    assert np.abs(joined["BETA"] / joined["beta"] - 1)[burden & ~alone].max() < 1e-4
    assert np.abs(joined["SE"] / joined["se"] - 1)[burden & ~alone].max() < 1e-4
    assert error[joined["TEST"] == "ADD-SKAT"].max() < 1e-3
    assert error[joined["TEST"] == "ADD-SKATO"].max() < 0.02
    acat_v = joined["TEST"] == "ADD-ACATV"
    assert (error[acat_v] < 1e-3).sum() >= 30  # the others hold a p above 0.999


def test_a_singleton_alone_in_its_mask_agrees_when_missing_calls_are_the_mean(run_golden):
    folder = run_golden("cohort_a", tests=BURDEN, predictor={"method": "none"})
    ours = read_results(folder).query("trait == 'y' and gene == 'GENE2C' and mask == 'M1' and max_maf == @SINGLETONS")
    theirs = read_regenie("none").query("ID == 'GENE2C.M1.singleton'")
    assert abs(ours["log10p"].item() - theirs["LOG10P"].item()) < 1e-5


def test_rows_bear_on_missing_zero(run_golden):
    """Where missing calls are the mean, 44 burden rows differ from REGENIE by more than 1e-3."""
    folder = run_golden("cohort_a", tests=BURDEN, predictor={"method": "none"})
    ours = read_results(folder).query("trait == 'y' and weights == 'flat'").copy()
    ours["bin"] = ours["max_maf"].map({SINGLETONS: "singleton", 0.01: "0.01", 0.05: "0.05"})
    joined = read_regenie("none").query("TEST == 'ADD'").merge(ours, on=["gene", "mask", "bin"])
    assert (np.abs(joined["LOG10P"] - joined["log10p"]) > 1e-3).sum() > 20


@pytest.mark.parametrize("rule", ["maf", "aaf"])
def test_the_frequency_rule_decides_where_alt_is_the_major_allele(tmp_path, rule):
    """No variant of the cohort has an ALT frequency above 0.95, so here REF and ALT of every third change names.

    With ``maf`` the minor allele counts and REGENIE's rows must come back; with ``aaf`` those variants leave the masks,
    as REGENIE's do, and the row follows from the others.
    """
    null, sets = fit_linear("cohort_a"), read_sets()
    frequencies = [score("cohort_a", null, masks["M3"]).frequency for _, masks in sets.values()]
    assert max(f.max() for f in frequencies) < 0.95
    turned = sorted({name for _, masks in sets.values() for name in masks["M3"]})[::3]
    ours = read_results(run_turned(tmp_path, set(turned), rule)).query("trait == 'y'").copy()
    ours["bin"] = ours["max_maf"].astype(str)
    theirs = read_regenie("none").set_index(["gene", "mask", "bin", "TEST"])["LOG10P"]
    compared = 0
    for row in ours.itertuples():
        s = score("cohort_a", null, sets[row.gene][1][row.mask])
        kept = (s.frequency <= row.max_maf) & ~np.isin(s.names, turned)
        expected = theirs[row.gene, row.mask, row.bin, "ADD"]
        if rule == "aaf":
            expected = -math.log10(burden_p(s, null, kept, null.variance, "zero")) if kept.any() else math.nan
        assert row.log10p == pytest.approx(expected, abs=1e-5, nan_ok=True), row
        compared += math.isfinite(row.log10p)
    assert compared >= 60


def run_turned(folder, turned: set[str], rule: str):
    """Run cohort A with REF and ALT of some variants exchanged in every file that names them; the .bed stays."""
    for path in DATA.glob("*.*"):
        if path.name in ("cohort_a.bim", "annotations.txt", "sets.txt"):
            words = re.split(r"([ ,\t\n])", path.read_text())
            (folder / path.name).write_text("".join(turn(word) if word in turned else word for word in words))
        else:
            (folder / path.name).symlink_to(path)
    config = yaml.safe_load((DATA / "cohort_a.yaml").read_text()) | {
        "tests": BURDEN | {"max_maf": [0.01, 0.05], "frequency": rule},
        "predictor": {"method": "none"},
        "score_statistics": {"missing": "zero"},
    }
    (folder / "c.yaml").write_text(yaml.safe_dump(config))
    return run_study(folder / "c.yaml", folder / "out", Resources(), "meta").path


def turn(name: str) -> str:
    """Return chromosome:position:ALT:REF."""
    chromosome, position, ref, alt = name.split(":")
    return f"{chromosome}:{position}:{alt}:{ref}"

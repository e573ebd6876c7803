"""ACAT-V with its rarest variants taken together, from the definition (Liu et al. 2019, AJHG 104:410).

Variants of at most ten alleles enter as one burden ``sum_j w_j g_j``, w_j = dbeta(f_j, 1, 25), the others alone. A
variant's weight is w^2 f (1 - f); the burden's is the same of the means of w and f over its variants
(``collapsed_weight: mean``; by default it weighs as a variant of its own frequency, as in REGENIE). The authors'
package takes w at the mean f instead, as ``(dbeta(f, 1, 25) / dbeta(f, 1/2, 1/2))^2``, which is w^2 f (1 - f) but for a
constant; that is 1e-3 away at most. Here every term is one score test of a column of the genotypes.
"""

import math

import numpy as np
from scipy import stats

from tests.golden.cohorts import read_results
from tests.reference_golden import NullModel, Scores, fit_linear, read_sets, score

TESTS = {"names": ["acat-v"], "max_maf": [0.05], "weights": ["beta_1_25"], "collapsed_weight": "mean"}


def of_paper(f: np.ndarray) -> float:
    return stats.beta.pdf(f, 1, 25).mean() ** 2 * f.mean() * (1 - f.mean())


def of_package(f: np.ndarray) -> float:
    return (stats.beta.pdf(f.mean(), 1, 25) / stats.beta.pdf(f.mean(), 0.5, 0.5) / math.pi) ** 2


def grown(f: np.ndarray) -> float:
    """A weight that grows with the number of variants: wrong."""
    return len(f) * of_paper(f)


def of_regenie(f: np.ndarray) -> float:
    """The burden as one variant of the frequency that its variants have together."""
    return of_paper(np.array([f.sum()]))


def column_p(g: np.ndarray, null: NullModel) -> float:
    """Return p of the score test of one column."""
    return float(stats.chi2.sf((g @ null.residual) ** 2 / null.variance / (g @ null.project(g)), 1))


def by_definition(s: Scores, null: NullModel, burden_weight) -> float:
    """Return p of the combination; minor alleles counted, a missing call is the mean."""
    filled = np.where(np.isnan(s.calls), 2 * s.frequency, s.calls)
    turned = s.frequency > 0.5
    f, g = np.where(turned, 1 - s.frequency, s.frequency), np.where(turned, 2 - filled, filled)
    count = np.where(turned, 2 * (~np.isnan(s.calls)).sum(axis=0) - s.count, s.count)
    rare = (count <= 10) & (f <= 0.05)
    terms = [(column_p(g[:, j], null), of_paper(f[[j]])) for j in np.flatnonzero((count > 10) & (f <= 0.05))]
    if rare.sum() > 1:
        terms.append((column_p(g[:, rare] @ stats.beta.pdf(f[rare], 1, 25), null), burden_weight(f[rare])))
    else:
        terms += [(column_p(g[:, j], null), of_paper(f[[j]])) for j in np.flatnonzero(rare)]
    if len(terms) == 1:
        return terms[0][0]
    p, w = np.array(terms).T
    p = np.minimum(p, 0.999)
    return 0.5 - math.atan(float(w @ np.tan((0.5 - p) * np.pi)) / w.sum()) / math.pi


def distances(folder, weights):
    """Return by weight how far each row is from its definition, relative."""
    ours = read_results(folder).query("trait == 'y'").set_index(["gene", "mask"])["p"]
    null = fit_linear("cohort_a")
    away = {weight: [] for weight in weights}
    for gene, (_, masks) in read_sets().items():
        for mask, names in masks.items():
            s = score("cohort_a", null, names)
            for weight, far in away.items():
                far.append(abs(by_definition(s, null, weight) / ours[gene, mask] - 1))
    assert len(ours) == 36
    return {weight: np.array(far) for weight, far in away.items()}


def test_the_burden_of_the_rarest_has_the_weight_of_its_definition(run_golden):
    folder = run_golden("cohort_a", predictor={"method": "none"}, tests=TESTS)
    away = distances(folder, (of_paper, of_package, grown))
    assert away[of_paper].max() < 1e-9
    assert 1e-6 < away[of_package].max() < 1e-3
    assert np.sum(away[grown] > 0.01) >= 15


def test_the_burden_of_the_rarest_weighs_as_a_variant_of_its_own_frequency_by_default(run_golden):
    folder = run_golden("cohort_a", predictor={"method": "none"}, tests={**TESTS, "collapsed_weight": "own"})
    away = distances(folder, (of_regenie, of_paper))
    assert away[of_regenie].max() < 1e-9
    assert np.sum(away[of_paper] > 0.01) >= 15

"""The null model of a time to event: Cox's partial likelihood, ``W`` the expected events of each person, phi = 1.

Efron's ties, left truncation, strata (each with its own baseline hazard). The residual is the martingale residual
``M_i = event_i - W_i``, so that ``U = G'M`` and ``V = G'WG - G'RG - G'C (X'C)^-1 C'G`` are score and information of the
partial likelihood, ``C = WX - RX``; R is in `risk_sets`. Therneau & Grambsch (2000), Modeling Survival Data, ch. 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack, qr, solve_triangular

from locomass.errors import StatisticsError
from locomass.follow_up import FollowUp
from locomass.null_models.base import Design, Law, NullFit, Outcome
from locomass.null_models.design import RANK_TOLERANCE, residual_basis
from locomass.null_models.risk_sets import Cells, find_cells, lay_axis, sum_risk_sets, sum_terms
from locomass.numbers import Floats

STEPS = 60  # of Newton's method, before covariates are taken to separate the events
CONVERGED = 1e-10  # largest change of a linear predictor


@dataclass(frozen=True)
class Cox:
    """Times to an event; W and R are the trait's, so its Z holds covariates, LOCO columns and bins of risk sets."""

    law: Law = "residual"

    def fit(self, outcome: Outcome, Z: Floats, F: Floats, offset: Floats, start: NullFit | None = None, /) -> NullFit:
        """See `fit_cox`."""
        assert outcome.follow_up is not None
        return fit_cox(outcome.follow_up, Z, F, offset, start)

    def project_out(self, design: Design, F: Floats, fit: NullFit, /) -> tuple[Floats, Floats]:
        """Return ``C (X'C)^(-1/2)`` and the columns of the bins; nothing is left for the second part."""
        assert fit.Z is not None
        return fit.Z, np.empty((len(F), 0))


@dataclass(frozen=True)
class _State:
    """The partial likelihood at one linear predictor, and its first two derivatives.

    Attributes:
        log_likelihood: its logarithm.
        e: (n,) exp(eta), up to a factor.
        W: (n,) expected events.
        at_risk, failing: (c, 1 + p) sums of ``e [1, x]`` in every cell.
        c: (c, 3) sums over Efron's terms.
        information: (p, p).
    """

    log_likelihood: float
    e: Floats
    W: Floats
    at_risk: Floats
    failing: Floats
    c: Floats
    information: Floats


def fit_cox(follow_up: FollowUp, Z: Floats, F: Floats, offset: Floats, start: NullFit | None = None) -> NullFit:
    """Fit ``log hazard = baseline(stratum) + X a + F b + offset`` by maximum partial likelihood.

    Args:
        follow_up: of n people.
        Z: (n, p) orthonormal basis of the covariates; a constant, also within strata, tells nothing and is left out.
        F: (n, q) LOCO predictions used as covariates; q = 0 in offset mode.
        offset: (n,) LOCO prediction used as offset; zero otherwise.
        start: the fit of another chromosome, from whose coefficients Newton's method starts.

    Returns:
        The model; weight W, sigma2 = 1, ``r2 = 1 - exp(-2 (l - l0) / events)``, l and l0 the log-likelihoods with and
        without the prediction (O'Quigley, Xu & Stare 2005); both variances are events / n.

    Raises:
        StatisticsError: fewer than two events, or the likelihood has no maximum.
    """
    n, events = follow_up.exit.size, int(follow_up.event.sum())
    if events < 2:
        raise StatisticsError(
            f"the trait has {'no events' if events == 0 else 'one event'} among the {n:,} analysed samples; a Cox "
            "model needs two or more"
        )
    cells = find_cells(follow_up)
    q = F.shape[1]
    Q = _varying(Z, follow_up.stratum)
    known = (np.empty(0), np.empty(0)) if start is None else (start.coefficients[0], start.coefficients[1])
    plain, a0 = _newton(cells, Q, np.zeros(n), known[0])
    state, a, slope, slope_se = plain, a0, np.empty(0), np.empty(0)
    columns = Q
    if q:
        basis, R = residual_basis(_centre(F, follow_up.stratum), Q)
        columns = np.hstack([Q, basis])
        first = known[1]
        if first.size == columns.shape[1] and start is not None:
            first = np.concatenate([first[:-q], R @ start.slope])
        state, a = _newton(cells, columns, offset, first)
        back = solve_triangular(R, np.eye(q))
        slope = back @ a[-q:]
        slope_se = np.sqrt(np.diag(back @ np.linalg.inv(state.information)[-q:, -q:] @ back.T))
    elif np.any(offset != 0):
        state, a = _newton(cells, columns, offset, known[1])
    risk = lay_axis(state.e, cells, state.c)
    return NullFit(
        residual=follow_up.event - state.W,
        weight=state.W,
        sigma2=1.0,
        slope=slope,
        slope_se=slope_se,
        variance_before=events / n,
        variance_after=events / n,
        r2=1.0 - np.exp(-2.0 * (state.log_likelihood - plain.log_likelihood) / events),
        mu=state.W,
        coefficients=(a0, a),
        Z=np.hstack([_project(cells, columns, state), risk.bin_columns()]),
        risk=risk,
    )


def _centre(columns: Floats, stratum: NDArray[np.int64]) -> Floats:
    """Return columns less their mean in each stratum."""
    number = np.unique(stratum, return_inverse=True)[1].reshape(-1)
    size = np.bincount(number)
    return np.column_stack(
        [x - (np.bincount(number, x) / size)[number] for x in columns.T] or [np.empty((len(columns), 0))]
    )


def _varying(Z: Floats, stratum: NDArray[np.int64]) -> Floats:
    """Return an orthonormal basis of what covariates tell within strata."""
    Q, R, _ = qr(_centre(Z, stratum), mode="economic", pivoting=True)
    return np.asarray(Q[:, np.abs(np.diag(R)) > RANK_TOLERANCE])


def _evaluate(cells: Cells, A: Floats, eta: Floats) -> _State:
    """Return the partial likelihood at a linear predictor, and its derivatives in the columns of A."""
    shift = float(eta.max())
    e = np.exp(eta - shift)
    at_risk, failing = sum_risk_sets(e, A, cells.first, cells.last, cells.died, cells.start)
    h, c, logs = sum_terms(at_risk[:, 0], failing[:, 0], cells.size)
    H = np.concatenate(([0.0], np.cumsum(h[:, 0])))
    own = cells.last[cells.died] - 1
    total = H[np.maximum(cells.last, cells.first)] - H[cells.first]
    total[cells.died] -= h[own, 1]
    W = e * total
    S, D = at_risk[:, 1:], failing[:, 1:]
    mixed = S.T @ (c[:, 1:2] * D)
    information = A.T @ (W[:, None] * A) - S.T @ (c[:, :1] * S) + mixed + mixed.T - D.T @ (c[:, 2:] * D)
    log_likelihood = float((eta[cells.died] - shift).sum()) - logs
    return _State(log_likelihood, e, W, at_risk, failing, c, information)


def _newton(cells: Cells, Q: Floats, offset: Floats, start: Floats) -> tuple[_State, Floats]:
    """Return the partial likelihood at its maximum, and the coefficients (p,) of orthonormal columns.

    Newton's method with step halving; stops when no linear predictor moves by more than 1e-10.
    """
    root = np.sqrt(len(Q))
    A = Q * root
    b = start / root if start.size == A.shape[1] else np.zeros(A.shape[1])
    state = _evaluate(cells, A, A @ b + offset)
    for _ in range(STEPS):
        factor, info = lapack.dpotrf(state.information, lower=1) if b.size else (None, 0)
        if info != 0 or not np.isfinite(state.log_likelihood):
            raise StatisticsError(_NO_MAXIMUM)
        if not b.size:
            return _rescale(state, root), b
        step = lapack.dpotrs(factor, A.T @ (cells.died - state.W), lower=1)[0]
        moved = float(np.max(np.abs(A @ step)))
        fraction = min(1.0, 20.0 / moved) if moved > 0 else 1.0  # exp() of more is no likelihood
        while True:
            new = _evaluate(cells, A, A @ (b + fraction * step) + offset)
            if new.log_likelihood >= state.log_likelihood - 1e-12 * abs(state.log_likelihood) or fraction < 1e-8:
                break
            fraction /= 2
        b, state = b + fraction * step, new
        if moved < CONVERGED:
            return _rescale(state, root), b * root
    raise StatisticsError(_NO_MAXIMUM)


def _rescale(state: _State, root: float) -> _State:
    """Return a state in columns ``root A`` as one in the columns A."""
    scale = np.ones(state.at_risk.shape[1])
    scale[1:] = root
    return _State(
        state.log_likelihood,
        state.e,
        state.W,
        state.at_risk / scale,
        state.failing / scale,
        state.c,
        state.information / root**2,
    )


def _project(cells: Cells, Q: Floats, state: _State) -> Floats:
    """Return ``C (Q'C)^(-1/2)``, C = (W - R) Q, in O(n p)."""
    c, S, D = state.c, state.at_risk[:, 1:], state.failing[:, 1:]
    path = np.vstack([np.zeros(Q.shape[1]), np.cumsum(S * c[:, :1] - D * c[:, 1:2], axis=0)])
    mean = path[np.maximum(cells.last, cells.first)] - path[cells.first]
    own = cells.last[cells.died] - 1
    mean[cells.died] -= S[own] * c[own, 1:2] - D[own] * c[own, 2:]
    C = state.W[:, None] * Q - state.e[:, None] * mean
    factor = np.linalg.cholesky(state.information)
    return np.asarray(solve_triangular(factor, C.T, lower=True).T)


_NO_MAXIMUM = (
    "the Cox null model does not converge: a covariate separates those with an event from the others (all or none of "
    "the events are at one of its levels), or covariates are nearly singular; remove it, or merge its levels"
)

"""All cases, by name, in the order of the table."""

from __future__ import annotations

from benchmarks.cases import genotypes, kernels, large, scores, stages
from benchmarks.cases.base import Case

CASES: dict[str, Case] = {
    case.name: case for module in (genotypes, stages, scores, kernels, large) for case in module.CASES
}

"""All cases, by name, in the order of the table."""

from __future__ import annotations

from benchmarks.cases import consortium, genotypes, kernels, large, scores, stages
from benchmarks.cases.base import Case

CASES: dict[str, Case] = {
    case.name: case for module in (genotypes, stages, scores, kernels, consortium, large) for case in module.CASES
}

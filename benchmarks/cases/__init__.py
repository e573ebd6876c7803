"""All cases, by name, in the order of the table."""

from __future__ import annotations

from benchmarks.cases import consortium, genotypes, kernels, large, pgen, scores, searches, stages
from benchmarks.cases.base import Case

_MODULES = (genotypes, stages, scores, kernels, searches, consortium, large, pgen)
CASES: dict[str, Case] = {case.name: case for module in _MODULES for case in module.CASES}

"""Numba kernels on plain arrays: packed genotypes, score statistics, tails, permutation."""

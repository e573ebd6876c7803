"""Genotype files, the carriers of their variants, and the products of carriers with columns."""

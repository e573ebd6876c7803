"""Null models: what a trait gives to the pass over the genotypes."""

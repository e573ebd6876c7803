"""Variants: chromosome labels, names, and the one place that decides when two variants are the same."""

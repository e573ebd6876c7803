"""Annotation of variants by other programs, read into records, and the rules that make categories of them."""

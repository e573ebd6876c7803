"""Leave-one-chromosome-out de-noising and meta-analysis of score statistics for sequencing studies."""

__version__ = "0.1.0"

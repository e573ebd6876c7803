"""What is fast, against what, printed as ratios: ``python -m benchmarks``."""

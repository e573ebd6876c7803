"""Realistic genotypes and phenotypes for the demonstration, for tests and for benchmarks; all of it seeded."""

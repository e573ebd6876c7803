"""The aims, and whether the numbers of this run meet them."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.measure import Usage

SCORES, TESTS = "score statistics, 1 trait", "burden SKAT ACAT-V ACAT-O, 2 masks, 2 weights"


def judge(measured: dict[str, Usage], numbers: dict[str, dict[str, float]]) -> str:
    """Return a table of the aims whose cases were measured."""

    def cpu(*names: str) -> float:
        return sum(measured[name].cpu for name in names)

    def number(case: str, name: str) -> float:
        return numbers[case][name]

    rates = "scan_carriers by frequency, GB/s"
    aims: tuple[tuple[str, str, float, Callable[[], float]], ...] = (
        ("score statistics + tests, CPU s", "<=", 1.5, lambda: cpu(SCORES, TESTS)),
        ("the same with one set of weights, CPU s", "<=", 1.5, lambda: cpu(SCORES, "the same, Beta(1, 25) only")),
        ("with SKAT-O, CPU s", "<=", 5.0, lambda: cpu(SCORES, "the same, 1 trait, with SKAT-O")),
        ("five traits, CPU s", "<=", 3.0, lambda: cpu("score statistics, 5 traits", "the same, 5 traits")),
        ("40,000 single-variant tests, CPU s", "<=", 1.8, lambda: cpu("packed kernel")),
        ("singletons and doubletons, GB/s", ">=", 5.0, lambda: number(rates, "singletons, doubletons")),
        ("0.1-1 %, GB/s", ">=", 1.0, lambda: number(rates, "0.1-1 %")),
        ("their part of the bytes, 1/k", ">=", 0.6, lambda: number("scan, 1/k", "their part of the bytes")),
        ("their part of the bytes, growth", ">=", 0.6, lambda: number("scan, growth", "their part of the bytes")),
        ("extra cost per 5 traits", "<=", 0.1, lambda: number("further traits", "extra per 5 traits")),
        ("exponent, samples", "<=", 1.1, lambda: number("exponents of the genotype pass", "samples")),
        ("exponent, variants", "<=", 1.1, lambda: number("exponents of the genotype pass", "variants")),
        (
            "3 scores / plink2 --score of one, CPU", "<=", 1.0,
            lambda: cpu("add_weighted_dosage, 3 sets, 22 chromosomes") / cpu("plink2 --score, 1 set"),
        ),
        (
            "20,000 genes x 2 masks x 3 tests, CPU s", "<=", 10.0,
            lambda: number("gene tests alone", "seconds for 20,000 genes x 2 masks x 3 tests"),
        ),
        ("67 variants x 100,000 permutations, CPU s", "<=", 20.0, lambda: cpu("step-up by permutation")),
        (
            "sweep of 1.05 million variants, CPU s", "<=", 0.2,
            lambda: number("Gibbs sweep of LDpred2", "seconds per sweep"),
        ),
        ("locomass --help, wall s", "<=", 0.3, lambda: measured["locomass --help"].wall),
        ("small run, wall s", "<=", 3.0, lambda: measured["locomass run, small"].wall),
        ("50 studies x 2,000 genes, wall s", "<=", 60.0, lambda: measured["locomass meta, 2,000 genes"].wall),
        ("50 studies x 2,000 genes, peak MB", "<=", 1000.0, lambda: measured["locomass meta, 2,000 genes"].peak_mb),
        ("100,000 x 200,000, wall s", "<=", 60.0, lambda: measured["locomass run, large"].wall),
        ("100,000 x 200,000, peak MB", "<=", 1000.0, lambda: measured["locomass run, large"].peak_mb),
    )  # fmt: skip
    lines = ["## aims", "", "| aim | bound | measured | holds |", "|---|---|---|---|"]
    for name, sign, bound, value in aims:
        try:
            found = value()
        except KeyError:
            continue
        holds = found <= bound if sign == "<=" else found >= bound
        lines.append(f"| {name} | {sign} {bound:g} | {found:.3g} | {'yes' if holds else 'no'} |")
    return "\n".join(lines)

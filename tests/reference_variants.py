"""When two variants are the same, from the definition, variant by variant; shares nothing with the packages."""

from __future__ import annotations

UNSEEN = ("0", ".", "")


def spelled(allele: str) -> bool:
    return allele == "-" or (allele.isalpha() and allele not in UNSEEN)


def is_ordered(ref: str, alt: str) -> bool:
    """An insertion or deletion: REF and ALT cannot be exchanged."""
    lengths = [0 if a == "-" else len(a) for a in (ref, alt)]
    return spelled(ref) and spelled(alt) and lengths[0] != lengths[1]


def same(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """REF and ALT of two variants of one place, both known."""
    return one == other or (one == other[::-1] and not is_ordered(*one))


def orient(a1: str, a2: str, name: tuple[str, str] | None) -> tuple[str, str, bool]:
    """REF, ALT and whether that is known, of a row; ``name`` is what its identifier says, if anything."""
    fits = {
        turned
        for turned, (x, y) in ((False, (a1, a2)), (True, (a2, a1)))
        if name and (x == name[1] or x in UNSEEN) and (y == name[0] or y in UNSEEN)
    }
    if name and len(fits) == 1:
        return (*name, True)
    return (a1, a2, False) if a2 in UNSEEN and a1 not in UNSEEN else (a2, a1, False)


def match(wanted: list[tuple[int, str, str]], rows: list[tuple[int, str, str, tuple[str, str] | None]]) -> list[int]:
    """Row of each wanted variant (position, REF, ALT) among rows (position, A1, A2, name); -1 where absent.

    Rows that name one variant must be listed once; no frequency is known.
    """
    oriented = [(p, *orient(a1, a2, name)) for p, a1, a2, name in rows]
    out = []
    for p, ref, alt in wanted:
        hits = [j for j, (q, r, a, _) in enumerate(oriented) if p == q and same((ref, alt), (r, a))]
        out.append(hits[0] if hits else -1)
    used: dict[tuple[int, str, str], int] = {}
    for k, (p, ref, alt) in enumerate(wanted):
        if out[k] >= 0:
            continue
        if (p, ref, alt) in used:
            out[k] = used[p, ref, alt]
            continue
        for j, (q, r, a, _) in enumerate(oriented):
            known = a if r in UNSEEN else r
            free = (r in UNSEEN or a in UNSEEN) and j not in used.values() and p == q
            if free and (known == ref or (known == alt and not is_ordered(ref, alt))):
                used[p, ref, alt] = out[k] = j
                break
    return out


def union(studies: list[list[tuple[int, str, str]]]) -> list[list[int]]:
    """Number of each variant of each study (position, REF, ALT), equal exactly where variants are the same."""
    known: list[tuple[int, str, str]] = []
    out = []
    for study in studies:
        numbers = []
        for p, ref, alt in study:
            hits = [n for n, (q, r, a) in enumerate(known) if p == q and same((ref, alt), (r, a))]
            if not hits:
                known.append((p, ref, alt))
                hits = [len(known) - 1]
            numbers.append(hits[0])
        out.append(numbers)
    return out


PAIR = {"A": "T", "C": "G", "G": "C", "T": "A"}


def complement(x: str, y: str) -> tuple[str, str]:
    """Two single bases on the other strand; longer alleles stay."""
    return (PAIR[x], PAIR[y]) if x in PAIR and y in PAIR else (x, y)


def harmonise(rows: list[tuple[int, str, str]], reference: list[tuple[int, str, str]]) -> list[tuple[int, int, float]]:
    """Row, variant of the reference and sign, of rows (position, effect, other) without a frequency.

    The forward strand comes first; what could be of either strand, and what is not one to one, matches nothing.
    """
    pairs = []
    for i, (p, x, y) in enumerate(rows):
        forward, backward = [], []
        for j, (q, a, b) in enumerate(reference):
            if p != q:
                continue
            if (x, y) == (a, b):
                forward.append((i, j, 1.0))
            elif (y, x) == (a, b) and not is_ordered(x, y):
                forward.append((i, j, -1.0))
            elif complement(x, y) != (x, y) and complement(x, y) in ((a, b), (b, a)):
                backward.append((i, j, 1.0 if complement(x, y) == (a, b) else -1.0))
        pairs += forward or backward
    sources, targets = [i for i, _, _ in pairs], [j for _, j, _ in pairs]
    return sorted(
        (i, j, sign)
        for i, j, sign in pairs
        if sources.count(i) == 1 and targets.count(j) == 1 and PAIR.get(rows[i][1]) != rows[i][2]
    )

"""A study from its definition, and other programs' files written by hand from it; no code of the product."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.factories import write_fileset


@dataclass
class Toy:
    """A quantitative trait in n people: G (n, m) ALT counts with NaN for a missing call, covariates X, genes.

    U and V are of the definition ``U = G'r / s2``, ``V = (G'G - G'X (X'X)^-1 X'G) / s2`` with mean-imputed G.
    """

    G: np.ndarray
    y: np.ndarray
    X: np.ndarray
    chromosome: list[str]
    position: list[int]
    ref: list[str]
    alt: list[str]
    genes: dict[str, list[int]]

    @property
    def n(self):
        return len(self.y)

    @property
    def m(self):
        return self.G.shape[1]

    @property
    def imputed(self):
        return np.where(np.isnan(self.G), np.nanmean(self.G, axis=0), self.G)

    @property
    def sigma2(self):
        r = self.residual
        return r @ r / (self.n - self.X.shape[1])

    @property
    def residual(self):
        return self.y - self.X @ np.linalg.lstsq(self.X, self.y, rcond=None)[0]

    @property
    def U(self):
        return self.imputed.T @ self.residual / self.sigma2

    @property
    def V(self):
        G = self.imputed
        H = self.X @ np.linalg.inv(self.X.T @ self.X) @ self.X.T
        return (G.T @ G - G.T @ H @ G) / self.sigma2

    @property
    def counts(self):
        """(m, 3) REF/REF, het, ALT/ALT."""
        return np.array([[np.sum(self.G[:, j] == k) for k in (0, 1, 2)] for j in range(self.m)])

    @property
    def frequency(self):
        return np.nanmean(self.G, axis=0) / 2

    def key(self, j):
        return f"{self.chromosome[j]}:{self.position[j]}:{self.ref[j]}:{self.alt[j]}"

    def write_sets(self, path: Path) -> Path:
        lines = []
        for gene, rows in self.genes.items():
            first = min(self.position[j] for j in rows)
            lines.append(f"{gene} {self.chromosome[rows[0]]} {first} {','.join(self.key(j) for j in rows)}\n")
        path.write_text("".join(lines))
        return path

    def swap(self, rows):
        """The same study with REF and ALT of some variants exchanged."""
        G = self.G.copy()
        ref, alt = list(self.ref), list(self.alt)
        for j in rows:
            G[:, j] = 2 - G[:, j]
            ref[j], alt[j] = alt[j], ref[j]
        return Toy(G, self.y, self.X, self.chromosome, self.position, ref, alt, self.genes)


def make_toy(seed: int, n: int = 300, m: int = 24, shared_people: np.ndarray | None = None) -> Toy:
    """Rare and common variants in linkage disequilibrium, an ALT-major one, two at one position, one in two genes."""
    rng = np.random.default_rng(seed)
    frequency = rng.choice([0.01, 0.03, 0.2, 0.4], size=m)
    frequency[2] = 0.95
    G = rng.binomial(2, frequency, size=(n, m)).astype(float)
    copy = rng.random(n) < 0.7
    G[copy, 5] = G[copy, 4]
    G[:, 6] = np.where(G[:, 7] > 0, 0, G[:, 6])
    G[0, :] = np.clip(G[0, :], 0, 1)
    G[1, :] = 1.0
    G[rng.random(n) < 0.05, 3] = np.nan
    X = np.column_stack([np.ones(n), rng.normal(size=n), rng.integers(0, 2, n)])
    y = X @ [1.0, 0.5, -0.3] + 0.6 * G[:, 0] + rng.normal(size=n) * 1.3
    half = m // 2
    position = [1000 + 10 * j for j in range(half)] + [5000 + 7 * j for j in range(m - half)]
    position[9] = position[8]
    ref, alt = ["A"] * m, ["G", "T", "C", "G"] * (m // 4) + ["G"] * (m % 4)
    alt[8], alt[9] = "C", "T"
    genes = {"ONE": list(range(8)), "TWO": [7, *range(8, half)], "THREE": list(range(half, m))}
    return Toy(G, y, X, ["1"] * half + ["2"] * (m - half), position, ref, alt, genes)


def write_pair(
    toy: Toy, folder: Path, *, raremetal: bool = False, scale: float = 1.0, window: int = 10**9
) -> tuple[Path, Path]:
    """An rvtests (or RAREMETAL worker) pair with the numbers' repr; every marker against all later ones."""
    U, V = toy.U, toy.V * scale
    scores, covariances = folder / "scores.gz", folder / "cov.gz"
    head = "CHROM POS REF ALT N_INFORMATIVE AF INFORMATIVE_ALT_AC CALL_RATE HWE_PVALUE N_REF N_HET N_ALT"
    if raremetal:
        head = "#" + head.replace(" AF ", " FOUNDER_AF ALL_AF ")
    head += " U_STAT SQRT_V_STAT ALT_EFFSIZE PVALUE"
    lines = ["##ProgramName=X", f"##AnalyzedSamples={toy.n}", head.replace(" ", "\t")]
    for j in range(toy.m):
        n_ref, n_het, n_alt = toy.counts[j]
        f = [repr(float(toy.frequency[j]))] * (2 if raremetal else 1)
        cells = [toy.chromosome[j], toy.position[j], toy.ref[j], toy.alt[j], toy.n, *f, n_het + 2 * n_alt]
        cells += [(n_ref + n_het + n_alt) / toy.n, "NA", n_ref, n_het, n_alt, repr(float(U[j]))]
        cells += [repr(float(np.sqrt(toy.V[j, j]))), "NA", "NA"]
        lines.append("\t".join(map(str, cells)))
    scores.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))
    if raremetal:
        lines = ["##ProgramName=X", "#CHROM\tCURRENT_POS\tMARKERS_IN_WINDOW\tCOV_MATRICES"]
    else:
        lines = ["CHROM\tSTART_POS\tEND_POS\tNUM_MARKER\tMARKER_POS\tCOV"]
    for i in range(toy.m):
        later = [j for j in range(i, toy.m) if toy.chromosome[j] == toy.chromosome[i]]
        later = [j for j in later if toy.position[j] <= toy.position[i] + window]
        positions = ",".join(str(toy.position[j]) for j in later)
        values = ",".join(repr(float(V[i, j] / toy.n)) for j in later)
        if raremetal:
            cells = [toy.chromosome[i], toy.position[i], positions + ",", values + ","]
        else:
            cells = [toy.chromosome[i], toy.position[i], toy.position[later[-1]], len(later), positions, values]
        lines.append("\t".join(map(str, cells)))
    covariances.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))
    return scores, covariances


def write_mass(toy: Toy, path: Path, *, upper: bool = False) -> Path:
    """A MASS file; V above the diagonal is zero unless ``upper``."""
    U, V = toy.U, toy.V
    lines = [f"#Samples = {toy.n}"]
    for gene, rows in toy.genes.items():
        for i, j in enumerate(rows):
            n_ref, n_het, n_alt = toy.counts[j]
            same = [
                k for k in range(toy.m) if (toy.chromosome[k], toy.position[k]) == (toy.chromosome[j], toy.position[j])
            ]
            name = toy.key(j) if len(same) > 1 else f"{toy.chromosome[j]}:{toy.position[j]}"
            v = [repr(float(V[j, k])) if a <= i or upper else "0" for a, k in enumerate(rows)]
            cells = [gene, name, float(toy.frequency[j]), n_het + 2 * n_alt, n_ref + n_het + n_alt, n_ref, n_het, n_alt]
            lines.append("\t".join([*map(str, cells), repr(float(U[j])), *v]))
    path.write_text("\n".join(lines) + "\n")
    return path


def write_seqmeta(toy: Toy, folder: Path) -> tuple[Path, Path]:
    """The two text tables of a seqMeta object: scores without sigma2."""
    s2 = toy.sigma2
    scores, cov = ["gene\tsnp\tscore\tmaf\tn\tsey"], ["gene\tsnp1\tsnp2\tcov"]
    for gene, rows in toy.genes.items():
        for j in rows:
            cells = [
                gene,
                toy.key(j),
                repr(float(toy.U[j] * s2)),
                repr(float(toy.frequency[j])),
                toy.n,
                repr(float(np.sqrt(s2))),
            ]
            scores.append("\t".join(map(str, cells)))
            for k in rows[: rows.index(j) + 1]:
                cov.append("\t".join([gene, toy.key(j), toy.key(k), repr(float(toy.V[j, k] * s2))]))
        scores.append(
            "\t".join([gene, f"{toy.chromosome[rows[0]]}:99999:A:C", "0", "-1", str(toy.n), repr(float(np.sqrt(s2)))])
        )
    paths = folder / "scores.tsv", folder / "cov.tsv"
    for path, lines in zip(paths, (scores, cov), strict=True):
        path.write_text("\n".join(lines) + "\n")
    return paths


def write_saige(toy: Toy, folder: Path, *, swapped: tuple[int, ...] = ()) -> tuple[Path, Path]:
    """SAIGE single variants, and LD triplets of G'G in which the markers ``swapped`` count the other allele."""
    lines = ["CHR\tPOS\tMarkerID\tAllele1\tAllele2\tAF_Allele2\tTstat\tvar\tN"]
    for j in range(toy.m):
        cells = [toy.chromosome[j], toy.position[j], toy.key(j), toy.ref[j], toy.alt[j], float(toy.frequency[j])]
        lines.append("\t".join(map(str, [*cells, repr(float(toy.U[j])), repr(float(toy.V[j, j])), toy.n])))
    scores = folder / "saige.txt"
    scores.write_text("\n".join(lines) + "\n")
    other = toy.swap(swapped)
    info = ["CHR\tPOS\tMajor_Allele\tMinor_Allele\tMAC\tN\tMissing_rate\tSet\tIndex"]
    for gene, rows in toy.genes.items():
        G = other.imputed[:, rows]
        for index, j in enumerate(rows):
            cells = [toy.chromosome[j], toy.position[j], other.ref[j], other.alt[j], repr(float(G[:, index].sum()))]
            info.append("\t".join(map(str, [*cells, toy.n, 0, gene, index])))
        GG = G.T @ G
        triplets = [f"{i} {k} {GG[i, k]!r}" for i in range(len(rows)) for k in range(i + 1) if GG[i, k] != 0]
        (folder / f"ld_{gene}.txt").write_text("\n".join(triplets).replace("np.float64(", "").replace(")", "") + "\n")
    (folder / "ld.marker_info.txt").write_text("\n".join(info) + "\n")
    return scores, folder / "ld"


def write_regenie(toy: Toy, folder: Path, *, a1_is_alt: np.ndarray) -> tuple[Path, Path]:
    """REGENIE single variants, gene rows and a failure among them, and the genotypes as the LD reference."""
    lines = ["CHROM GENPOS ID ALLELE0 ALLELE1 A1FREQ N TEST BETA SE CHISQ LOG10P EXTRA"]
    for j in range(toy.m):
        beta, se = toy.U[j] / toy.V[j, j], 1 / np.sqrt(toy.V[j, j])
        cells = [
            toy.chromosome[j],
            toy.position[j],
            f"rs{j}",
            toy.ref[j],
            toy.alt[j],
            float(toy.frequency[j]),
            toy.n,
            "ADD",
        ]
        lines.append(" ".join(map(str, [*cells, repr(float(beta)), repr(float(se)), "1", "1", "NA"])))
    lines.append(f"1 1000 ONE.M1.0.01 ref M1.0.01 0.01 {toy.n} ADD 1 1 1 1 NA")
    lines.append(f"1 1005 rsX A C 0.01 {toy.n} ADD NA NA NA NA TEST_FAIL")
    lines.append(f"1 1006 rsY A C 0.01 {toy.n} ADD 1 1 1 1 NA")
    scores = folder / "regenie.txt"
    scores.write_text("\n".join(lines) + "\n")
    counts = np.where(a1_is_alt[:, None], toy.G.T, 2 - toy.G.T)
    variants = [
        (toy.chromosome[j], toy.position[j], f"rs{j}", toy.alt[j] if a else toy.ref[j], toy.ref[j] if a else toy.alt[j])
        for j, a in enumerate(a1_is_alt)
    ]
    samples = [("0", f"i{i}") for i in range(toy.n)]
    bed = write_fileset(
        folder / "reference", np.where(np.isnan(counts), -1, counts).astype(np.int64), variants, samples
    )
    return scores, bed


def write_generic(toy: Toy, folder: Path) -> tuple[Path, Path]:
    """U and V as text, one set, names that are no variants."""
    names = [f"marker_{j}" for j in range(toy.m)]
    scores = folder / "u.txt"
    scores.write_text("name U\n" + "".join(f"{a} {float(u)!r}\n" for a, u in zip(names, toy.U, strict=True)))
    cov = folder / "v.txt"
    rows = [f"{names[i]} {names[j]} {float(toy.V[i, j])!r}\n" for i in range(toy.m) for j in range(toy.m)]
    cov.write_text("name_1 name_2 V\n" + "".join(rows))
    return scores, cov

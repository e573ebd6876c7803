"""A GWAS of the simulated people: marginal regressions, written as GWAS-SSF."""

from __future__ import annotations

import gzip
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy import special

from locomass.files.atomic import atomic_path
from locomass.numbers import LN10, Floats
from locomass.simulate.genotypes import Variants


@dataclass(frozen=True, slots=True)
class MarginalEffects:
    """Regressions of T traits on m variants, one at a time.

    Attributes:
        beta, se: (T, m) per ALT allele.
        frequency: (m,) of ALT.
    """

    beta: Floats
    se: Floats
    frequency: Floats


def residualise(traits: Floats, covariates: Floats) -> Floats:
    """Return (T, n) residuals of traits on an intercept and covariates (n, p)."""
    design = np.column_stack((np.ones(covariates.shape[0]), covariates))
    q, _ = np.linalg.qr(design)
    return np.asarray(traits - (traits @ q) @ q.T)


def regress_marginally(dosage: NDArray[np.int8], residuals: Floats) -> MarginalEffects:
    """Regress residuals on every variant.

    ``beta = g'r / g'g`` and ``se^2 = (r'r - beta^2 g'g) / ((n - 2) g'g)`` with g centred. Covariates are projected out
    of the trait but not of the genotype, which is exact to 1/n when they are independent, as they are here.

    Args:
        dosage: (m, n) ALT counts.
        residuals: (T, n), mean 0.

    Returns:
        Effects; a monomorphic variant has beta NaN.
    """
    g = dosage.astype(np.float64)
    n = g.shape[1]
    mean = g.mean(axis=1)
    gg = np.einsum("ij,ij->i", g, g) - n * mean**2
    gg[gg <= 1e-9 * n] = np.nan
    # residuals sum to 0, so g need not be centred here
    beta = (residuals @ g.T) / gg
    rr = (residuals**2).sum(axis=1, keepdims=True)
    return MarginalEffects(beta, np.sqrt((rr - beta**2 * gg) / ((n - 2) * gg)), mean / 2)


class SumstatsWriter:
    """Collects one trait's effects chromosome by chromosome and writes them as GWAS-SSF with its metadata."""

    def __init__(self, trait: str, n: int, n_cases: int | None, rng: np.random.Generator) -> None:
        """Prepare a file.

        Args:
            trait: its name.
            n: sample size.
            n_cases: cases, for a binary trait; effects are then turned from the 0/1 scale to log odds by
                ``1 / (K (1 - K))`` with K the share of cases, exact for small effects.
            rng: decides which rows name REF as the effect allele (three in ten).
        """
        self.trait, self.n, self.n_cases, self._rng = trait, n, n_cases, rng
        self._lines: list[str] = []

    def add(self, variants: Variants, beta: Floats, se: Floats, frequency: Floats) -> None:
        """Append the variants of one chromosome; those without an effect are left out."""
        share = 0.5 if self.n_cases is None else self.n_cases / self.n
        scale = 1.0 if self.n_cases is None else 1.0 / (share * (1.0 - share))
        sizes = f"{self.n}" if self.n_cases is None else f"{self.n}\t{self.n_cases}\t{self.n - self.n_cases}"
        swap = self._rng.random(len(variants)) < 0.3
        log10p = -(np.log(2.0) + special.log_ndtr(-np.abs(beta / se))) / LN10
        for j, key in enumerate(variants.keys):
            if np.isnan(beta[j]):
                continue
            ref, alt = variants.ref[j], variants.alt[j]
            effect, other, sign = (ref, alt, -scale) if swap[j] else (alt, ref, scale)
            f = 1.0 - frequency[j] if swap[j] else frequency[j]
            self._lines.append(
                f"{variants.chromosome}\t{variants.position[j]}\t{effect}\t{other}\t{sign * beta[j]:.8g}\t"
                f"{scale * se[j]:.8g}\t{f:.6g}\t{_format_p(float(log10p[j]))}\t{key}\t{sizes}\n"
            )

    def write(self, path: Path, build: str) -> None:
        """Write ``path`` (.tsv.gz) and ``path``-meta.yaml."""
        header = (
            "chromosome\tbase_pair_location\teffect_allele\tother_allele\tbeta\tstandard_error\t"
            "effect_allele_frequency\tp_value\tvariant_id\tn"
        )
        header += "\n" if self.n_cases is None else "\tn_cases\tn_controls\n"
        buffer = io.BytesIO()
        with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=6, mtime=0) as handle:
            handle.write((header + "".join(self._lines)).encode())
        content = buffer.getvalue()
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
        sample: dict[str, object] = {"sample_size": self.n, "ancestry_method": "simulated"}
        if self.n_cases is not None:
            sample |= {"case_count": self.n_cases, "control_count": self.n - self.n_cases}
        metadata = {
            "genome_assembly": build,
            "coordinate_system": "1-based",
            "trait_description": [f"simulated trait {self.trait}"],
            "samples": [sample],
            "file_type": "GWAS-SSF v1.0",
            "data_file_name": path.name,
            "data_file_md5sum": hashlib.md5(content, usedforsecurity=False).hexdigest(),
        }
        with atomic_path(path.with_name(f"{path.name}-meta.yaml")) as temporary:
            temporary.write_text(yaml.safe_dump(metadata, sort_keys=False), encoding="utf-8")


def _format_p(log10p: float) -> str:
    """Return a p-value as text that does not underflow, such as 3.2e-412."""
    exponent = int(np.floor(-log10p))
    return f"{10.0 ** (-log10p - exponent):.4f}e{exponent:d}"

"""The formats by name: what each reads and writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from locomass.bundle.exchange.common import ImportRequest
from locomass.bundle.exchange.generic import read_generic
from locomass.bundle.exchange.mass import read_mass, write_mass
from locomass.bundle.exchange.metaskat import read_metaskat
from locomass.bundle.exchange.raremetal import read_raremetal, write_raremetal
from locomass.bundle.exchange.regenie import read_regenie
from locomass.bundle.exchange.remeta import read_remeta, write_remeta
from locomass.bundle.exchange.rvtests import read_rvtests, write_rvtests
from locomass.bundle.exchange.saige import read_saige
from locomass.bundle.exchange.seqmeta import read_seqmeta
from locomass.bundle.exchange.set_list import write_sets
from locomass.bundle.study import Bundle
from locomass.bundle.write import TraitStatistics
from locomass.errors import InputError, suggest

Reader = Callable[[ImportRequest], TraitStatistics]
Writer = Callable[[Bundle, str, Path], list[Path]]


@dataclass(frozen=True)
class Format:
    """A format of score statistics.

    Attributes:
        name: as on the command line.
        needs: files besides the scores: ``covariance``, ``reference``, ``sets``.
        summary: one line of help.
        read: files to arrays; None where only writing is offered.
        write: bundle, trait, path (or prefix) to files; None where only reading is offered.
    """

    name: str
    needs: tuple[str, ...]
    summary: str
    read: Reader | None = None
    write: Writer | None = None


FORMATS = {
    f.name: f
    for f in (
        Format("rvtests", ("covariance", "sets"), "MetaScore and MetaCov files", read_rvtests, write_rvtests),
        Format(
            "raremetal",
            ("covariance", "sets"),
            "RAREMETAL worker score and covariance files",
            read_raremetal,
            write_raremetal,
        ),
        Format("mass", ("sets",), "MASS / SCORE-Seq text; --sets gives the alleles", read_mass, write_mass),
        Format("regenie", ("reference", "sets"), "step 2 single variants + LD of a PLINK fileset", read_regenie),
        Format("saige", ("covariance",), "single variants + LD triplets of step 3 (prefix)", read_saige),
        Format("seqmeta", ("covariance",), "seqMeta object as two text tables", read_seqmeta),
        Format("metaskat", ("covariance",), ".MInfo and .MSSD; --reference gives places of SNPs", read_metaskat),
        Format("remeta", ("covariance",), "REGENIE --htp + REMETA's gene LD (prefix)", read_remeta, write_remeta),
        Format("generic", ("covariance",), "any U and V as text", read_generic),
        Format("sets", (), "the genes of a bundle as a REGENIE set list", write=write_sets),
    )
}


def find_format(name: str, *, writes: bool = False) -> Format:
    """Return a format by name.

    Raises:
        InputError: no such format, or it cannot be written.
    """
    known = {n: f for n, f in FORMATS.items() if (f.write if writes else f.read) is not None}
    if name not in known:
        verb = "written" if writes else "read"
        raise InputError(f"format '{name}' cannot be {verb}{suggest(name, known)}")
    return known[name]

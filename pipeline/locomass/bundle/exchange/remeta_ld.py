"""REMETA's LD files: ``PREFIX.remeta.gene.ld``, ``PREFIX.remeta.buffer.ld``, ``PREFIX.remeta.ld.idx.gz``; all BGZF.

Index, tab-separated: gene, virtual offset in gene.ld, virtual offset in buffer.ld, variants of the gene, variants of
its buffer (joined by commas). gene.ld: 13 bytes ``remetaLD.v1.1``; at a gene's offset, little-endian: int32 m, int32
entries, 4 bytes (sparsity limit), float32 (m,) genotype variances, then (int32 i, int32 j, float32 r_ij) per entry;
pairs that are not there are 0. A block of correlations with the buffer follows, and buffer.ld holds those within it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from locomass.bundle.exchange.bgzf import BgzfReader, BgzfWriter
from locomass.bundle.exchange.common import Labels
from locomass.errors import FormatError, InputError
from locomass.files.atomic import atomic_path
from locomass.numbers import Floats
from locomass.tables.delimited import read_lines
from locomass.variants.keys import parse_variant_keys

MAGIC = b"remetaLD.v1.1"
SUFFIXES = (".remeta.gene.ld", ".remeta.buffer.ld", ".remeta.ld.idx.gz")
ENTRY = np.dtype([("i", "<i4"), ("j", "<i4"), ("r", "<f4")])
Gene = tuple[list[str], Floats, Floats]  # variants, variances (m,), correlations (m, m)


@dataclass
class RemetaLD:
    """Correlations by gene.

    Attributes:
        genes: variants of each gene, in the order of its matrix.
    """

    genes: dict[str, Labels]
    offsets: dict[str, int]
    file: BgzfReader

    @classmethod
    def open(cls, prefix: Path) -> RemetaLD:
        """Open the files of a prefix (or of the name of one of them).

        Raises:
            InputError: they are not there. FormatError: they are something else, or damaged.
        """
        text = str(prefix)
        for suffix in SUFFIXES:
            text = text.removesuffix(suffix)
        ld, index = Path(text + SUFFIXES[0]), Path(text + SUFFIXES[2])
        for path in (ld, index):
            if not path.is_file():
                raise InputError(f"no {path}: --covariance takes the prefix of {SUFFIXES[0]} and {SUFFIXES[2]}")
        file = BgzfReader(ld)
        if file.read(len(MAGIC)) != MAGIC:
            raise FormatError(f"does not begin with '{MAGIC.decode()}'; expected REMETA's gene LD", path=ld)
        genes, offsets = {}, {}
        for line, row in read_lines(index):
            fields = row.split("\t")
            if len(fields) < 4 or not fields[1].isdigit():
                raise FormatError("expected gene, offset, offset, variants, tab-separated", path=index, line=line)
            if fields[0] in genes:
                raise FormatError(f"gene '{fields[0]}' is listed twice", path=index, line=line)
            keys = parse_variant_keys([x for x in fields[3].split(",") if x])
            for k in keys.malformed[:1]:
                name = fields[3].split(",")[int(k)]
                raise FormatError(f"'{name}' is not chrom:pos:ref:alt", path=index, line=line, column=4)
            genes[fields[0]], offsets[fields[0]] = keys.key, int(fields[1])
        return cls(genes, offsets, file)

    def correlations(self, gene: str) -> Floats:
        """Return r (m, m) of a gene's variants.

        Raises:
            FormatError: another number of variants than in the index, an entry out of range.
        """
        self.file.seek(self.offsets[gene])
        m, entries, _ = struct.unpack("<iii", self.file.read(12))
        if m != len(self.genes[gene]) or entries < 0:
            message = f"gene '{gene}' has {m} variants here and {len(self.genes[gene])} in the index"
            raise FormatError(message, path=self.file.path)
        self.file.read(4 * m)
        rows = np.frombuffer(self.file.read(ENTRY.itemsize * entries), ENTRY)
        i, j, r = rows["i"].astype(np.int64), rows["j"].astype(np.int64), rows["r"].astype(np.float64)
        if entries and (min(i.min(), j.min()) < 0 or max(i.max(), j.max()) >= m or not (np.abs(r) <= 1 + 1e-6).all()):
            raise FormatError(f"gene '{gene}': an entry is out of range", path=self.file.path)
        out = np.eye(m)
        out[i, j] = out[j, i] = r
        np.fill_diagonal(out, 1.0)
        return out


def write_ld(prefix: Path, genes: dict[str, Gene]) -> list[Path]:
    """Write the three files, without buffer variants; return them."""
    ld, buffer, index = BgzfWriter(), BgzfWriter(), []
    ld.write(MAGIC)
    buffer.write(MAGIC + struct.pack("<i", 4))
    for gene, (names, variance, r) in genes.items():
        row, column = np.nonzero(np.tril(r.astype(np.float32), -1))
        entries = np.zeros(len(row), ENTRY)
        entries["i"], entries["j"], entries["r"] = column, row, r[row, column]
        index.append(f"{gene}\t{ld.tell()}\t{buffer.tell()}\t{','.join(names)}\t\n")
        ld.write(struct.pack("<iii", len(names), len(row), 0) + variance.astype("<f4").tobytes() + entries.tobytes())
        ld.write(struct.pack("<iiifi", len(names), 0, 0, 0.0, 0))
    index_file = BgzfWriter()
    index_file.write("".join(index).encode())
    paths = [Path(f"{prefix}{suffix}") for suffix in SUFFIXES]
    for path, writer in zip(paths, (ld, buffer, index_file), strict=True):
        with atomic_path(path) as temporary:
            temporary.write_bytes(writer.content())
    return paths

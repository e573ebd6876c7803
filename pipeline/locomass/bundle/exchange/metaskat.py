"""MetaSKAT summary files: ``.MInfo`` (text, scores) and ``.MSSD`` (binary, covariances); Lee et al. 2013, AJHG 93:42.

.MInfo: lines ``#N=997``, then ``SetID SetID_numeric SNPID Score MAF MissingRate MajorAllele MinorAllele PASS StartPOS
StartPOSPermu``; Score counts MinorAllele and is U. .MSSD: byte 0x11; for each set, at StartPOS, a CRC-32 (polynomial
0x04c11db7, not reflected, no final xor) and V, its lower triangle column by column as float32, little-endian.
SNPID is chrom:pos:ref:alt, or the identifier of a .bim given as the reference.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from locomass.bundle.exchange.common import WITHHELD, ImportRequest, Integers, Labels
from locomass.bundle.exchange.triplets import group_rows
from locomass.bundle.write import GeneStatistics, TraitStatistics
from locomass.errors import FormatError, InputError
from locomass.files.arrow import decode_strings
from locomass.numbers import Floats
from locomass.tables.delimited import Block, DelimitedFile, read_lines
from locomass.variants.chromosomes import normalise_chromosome
from locomass.variants.keys import parse_variant_keys

COLUMNS = ("SetID", "SNPID", "Score", "MAF", "MissingRate", "MajorAllele", "MinorAllele", "StartPOS")
MAGIC, POLYNOMIAL = 0x11, 0x04C11DB7


def read_metaskat(request: ImportRequest) -> TraitStatistics:
    """Read the pair; genes are the sets.

    Raises:
        FormatError: a missing column, a name that is no variant, a covariance file that is damaged or of another run.
    """
    path, mssd = request.scores, request.need("covariance", "the .MSSD file")
    file = DelimitedFile(path, comment="#")
    for name in COLUMNS:
        if name not in file.names:
            raise FormatError(f"no column {name}; found {', '.join(file.names)}", path=path, line=file.header_line)
    block = file.table()
    n_samples = request.n_samples or _samples(file)
    U, maf, missing = (block.numbers(name, missing=()) for name in ("Score", "MAF", "MissingRate"))
    start = block.positions("StartPOS", missing=())
    places = _read_bim(request.reference) if request.reference else {}
    chromosome, position = _place(block, places)
    ref, alt = (decode_strings(pc.utf8_upper(block.table[c])) for c in ("MajorAllele", "MinorAllele"))
    names = [":".join(map(str, key)) for key in zip(chromosome, position, ref, alt, strict=True)]
    _, first, inverse = np.unique(np.array(names, object).astype(str), return_index=True, return_inverse=True)
    diagonal = np.zeros(len(first))
    content, genes = mssd.read_bytes(), []
    if content[:1] != bytes([MAGIC]):
        raise FormatError("does not begin with MetaSKAT's byte 0x11; expected an .MSSD file", path=mssd)
    for gene, rows in group_rows(decode_strings(block.table["SetID"])).items():
        V = _read_matrix(content, int(start[rows[0]]), len(rows), mssd, gene)
        variant = inverse.reshape(-1)[rows]
        if len(np.unique(variant)) < len(rows):
            raise FormatError(f"a SNP of set '{gene}' is listed twice", path=path, line=block.line(int(rows[0])))
        diagonal[variant] = np.diag(V)
        at = position[rows]
        genes.append(GeneStatistics(gene, str(chromosome[rows[0]]), int(at.min()), int(at.max()), variant, V))
    withheld = np.full(len(first), WITHHELD)
    notes = [f"{path.name}: {len(first):,} SNPs in {len(genes):,} sets, {n_samples:,} samples"]
    n_obs = np.rint(n_samples * (1 - missing[first])).astype(np.int64)
    labels = chromosome[first], position[first], ref[first], alt[first]
    return TraitStatistics(
        request.trait,
        request.kind,
        n_samples,
        request.n_cases,
        *labels,
        n_obs,
        withheld,
        withheld,
        withheld,
        maf[first],
        U[first],
        diagonal,
        genes,
        "MetaSKAT",
        notes,
    )


def _samples(file: DelimitedFile) -> int:
    """Return N of the lines before the header."""
    for line in file.preamble:
        if line.startswith("#N=") and line[3:].strip().isdigit():
            return int(line[3:])
    raise InputError(f"{file.path}: no line '#N=samples'; give --n")


def _read_bim(path: Path) -> dict[str, tuple[str, int]]:
    """Return the place of each identifier of a fileset's .bim."""
    bim = path if path.suffix == ".bim" else path.with_suffix(".bim")
    places = {}
    for line, text in read_lines(bim):
        fields = text.split()
        if len(fields) != 6 or not fields[3].isdigit():
            raise FormatError("expected 6 fields: chromosome, id, cM, position, A1, A2", path=bim, line=line)
        places[fields[1]] = (normalise_chromosome(fields[0]), int(fields[3]))
    return places


def _place(block: Block, places: dict[str, tuple[str, int]]) -> tuple[Labels, Integers]:
    """Return chromosome and position of each SNPID."""
    names = decode_strings(block.table["SNPID"])
    keys = parse_variant_keys(block.table["SNPID"])
    chromosome, position = keys.chromosome.copy(), keys.position.copy()
    for row in keys.malformed.tolist():
        if names[row] not in places:
            message = f"'{names[row]}' is not chrom:pos:ref:alt; give --reference, the fileset whose .bim has it"
            raise FormatError(message, path=block.path, line=block.line(row), column="SNPID")
        chromosome[row], position[row] = places[names[row]]
    return chromosome, position


def _read_matrix(content: bytes, start: int, m: int, path: Path, gene: str) -> Floats:
    """Return V (m, m) of the set at a place of the file."""
    size = 4 * (m * (m + 1) // 2)
    data = content[start + 4 : start + 4 + size]
    if len(data) < size:
        message = f"ends before set '{gene}' (bytes {start:,} to {start + 4 + size:,}); copy the file again"
        raise FormatError(message, path=path)
    if _crc32(data) != int.from_bytes(content[start : start + 4], "little"):
        raise FormatError(f"the checksum of set '{gene}' is wrong; the two files must be of one run, whole", path=path)
    values = np.frombuffer(data, "<f4").astype(np.float64)
    V = np.zeros((m, m))
    column, row = np.triu_indices(m)  # column by column of the lower triangle
    V[row, column] = V[column, row] = values
    return V


def _make_table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte << 24
        for _ in range(8):
            crc = ((crc << 1) ^ (POLYNOMIAL if crc & 0x80000000 else 0)) & 0xFFFFFFFF
        table.append(crc)
    return table


TABLE = _make_table()


def _crc32(data: bytes) -> int:
    """Return the checksum of a set's matrix."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = ((crc << 8) & 0xFFFFFFFF) ^ TABLE[(crc >> 24) ^ byte]
    return crc

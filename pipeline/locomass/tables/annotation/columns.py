"""Annotation in columns: VEP's tab output, dbNSFP, AlphaMissense, CADD, FAVOR, or any table with such columns.

A variant is told by a column with its name, or by chromosome, position, REF and ALT under any of the names that these
programs use. Names of other columns are fields of the rules as they are; a few have a second name of the field.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from locomass.errors import FormatError
from locomass.tables.annotation.records import VariantRecord, join_key
from locomass.tables.delimited import DelimitedFile
from locomass.variants.keys import parse_variant_keys

PLACE = (
    ("chrom", "chr", "chromosome", "hg38_chr"),
    ("pos", "position", "pos(1-based)", "bp"),
    ("ref", "ref_vcf", "reference"),
    ("alt", "alt_vcf", "alternate"),
)
NAMES = ("uploaded_variation", "variant_vcf", "variant", "id", "snp", "variant_id")
ALSO = {
    "genename": "SYMBOL",
    "gene_name": "SYMBOL",
    "gene": "SYMBOL",
    "genecode_comprehensive_info": "SYMBOL",
    "Ensembl_geneid": "Gene",
    "Ensembl_transcriptid": "Feature",
    "transcript_id": "Feature",
    "REVEL_score": "REVEL",
    "revel": "REVEL",
    "AlphaMissense_score": "am_pathogenicity",
    "PHRED": "CADD_PHRED",
    "CADD_phred": "CADD_PHRED",
    "cadd_phred": "CADD_PHRED",
    "genecode_comprehensive_category": "favor_category",
    "genecode_comprehensive_exonic_category": "favor_exonic_category",
}


def read_columns(path: Path) -> Iterator[VariantRecord]:
    """Give the records of a table.

    Raises:
        FormatError: no columns that name a variant, or a name that is none.
    """
    file = DelimitedFile(path)
    lower = {name.lower(): name for name in reversed(file.names)}
    place = [next((lower[x] for x in names if x in lower), None) for names in PLACE]
    name = next((lower[x] for x in NAMES if x in lower), None)
    if None in place and name is None:
        raise FormatError(
            f"expected a column with the variant's name ({', '.join(NAMES[:3])}) or chromosome, position, ref and alt; "
            f"found {', '.join(file.names)}",
            path=path,
            line=file.header_line,
        )
    for block in file.blocks():
        lines = block.lines().tolist()
        for line, row in zip(lines, block.table.to_pylist(), strict=True):
            columns = [] if None in place else [row[x] for x in place]
            if len(columns) == 4:
                key = _join(path, line, columns, str(place[1]))
            else:
                key = _parse(path, line, row[name], str(name))
            yield VariantRecord(key, _fields(row))


def _join(path: Path, line: int, columns: list[str], name: str) -> str:
    chromosome, position, ref, alt = columns
    if not position.isdigit():
        raise FormatError(f"expected a position, got '{position}'", path=path, line=line, column=name)
    return join_key(chromosome, int(position), ref, alt)


def _parse(path: Path, line: int, text: str, name: str) -> str:
    """Return the key of a variant's name; VEP and FAVOR write ``1_1000_A/G`` and ``1-1000-A-G``."""
    parts = text.split("-")
    spelled = ":".join(parts) if len(parts) == 4 and parts[1].isdigit() else text
    parsed = parse_variant_keys([spelled])
    if len(parsed.malformed):
        message = f"'{text}' is not chrom:pos:ref:alt; run VEP on variants with such names, or with --vcf"
        raise FormatError(message, path=path, line=line, column=name)
    return str(parsed.key[0])


def _fields(row: dict[str, str]) -> dict[str, str]:
    """Return a row's fields under both names, VEP's column Extra taken apart."""
    fields = {name: value for name, value in row.items() if name != "Extra"}
    fields |= dict(x.split("=", 1) for x in row.get("Extra", "").split(";") if "=" in x)
    for name, also in ALSO.items():
        if name in fields and also not in fields:
            fields[also] = fields[name]
    return fields

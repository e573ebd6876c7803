"""Consequences in a VCF: VEP's CSQ, SnpEff's ANN (and LOF), SpliceAI; one record per variant, gene and transcript.

VEP names an indel's allele without the base that REF and every ALT share (``-`` where nothing is left) unless
``ALLELE_NUM`` is among its fields; SnpEff names ALT itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from locomass.errors import FormatError
from locomass.tables.annotation.records import VariantRecord, join_key
from locomass.tables.delimited import read_lines

SNPEFF = {
    "Annotation": "Consequence",
    "Annotation_Impact": "IMPACT",
    "Gene_Name": "SYMBOL",
    "Gene_ID": "Gene",
    "Feature_ID": "Feature",
    "Transcript_BioType": "BIOTYPE",
}
SPLICE_AI = ("Allele", "SYMBOL", "DS_AG", "DS_AL", "DS_DG", "DS_DL")
_FORMAT = re.compile(r"(?:Format|annotations):\s*'?\"?\s*([^'\"]+)")


def read_vcf(path: Path) -> Iterator[VariantRecord]:
    """Give the records of a VCF.

    Raises:
        FormatError: no CSQ, ANN or SpliceAI in the header, a line with too few fields, an allele that is no ALT.
    """
    fields: dict[str, list[str]] = {}
    for line, text in read_lines(path):
        if text.startswith("##INFO=<ID="):
            name = text[len("##INFO=<ID=") :].split(",", 1)[0]
            match = _FORMAT.search(text)
            if name in ("CSQ", "ANN") and match:
                fields[name] = [SNPEFF.get(x.strip(), x.strip()) for x in match[1].split("|")]
            elif name == "SpliceAI":
                fields[name] = list(SPLICE_AI)
            continue
        if text.startswith("#"):
            if not text.startswith("##") and not fields:
                message = "the header declares no INFO field CSQ (VEP), ANN (SnpEff) or SpliceAI with its format"
                raise FormatError(message, path=path, line=line)
            continue
        columns = text.split("\t")
        if len(columns) < 8 or not columns[1].isdigit():
            raise FormatError("expected the 8 columns of a VCF, tab-separated", path=path, line=line)
        yield from _records(path, line, columns, fields)


def _records(path: Path, line: int, columns: list[str], fields: dict[str, list[str]]) -> Iterator[VariantRecord]:
    """Give the records of one line; a variant that no program annotated gives one without fields."""
    chromosome, position, ref, alts = columns[0], int(columns[1]), columns[3], columns[4].split(",")
    info = {name: value for name, _, value in (x.partition("=") for x in columns[7].split(";"))}
    lof = set(re.findall(r"\(([^|)]+)\|", info.get("LOF", "")))
    splice = {record["Allele"]: record for _, record in _entries(path, line, info, "SpliceAI", fields)}
    found = dict.fromkeys(alts, 0)
    for name in ("CSQ", "ANN"):
        spelled = _spelled(ref, alts) if name == "CSQ" else {alt: alt for alt in alts}
        for _, record in _entries(path, line, info, name, fields):
            alt = _which(record, alts, spelled)
            if alt is None:
                message = f"allele '{record.get('Allele')}' of {name} is none of the ALT {columns[4]}"
                raise FormatError(message, path=path, line=line, column="INFO")
            if "LOF" in info and "LoF" not in record:
                record["LoF"] = "HC" if record.get("SYMBOL") in lof else ""
            found[alt] += 1
            yield VariantRecord(join_key(chromosome, position, ref, alt), record | _delta(splice.get(alt)))
    for alt in (alt for alt, n in found.items() if not n and alt not in ("*", ".") and not alt.startswith("<")):
        record = splice.get(alt, {})
        yield VariantRecord(join_key(chromosome, position, ref, alt), dict(record) | _delta(record))


def _entries(
    path: Path, line: int, info: dict[str, str], name: str, fields: dict[str, list[str]]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Give the entries of an INFO field."""
    if name not in info or name not in fields or info[name] in ("", "."):
        return
    for k, entry in enumerate(info[name].split(",")):
        values = entry.split("|")
        if len(values) < min(len(fields[name]), len(SPLICE_AI)) or (name == "CSQ" and len(values) != len(fields[name])):
            message = f"{name} has {len(values)} values, but the header declares {len(fields[name])}"
            raise FormatError(message, path=path, line=line, column="INFO")
        yield k, dict(zip(fields[name], (x.strip() for x in values), strict=False))


def _spelled(ref: str, alts: list[str]) -> dict[str, str]:
    """Return VEP's spelling of each ALT -> ALT."""
    trim = any(len(alt) != len(ref) for alt in alts) and all(alt[:1] == ref[:1] for alt in alts)
    return {(alt[1:] or "-") if trim else alt: alt for alt in alts}


def _which(record: dict[str, str], alts: list[str], spelled: dict[str, str]) -> str | None:
    """Return the ALT that an entry is about; None where it is none."""
    number = record.get("ALLELE_NUM", "")
    if number.isdigit() and 1 <= int(number) <= len(alts):
        return alts[int(number) - 1]
    return alts[0] if len(alts) == 1 else spelled.get(record.get("Allele", ""))


def _delta(record: dict[str, str] | None) -> dict[str, str]:
    """Return the field SpliceAI: the largest of the four delta scores."""
    scores = [float(record[name]) for name in SPLICE_AI[2:] if record.get(name, ".") not in ("", ".")] if record else []
    return {"SpliceAI": str(max(scores))} if scores else {}

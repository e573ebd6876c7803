"""`locomass annotate`: other programs' annotation, transcripts chosen and rules applied, as REGENIE's three files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from locomass.errors import InputError
from locomass.files.atomic import atomic_directory
from locomass.tables.annotation.columns import read_columns
from locomass.tables.annotation.records import VariantRecord
from locomass.tables.annotation.rule_file import RuleFile, read_rules
from locomass.tables.annotation.rules import MISSING, split_values
from locomass.tables.annotation.vcf import read_vcf
from locomass.tables.delimited import read_lines
from locomass.variants.chromosomes import chromosome_order

MANE, CANONICAL = ("MANE_SELECT", "MANE"), ("CANONICAL",)
WINDOW = "window"
Pairs = dict[tuple[str, str], int]


@dataclass(frozen=True)
class AnnotateRequest:
    """What to annotate with.

    Attributes:
        files: annotation with genes: VCF of VEP or SnpEff, or tables.
        scores: tables of scores by variant (CADD, AlphaMissense, dbNSFP, SpliceAI), joined by variant.
        rules: rule file; the default one when None.
        transcripts: ``mane``, ``canonical`` or ``all``.
        gene: field that names the gene.
        window, step: sliding windows over all variants, in base pairs; none when window is 0.
    """

    files: Sequence[Path]
    scores: Sequence[Path] = ()
    rules: Path | None = None
    transcripts: str = "mane"
    gene: str = "SYMBOL"
    window: int = 0
    step: int = 0


@dataclass
class Annotated:
    """Variants by gene and category, and what was counted on the way."""

    rules: RuleFile
    pairs: Pairs = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    variants: set[str] = field(default_factory=set)


def annotate(request: AnnotateRequest, out: Path) -> dict[str, int]:
    """Write sets.txt, annotations.txt, masks.txt and report.tsv into a folder; return the counts of the report.

    Each gene and variant has the first category of the rules that holds for one of the chosen transcripts.

    Raises:
        FormatError, InputError: see the readers and `read_rules`; no variant of any category.
    """
    rules = read_rules(request.rules)
    scores = _read_scores(request.scores, set(rules_fields(rules)))
    found = Annotated(rules)
    fields: set[str] = set()
    flagged = _flagged_genes(request)
    for record in _records(request.files):
        row = record.fields | scores.get(record.key, {})
        fields |= row.keys()
        _add(found, record.key, row, request, flagged)
    fields |= {name for row in scores.values() for name in row}
    absent = rules.require_fields(fields)
    if not found.pairs and not request.window:
        raise InputError(f"no variant of {', '.join(map(str, request.files))} has a category of {rules.path}")
    report = _report(found, request, absent)
    with atomic_directory(out) as folder:
        _write(folder, found, request)
        lines = ["what\tcount", *(f"{name}\t{n}" for name, n in report.items())]
        (folder / "report.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return report


def rules_fields(rules: RuleFile) -> frozenset[str]:
    """Return the fields that the rules read."""
    return frozenset[str]().union(*(rule.needed | rule.optional for rule in rules.categories.values()))


def _records(files: Sequence[Path]) -> Iterator[VariantRecord]:
    """Give the records of all files; VCF is told by its first line."""
    for path in files:
        _, first = next(read_lines(path), (0, ""))
        reader: Callable[[Path], Iterator[VariantRecord]] = (
            read_vcf if first.startswith("##fileformat=VCF") else read_columns
        )
        yield from reader(path)


def _read_scores(files: Sequence[Path], wanted: set[str]) -> dict[str, dict[str, str]]:
    """Return the fields that the rules read, by variant; several rows of one variant are joined by commas."""
    scores: dict[str, dict[str, str]] = {}
    for record in _records(files):
        row = scores.setdefault(record.key, {})
        for name in wanted & record.fields.keys():
            value = record.fields[name]
            row[name] = value if row.get(name, "") in MISSING else f"{row[name]},{value}"
    return scores


def _flagged_genes(request: AnnotateRequest) -> set[str]:
    """Return the genes that have a transcript of the kind that is asked for.

    Raises:
        InputError: no record of any gene is flagged.
    """
    if request.transcripts == "all":
        return set()
    flags = MANE if request.transcripts == "mane" else CANONICAL
    genes: set[str] = set()
    any_gene = False
    for record in _records(request.files):
        names = split_values(record.fields.get(request.gene, ""))
        any_gene |= bool(names)
        if _has_flag(record.fields, flags):
            genes |= set(names)
    if any_gene and not genes:
        raise InputError(
            f"no transcript is flagged as {request.transcripts} ({' or '.join(flags)}) in "
            f"{', '.join(map(str, request.files))}; run VEP with --mane --canonical, or give --transcripts all"
        )
    return genes


def _has_flag(fields: dict[str, str], flags: Sequence[str]) -> bool:
    return any(fields.get(flag, "") not in MISSING for flag in flags)


def _add(found: Annotated, key: str, row: dict[str, str], request: AnnotateRequest, flagged: set[str]) -> None:
    """Add a record to its genes, under its category."""
    found.variants.add(key)
    genes = split_values(row.get(request.gene, ""))
    flags = MANE if request.transcripts == "mane" else CANONICAL
    found.counts["records"] += 1
    found.counts["records without a gene"] += not genes
    for gene in genes:
        if request.transcripts != "all" and gene in flagged and not _has_flag(row, flags):
            found.counts["records of other transcripts"] += 1
            continue
        if request.transcripts != "all" and gene not in flagged:
            found.counts[f"records of genes without a {request.transcripts} transcript (all are used)"] += 1
        category = found.rules.categorise(row)
        found.counts["records without a category"] += category < 0
        if category >= 0:
            pair = (gene, key)
            found.pairs[pair] = min(category, found.pairs.get(pair, category))


def _report(found: Annotated, request: AnnotateRequest, absent: Sequence[str]) -> dict[str, int]:
    """Return the counts of the report."""
    names = list(found.rules.categories)
    by_category = Counter(names[k] for k in found.pairs.values())
    report = {"variants": len(found.variants), **dict(sorted(found.counts.items()))}
    report |= {f"category {name}": by_category[name] for name in names}
    for mask, members in found.rules.masks.items():
        report[f"mask {mask}"] = sum(by_category[m] for m in members)
    report["genes"] = len({gene for gene, _ in found.pairs})
    report |= {f"optional field {name} in no file": 1 for name in absent}
    if request.window:
        report["windows"] = len(_windows(found.variants, request))
    return report


def _split(key: str) -> tuple[str, int]:
    chromosome, position, _ = key.split(":", 2)
    return chromosome, int(position)


def _windows(variants: set[str], request: AnnotateRequest) -> dict[str, list[str]]:
    """Return the variants of each sliding window ``chrom:first-last`` that holds any; windows start at 1 + k step."""
    step = request.step or request.window
    out: dict[tuple[str, int], list[str]] = {}
    for key in variants:
        chromosome, position = _split(key)
        last = (position - 1) // step
        first = max(0, -(-(position - request.window) // step))
        for k in range(first, last + 1):
            out.setdefault((chromosome, 1 + k * step), []).append(key)
    ordered = sorted(out, key=lambda at: (chromosome_order(at[0]), at[1]))
    return {f"{c}:{start}-{start + request.window - 1}": out[c, start] for c, start in ordered}


def _write(folder: Path, found: Annotated, request: AnnotateRequest) -> None:
    """Write the three files, genes by place."""
    categories = list(found.rules.categories)
    sets: dict[str, list[str]] = {}
    labels: dict[tuple[str, str], str] = {}
    names: dict[tuple[str, str], str] = {}  # a gene on two chromosomes, such as X and Y, is two sets
    for (gene, key), category in found.pairs.items():
        chromosome = _split(key)[0]
        name = names.setdefault((gene, chromosome), gene if gene not in sets else f"{gene}_{chromosome}")
        sets.setdefault(name, []).append(key)
        labels[name, key] = categories[category]
    windows = _windows(found.variants, request) if request.window else {}
    labels |= {(name, key): WINDOW for name, keys in windows.items() for key in keys}
    sets |= windows
    seen = set(labels.values())  # a mask file may name categories of its annotation file only
    masks = {m: ",".join(c for c in members if c in seen) for m, members in found.rules.masks.items()}
    masks |= {WINDOW: WINDOW} if windows else {}
    ordered = {
        name: sorted(keys, key=lambda key: (_split(key)[1], key))
        for name, keys in sorted(sets.items(), key=lambda x: (chromosome_order(_split(x[1][0])[0]), _first(x[1]), x[0]))
    }
    with open(folder / "sets.txt", "w", encoding="utf-8") as handle:
        for name, keys in ordered.items():
            handle.write(f"{name} {_split(keys[0])[0]} {_first(keys)} {','.join(keys)}\n")
    with open(folder / "annotations.txt", "w", encoding="utf-8") as handle:
        for name, keys in ordered.items():
            handle.writelines(f"{key} {name} {labels[name, key]}\n" for key in keys)
    (folder / "masks.txt").write_text("".join(f"{m} {c}\n" for m, c in masks.items() if c), encoding="utf-8")


def _first(keys: Sequence[str]) -> int:
    return min(_split(key)[1] for key in keys)

"""Write a commented configuration: for the files found in a folder (`locomass init`), or with every key there is.

Files are told apart by their content where it is unmistakable (headers, three fields of an annotation line), by their
name otherwise. What could not be decided is left as a comment, so that the proposal says what to look at.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from locomass.config import MetaConfig, RunConfig, describe_keys
from locomass.errors import InputError, LocomassError
from locomass.genotypes.fileset import SUFFIXES
from locomass.tables.delimited import read_lines
from locomass.tables.samples import read_column_names

MAX_LINES = 5000
MANY = 5  # columns that begin alike are written as a pattern from here on
TEXT = {
    ".txt",
    ".tsv",
    ".phe",
    ".pheno",
    ".cov",
    ".covar",
    ".setlist",
    ".setlists",
    ".mask",
    ".masks",
    ".anno",
    ".annot",
    ".annotations",
    ".group",
    ".groups",
    ".list",
    ".gz",
}
#: endings of genotype files and of what lies beside them
GENOTYPES = (*SUFFIXES, ".bim", ".fam", ".pvar", ".pvar.zst", ".psam", ".bgi", ".sample", ".csi", ".tbi")
IDS = {"FID", "IID", "#FID", "#IID"}
MISSING = {"NA", "nan", "NaN", ".", "-9"}
COVARIATE_NAME = re.compile(r"^(age|sex|gender|batch|array|site|centre|center|pop|super_pop|e?g?pc\d+|.*_pc\d+)$", re.I)
SUMMARY_NAME = re.compile(r"sumstats|summary|gwas|\.glm\.|bolt|\.ssf", re.I)
NUMBER = re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")
VARIANT = re.compile(r"^[^\s:]+:\d+:[A-Za-z]+:[A-Za-z]+$")


#: What stands for keys without a default in `document_keys`, so that the text is a valid configuration.
EXAMPLES = {
    "study": '"my-study"',
    "studies": '["study1/bundle", "study2/bundle"]',
    "genotypes": '"sequence_chr{chrom}.bed"',
    "phenotypes.file": '"phenotypes.tsv"',
    "phenotypes.quantitative": '["ldl", "height"]',
    "phenotypes.binary": '["cad"]',
    "covariates.file": '"covariates.tsv"',
    "covariates.quantitative": '["age", "pc*"]',
    "covariates.categorical": '["sex"]',
    "genes.sets": '"sets.txt"',
    "genes.annotations": '"annotations.txt"',
    "genes.masks": '"masks.txt"',
}


@dataclass
class _Column:
    """A column of a table and the first values seen in it."""

    name: str
    values: list[str]

    @property
    def known(self) -> set[str]:
        """The values that are not missing, 1.0 written as 1."""
        return {v.removesuffix(".0") for v in set(self.values) - MISSING}

    @property
    def kind(self) -> str:
        """``binary``, ``quantitative`` or ``categorical``, as the values suggest."""
        if self.known and (self.known <= {"0", "1"} or self.known == {"1", "2"}):
            return "binary"
        return "quantitative" if all(NUMBER.match(v) for v in self.known) else "categorical"


@dataclass
class _Found:
    """Files of a folder, by what they seem to be; names relative to it."""

    filesets: list[str] = field(default_factory=list)
    tables: dict[str, list[_Column]] = field(default_factory=dict)
    sets: list[str] = field(default_factory=list)
    annotations: list[str] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    regions: list[str] = field(default_factory=list)
    loco: list[str] = field(default_factory=list)
    prediction_lists: list[str] = field(default_factory=list)
    summaries: list[str] = field(default_factory=list)


def propose_configuration(folder: str | Path) -> str:
    """Return the text of a configuration for the files in a folder.

    Keys that could be filled are filled, each with a comment on what else was found; the rest stands as a comment.
    Sub-folders are not searched. Nothing is written.

    Args:
        folder: where genotypes, tables and gene files are; paths of the proposal are relative to it.

    Raises:
        InputError: no such folder, or no genotype file in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the one that holds the genotypes")
    found = _find(folder)
    if not found.filesets:
        raise InputError(
            f"{folder} holds no genotype file ({', '.join(SUFFIXES)}; a .bed with its .bim and .fam); give the folder "
            "that does"
        )
    parts = (_study(folder, found), _tables(found), _predictor(found), _genes(found), _TESTS)
    return "\n".join(line for part in parts for line in part) + "\n"


def document_keys(kind: type[RunConfig] | type[MetaConfig] = RunConfig) -> str:
    """Return a configuration with every key, its help and type as comments, at its default (or an example).

    Args:
        kind: `RunConfig` (`locomass run`) or `MetaConfig` (`locomass meta`).
    """
    command = "run" if kind is RunConfig else "meta"
    lines = [f"# Every key of `locomass {command}` at its default, or with an example where it has none.", ""]
    written: tuple[str, ...] = ()
    for key, type_name, default, text in describe_keys(kind):
        *sections, name = key.split(".")
        for depth, section in enumerate(sections):
            if written[: depth + 1] != tuple(sections[: depth + 1]):
                lines += [*([] if depth else [""]), f"{'  ' * depth}{section}:"]
        if written and not sections:
            lines.append("")
        written = tuple(sections)
        indent = "  " * len(sections)
        value = EXAMPLES.get(key, default)
        note = "an example" if key in EXAMPLES else "default"
        width = 118 - len(indent)
        lines += [f"{indent}# {line}" for line in textwrap.wrap(f"{text or name} ({type_name}; {note})", width)]
        lines.append(f"{indent}{name}: {value}")
    return "\n".join(lines) + "\n"


def _find(folder: Path) -> _Found:
    """Look at every file of a folder."""
    found = _Found(filesets=_collapse_chromosomes(folder))
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        name, lower = path.name, path.name.lower()
        if lower.endswith(GENOTYPES):
            if path.suffix == ".bed" and not path.with_suffix(".bim").exists() and _is_region_file(path):
                found.regions.append(name)
        elif lower.endswith(".loco"):
            found.loco.append(name)
        elif lower.endswith("pred.list"):
            found.prediction_lists.append(name)
        elif SUMMARY_NAME.search(lower):
            found.summaries.append(name)
        elif path.suffix.lower() in TEXT or lower.startswith("glist"):
            _look_inside(path, found)
    return found


def _collapse_chromosomes(folder: Path) -> list[str]:
    """Return the filesets, one per chromosome written once with ``{chrom}``."""
    found = [p for p in sorted(folder.iterdir()) if p.name.lower().endswith(SUFFIXES)]
    names = [p.name for p in found if p.suffix != ".bed" or p.with_suffix(".bim").exists()]
    patterns: dict[str, list[str]] = {}
    for name in names:
        pattern = re.sub(r"(?<=chr)(\d{1,2}|X)(?=[._])", "{chrom}", name, count=1)
        patterns.setdefault(pattern, []).append(name)
    out = []
    for pattern, members in patterns.items():
        out += [pattern] if len(members) > 1 else members
    return out


def _is_region_file(path: Path) -> bool:
    """Return whether a .bed is a text file of regions: chrom start end gene."""
    with path.open("rb") as handle:
        if handle.read(3) == b"\x6c\x1b\x01":
            return False
    return any(len(line) >= 4 and line[1].isdigit() and line[2].isdigit() for line in _head(path))


def _head(path: Path, most: int = MAX_LINES) -> list[list[str]]:
    """Return the fields of the first lines; nothing for a file that is no text."""
    rows: list[list[str]] = []
    try:
        for _, line in read_lines(path):
            rows.append(line.split())
            if len(rows) >= most:
                break
    except (LocomassError, OSError, UnicodeDecodeError):
        return []
    return [row for row in rows if row]


def _look_inside(path: Path, found: _Found) -> None:
    """File a text file under what its lines say."""
    rows = _head(path)
    if not rows:
        return
    first = rows[0]
    if set(first) & IDS and len(first) > 1:
        names = read_column_names(path)
        width = len(first) - len(names)
        found.tables[path.name] = [
            _Column(name, [row[width + k] for row in rows[1:] if len(row) == len(first)])
            for k, name in enumerate(names)
        ]
    elif len(first) > 2 and first[1] == "var":
        found.groups.append(path.name)
    elif len(first) == 4 and first[2].isdigit() and VARIANT.match(first[3].split(",")[0]):
        found.sets.append(path.name)
    elif len(first) >= 3 and VARIANT.match(first[0]):
        found.annotations.append(path.name)
    elif len(first) == 4 and first[1].isdigit() and first[2].isdigit() and not first[3].isdigit():
        found.regions.append(path.name)
    elif len(first) == 2 and "mask" in path.name.lower():
        found.masks.append(path.name)


def _study(folder: Path, found: _Found) -> Iterator[str]:
    """Give the head of the configuration."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", folder.resolve().name) or "study"
    chosen, others = _choose_fileset(found)
    yield "# Proposed by `locomass init` for the files of this folder: read it, then"
    yield "#   locomass check CONFIG.yaml     and     locomass run CONFIG.yaml"
    yield "# Every key with its meaning: locomass config show. Paths are relative to this file."
    yield f"study: {_quote(name)}"
    yield "# genome_build: GRCh38            # GRCh37 or GRCh38; compared between studies"
    yield f"genotypes: {_quote(chosen)}{_also(others)}"
    yield ""


def _choose_fileset(found: _Found) -> tuple[str, list[str]]:
    """Return the sequence fileset and the others: array and reference filesets come last."""
    order = sorted(found.filesets, key=lambda n: (bool(re.search(r"array|common|ref|ld", n, re.I)), n))
    return order[0], order[1:]


def _tables(found: _Found) -> Iterator[str]:
    """Give the sections `phenotypes` and `covariates`."""
    covariates = {n: c for n, c in found.tables.items() if _is_covariate_table(n, c)}
    phenotypes = {n: c for n, c in found.tables.items() if n not in covariates}
    yield "phenotypes:"
    if not phenotypes:
        yield "  file: PHENOTYPES.tsv           # none was found: a table with a header `FID IID trait ...`"
        yield "  quantitative: []"
    for name, columns in list(phenotypes.items())[:1]:
        binary = [c for c in columns if c.kind == "binary"]
        yield f"  file: {_quote(name)}{_also(list(phenotypes)[1:])}"
        yield f"  quantitative: {_list(_shorten([c.name for c in columns if c.kind == 'quantitative'], columns))}"
        as_plink = any(c.known == {"1", "2"} for c in binary)
        coding = "   # 0 = control, 1 = case" if binary and not as_plink else ""
        yield f"  binary: {_list(c.name for c in binary)}{coding}"
        if as_plink:
            yield '  binary_coding: "12"            # 1 = control, 2 = case, as PLINK writes them'
        if any("-9" in c.values for c in columns):
            yield '  missing_codes: ["-9"]          # besides NA; [] where -9 is a value'
        yield from _left_out(columns)
    yield ""
    if not covariates:
        yield "# covariates:                     # no table with columns such as age, sex, pc1 was found"
        yield "#   file: COVARIATES.tsv\n#   quantitative: [age, pc1, pc2]\n#   categorical: [sex]"
    for name, columns in list(covariates.items())[:1]:
        words = [c for c in columns if c.kind != "quantitative" or _few_codes(c)]
        yield "covariates:"
        yield f"  file: {_quote(name)}{_also(list(covariates)[1:])}"
        yield f"  quantitative: {_list(_shorten([c.name for c in columns if c not in words], columns))}"
        yield f"  categorical: {_list(c.name for c in words)}"
    yield ""


def _shorten(names: list[str], columns: list[_Column]) -> list[str]:
    """Return the names, those of many columns that begin alike (and no other does) as one pattern."""
    stems: dict[str, list[str]] = {}
    for name in names:
        stems.setdefault(re.split(r"[^A-Za-z_]", name)[0], []).append(name)
    out: list[str] = []
    for stem, members in stems.items():
        alike = [c.name for c in columns if c.name.startswith(stem)]
        many = bool(stem) and len(members) >= MANY and alike == members
        out += [f"{stem}*"] if many else members
    return out


def _is_covariate_table(name: str, columns: list[_Column]) -> bool:
    """Return whether a table holds covariates: by its name, or by the names of most columns."""
    if re.search(r"cov", name, re.I):
        return True
    hits = sum(bool(COVARIATE_NAME.match(c.name)) for c in columns)
    return not re.search(r"phe", name, re.I) and 2 * hits >= len(columns)


def _few_codes(column: _Column) -> bool:
    """Return whether a numeric column is a code, such as sex."""
    return bool(re.match(r"^(sex|gender|batch|array|site|pop)", column.name, re.I)) and len(column.known) <= 20


def _left_out(columns: list[_Column]) -> Iterator[str]:
    """Say which columns are no traits."""
    words = [c.name for c in columns if c.kind == "categorical"]
    if words:
        yield f"  # left out, they hold text: {', '.join(words)}"


def _predictor(found: _Found) -> Iterator[str]:
    """Give the section `predictor`, or say what it would need."""
    traits = [c.name for cols in list(_phenotype_tables(found).values())[:1] for c in cols if c.kind != "categorical"]
    common = [n for n in found.filesets if n != _choose_fileset(found)[0]]
    if found.prediction_lists:
        yield "predictor:                        # REGENIE step 1"
        yield f"  method: loco\n  loco: {_quote(found.prediction_lists[0])}{_also(found.prediction_lists[1:])}"
    elif found.loco and traits:
        yield "# predictor:                      # .loco files were found: say which belongs to which trait"
        yield f"#   method: loco\n#   loco: {{{_quote(traits[0])}: {_quote(found.loco[0])}}}{_also(found.loco[1:])}"
    elif found.summaries and common:
        yield "# predictor:                      # GWAS summary statistics were found: name their trait, then uncomment"
        yield "#   method: ldpred2-auto          # the GWAS should not contain this cohort"
        one = f"{_quote((traits or ['TRAIT'])[0])}: {_quote(found.summaries[0])}"
        yield f"#   summary_statistics: {{{one}}}{_also(found.summaries[1:])}"
        yield f"#   genotypes: {_quote(common[0])}   # common variants of the cohort"
        yield f"#   ld_reference: {_quote(common[-1])}"
    elif common:
        yield "predictor:                        # from the cohort itself; a GWAS of other people predicts better"
        yield f"  method: mixture\n  genotypes: {_quote(common[0])}{_also(common[1:])}"
    else:
        yield "# predictor:                      # removes polygenic noise; a GWAS helps"
        yield "#   genotypes: COMMON_VARIANTS.bed"
    yield ""


def _phenotype_tables(found: _Found) -> dict[str, list[_Column]]:
    """Return the tables that are not covariates."""
    return {n: c for n, c in found.tables.items() if not _is_covariate_table(n, c)}


def _genes(found: _Found) -> Iterator[str]:
    """Give the section `genes`."""
    yield "genes:"
    if found.sets:
        yield f"  sets: {_quote(found.sets[0])}{_also([*found.sets[1:], *found.groups, *found.regions])}"
        if found.annotations and found.masks:
            yield f"  annotations: {_quote(found.annotations[0])}{_also(found.annotations[1:])}"
            yield f"  masks: {_quote(found.masks[0])}{_also(found.masks[1:])}"
        else:
            yield "  # annotations: ANNOTATIONS.txt  # variant gene category; without them all variants count"
            yield "  # masks: MASKS.txt              # name category,category"
    elif found.groups:
        yield f"  groups: {_quote(found.groups[0])}{_also([*found.groups[1:], *found.regions])}"
    elif found.regions:
        yield f"  regions: {_quote(found.regions[0])}   # read as BED: 0-based start{_also(found.regions[1:])}"
    else:
        yield "  sets: SETS.txt                 # none was found: gene chromosome start variant,variant,... (REGENIE)"
        yield "  # or `groups:` (SAIGE, EPACTS) or `regions:` (BED: chrom start end gene)"
    yield ""


_TESTS = (
    "tests:",
    "  names: [burden, skat, acat-v, acat-o]   # locomass config tests lists them",
    "  max_maf: [0.01, 0.05]           # frequency bins, upper bounds",
    "  weights: [flat, beta_1_25]",
    "output: results                   # relative to the working directory; --out replaces it",
)


def _quote(text: str) -> str:
    """Return a word as YAML writes it."""
    return yaml.safe_dump(text, default_flow_style=True, width=10_000).removesuffix("...\n").strip()


def _list(names: Iterable[str]) -> str:
    """Return a YAML flow list."""
    return "[" + ", ".join(_quote(name) for name in names) + "]"


def _also(others: list[str]) -> str:
    """Return a comment that names the other candidates."""
    shown = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
    return f"   # also found: {shown}" if others else ""

"""The configuration: every key declared once, with its range, default and a line of help.

YAML is read with its line numbers, so an error names file, line and key. Paths are relative to the configuration
file; ``output`` (and ``--out``) is relative to the working directory.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
import yaml
from msgspec import Meta

from locomass.errors import ConfigError, suggest
from locomass.files.yaml_text import load_yaml

Probability = Annotated[float, Meta(gt=0, le=1)]
Names = list[str]
GENOTYPES = (
    "genotypes: .pgen, .bed, .bgen, .vcf.gz, .bcf or .vcz (one file, or one per chromosome with `{chrom}` in the name)"
)


class _Struct(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Base of every section: unknown keys are errors."""


Column = Annotated[str, Meta(min_length=1)]


class TimeToEvent(_Struct, frozen=True):
    """Columns of one time to event, of the phenotype table."""

    time: Annotated[Column, Meta(description="column of the time at which follow-up ended")]
    event: Annotated[Column, Meta(description="column that is 1 where the event ended it, 0 where it was censored")]
    entry: Annotated[
        Column | None, Meta(description="column of the time at which follow-up began (left truncation)")
    ] = None
    strata: Annotated[
        Names, Meta(description="columns whose levels have a baseline hazard of their own, such as sex or centre")
    ] = []

    @property
    def columns(self) -> list[str]:
        """All columns."""
        return [self.time, self.event, *([self.entry] if self.entry else []), *self.strata]


Transform = Literal["none", "rint", "rint-residuals"]


class Phenotypes(_Struct, frozen=True):
    """The phenotype table and the traits to analyse."""

    file: Annotated[
        str, Meta(description="table with a header `FID IID trait ...` (or `IID trait ...`); NA is missing")
    ]
    quantitative: Annotated[
        Names, Meta(description="columns of quantitative traits; patterns such as `ENSG*` expand")
    ] = []
    binary: Annotated[Names, Meta(description="columns of binary traits, 0 = control, 1 = case")] = []
    binary_coding: Annotated[
        Literal["01", "12"], Meta(description="`12` when controls are 1 and cases 2, as PLINK writes them")
    ] = "01"
    transform: Annotated[
        Transform | dict[str, Transform],
        Meta(
            description="of quantitative traits, all or by name: `rint` makes the ranks of the values normal, "
            "`rint-residuals` those of the residuals after covariates, which are fitted again afterwards"
        ),
    ] = "none"
    time_to_event: Annotated[
        dict[Annotated[str, Meta(pattern=r"^[^\s/]+$")], TimeToEvent],
        Meta(
            description="times to events, by name: `time`, `event` (1, or 0 where censored), if need be `entry` (left "
            "truncation) and `strata` (baseline hazards of their own), columns each"
        ),
    ] = {}
    missing_codes: Annotated[
        Names, Meta(description="texts that mean missing, besides NA; `[]` where -9 is a value")
    ] = msgspec.field(default_factory=lambda: ["-9"])


class Covariates(_Struct, frozen=True):
    """The covariate table; an intercept is always added."""

    file: Annotated[str, Meta(description="table with a header `FID IID ...` (or `IID ...`)")]
    quantitative: Annotated[Names, Meta(description="numeric covariates; patterns expand")] = []
    categorical: Annotated[Names, Meta(description="covariates that become indicator columns; patterns expand")] = []
    missing_codes: Annotated[
        Names, Meta(description="texts that mean missing, besides NA; `[]` where -9 is a value")
    ] = msgspec.field(default_factory=lambda: ["-9"])


class Predictor(_Struct, frozen=True):
    """Where the LOCO prediction of each trait comes from, and how the null model uses it."""

    method: Annotated[
        str,
        Meta(
            description="`locomass config predictors` lists them: from GWAS, from the cohort itself, or ready made; "
            "auto: by what is given: loco, weights, stack, ldpred2-auto for summary_statistics, or else mixture for "
            "genotypes"
        ),
    ] = "auto"
    options: Annotated[
        dict[str, Any], Meta(description="what the method may be told; `locomass config predictors` lists the options")
    ] = {}
    summary_statistics: Annotated[
        dict[str, str] | str, Meta(description="GWAS summary statistics per trait, or one file for all traits")
    ] = {}
    n_samples: Annotated[
        float | dict[str, float] | None,
        Meta(description="GWAS sample size (per trait), when the file has no N column"),
    ] = None
    n_meaning: Annotated[
        Literal["total", "effective", "half"] | dict[str, Literal["total", "effective", "half"]] | None,
        Meta(description="what N counts: all, 4 / (1/cases + 1/controls), or half of that; told by the file if absent"),
    ] = None
    columns: Annotated[
        dict[str, str], Meta(description="column map for other summary-statistic layouts, e.g. `beta: EFFECT`")
    ] = {}
    heritability: Annotated[
        float | dict[str, float] | None,
        Meta(description="SNP heritability (per trait); LD score regression when absent"),
    ] = None
    genotypes: Annotated[
        str | None, Meta(description="common variants of the cohort, to be scored; any genotype format")
    ] = None
    ld_reference: Annotated[
        str | None,
        Meta(description="genotypes that give LD (or a PRS-CS or VIPRS folder of LD); `genotypes` when absent"),
    ] = None
    ld_cache: Annotated[
        str | None,
        Meta(description="folder where LD blocks are kept for other runs; `ld_cache` in the output if absent"),
    ] = None
    max_block_variants: Annotated[int, Meta(ge=50, le=10_000, description="largest LD block")] = 1000
    loco: Annotated[dict[str, str] | str, Meta(description="REGENIE .loco file per trait, or a pred.list")] = {}
    use: Annotated[
        Literal["covariate", "offset"] | None,
        Meta(description="covariate: slope per chromosome; offset: slope 1; default: offset if out of fold"),
    ] = None

    weights: Annotated[
        dict[str, str] | str,
        Meta(description="weights per trait: PGS Catalog, PLINK --score, PRS-CS, BOLT predBetas or SBayesRC file"),
    ] = {}
    chain_file: Annotated[str | None, Meta(description="UCSC chain file that lifts the weights to our build")] = None
    stack: Annotated[list[Predictor], Meta(description="predictors to combine; genotypes are taken from above")] = []
    either_sign: Annotated[bool, Meta(description="in a stack: a predictor of another trait, of either sign")] = False
    n_folds: Annotated[int, Meta(ge=2, le=100, description="folds of block ridge and stacking")] = 5
    seed: Annotated[int, Meta(ge=0, description="seed of samplers and folds")] = 1
    cohort_in_gwas: Annotated[bool, Meta(description="the training GWAS contains this cohort")] = False
    gwas_samples: Annotated[
        str | None, Meta(description="samples of the training GWAS, `FID IID`, no header: an overlap is then seen")
    ] = None
    subtract_cohort: Annotated[bool, Meta(description="take this cohort's own effects out of the GWAS first")] = False
    allow_overlap: Annotated[bool, Meta(description="go on although training and test samples overlap")] = False
    prevalence: Annotated[
        Probability | dict[str, Probability] | None,
        Meta(description="population prevalence (per binary trait), to judge ascertainment"),
    ] = None
    allow_ascertained: Annotated[bool, Meta(description="de-noise an ascertained study of a rare disease")] = False

    def __post_init__(self) -> None:
        """Settle the method, and check it and its options: errors get the place in the file from msgspec."""
        if self.method == "auto":
            msgspec.structs.force_setattr(self, "method", self._choose_method())
        if self.method == "none" and not self.options:
            return
        from locomass_predictors.registry import read_options

        try:
            read_options(self.method, self.options)
        except msgspec.ValidationError as error:
            place = str(error).replace("`$.", "`$.options.")
            raise ValueError(place) from None
        except ValueError as error:
            key = "method" if str(error).startswith("unknown predictor") else "options"
            raise ValueError(f"{error} - at `$.{key}`") from None

    def _choose_method(self) -> str:
        """Return the best method for what is given."""
        given = (
            (self.loco, "loco"),
            (self.weights, "weights"),
            (self.stack, "stack"),
            (self.summary_statistics, "ldpred2-auto"),
            (self.genotypes, "mixture"),
        )
        return next((method for value, method in given if value), "none")

    @property
    def role(self) -> str:
        """``covariate`` or ``offset`` after defaults."""
        from locomass_predictors.registry import find_method

        return self.use or find_method(self.method).source.role


class Genes(_Struct, frozen=True):
    """Genes, the variants in them, and masks; one of sets, groups or regions."""

    sets: Annotated[str | None, Meta(description="REGENIE set list: gene chrom start variant,variant,...")] = None
    annotations: Annotated[str | None, Meta(description="REGENIE annotation file: variant gene category")] = None
    masks: Annotated[str | None, Meta(description="REGENIE mask definitions: name category,category")] = None
    groups: Annotated[str | None, Meta(description="SAIGE or EPACTS/rvtests group file")] = None
    regions: Annotated[str | None, Meta(description="BED file chrom start end gene: every variant inside")] = None
    pathways: Annotated[str | None, Meta(description="GMT file of pathways: name, description, gene, gene, ...")] = None


class StepUp(_Struct, frozen=True):
    """How the searches over groupings of variants run, and pathway-step-up."""

    weights: Annotated[
        Literal["constant", "inverse-sd", "both"], Meta(description="of variants; both: the better of the two")
    ] = "constant"
    signs: Annotated[
        Literal["fixed", "data"], Meta(description="fixed: effects add up; data: each with the sign of its own score")
    ] = "fixed"
    permutations: Annotated[int, Meta(ge=1, description="largest number of null replicates of a gene")] = 100_000
    exceedances: Annotated[
        int, Meta(ge=1, description="replicates beyond the observed value that end the sampling")
    ] = 20
    seed: Annotated[int, Meta(ge=0, description="start of every random stream")] = 2010
    categorical: Annotated[Names, Meta(description="annotation columns that are codes without order")] = []
    low_is_damaging: Annotated[Names, Meta(description="annotation columns such as SIFT: small is damaging")] = []


class Tests(_Struct, frozen=True):
    """What is tested for every gene, mask and frequency bin."""

    names: Annotated[Names, Meta(description="gene tests; `locomass config tests` lists them")] = msgspec.field(
        default_factory=lambda: ["burden", "skat", "acat-v", "acat-o", "omnibus"]
    )
    frequency: Annotated[
        Literal["maf", "aaf"],
        Meta(description="maf: count the minor allele and bound its frequency; aaf: count ALT and bound its frequency"),
    ] = "maf"
    max_maf: Annotated[
        list[Probability], Meta(min_length=1, description="frequency bins, upper bounds (inclusive)")
    ] = msgspec.field(default_factory=lambda: [0.01, 0.05])
    weights: Annotated[Names, Meta(min_length=1, description="flat, beta_A_B, madsen-browning, annotation:COLUMN")] = (
        msgspec.field(default_factory=lambda: ["flat", "beta_1_25"])
    )
    singletons: Annotated[
        Literal["none", "observed", "external"],
        Meta(
            description="also test the singletons of every mask, as mask MASK.singleton: observed: counted once over "
            "the studies; external: by the third column of the file of `maf: {external: FILE}` (REGENIE)"
        ),
    ] = "none"
    collapse_mac: Annotated[
        float, Meta(ge=0, description="ACAT-V pools variants with at most this many minor alleles into one burden")
    ] = 10
    collapsed_weight: Annotated[
        Literal["own", "mean"],
        Meta(
            description="weight of that burden in ACAT-V: own: that of a variant as frequent as it (REGENIE); mean: "
            "the mean of its variants (R's ACAT)"
        ),
    ] = "own"
    null_law: Annotated[
        Literal["exact", "normal"],
        Meta(
            description="exact: p-values and odds ratios from the null law of every score, as far as studies share it; "
            "normal: chi-square and U / V, as programs without laws"
        ),
    ] = "exact"
    ties: Annotated[
        Literal["mid", "whole"],
        Meta(
            description="how much of the probability of the observed score counts in p: half (mid; near the level on "
            "average) or all of it (whole; never above the level)"
        ),
    ] = "mid"
    effects: Annotated[
        Literal["firth", "ml"],
        Meta(description="log odds ratios of binary traits: Firth's penalised likelihood, or maximum likelihood"),
    ] = "firth"
    ultra_rare: Annotated[
        Literal["auto", "collapse", "keep"],
        Meta(
            description="collapse: the SKAT family takes the variants of at most collapse_mac alleles as one; "
            "auto: of binary traits that have laws"
        ),
    ] = "auto"
    step_up: Annotated[StepUp, Meta(description="how the searches over groupings run")] = StepUp()
    drivers_p: Annotated[
        float, Meta(ge=0, le=1, description="rows with a p-value below this have their variants in drivers.parquet")
    ] = 1e-4


class ExternalMaf(_Struct, frozen=True):
    """Allele frequencies from a file instead of from the studies."""

    external: Annotated[str, Meta(description="REGENIE allele-frequency file or PLINK 2 .afreq")]


Maf = Literal["joint", "study"] | ExternalMaf


class ScoreStatistics(_Struct, frozen=True):
    """How score statistics are computed and what the bundle shares."""

    missing: Annotated[
        Literal["mean", "zero"],
        Meta(
            description="a missing call counts as twice the allele frequency (mean) or as the major homozygote (zero)"
        ),
    ] = "mean"
    max_maf: Annotated[
        Probability, Meta(description="variants above this minor allele frequency are left out of the bundle")
    ] = 0.5
    max_missing: Annotated[
        Probability, Meta(description="variants with a larger share of missing calls are left out of the genes")
    ] = 1.0
    min_info: Annotated[
        float,
        Meta(
            ge=0, le=1, description="imputed variants whose dosages vary less than this share of 2f(1 - f) are left out"
        ),
    ] = 0.0
    min_cell: Annotated[
        int,
        Meta(
            ge=0, description="genotype and carrier counts below this are withheld from the bundle (0: none withheld)"
        ),
    ] = 0
    share: Annotated[
        Literal["exact", "protected"],
        Meta(
            description="protected: variants with fewer than min_cell carriers travel as one per gene and category, "
            "and no number is about fewer people"
        ),
    ] = "exact"
    modes: Annotated[
        list[Literal["dominant", "recessive"]],
        Meta(description="share burdens of these modes of inheritance, per gene, mask and threshold"),
    ] = []
    thresholds: Annotated[
        list[Annotated[float, Meta(gt=0, le=0.25)]],
        Meta(min_length=1, description="minor allele frequencies, in this study, up to which such burdens count"),
    ] = msgspec.field(default_factory=lambda: [0.001, 0.005, 0.01, 0.05])
    replicates: Annotated[
        int, Meta(ge=0, le=100_000, description="share this many null replicates of every gene's scores (0: none)")
    ] = 0
    seed: Annotated[int, Meta(ge=0, description="seed of the replicates; streams of studies differ by name")] = 2010
    x_coding: Annotated[
        Literal["0/2", "0/1"],
        Meta(description="dosage of a male's ALT on chromosome X outside the pseudo-autosomal regions"),
    ] = "0/2"

    def __post_init__(self) -> None:
        """Check what protection needs: errors get the place in the file from msgspec."""
        if self.share == "protected" and self.min_cell < 2:
            raise ValueError("share: protected needs min_cell, the people that a shared number is about at least: 20")
        if self.share == "protected" and (self.modes or self.replicates):
            raise ValueError("share: protected shares no burdens of other modes and no replicates; remove both keys")


class Permutation(_Struct, frozen=True):
    """Searches by permutation of this study's own residuals; masks, bins, weights and signs are those of `tests`."""

    tests: Annotated[
        list[Literal["step-up", "all-maf", "groupings", "subsets", "cut-off"]],
        Meta(description="searches repeated on every permutation, into permutation_tests.parquet; none by default"),
    ] = []
    variance: Annotated[
        Literal["model", "empirical"],
        Meta(
            description="of a burden: of the null model, or from the residuals of its carriers (Hoffmann et al. 2010)"
        ),
    ] = "model"
    strata: Annotated[
        str | None, Meta(description="categorical covariate within whose levels residuals are permuted")
    ] = None


class RunConfig(_Struct, frozen=True, kw_only=True):
    """Configuration of `locomass run`."""

    study: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]+$", description="name of the study: letters, digits, . _ -")]
    genotypes: Annotated[str, Meta(description=GENOTYPES)]
    phenotypes: Phenotypes
    genes: Genes
    genome_build: Annotated[Literal["GRCh37", "GRCh38"] | None, Meta(description="build of all positions")] = None
    keep_samples: Annotated[str | None, Meta(description="file of samples to keep, `FID IID`, no header")] = None
    remove_samples: Annotated[str | None, Meta(description="file of samples to remove, `FID IID`, no header")] = None
    covariates: Covariates | None = None
    predictor: Predictor = Predictor()
    score_statistics: ScoreStatistics = ScoreStatistics()
    tests: Tests = Tests()
    permutation: Permutation = Permutation()
    maf: Annotated[Maf, Meta(description="which frequency decides and weights: joint, study, or {external: FILE}")] = (
        "joint"
    )
    output: Annotated[str, Meta(description="output directory, relative to the working directory")] = "results"


class MetaConfig(_Struct, frozen=True, kw_only=True):
    """Configuration of `locomass meta`."""

    studies: Annotated[Names, Meta(description="study bundles to combine")] = []
    groups: Annotated[
        dict[str, list[str]],
        Meta(
            description="group (such as an ancestry) -> its studies, by the names in their bundles; tests that let the "
            "effect differ between studies then let it differ between groups only"
        ),
    ] = {}
    genes: Genes
    maf: Annotated[Maf, Meta(description="which frequency decides and weights: joint, study, or {external: FILE}")] = (
        "joint"
    )
    tests: Tests = Tests()
    output: Annotated[str, Meta(description="output directory, relative to the working directory")] = "results"


#: Keys of earlier versions, and what became of them
REMOVED = {
    f"{section}.calibrate": f"key '{section}.calibrate' is gone: every score is tested by its own null law, for any "
    "trait; delete the line (tests.null_law: normal gives chi-square p-values)"
    for section in ("tests", "score_statistics")
}

AnyConfig = TypeVar("AnyConfig", RunConfig, MetaConfig)
AnyStruct = TypeVar("AnyStruct", bound=msgspec.Struct)


def load_config(path: str | Path, kind: type[AnyConfig]) -> AnyConfig:
    """Read and validate a configuration file.

    Args:
        path: the YAML file.
        kind: `RunConfig` or `MetaConfig`.

    Raises:
        ConfigError: names file, line and key, what was expected, and the closest known key.
    """
    config = read_struct(Path(path), kind)
    _check_genes(config.genes, Path(path))
    return config


def read_struct(path: Path, kind: type[AnyStruct]) -> AnyStruct:
    """Read a YAML file into a msgspec struct.

    Raises:
        ConfigError: names file, line and key, what was expected, and the closest known key.
    """
    text = _read_text(path)
    node, data = _parse(text, path)
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(str(error), path, node, kind)) from None


def read_keys(path: Path) -> set[str]:
    """Return the top-level keys of a configuration.

    Raises:
        ConfigError: it cannot be read, or is no YAML.
    """
    return set(_parse(_read_text(path), path)[1])


def _read_text(path: Path) -> str:
    """Return the text of a configuration."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read configuration {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"configuration {path} is not UTF-8 text") from None


def _parse(text: str, path: Path) -> tuple[yaml.Node | None, dict[str, Any]]:
    """Return the nodes and the values of a configuration."""
    data = load_yaml(text, path)
    if not isinstance(data, dict):
        raise ConfigError(f"{path}, line 1: expected `key: value` lines, found {type(data).__name__}")
    return yaml.compose(text, Loader=yaml.SafeLoader), data


def _check_genes(genes: Genes, path: Path) -> None:
    """Raise unless exactly one source of genes is given, with what it needs."""
    sources = [name for name in ("sets", "groups", "regions") if getattr(genes, name)]
    if len(sources) != 1:
        found = " and ".join(sources) or "none"
        raise ConfigError(f"{path}: key genes: give exactly one of sets, groups or regions; found {found}")
    if genes.sets and bool(genes.annotations) != bool(genes.masks):
        raise ConfigError(f"{path}: key genes: annotations and masks belong together; give both or neither")


def _explain(message: str, path: Path, node: yaml.Node | None, kind: type) -> str:
    """Return a message with file, line and key for a validation error of msgspec."""
    # the innermost place comes first when a section checks a part of itself
    places = re.findall(r" - at `\$([^`]*)`", message)
    where = "".join(reversed(places)).lstrip(".")
    text = re.sub(r" - at `[^`]*`", "", message)
    unknown = re.match(r"Object contains unknown field `(?P<field>[^`]*)`", text)
    keys = [k for k in re.split(r"[.\[\]]+", where) if k]
    if unknown:
        section = _section_at(kind, keys)
        known = section.__struct_fields__ if section is not None else ()
        text = f"unknown key '{unknown['field']}'{suggest(unknown['field'], known)}"
        text = REMOVED.get(".".join([*keys, unknown["field"]]), text)
        keys.append(unknown["field"])
    wrong = re.fullmatch(r"Invalid enum value '(?P<value>.*)'", text)
    if wrong:
        text += suggest(wrong["value"], _choices_at(kind, keys))
    line = _line_of(node, keys)
    label = ".".join(keys)
    return f"{path}, line {line}: {text}" if unknown or not label else f"{path}, line {line}, key {label}: {text}"


def _section_at(kind: Any, keys: list[str]) -> Any:
    """Return the Struct class that the keys lead to, or None."""
    for key in keys:
        hints = get_type_hints(kind) if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else {}
        candidates = [hints.get(key), *get_args(hints.get(key))]
        kind = next((c for c in candidates if isinstance(c, type) and issubclass(c, msgspec.Struct)), None)
        if kind is None:
            return None
    return kind


def _choices_at(kind: Any, keys: list[str]) -> list[str]:
    """Return the words that the key accepts."""
    names = [key for key in keys if not key.isdigit()]
    section = _section_at(kind, names[:-1]) if names else None
    hint = None if section is None else get_type_hints(section).get(names[-1])
    return [word for word in _literal_words(hint) if isinstance(word, str)]


def _literal_words(hint: Any) -> list[Any]:
    """Return every word of the `Literal` types inside a type hint."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    return [word for inner in get_args(hint) for word in _literal_words(inner)]


def _line_of(node: yaml.Node | None, keys: list[str]) -> int:
    """Return the line of the deepest key that the file has."""
    line = 1
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == key), None)
            if pair is None:
                return line
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and key.isdigit() and int(key) < len(node.value):
            node = node.value[int(key)]
            line = node.start_mark.line + 1
        else:
            return line
    return line


def per_trait(value: Mapping[str, Any] | str | float | None, traits: list[str], key: str) -> dict[str, Any]:
    """Spread a value given once, or per trait, over the traits.

    Raises:
        ConfigError: a trait named there is not analysed.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        return dict.fromkeys(traits, value)
    for name in value:
        if name not in traits:
            raise ConfigError(f"key {key}: '{name}' is not an analysed trait{suggest(name, traits)}")
    return dict(value)


#: keys of `Predictor` that may name traits
PER_TRAIT = ("summary_statistics", "n_samples", "n_meaning", "heritability", "prevalence", "loco", "weights")


def forget_traits(options: Predictor, names: Collection[str]) -> Predictor:
    """Return the options without what they say of some traits, those that cannot be fitted; see `per_trait`."""
    said: dict[str, Any] = {key: getattr(options, key) for key in PER_TRAIT}
    kept = {
        key: {trait: value[trait] for trait in value if trait not in names}
        for key, value in said.items()
        if isinstance(value, Mapping)
    }
    return msgspec.structs.replace(options, **kept, stack=[forget_traits(part, names) for part in options.stack])


def describe_keys(kind: Any, prefix: str = "") -> list[tuple[str, str, str, str]]:
    """Return (key, type, default, help) of every key of a configuration, depth first."""
    rows: list[tuple[str, str, str, str]] = []
    for item in msgspec.structs.fields(kind):
        hint = get_type_hints(kind, include_extras=True)[item.name]
        metas = [m for m in getattr(hint, "__metadata__", ()) if isinstance(m, Meta)]
        help_text = next((m.description for m in metas if m.description), "")
        section = _section_at(kind, [item.name])
        if section is not None and section not in (ExternalMaf, TimeToEvent, kind):  # by name, not keys of their own
            rows += describe_keys(section, f"{prefix}{item.name}.")
            continue
        default = (
            "required"
            if item.required
            else msgspec.json.encode(
                item.default_factory() if item.default is msgspec.NODEFAULT else item.default
            ).decode()
        )
        rows.append((f"{prefix}{item.name}", _type_name(hint), default, help_text))
    return rows


def export_schema(kind: type[RunConfig] | type[MetaConfig] = RunConfig) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a configuration, for editors that check YAML while it is typed.

    Args:
        kind: `RunConfig` (`locomass run`) or `MetaConfig` (`locomass meta`).
    """
    schema = msgspec.json.schema(kind)
    if kind is RunConfig:
        _add_methods(schema["$defs"]["Predictor"]["properties"])
    title = "locomass run" if kind is RunConfig else "locomass meta"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"Configuration of {title}", **schema}


def _add_methods(properties: dict[str, Any]) -> None:
    """Complete the schema of a predictor with the registered methods and the options of each."""
    from locomass_predictors.registry import METHODS

    properties["method"]["enum"] = list(METHODS)
    kinds = {method.options: msgspec.json.schema(method.options, ref_template="") for method in METHODS.values()}
    properties["options"] = {
        "description": properties["options"].get("description", ""),
        "default": {},
        "anyOf": [next(iter(found["$defs"].values())) for found in kinds.values()],
    }


def describe_methods() -> list[tuple[str, str, list[tuple[str, str, str, str]]]]:
    """Return (name, help, rows of `describe_keys` for its options) of every prediction method."""
    from locomass_predictors.registry import METHODS

    return [(m.name, m.help, describe_keys(m.options, "predictor.options.")) for m in METHODS.values()]


def _type_name(hint: Any) -> str:
    """Return a short, readable name of a type hint."""
    if get_origin(hint) is Annotated:
        return _type_name(get_args(hint)[0])
    if get_origin(hint) is Literal:
        return " | ".join(str(a) for a in get_args(hint))
    if get_origin(hint) is tuple and get_args(hint)[-1] is ...:
        return f"list of {_type_name(get_args(hint)[0])}"
    if get_origin(hint) is tuple:
        return f"[{', '.join(map(_type_name, get_args(hint)))}]"
    if get_args(hint):
        inner = [_type_name(a) for a in get_args(hint) if a is not type(None)]
        if get_origin(hint) is list:
            return f"list of {inner[0]}"
        if get_origin(hint) is dict:
            return f"{{{inner[0]}: {inner[1]}}}"
        return " | ".join(inner)
    return getattr(hint, "__name__", str(hint))

"""Every table and array that crosses a stage: its columns or dims, their types and meaning, and the check of both.

A stage writes through `validate_table` and the next one reads through it, so a stranger's file and our own are held to
the same contract. The user guide's format pages are made from these declarations.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from locomass.errors import FormatError


@dataclass(frozen=True)
class Column:
    """One column of a table; ``absent`` is its value in tables of earlier versions, which lack it (None: none do)."""

    name: str
    type: pa.DataType
    meaning: str
    absent: str | None = None


@dataclass(frozen=True)
class TableSchema:
    """A table that crosses a stage."""

    name: str
    meaning: str
    columns: tuple[Column, ...]

    @property
    def arrow(self) -> pa.Schema:
        """The Arrow schema of the table."""
        return pa.schema([(c.name, c.type) for c in self.columns])


def validate_table(table: pa.Table, schema: TableSchema, path: str | Path) -> pa.Table:
    """Return the columns of ``schema``, in its order.

    Raises:
        FormatError: a column is missing or has another type.
    """
    for column in schema.columns:
        if column.name not in table.column_names and column.absent is not None:
            table = table.append_column(column.name, pa.array([column.absent] * table.num_rows, column.type))
        if column.name not in table.column_names:
            raise FormatError(
                f"no column '{column.name}' ({column.meaning}); found {', '.join(table.column_names[:20])}", path=path
            )
        found = table.schema.field(column.name).type
        if found != column.type:
            raise FormatError(f"type {found}, expected {column.type}", path=path, column=column.name)
    return table.select([c.name for c in schema.columns])


#: In a column of studies or chromosomes: the row of all of them
ALL = "all"
#: What `STUDIES` and `DENOISING` do not hold: how each predictor was made, as the bundles tell, by study and trait
PREDICTORS = "predictors.json"
INSPECTION = "inspection.json"  # what was found wrong with the bundles of a meta-analysis

_text, _i32, _i64, _f64 = pa.string(), pa.int32(), pa.int64(), pa.float64()

BUNDLE_VARIANTS = TableSchema(
    "variants.parquet",
    "one row per variant of the study's genes, sorted by chromosome and position",
    (
        Column("chromosome", _text, "without `chr`; X = 23, Y = 24, MT = 26"),
        Column("position", _i64, "base pair, 1-based"),
        Column("ref", _text, "other allele"),
        Column("alt", _text, "effect allele: U counts it"),
        Column("n_obs", pa.list_(_i32), "samples with a call, per sample set of study.json"),
        Column("n_ref", pa.list_(_i32), "of these: REF/REF (-1: withheld)"),
        Column("n_het", pa.list_(_i32), "of these: REF/ALT (-1: withheld)"),
        Column("n_alt", pa.list_(_i32), "of these: ALT/ALT (-1: withheld)"),
        Column("alt_frequency", pa.list_(_f64), "ALT allele frequency among samples with a call, per sample set"),
        Column("U", pa.list_(_f64), "score statistic per trait of study.json"),
        Column("V", pa.list_(_f64), "variance of U per trait (diagonal of the information matrix)"),
    ),
)

BUNDLE_GENES = TableSchema(
    "genes/*.parquet",
    "one row per gene and covariance of study.json; V = (G'WG - B'B - b'b) / sigma2",
    (
        Column("gene", _text, "name of the gene or set"),
        Column("chromosome", _text, "as in variants.parquet"),
        Column("start", _i64, "first position of the gene"),
        Column("end", _i64, "last position of the gene"),
        Column("covariance", _text, "name of the covariance in study.json"),
        Column("variant", pa.list_(_i32), "rows of variants.parquet, m of them"),
        Column("row", pa.list_(_i32), "row of each non-zero entry of the lower triangle of G'WG (0..m-1)"),
        Column("column", pa.list_(_i32), "column of each entry, column <= row"),
        Column("value", pa.list_(_f64), "the entry"),
        Column("B", pa.list_(_f64), "(p, m) row by row: (X'WX)^(-1/2) X'WG"),
        Column("b", pa.list_(_f64), "(traits of the covariance, q, m): rows that LOCO columns add to B, per trait"),
        Column("note", _text, "why the gene has no statistics; empty otherwise"),
    ),
)

BUNDLE_CALIBRATED = TableSchema(
    "calibrated",
    "of bundles before laws, not read any more: variances of binary traits by saddlepoint and enumeration",
    (
        Column("number", _i32, "row of variants.parquet"),
        Column("V", pa.list_(_f64), "calibrated variance of U per trait of study.json; NaN for traits not calibrated"),
    ),
)

BUNDLE_LAWS = TableSchema(
    "laws",
    "optional: one row per gene and covariance; groups of people who carry the same of the gene's variants",
    (
        Column("gene", _text, "name of the gene or set"),
        Column("covariance", _text, "name of the covariance in study.json"),
        Column("size", pa.list_(_i32), "people of each group"),
        Column("carried", pa.list_(_i32), "number of variants that each of them carries"),
        Column("variant", pa.list_(_i32), "these variants, group by group (0..m-1 of the gene's list)"),
        Column("dosage", pa.list_(pa.float32()), "alleles of each, ALT positive; negative where REF is the rarer one"),
        Column("mu", pa.list_(pa.float32()), "mean fitted probability of each group; empty for quantitative traits"),
    ),
)

BUNDLE_COLLAPSED = TableSchema(
    "collapsed",
    "optional: one row per gene, mask and mode; burdens that only individual data give, K thresholds, T traits",
    (
        Column("gene", _text, "name of the gene or set"),
        Column("mask", _text, "mask of the study's own configuration"),
        Column("mode", _text, "dominant: 1(c >= 1); recessive: 1(c >= 2)"),
        Column("threshold", pa.list_(_f64), "K minor allele frequencies in the study's own samples, rising"),
        Column("carriers", pa.list_(_i32), "(sample sets, K) samples whose burden is not zero; -1: withheld"),
        Column("U", pa.list_(_f64), "(T, K) scores, minor allele counted; NaN: withheld"),
        Column("V", pa.list_(_f64), "(T, K, K) information"),
    ),
)

BUNDLE_REPLICATES = TableSchema(
    "replicates",
    "optional: one row per gene and trait; null replicates of U, independent between studies",
    (
        Column("gene", _text, "name of the gene or set"),
        Column("trait", _text, "trait of study.json"),
        Column("variant", pa.list_(_i32), "rows of variants.parquet, m of them"),
        Column("U", pa.list_(_f64), "(P, m) replicates, ALT counted, on the scale of U"),
    ),
)

GENE_TESTS = TableSchema(
    "gene_tests.parquet",
    "one row per gene, trait, mask, frequency bin, weights and test",
    (
        Column("gene", _text, "name of the gene or set"),
        Column("chromosome", _text, "as in the sets"),
        Column("start", _i64, "first position"),
        Column("end", _i64, "last position"),
        Column("trait", _text, "trait"),
        Column("mask", _text, "mask"),
        Column("max_maf", _f64, "upper bound of the frequency bin, inclusive"),
        Column("weights", _text, "variant weights; joined by + where a test combines several"),
        Column("test", _text, "gene test"),
        Column("n_studies", _i32, "studies in which at least one variant of the row is polymorphic"),
        Column("n_samples", _i64, "samples of the trait over all studies"),
        Column("n_variants", _i32, "polymorphic variants of the row"),
        Column("mac", _f64, "summed count of the counted allele"),
        Column("statistic", _f64, "test statistic"),
        Column(
            "beta",
            _f64,
            "effect per unit of the weighted sum of counted alleles (equal weights: per allele; Beta weights: a unit "
            "is one over the weight of an allele), where the test has one; log odds ratio of a binary trait",
        ),
        Column("se", _f64, "its standard error"),
        Column("ci_low", _f64, "lower end of its 95 % interval; of a binary trait from the profile of the likelihood"),
        Column("ci_high", _f64, "upper end"),
        Column("p", _f64, "p-value; 0 only below 1e-308, where log10p still tells"),
        Column("log10p", _f64, "-log10 of the p-value"),
        Column("method", _text, "how p was computed"),
        Column("p_error", _f64, "relative numerical or Monte Carlo error of p"),
        Column("note", _text, "why there is no p-value, or a flag"),
        Column(
            "choice",
            _text,
            "what the test chose: rho=, threshold=, grouping=, weights=, component= (ACAT-O), row= (omnibus); or empty",
            absent="",
        ),
    ),
)

SINGLE_VARIANTS = TableSchema(
    "single_variants.parquet",
    "one row per variant and trait",
    (
        Column("chromosome", _text, "as in the sets"),
        Column("position", _i64, "base pair"),
        Column("ref", _text, "other allele"),
        Column("alt", _text, "effect allele"),
        Column("trait", _text, "trait"),
        Column("n_studies", _i32, "studies in which the variant is polymorphic"),
        Column("n_samples", _i64, "samples with a call"),
        Column("alt_frequency", _f64, "pooled ALT allele frequency"),
        Column("alt_count", _f64, "pooled ALT allele count"),
        Column("U", _f64, "score statistic"),
        Column("V", _f64, "its variance"),
        Column("beta", _f64, "effect of one ALT allele: U / V, or the log odds ratio of a binary trait"),
        Column("se", _f64, "its standard error"),
        Column("ci_low", _f64, "lower end of its 95 % interval; of a binary trait from the profile of the likelihood"),
        Column("ci_high", _f64, "upper end"),
        Column("p", _f64, "p-value, from the null law of U"),
        Column("log10p", _f64, "-log10 of the p-value"),
        Column("method", _text, "exact, convolution, saddlepoint, or chi2 where it is within 1 % or no law is known"),
    ),
)

DRIVERS = TableSchema(
    "drivers.parquet",
    "per variance-component or searched row with a small p-value: the variants that carry it, largest share first",
    (
        Column("gene", _text, "gene"),
        Column("trait", _text, "trait"),
        Column("mask", _text, "mask"),
        Column("max_maf", _f64, "bin"),
        Column("weights", _text, "weights"),
        Column("test", _text, "gene test"),
        Column("log10p", _f64, "-log10 of the row's p-value"),
        Column("chromosome", _text, "as in the sets"),
        Column("position", _i64, "base pair of the variant"),
        Column("ref", _text, "other allele"),
        Column("alt", _text, "effect allele"),
        Column("share", _f64, "part of SKAT's Q: w^2 U^2 over its sum"),
        Column("z", _f64, "U / sqrt(V) of the variant, counted allele"),
        Column("log10p_without", _f64, "-log10 p of the row with this variant left out; NaN for resampled tests"),
        Column("detail", _text, "best rho, threshold or grouping of the row; `chosen` where a search took the variant"),
    ),
)

HETEROGENEITY = TableSchema(
    "heterogeneity.parquet",
    "meta-analysis of several studies: how effects differ, per variant and per burden that two studies see",
    (
        Column("gene", _text, "gene; of a variant, the one that reports it"),
        Column("trait", _text, "trait"),
        Column("mask", _text, "mask of a burden; empty for a variant"),
        Column("max_maf", _f64, "bin of a burden; NaN for a variant"),
        Column("weights", _text, "weights of a burden; empty for a variant"),
        Column("chromosome", _text, "as in the sets"),
        Column("position", _i64, "base pair; start of the gene for a burden"),
        Column("ref", _text, "other allele; empty for a burden"),
        Column("alt", _text, "effect allele; empty for a burden"),
        Column("n_studies", _i32, "studies with information"),
        Column("beta", _f64, "fixed-effects estimate, sum U_k / sum V_k; of a binary trait the joint log odds ratio"),
        Column("se", _f64, "its standard error"),
        Column("log10p", _f64, "-log10 p of the fixed effect"),
        Column("q", _f64, "Cochran's Q between all studies; of a binary trait from the scores at the joint effect"),
        Column("df", _f64, "n_studies - 1"),
        Column("log10p_q", _f64, "-log10 p of Q"),
        Column("i2", _f64, "max(0, 1 - df / Q)"),
        Column("q_between", _f64, "Q between the groups of key groups; NaN without groups"),
        Column("df_between", _f64, "groups with information, less one"),
        Column("log10p_between", _f64, "-log10 p of q_between"),
        Column("log10p_within", _f64, "-log10 p of q - q_between: are effects the same within groups?"),
        Column("log10p_random", _f64, "-log10 p of mean and variance together; NaN unless random-effects is a test"),
    ),
)

STUDY_EFFECTS = TableSchema(
    "study_effects.parquet",
    "rows of gene_tests with a small p-value, study by study: what each shows alone, and the rest without it",
    (
        Column("gene", _text, "gene"),
        Column("trait", _text, "trait"),
        Column("mask", _text, "mask"),
        Column("max_maf", _f64, "bin"),
        Column("weights", _text, "weights"),
        Column("test", _text, "gene test"),
        Column("log10p", _f64, "-log10 p of the row"),
        Column("study", _text, "study"),
        Column("group", _text, "its group of key groups; empty without"),
        Column("n_samples", _i64, "its samples of the trait"),
        Column("n_variants", _i32, "variants of the row that vary in it"),
        Column("beta", _f64, "the study's own effect, for tests that have one"),
        Column("se", _f64, "its standard error"),
        Column("log10p_alone", _f64, "-log10 p of the test in this study alone, pooled frequencies as weights"),
        Column("log10p_without", _f64, "-log10 p of the row with this study left out"),
    ),
)

VARIANT_CLASSES = TableSchema(
    "variant_classes.parquet",
    "variants that are rare in one study, or pooled, and not rare in another one",
    (
        Column("gene", _text, "gene"),
        Column("traits", _text, "traits that share the samples"),
        Column("chromosome", _text, "as in the sets"),
        Column("position", _i64, "base pair"),
        Column("ref", _text, "other allele"),
        Column("alt", _text, "effect allele"),
        Column("max_maf", _f64, "bound between rare and not rare"),
        Column("alt_frequency", _f64, "frequency that decides, by the policy"),
        Column("is_rare", pa.bool_(), "whether the row of this bound tests it"),
        Column("n_rare", _i32, "studies in which it varies and is rare"),
        Column("n_not_rare", _i32, "studies in which it is not rare"),
        Column("n_absent", _i32, "studies without a carrier"),
        Column("smallest", _f64, "smallest ALT frequency among studies that have it"),
        Column("largest", _f64, "largest"),
        Column("not_rare_in", _text, "names of the studies in which it is not rare"),
    ),
)

COVERAGE = TableSchema(
    "coverage.parquet",
    "per gene and study: how many of the gene's variants it has; variants that it lacks add zeros",
    (
        Column("gene", _text, "gene"),
        Column("traits", _text, "traits that share the samples"),
        Column("study", _text, "study"),
        Column("n_union", _i32, "variants of the gene in any study"),
        Column("n_present", _i32, "of these: in this study's bundle with a call"),
        Column("n_absent", _i32, "of these: not in it"),
        Column("n_varying", _i32, "of these: with a carrier"),
        Column("n_sure", _i32, "present ones that have five minor alleles in other studies (of its group)"),
        Column("n_expected", _f64, "how many of those a study of its size has, sequenced like the others"),
        Column("flag", _text, "says so where far fewer are there: another capture kit or ancestry"),
    ),
)

DENOISING = TableSchema(
    "denoising.tsv",
    "per study, trait and chromosome: what de-noising did; study `all` and chromosome `all` hold the sums",
    (
        Column("study", _text, "study"),
        Column("trait", _text, "trait"),
        Column("kind", _text, "quantitative, binary or time_to_event"),
        Column("chromosome", _text, "tested chromosome; `all`: mean over chromosomes"),
        Column("use", _text, "none, covariate or offset; unknown for imported bundles"),
        Column("n_samples", _i64, "samples"),
        Column("n_cases", _i64, "cases among them (binary), or events (time_to_event); null where unknown"),
        Column("n_covariates", _i32, "columns of the design, intercept included; null where unknown"),
        Column("slope", _f64, "of the LOCO prediction"),
        Column("slope_se", _f64, "its standard error"),
        Column("r2", _f64, "share of the residual sum of squares that the prediction removes"),
        Column("sigma2_before", _f64, "residual variance without the prediction"),
        Column("sigma2_after", _f64, "with it"),
        Column("n_effective", _f64, "n / (1 - r2): samples that would tell as much without de-noising"),
        Column("gain", _f64, "n_effective / n_samples"),
    ),
)

FORESTS = TableSchema(
    "forests.parquet",
    "the burden (equal weights) of the strongest genes, mask by mask and bin by bin: in every study and pooled",
    (
        Column("gene", _text, "gene"),
        Column("trait", _text, "trait"),
        Column("mask", _text, "mask"),
        Column("max_maf", _f64, "bin"),
        Column("study", _text, "study; `all`: pooled over the studies, the row `burden` with weights `flat`"),
        Column("n_variants", _i32, "variants that vary in it"),
        Column("beta", _f64, "effect of one counted allele"),
        Column("se", _f64, "its standard error"),
        Column("ci_low", _f64, "lower end of the 95 % interval"),
        Column("ci_high", _f64, "upper end"),
        Column("log10p", _f64, "-log10 p of the pooled burden"),
        Column("q", _f64, "Cochran's Q between the studies; NaN with fewer than two"),
        Column("i2", _f64, "max(0, 1 - df / Q)"),
    ),
)

LEAVE_ONE_OUT = TableSchema(
    "leave_one_out.parquet",
    "the pooled burdens of forests.parquet without each of their variants",
    (
        Column("gene", _text, "gene"),
        Column("trait", _text, "trait"),
        Column("mask", _text, "mask"),
        Column("max_maf", _f64, "bin"),
        Column("chromosome", _text, "as in the sets"),
        Column("position", _i64, "base pair"),
        Column("ref", _text, "other allele"),
        Column("alt", _text, "effect allele"),
        Column("log10p_without", _f64, "-log10 p of the burden without the variant; NaN where nothing is left"),
    ),
)

STUDIES = TableSchema(
    "studies.tsv",
    "one row per study and trait: what was combined; study `all` counts distinct variants",
    (
        Column("study", _text, "study"),
        Column("genome_build", _text, "build of its variants; empty where unknown"),
        Column("software", _text, "program that wrote the bundle"),
        Column("predictor", _text, "method of its LOCO prediction"),
        Column("n_variants", _i64, "variants of the bundle"),
        Column("trait", _text, "trait"),
        Column("kind", _text, "quantitative or binary"),
        Column("n_samples", _i64, "samples of the trait"),
        Column("n_cases", _i64, "cases among them (binary); null where unknown"),
        Column("skewness", _f64, "of the null model's residuals (quantitative)"),
        Column("kurtosis", _f64, "excess kurtosis of these"),
    ),
)

RESIDUALS = TableSchema(
    "residuals.tsv",
    "histograms of the standardised residuals of quantitative traits, no bin of fewer people than a study shares",
    (
        Column("study", _text, "study"),
        Column("trait", _text, "trait"),
        Column("chromosome", _text, "left out of the prediction; `all` without a predictor"),
        Column("low", _f64, "lower edge of the bin; -inf for the first"),
        Column("high", _f64, "upper edge; inf for the last"),
        Column("n", _i64, "people in it"),
    ),
)

PATHWAY_TESTS = TableSchema(
    "pathway_tests.parquet",
    "one row per pathway, trait, mask, bin and test",
    (
        Column("pathway", _text, "name in the GMT file"),
        Column("trait", _text, "trait"),
        Column("mask", _text, "mask"),
        Column("max_maf", _f64, "bin"),
        Column("test", _text, "pathway-step-up or pathway-fisher"),
        Column("source", _text, "gene test and weights whose rows are combined"),
        Column("n_listed", _i32, "genes of the pathway"),
        Column("n_genes", _i32, "of these: with a row that has a p-value"),
        Column("statistic", _f64, "z2 of the chosen genes, or Fisher's chi-square; genes less than 1 Mb apart are one"),
        Column("p", _f64, "p-value"),
        Column("log10p", _f64, "-log10 of the p-value"),
        Column("p_error", _f64, "relative Monte Carlo error of p"),
        Column("method", _text, "how p was computed"),
        Column("chosen", _text, "genes that the search took, joined by commas"),
        Column("note", _text, "why there is no p-value"),
    ),
)

PERMUTATION_TESTS = TableSchema(
    "permutation_tests.parquet",
    "one row per gene, trait, mask, bin and search, by permutation of this study's residuals",
    (
        Column("gene", _text, "name of the gene or set"),
        Column("chromosome", _text, "as in the sets"),
        Column("trait", _text, "trait"),
        Column("mask", _text, "mask"),
        Column("max_maf", _f64, "upper bound of the frequency bin, inclusive"),
        Column("test", _text, "search: step-up, all-maf, groupings, subsets, cut-off"),
        Column("n_samples", _i64, "samples of the trait"),
        Column("n_variants", _i32, "polymorphic variants of the row"),
        Column("mac", _f64, "summed count of the counted allele"),
        Column("statistic", _f64, "largest z2 of the search"),
        Column("p", _f64, "p-value"),
        Column("log10p", _f64, "-log10 of the p-value"),
        Column("p_error", _f64, "relative Monte Carlo error of p"),
        Column("method", _text, "permutation or bernoulli-resampling; +pareto-tail where p is extrapolated"),
        Column("permutations", _i64, "replicates drawn"),
        Column("exceedances", _i64, "of these: at or above the statistic"),
        Column("grouping", _text, "the grouping that won; empty for step-up"),
        Column("chosen", _text, "sign, position and counted allele of the variants of the winning set, by commas"),
        Column("note", _text, "why there is no p-value, or a flag"),
    ),
)

CONDITIONAL = TableSchema(
    "conditional_tests.parquet",
    "gene tests with index variants regressed out",
    (
        *(c for c in GENE_TESTS.columns),
        Column("index_variants", _text, "chromosome:position:ref:alt joined by commas; of the gene's own block"),
    ),
)

MASK_AUDIT = TableSchema(
    "mask_audit.tsv",
    "per gene, trait set, mask and bin: variants kept and why others were dropped",
    (
        Column("gene", _text, "gene"),
        Column("mask", _text, "mask"),
        Column("max_maf", _f64, "bin"),
        Column("traits", _text, "traits that share the samples"),
        Column("listed", _i32, "variants of the set"),
        Column("absent", _i32, "in no study"),
        Column("not_in_mask", _i32, "other category, or not annotated"),
        Column("monomorphic", _i32, "no carrier among the samples"),
        Column("too_frequent", _i32, "above the bound"),
        Column("kept", _i32, "tested"),
    ),
)

MASK_VARIANTS = TableSchema(
    "mask_variants.parquet",
    "one row per gene and listed variant: which masks take it, whatever its frequency; empty for regions",
    (
        Column("gene", _text, "gene"),
        Column("chromosome", _text, "without `chr`; X = 23, Y = 24, MT = 26"),
        Column("position", _i64, "base pair"),
        Column("ref", _text, "as listed"),
        Column("alt", _text, "as listed: the allele that is counted"),
        Column("category", _text, "of the annotations; empty without one"),
        Column("masks", _text, "masks that take its category, joined by commas"),
        Column("external_frequency", _f64, "ALT frequency in the file of `maf: {external: FILE}`; null without one"),
    ),
)

NULL_MODELS = TableSchema(
    "null_models.tsv",
    "one row per trait and chromosome: what de-noising did",
    (
        Column("trait", _text, "trait"),
        Column("kind", _text, "quantitative, binary or time_to_event"),
        Column("chromosome", _text, "tested chromosome, left out of the prediction; `all` without a predictor"),
        Column("n_samples", _i64, "samples with the trait, covariates and prediction"),
        Column("n_cases", _i64, "cases among them (binary), or events (time_to_event)"),
        Column("n_covariates", _i32, "columns of the design, intercept included, LOCO columns not"),
        Column("use", _text, "none, covariate or offset"),
        Column("slope", _f64, "coefficient of the LOCO prediction (1 by definition in offset mode)"),
        Column("slope_se", _f64, "its standard error"),
        Column("r2", _f64, "share of the residual sum of squares that the prediction removes (Efron's for binary)"),
        Column("variance_before", _f64, "residual variance without the prediction (mean of mu(1 - mu) for binary)"),
        Column("variance_after", _f64, "residual variance with it"),
        Column("gain", _f64, "effective-sample gain 1 / (1 - r2); quantitative traits"),
        Column("skewness", _f64, "of the residuals of a quantitative trait"),
        Column("kurtosis", _f64, "their excess kurtosis, 0 for a normal distribution"),
        Column("note", _text, "why the trait cannot be fitted and is left out; NA where it is fitted"),
    ),
)

#: Folders of a bundle that need not be there
OPTIONAL_TABLES = (BUNDLE_LAWS, BUNDLE_COLLAPSED, BUNDLE_REPLICATES, BUNDLE_CALIBRATED)
BUNDLE_TABLES = (BUNDLE_VARIANTS, BUNDLE_GENES, *OPTIONAL_TABLES)
#: Tables that the gene tests of a run leave
META_TABLES = (
    GENE_TESTS,
    SINGLE_VARIANTS,
    DRIVERS,
    HETEROGENEITY,
    STUDY_EFFECTS,
    VARIANT_CLASSES,
    COVERAGE,
    DENOISING,
    PATHWAY_TESTS,
    MASK_AUDIT,
    MASK_VARIANTS,
    FORESTS,
    LEAVE_ONE_OUT,
    STUDIES,
    RESIDUALS,
)

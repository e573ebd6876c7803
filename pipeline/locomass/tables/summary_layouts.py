"""How GWAS programs name their columns, and how a file's header tells which program wrote it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from locomass.errors import FormatError, suggest

#: What a column can mean, and the key to use in a column map.
FIELDS: dict[str, str] = {
    "chromosome": "chromosome label",
    "position": "base pairs, 1-based",
    "id": "rsID or other name",
    "effect_allele": "allele that the effect counts",
    "other_allele": "the other allele",
    "ref": "reference allele (with alt, when other_allele is not written)",
    "alt": "alternative allele",
    "beta": "effect per effect allele",
    "odds_ratio": "odds or hazard ratio; its logarithm is the effect",
    "se": "standard error of the (log) effect",
    "z": "signed test statistic",
    "chisq": "chi-square statistic with one degree of freedom",
    "p": "p-value",
    "log10p": "-log10 of the p-value",
    "n": "sample size",
    "n_eff": "effective sample size, 4 / (1/cases + 1/controls), summed over studies",
    "n_eff_half": "half of the effective sample size, as PGC files have it",
    "n_cases": "number of cases",
    "n_controls": "number of controls",
    "eaf": "frequency of the effect allele",
    "info": "imputation quality",
    "test": "name of the test; rows other than ADD are left out",
}


#: Names of effective sample sizes, whatever the program.
EFFECTIVE: dict[str, tuple[str, ...]] = {
    "n_eff": ("NEFF", "Neff", "neff", "N_EFF", "N_eff", "n_eff", "NEff", "EFFECTIVE_N", "effective_n", "n_effective"),
    "n_eff_half": ("NEFFDIV2", "Neff_half", "NEFF_HALF", "neff_half", "n_eff_half", "NeffDiv2"),
}


@dataclass(frozen=True, slots=True)
class Layout:
    """Columns of one program.

    Attributes:
        name: the program or standard.
        required: groups of names; a header fits when it holds one name of each group.
        columns: candidate names per field, the preferred one first.
    """

    name: str
    required: tuple[tuple[str, ...], ...]
    columns: Mapping[str, tuple[str, ...]]

    def missing(self, names: Sequence[str]) -> list[str]:
        """Return what a header lacks of the required names, ``a or b`` for a group."""
        return [" or ".join(group) for group in self.required if not any(name in names for name in group)]

    def resolve(self, names: Sequence[str]) -> dict[str, str]:
        """Return {field: column} for the fields that a header has."""
        hits = {key: [c for c in options if c in names] for key, options in {**EFFECTIVE, **self.columns}.items()}
        return {key: found[0] for key, found in hits.items() if found}


def _layout(name: str, required: str, **columns: str) -> Layout:
    """Build a layout from ``"A B|C"`` texts: blanks separate groups, ``|`` separates alternatives."""
    groups = tuple(tuple(group.split("|")) for group in required.split())
    return Layout(name, groups, {key: tuple(text.split("|")) for key, text in columns.items()})


#: Tried in this order: files of the GWAS Catalog's older harmonised form hold the author's columns as well.
LAYOUTS: tuple[Layout, ...] = (
    _layout(
        "GWAS Catalog harmonised",
        "hm_chrom hm_pos hm_effect_allele hm_other_allele hm_beta|hm_odds_ratio",
        chromosome="hm_chrom",
        position="hm_pos",
        id="hm_rsid|hm_variant_id",
        effect_allele="hm_effect_allele",
        other_allele="hm_other_allele",
        beta="hm_beta",
        odds_ratio="hm_odds_ratio",
        se="standard_error",
        p="p_value",
        eaf="hm_effect_allele_frequency",
        n="n",
        info="info",
    ),
    _layout(
        "GWAS-SSF",
        "chromosome base_pair_location effect_allele other_allele beta|odds_ratio|hazard_ratio|z_score",
        chromosome="chromosome",
        position="base_pair_location",
        id="rsid|rs_id|variant_id",
        effect_allele="effect_allele",
        other_allele="other_allele",
        beta="beta",
        odds_ratio="odds_ratio|hazard_ratio",
        z="z_score",
        se="standard_error",
        p="p_value",
        log10p="neg_log_10_p_value",
        eaf="effect_allele_frequency",
        n="n",
        n_cases="n_cases|num_cases",
        n_controls="n_controls|num_controls",
        info="info",
    ),
    _layout(
        "BOLT-LMM",
        "SNP CHR BP ALLELE1 ALLELE0 BETA SE P_BOLT_LMM|P_BOLT_LMM_INF|P_LINREG",
        chromosome="CHR",
        position="BP",
        id="SNP",
        effect_allele="ALLELE1",
        other_allele="ALLELE0",
        beta="BETA",
        se="SE",
        chisq="CHISQ_BOLT_LMM|CHISQ_BOLT_LMM_INF|CHISQ_LINREG",
        p="P_BOLT_LMM|P_BOLT_LMM_INF|P_LINREG",
        eaf="A1FREQ",
        n="N",
        info="INFO",
    ),
    _layout(
        "REGENIE",
        "CHROM GENPOS ID ALLELE0 ALLELE1 TEST BETA SE LOG10P",
        chromosome="CHROM",
        position="GENPOS",
        id="ID",
        effect_allele="ALLELE1",
        other_allele="ALLELE0",
        beta="BETA",
        se="SE",
        log10p="LOG10P",
        eaf="A1FREQ",
        n="N",
        n_cases="N_CASES",
        n_controls="N_CONTROLS",
        info="INFO",
        test="TEST",
    ),
    _layout(
        "PLINK 2",
        "CHROM POS ID REF ALT A1 TEST BETA|OR",
        chromosome="CHROM",
        position="POS",
        id="ID",
        effect_allele="A1",
        other_allele="OMITTED",
        ref="REF",
        alt="ALT",
        beta="BETA",
        odds_ratio="OR",
        se="LOG(OR)_SE|SE",
        p="P",
        log10p="LOG10_P|NEG_LOG10_P",
        eaf="A1_FREQ",
        n="OBS_CT",
        n_cases="CASE_CT",
        n_controls="CTRL_CT",
        info="MACH_R2",
        test="TEST",
    ),
    _layout(
        "SAIGE",
        "CHR POS MarkerID|SNPID|rsid Allele1 Allele2 BETA SE p.value",
        chromosome="CHR",
        position="POS",
        id="MarkerID|rsid|SNPID",
        effect_allele="Allele2",
        other_allele="Allele1",
        beta="BETA",
        se="SE",
        p="p.value",
        eaf="AF_Allele2",
        n="N",
        n_cases="N_case|N.Cases",
        n_controls="N_ctrl|N.Controls",
        info="imputationInfo",
    ),
    _layout(
        "METAL",
        "MarkerName Allele1 Allele2 Effect|Zscore P-value",
        chromosome="Chromosome|CHR",
        position="Position|POS",
        id="MarkerName",
        effect_allele="Allele1",
        other_allele="Allele2",
        beta="Effect",
        se="StdErr",
        z="Zscore",
        p="P-value",
        eaf="Freq1",
        n="Weight|N|TotalSampleSize|TotalN",
    ),
    _layout(
        "PGC daner",
        "CHR SNP BP A1 A2 OR SE P",
        chromosome="CHR",
        position="BP",
        id="SNP",
        effect_allele="A1",
        other_allele="A2",
        odds_ratio="OR",
        se="SE",
        p="P",
        n="N",
        n_cases="Nca",
        n_controls="Nco",
        info="INFO",
    ),
    _layout(
        "LDAK",
        "Predictor A1 A2 Z|Effect n|N",
        id="Predictor",
        effect_allele="A1",
        other_allele="A2",
        z="Z",
        beta="Effect",
        se="SE",
        p="P|Wald_P",
        n="n|N",
        eaf="A1_Mean_Frequency",
    ),
    _layout(
        "PRS-CS input",
        "SNP A1 A2 BETA|OR P|SE",
        chromosome="CHR",
        position="BP|POS",
        id="SNP",
        effect_allele="A1",
        other_allele="A2",
        beta="BETA",
        odds_ratio="OR",
        se="SE",
        p="P",
        n="N",
        eaf="FRQ|EAF",
        info="INFO",
    ),
    _layout(
        "LDSC",
        "SNP A1 A2 Z",
        chromosome="CHR",
        position="BP",
        id="SNP",
        effect_allele="A1",
        other_allele="A2",
        z="Z",
        n="N",
        eaf="FRQ",
        info="INFO",
    ),
)


def detect_layout(names: Sequence[str], path: str | Path, line: int) -> Layout:
    """Return the layout that a header fits.

    Raises:
        FormatError: none fits; names the nearest one with what it lacks, and the known formats.
    """
    for layout in LAYOUTS:
        if not layout.missing(names):
            return layout
    nearest = min(LAYOUTS, key=lambda layout: len(layout.missing(names)) / len(layout.required))
    lacks = nearest.missing(names)
    hints = [suggest(group.split(" or ")[0], names) for group in lacks]
    hint = next((h for h in hints if "did you mean" in h), "").replace("did you mean", "did you rename it to")
    known = ", ".join(layout.name for layout in LAYOUTS)
    raise FormatError(
        f"the header fits no known format ({known}); nearest is {nearest.name}, which also has "
        f"{', '.join(lacks)}{hint}; otherwise give a column map",
        path=path,
        line=line,
    )


def apply_column_map(columns: Mapping[str, str], names: Sequence[str], path: str | Path, line: int) -> dict[str, str]:
    """Check a column map {field: column} against a header and return it.

    Raises:
        FormatError: an unknown field, a column that is not there (both with a suggestion), or too few fields to know
            the variant, its effect and the error of that.
    """
    for key, column in columns.items():
        if key not in FIELDS:
            raise FormatError(f"column map: unknown field '{key}'{suggest(key, FIELDS)}", path=path)
        if column not in names:
            message = f"column map: no column '{column}' for {key}{suggest(column, names)}"
            raise FormatError(message, path=path, line=line)
    needs = {
        "effect_allele": "effect_allele" in columns,
        "id, or chromosome and position": "id" in columns or {"chromosome", "position"} <= columns.keys(),
        "beta, odds_ratio or z": bool({"beta", "odds_ratio", "z"} & columns.keys()),
        "se, p, log10p, chisq or z": bool({"se", "p", "log10p", "chisq", "z"} & columns.keys()),
    }
    lacking = [what for what, given in needs.items() if not given]
    if lacking:
        raise FormatError(f"column map lacks {'; '.join(lacking)}", path=path)
    return dict(columns)

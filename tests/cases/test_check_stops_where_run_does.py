"""`locomass check` opens the files of the predictor: it stops at what the run stops at, with the same message."""

from __future__ import annotations

import gzip

import pandas as pd
import pytest
import yaml

from locomass.commands.check import check_study
from locomass.errors import LocomassError


@pytest.fixture(scope="module")
def case(open_case):
    return open_case("27-failing-prediction-not-mentioned")


def configure(case, name: str, **predictor) -> str:
    """Write a configuration whose predictor has other keys; return its name."""
    config = yaml.safe_load((case.folder / "study.yaml").read_text())
    config["predictor"] = {"method": "ridge", "genotypes": "../base/array.bed", "heritability": 0.4} | predictor
    if predictor.get("method") in ("loco", "weights"):
        del config["predictor"]["heritability"]
    (case.folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    return name


def statistics(case, name: str, change) -> dict:
    table = change(pd.read_csv(case.folder / "gwas.tsv", sep="\t"))
    table.to_csv(case.folder / f"{name}.tsv", sep="\t", index=False)
    return {"summary_statistics": {"y": f"{name}.tsv"}}


def loco(case, name: str, text: str) -> dict:
    (case.folder / f"{name}.loco").write_text(text)
    return {"method": "loco", "loco": {"y": f"{name}.loco"}}


def weights(case, name: str, text: str) -> dict:
    (case.folder / f"{name}.txt").write_text(text)
    return {"method": "weights", "weights": f"{name}.txt"}


def people(case) -> list[str]:
    fam = pd.read_csv(case.folder.parent / "base" / "genes.fam", sep=r"\s+", header=None, dtype=str)
    return (fam[0] + "_" + fam[1]).tolist()


def make_faults(case) -> dict[str, dict]:
    names = people(case)
    head, row = " ".join(["FID_IID", *names]), " ".join(["0.1"] * len(names))
    pgs = "#genome_build={}\nrsID\tchr_name\tchr_position\teffect_allele\tother_allele\teffect_weight\n"
    return {
        "no_effects": statistics(case, "no_effects", lambda t: t.drop(columns="beta")),
        "no_size": statistics(case, "no_size", lambda t: t.drop(columns="n")),
        "other_build": statistics(case, "other_build", lambda t: t.assign(base_pair_location=t.base_pair_location + 7)),
        "no_numbers": statistics(case, "no_numbers", lambda t: t.assign(standard_error="x")),
        "no_trait": {"summary_statistics": {"z": "gwas.tsv"}},
        "lacks_chromosomes": loco(case, "lacks", f"{head}\n9 {row}\n"),
        "bad_number": loco(case, "bad_number", f"{head}\n1 {row}\n2 {row[:-3]}x\n"),
        "strangers": loco(case, "strangers", f"FID_IID {' '.join(f's_{k}' for k in range(9))}\n1{' 0.1' * 9}\n"),
        "p_values": weights(case, "p_values", "SNP A1 BETA P\nrs1 A 0.1 0.5\n"),
        "weights_of_another_build": weights(case, "build", pgs.format("GRCh38") + "rs1\t1\t1000\tA\tG\t0.1\n"),
        "unmatched_weights": weights(case, "unmatched", pgs.format("GRCh37") + "rs1\t1\t999\tA\tG\t0.1\n"),
        "not_additive": weights(
            case, "dominant", "effect_allele\trsID\teffect_weight\tis_dominant\nA\trs1\t0.1\tTRUE\n"
        ),
    }


FAULTS = (
    "no_effects", "no_size", "other_build", "no_numbers", "no_trait", "lacks_chromosomes", "bad_number", "strangers",
    "p_values", "weights_of_another_build", "unmatched_weights", "not_additive",
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_check_says_what_the_run_says(case, fault):
    name = configure(case, fault, **make_faults(case)[fault])
    with pytest.raises(LocomassError) as checked:
        check_study(case.folder / f"{name}.yaml", case.folder / "checked")
    with pytest.raises(LocomassError) as ran:
        case.run(name, "denoise")
    assert str(checked.value) == str(ran.value)
    assert type(checked.value) is type(ran.value)


def test_a_stack_is_checked_part_by_part(case):
    bad = make_faults(case)["other_build"]
    good = {"method": "ridge", "summary_statistics": {"y": "gwas.tsv"}, "heritability": 0.4}
    name = configure(case, "stacked", method="stack", stack=[good, {"method": "ridge", "heritability": 0.4} | bad])
    config = yaml.safe_load((case.folder / f"{name}.yaml").read_text())
    del config["predictor"]["heritability"]
    (case.folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(LocomassError, match=r"other_build\.tsv"):
        check_study(case.folder / f"{name}.yaml", case.folder / "checked")


def test_first_block_of_a_long_file(case, monkeypatch):
    """Only the first block is read: chromosomes that come later are no fault, and neither is damage further down."""
    from locomass.tables import delimited

    table = pd.read_csv(case.folder / "gwas.tsv", sep="\t").sort_values(["chromosome", "base_pair_location"])
    assert table["chromosome"].nunique() > 1
    text = table.to_csv(sep="\t", index=False).encode()
    with gzip.open(case.folder / "long.tsv.gz", "wb") as handle:
        handle.write(text)
    name = configure(case, "long", summary_statistics={"y": "long.tsv.gz"})
    blocks = delimited.DelimitedFile.blocks
    monkeypatch.setattr(
        delimited.DelimitedFile,
        "blocks",
        lambda self, columns=None, **more: blocks(self, columns, **{"size": 4000} | more),
    )
    check_study(case.folder / f"{name}.yaml", case.folder / "checked")

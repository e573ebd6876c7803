"""Bundles written from plain arrays, exported, read back and combined: the same statistics whatever the road."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from locomass.bundle.exchange.common import ImportRequest
from locomass.bundle.open import open_bundle, validate_bundle, verify_digests
from locomass.bundle.study import Bundle
from locomass.bundle.write import GeneStatistics, write_trait_bundle
from locomass.commands.exchange import export_results, export_study, import_study
from locomass.commands.meta import run_meta_analysis
from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
from locomass.errors import InputError
from tests.factories import make_study, write_meta_config
from tests.reference_exchange import make_toy, write_mass, write_pair

KEYS = ["gene", "trait", "mask", "max_maf", "weights", "test"]


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """Two studies run from their genotypes; each with its output directory."""
    folder = tmp_path_factory.mktemp("studies")
    out = []
    for seed, name in ((1, "one"), (2, "two")):
        study = make_study(seed, n=120, name=name, sites_seed=7)
        run_study(study.write(folder / name), folder / f"{name}_out", Resources(threads=1), "meta")
        out.append((study, folder / f"{name}_out"))
    return out


def combine(bundles, study, folder, traits=("y",)):
    """The gene tests of a meta-analysis by the normal law, which files of other programs go by; some traits, sorted."""
    folder.mkdir()
    tests = {"names": ["burden", "skat"], "max_maf": [0.05, 0.5], "weights": ["flat", "beta_1_25"]}
    config = write_meta_config(folder / "meta.yaml", bundles, study, tests={**tests, "null_law": "normal"})
    run_meta_analysis(config, [], folder / "out", Resources(threads=1), "meta")
    table = pd.read_parquet(folder / "out" / "gene_tests.parquet")
    return table[table["trait"].isin(traits)].sort_values(KEYS).reset_index(drop=True)


def assert_same_results(found, expected, tolerance=1e-9):
    """The same rows, p to a relative difference of 1e-9, and everything counted alike."""
    assert len(found) == len(expected) > 0
    for name in [*KEYS, "n_studies", "n_samples", "n_variants", "mac"]:
        assert (found[name] == expected[name]).all(), name
    assert expected["p"].notna().any()
    np.testing.assert_allclose(found["log10p"], expected["log10p"], rtol=0, atol=tolerance / np.log(10))
    np.testing.assert_allclose(found["beta"], expected["beta"], rtol=tolerance, atol=1e-300)


def read_gzip(path):
    return gzip.decompress(Path(path).read_bytes()).decode().splitlines()


def swap_half(prefix):
    """Exchange REF and ALT of every other variant of an rvtests pair, by the rules for swapped alleles."""
    scores, covariance = f"{prefix}.MetaScore.assoc.gz", f"{prefix}.MetaCov.assoc.gz"
    lines = read_gzip(scores)
    start = next(i for i, line in enumerate(lines) if line.startswith("CHROM")) + 1
    head = lines[start - 1].split("\t")
    sign = {}
    for number, i in enumerate(range(start, len(lines))):
        row = dict(zip(head, lines[i].split("\t"), strict=True))
        place = (row["CHROM"], row["POS"])
        sign.setdefault(place, 1 if number % 2 else -1)  # MetaCov names positions: alleles of one swap together
        if sign[place] < 0:
            row["REF"], row["ALT"] = row["ALT"], row["REF"]
            row["N_REF"], row["N_ALT"] = row["N_ALT"], row["N_REF"]
            row["AF"] = repr(1 - float(row["AF"]))
            row["U_STAT"] = repr(-float(row["U_STAT"]))
            lines[i] = "\t".join(row.values())
    with gzip.open(scores, "wt") as handle:
        handle.write("\n".join(lines) + "\n")
    lines = read_gzip(covariance)
    for i in range(1, len(lines)):
        cells = lines[i].split("\t")
        own = sign[cells[0], cells[1]]
        values = zip(cells[4].split(","), cells[5].split(","), strict=True)
        cells[5] = ",".join(repr(own * sign[cells[0], p] * float(v)) for p, v in values)
        lines[i] = "\t".join(cells)
    with gzip.open(covariance, "wt") as handle:
        handle.write("\n".join(lines) + "\n")
    assert {1, -1} == set(sign.values())


def export_and_import(name, out, trait, folder, sets, kind="quantitative", swap=False):
    """A bundle from the exported files of one trait of another bundle."""
    folder.mkdir()
    files = export_study(name, out / "bundle", folder / "x", trait=trait)
    if swap:
        swap_half(folder / "x")
    request = ImportRequest(files[0], files[1] if len(files) > 1 else None, None, sets, trait, kind)
    import_study(name, [request], folder / "bundle", study="one", genome_build="hg38")
    return folder / "bundle"


@pytest.mark.parametrize("trait", ["y", "cc"])
def test_round_trip__every_road_gives_the_same_meta_analysis(trait, studies, tmp_path):
    (study, out), (_, other) = studies
    sets = out.parent / "one" / "sets.txt"
    kind = "binary" if trait == "cc" else "quantitative"
    expected = combine([out / "bundle", other / "bundle"], study, tmp_path / "direct", (trait,))
    roads = [("rvtests", False), ("rvtests", True), ("raremetal", False), ("mass", False)]
    for number, (name, swap) in enumerate(roads):
        bundle = export_and_import(name, out, trait, tmp_path / f"{name}{number}", sets, kind, swap)
        found = combine([bundle, other / "bundle"], study, tmp_path / f"meta{number}", (trait,))
        assert_same_results(found, expected)


def test_round_trip__hand_made_mass_and_swapped_pair_agree_with_a_bundle(tmp_path):
    toy = make_toy(11)
    sets = toy.write_sets(tmp_path / "sets.txt")
    (tmp_path / "swapped").mkdir()
    swapped = toy.swap(range(0, toy.m, 2))
    requests = {
        "mass": ("mass", ImportRequest(write_mass(toy, tmp_path / "mass.txt"), None, None, sets)),
        "pair": ("rvtests", ImportRequest(*write_pair(toy, tmp_path), None, sets)),
        "swapped": ("rvtests", ImportRequest(*write_pair(swapped, tmp_path / "swapped"), None, sets)),
    }
    labels = list(zip(toy.chromosome, toy.position, toy.ref, toy.alt, strict=True))
    sets_of = {gene: [labels[j] for j in rows] for gene, rows in toy.genes.items()}
    categories = {toy.key(j): ("LoF", "missense", "synonymous")[j % 3] for j in range(toy.m)}
    study = dataclasses.replace(make_study(1), sets=sets_of, annotations=categories)
    results = {}
    for label, (name, request) in requests.items():
        import_study(name, [request], tmp_path / f"b_{label}", study="toy")
        results[label] = combine([tmp_path / f"b_{label}"], study, tmp_path / f"m_{label}")
    assert_same_results(results["mass"], results["pair"])
    assert_same_results(results["swapped"], results["pair"])


def test_acceptance__mass_by_hand_exported_pair_half_swapped_and_bundle_are_one_study(tmp_path):
    """Issue 9: three roads to the statistics of one study, each meta-analysed alone and with a second study."""
    toy, second = make_toy(11), make_toy(12)
    sets = toy.write_sets(tmp_path / "sets.txt")
    for name, source in (("bundle", toy), ("other", second)):
        write_trait_bundle(tmp_path / name, [arrays(source)], study=name, genome_build=None)
    files = export_study("rvtests", tmp_path / "bundle", tmp_path / "x", trait="y")
    swap_half(tmp_path / "x")
    roads = {
        "mass": ("mass", ImportRequest(write_mass(toy, tmp_path / "mass.txt"), None, None, sets)),
        "pair": ("rvtests", ImportRequest(files[0], files[1], None, sets)),
    }
    for label, (name, request) in roads.items():
        import_study(name, [request], tmp_path / label, study="bundle")
    labels = list(zip(toy.chromosome, toy.position, toy.ref, toy.alt, strict=True))
    sets_of = {gene: [labels[j] for j in rows] for gene, rows in toy.genes.items()}
    categories = {toy.key(j): ("LoF", "missense", "synonymous")[j % 3] for j in range(toy.m)}
    study = dataclasses.replace(make_study(1), sets=sets_of, annotations=categories)
    for others in ([], [tmp_path / "other"]):
        found = {
            label: combine([tmp_path / label, *others], study, tmp_path / f"{label}-{len(others)}")
            for label in ("bundle", "mass", "pair")
        }
        assert_same_results(found["mass"], found["bundle"])
        assert_same_results(found["pair"], found["bundle"])


def test_import__is_signed_and_valid(studies, tmp_path):
    (_, out), _ = studies
    path = export_and_import("mass", out, "y", tmp_path / "a", out.parent / "one" / "sets.txt")
    bundle = open_bundle(path)
    validate_bundle(bundle)
    assert verify_digests(path)
    assert bundle.info["genome_build"] == "GRCh38"
    assert bundle.info["source"] == "MASS"


def test_export__sets_of_a_bundle_are_its_genes(studies, tmp_path):
    (study, out), _ = studies
    (path,) = export_study("sets", out / "bundle", tmp_path / "sets.txt", trait="y")
    found = {line.split()[0]: set(line.split()[3].split(",")) for line in path.read_text().splitlines()}
    assert found == {g: {":".join(map(str, v)) for v in rows} for g, rows in study.sets.items()}


def test_export__results_as_regenie(studies, tmp_path):
    (_, out), _ = studies
    (path,) = export_results(out, tmp_path / "r.regenie", trait="y", weights="flat")
    lines = path.read_text().splitlines()
    assert lines[0].startswith("##MASKS=<")
    header, *rows = [line.split(" ") for line in lines[1:]]
    table = pd.DataFrame(rows, columns=header)
    table[["CHISQ", "LOG10P"]] = table[["CHISQ", "LOG10P"]].replace("NA", "nan").astype(float)
    ours = pd.read_parquet(out / "gene_tests.parquet").query("trait == 'y' and weights == 'flat'")
    assert len(table) == len(ours)
    ours = ours.assign(ID=[f"{g}.{m}.{b:g}" for g, m, b in zip(ours.gene, ours["mask"], ours.max_maf, strict=True)])
    ours["TEST"] = ours["test"].map({"burden": "ADD", "skat": "ADD-SKAT"})
    joined = ours.merge(table, on=["ID", "TEST"], validate="one_to_one")
    assert len(joined) == len(ours)
    np.testing.assert_array_equal(joined["log10p"], joined["LOG10P"])
    burden = joined[joined["TEST"] == "ADD"]
    np.testing.assert_allclose(burden["CHISQ"], (burden["beta"] / burden["se"]) ** 2, rtol=1e-14)


def test_export__asks_which_trait(studies, tmp_path):
    (_, out), _ = studies
    with pytest.raises(InputError, match="which trait"):
        export_study("mass", out / "bundle", tmp_path / "x")
    with pytest.raises(InputError, match="which trait"):
        export_results(out, tmp_path / "x")


def arrays(toy, **changes):
    """Plain arrays of a toy study."""
    from locomass.bundle.write import TraitStatistics

    genes = [
        GeneStatistics(g, toy.chromosome[r[0]], 1, 9999, np.array(r), toy.V[np.ix_(r, r)]) for g, r in toy.genes.items()
    ]
    counts = toy.counts.T
    fields = dict(  # noqa: C408
        trait="y", kind="quantitative", n_samples=toy.n, n_cases=None, chromosome=np.array(toy.chromosome, object),
        position=np.array(toy.position), ref=np.array(toy.ref, object), alt=np.array(toy.alt, object),
        n_obs=counts.sum(axis=0), n_ref=counts[0], n_het=counts[1], n_alt=counts[2], alt_frequency=toy.frequency,
        U=toy.U, V=np.diag(toy.V), genes=genes, source="test",
    )  # fmt: skip
    return TraitStatistics(**(fields | changes))


def test_write__holds_the_arrays_sorted(tmp_path):
    toy = make_toy(3)
    order = np.random.default_rng(1).permutation(toy.m)
    place = np.argsort(order)
    shuffled = {
        name: getattr(arrays(toy), name)[order]
        for name in (
            "chromosome",
            "position",
            "ref",
            "alt",
            "n_obs",
            "n_ref",
            "n_het",
            "n_alt",
            "alt_frequency",
            "U",
            "V",
        )
    }
    genes = [dataclasses.replace(g, variant=place[g.variant]) for g in arrays(toy).genes]
    write_trait_bundle(tmp_path / "b", [arrays(toy, **shuffled, genes=iter(genes))], study="s", genome_build=None)
    bundle = open_bundle(tmp_path / "b")
    validate_bundle(bundle)
    table = pq.read_table(tmp_path / "b" / "variants.parquet").to_pandas()
    assert table["position"].tolist() == sorted(toy.position[: toy.m // 2]) + sorted(toy.position[toy.m // 2 :])
    for name, rows in toy.genes.items():
        gene = bundle.read_genes([name])[name]
        np.testing.assert_allclose(bundle.information(gene, "y"), toy.V[np.ix_(rows, rows)], rtol=0, atol=1e-12)
        np.testing.assert_allclose(gene.U[:, 0], toy.U[rows])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"kind": "count"}, "expected quantitative or binary"),
        ({"U": np.zeros(3)}, "3 entries of U for 24 variants"),
        ({"U": np.full(24, np.nan)}, "U of variant 1:1000:A:G is nan"),
        ({"position": np.full(24, 5)}, "is listed twice"),
        (
            {"genes": [GeneStatistics("G", "1", 1, 2, np.array([0, 1]), np.array([[1.0, 0.2], [0.1, 1.0]]))]},
            "not symmetric",
        ),
        ({"genes": [GeneStatistics("G", "1", 1, 2, np.array([0, 0]), np.eye(2))]}, "some repeated"),
        ({"genes": [GeneStatistics("G", "1", 1, 2, np.array([0]), np.array([[np.inf]]))]}, "not finite"),
        (
            {"genes": [GeneStatistics("G", "1", 1, 2, np.array([k]), np.eye(1)) for k in (0, 1)]},
            "gene 'G' is listed twice",
        ),
    ],
)
def test_write__raises_on(changes, match, tmp_path):
    with pytest.raises(InputError, match=match):
        write_trait_bundle(tmp_path / "b", [arrays(make_toy(3), **changes)], study="s", genome_build=None)
    assert not (tmp_path / "b").exists()


def test_write__study_json_says_what_it_is(tmp_path):
    write_trait_bundle(tmp_path / "b", [arrays(make_toy(3), notes=["a note"])], study="s", genome_build=None)
    info = json.loads((tmp_path / "b" / "study.json").read_text())
    assert info["traits"][0]["sigma2"] == {"all": 1.0}
    assert info["notes"] == ["a note"]
    assert Bundle(tmp_path / "b").study == "s"

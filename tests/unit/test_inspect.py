"""Every corruption that can be told from shared statistics is found, named and laid at the right study."""

from __future__ import annotations

import dataclasses
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from locomass.bundle.write import GeneStatistics, TraitStatistics, sign_bundle, write_trait_bundle
from locomass.meta.inspect import ERROR, NOTE, WARNING, Finding, inspect_bundles
from locomass.meta.inspect.single import is_definite

M, PER_GENE = 300, 10


def make_people(seed, n, frequency):
    """Genotypes (n, M) and a null trait of n people."""
    rng = np.random.default_rng(seed)
    return rng.binomial(2, frequency, size=(n, M)).astype(float), rng.normal(size=n)


@pytest.fixture(scope="module")
def frequency():
    return np.random.default_rng(0).choice([0.01, 0.03, 0.1, 0.3], size=M)


def statistics(G, y, *, sigma2=None, u_scale=1.0, v_scale=1.0, withheld=False):
    """Score statistics by the definition, intercept only; genes of ten variants, 1 Mb apart."""
    n = len(y)
    r = y - y.mean()
    s2 = r @ r / (n - 1) if sigma2 is None else sigma2
    C = G - G.mean(axis=0)
    counts = np.array([(k == G).sum(axis=0) for k in (0, 1, 2)])
    V = C.T @ C / s2 * v_scale
    genes = [
        GeneStatistics(f"G{g}", "1", 1, 2, rows, V[np.ix_(rows, rows)])
        for g, rows in enumerate(np.arange(M).reshape(-1, PER_GENE))
    ]
    if withheld:
        counts[:] = -1
    return TraitStatistics(
        "y", "quantitative", n, None, np.full(M, "1", object), np.arange(M) * 100_000 + 1, np.full(M, "A", object),
        np.full(M, "C", object), np.full(M, n), *counts, G.mean(axis=0) / 2, C.T @ r / s2 * u_scale, np.diag(V), genes,
        "x",
    )  # fmt: skip


def swap(t, rows):
    """Name REF and ALT the wrong way round, statistics unchanged: the error that swapped columns make."""
    ref, alt = t.ref.copy(), t.alt.copy()
    ref[rows], alt[rows] = t.alt[rows], t.ref[rows]
    return dataclasses.replace(t, ref=ref, alt=alt)


def write(folder, name, t, *, ours=True, sigma2=None):
    """A bundle; ``ours`` takes the mark of an import away, so that sigma2 is held against V."""
    path = folder / name
    write_trait_bundle(path, [t], study=name, genome_build="GRCh38")
    info = json.loads((path / "study.json").read_text())
    if ours:
        del info["source"]
    if sigma2 is not None:
        rescale(path, sigma2)
        info["traits"][0]["sigma2"] = {"all": sigma2}
    (path / "study.json").write_text(json.dumps(info))
    sign_bundle(path)
    return path


def rescale(path, sigma2):
    """Store G'WG = V sigma2 in place of V."""
    for part in (path / "genes").iterdir():
        table = pq.read_table(part)
        values = [[x * sigma2 for x in row] for row in table.column("value").to_pylist()]
        at = table.column_names.index("value")
        pq.write_table(table.set_column(at, "value", pa.array(values, pa.list_(pa.float64()))), part)


def found(findings, severity=None):
    return [f for f in findings if f.severity == severity or severity is None]


@pytest.fixture(scope="module")
def people(frequency):
    return {name: make_people(k, n, frequency) for k, (name, n) in enumerate([("a", 800), ("b", 600), ("c", 700)], 1)}


@pytest.fixture
def clean(people, tmp_path):
    return [write(tmp_path, name, statistics(*people[name]), sigma2=1.3) for name in people]


def test_inspect__nothing_to_find(clean):
    # sigma2 of study.json is 1.3 here, V is on the scale of the true one: only the scale is named
    findings = inspect_bundles(clean)
    assert {f.what.split(" times")[0][:4] for f in findings} == {"V is"}


def test_inspect__clean_studies_have_no_finding(people, tmp_path):
    paths = []
    for name, (G, y) in people.items():
        s2 = float(np.var(y, ddof=1))
        paths.append(write(tmp_path, name, statistics(G, y), sigma2=s2))
    assert inspect_bundles(paths) == []


@pytest.mark.parametrize("withheld", [False, True])
@pytest.mark.parametrize("wrong", [0.5, 1.5])
def test_scale__v_not_divided_by_sigma2(wrong, withheld, people, tmp_path):
    G, y = people["a"]
    s2 = float(np.var(y, ddof=1))
    good = write(tmp_path, "good", statistics(G, y, withheld=withheld), sigma2=s2)
    bad = write(tmp_path, "bad", statistics(G, y, v_scale=wrong, withheld=withheld), sigma2=s2)
    assert inspect_bundles([good]) == []
    (finding,) = found(inspect_bundles([bad]), ERROR)
    assert finding.study == "bad"
    assert float(finding.what.split()[2]) == pytest.approx(wrong, rel=0.05)
    assert "trait y" in finding.where


def test_calibration__imported_scores_on_another_scale(people, tmp_path):
    G, y = people["a"]
    path = write(tmp_path, "a", statistics(G, y, u_scale=3.0), ours=False)
    (finding,) = inspect_bundles([path])
    assert finding.severity == WARNING
    assert "the median of U^2 / V is" in finding.what


def test_variances__two_studies_in_different_units(people, tmp_path):
    paths = [
        write(tmp_path, n, statistics(people[n][0], people[n][1] * s), ours=False) for n, s in (("a", 1), ("b", 5))
    ]
    (finding,) = inspect_bundles(paths)
    assert (finding.severity, finding.study) == (WARNING, "a, b")
    assert "differ 2" in finding.what


def test_variances__one_study_in_other_units(people, tmp_path):
    paths = [
        write(tmp_path, name, statistics(G, y * (20 if name == "b" else 1)), ours=False)
        for name, (G, y) in people.items()
    ]
    findings = inspect_bundles(paths)
    assert [(f.severity, f.study) for f in findings] == [(WARNING, "b")]
    assert "residual variance" in findings[0].what


def test_definite__named_with_the_gene(people, tmp_path):
    G, y = people["a"]
    t = statistics(G, y)
    genes = list(t.genes)
    V = genes[4].V.copy()
    V[0, 1] = V[1, 0] = 1.2 * np.sqrt(V[0, 0] * V[1, 1])
    genes[4] = dataclasses.replace(genes[4], V=V)
    path = write(tmp_path, "a", dataclasses.replace(t, genes=genes), ours=False)
    (finding,) = inspect_bundles([path])
    assert (finding.severity, finding.where) == (ERROR, "trait y: G4")
    assert "V of 1 genes is not positive semi-definite" in finding.what


@pytest.mark.parametrize(
    ("V", "definite"),
    [
        (np.zeros((2, 2)), True),
        (np.eye(2), True),
        (np.ones((3, 3)), True),
        (np.array([[1.0, 1.0 + 1e-3], [1.0 + 1e-3, 1.0]]), False),
        (np.array([[1.0, 1.0 + 1e-9], [1.0 + 1e-9, 1.0]]), True),
        (np.array([[1e4, 1.5], [1.5, 1e-4]]), False),
        (np.array([[1.0, 1e-3], [1e-3, 1e-14]]), False),
        (np.array([[1.0, 0.5], [0.5, 0.0]]), False),
        (np.array([[-1.0, 0.0], [0.0, 1.0]]), False),
        (np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.9], [0.0, 0.9, 1.0]]), False),
        (np.empty((0, 0)), True),
    ],
)
def test_is_definite(V, definite):
    assert is_definite(V) is definite


def test_alleles__the_study_that_swapped_is_named(people, frequency, tmp_path):
    """0.3 against 0.7 may be ancestry; everything rarer is found."""
    rows = np.arange(0, M, 7)
    told = int((frequency[rows] < 0.3).sum())
    paths = [
        write(tmp_path, name, swap(statistics(G, y), rows if name == "b" else []), ours=False)
        for name, (G, y) in people.items()
    ]
    findings = [f for f in inspect_bundles(paths) if "swapped" in f.what]
    assert [(f.severity, f.study) for f in findings] == [(ERROR, "b")]
    assert told <= int(findings[0].where.split()[0]) <= len(rows)
    assert findings[0].where.endswith("such as 1:1:C:A")


def test_alleles__of_two_studies_both_are_named(people, tmp_path):
    G, y = people["a"]
    paths = [
        write(tmp_path, "a", statistics(G, y), ours=False),
        write(tmp_path, "b", swap(statistics(*people["b"]), [5]), ours=False),
    ]
    (finding,) = [f for f in inspect_bundles(paths) if "swapped" in f.what]
    assert (finding.severity, finding.study) == (WARNING, "a, b")
    assert "one of these two" in finding.what


def test_alleles__other_ancestry_is_no_swap(frequency, people, tmp_path):
    rng = np.random.default_rng(9)
    fst = 0.1
    drifted = rng.beta(frequency * (1 - fst) / fst, (1 - frequency) * (1 - fst) / fst)
    G, y = make_people(4, 900, np.clip(drifted, 0.001, 0.999))
    paths = [
        write(tmp_path, "a", statistics(*people["a"]), ours=False),
        write(tmp_path, "far", statistics(G, y), ours=False),
    ]
    swapped = [f for f in inspect_bundles(paths) if "swapped" in f.what]
    assert sum(int(f.where.split()[0]) for f in swapped) <= 0.02 * M


def test_duplicate__same_people_other_trait(people, tmp_path):
    G, y = people["a"]
    paths = [
        write(tmp_path, "a", statistics(G, y), ours=False),
        write(tmp_path, "again", statistics(G, np.random.default_rng(3).normal(size=len(y))), ours=False),
    ]
    (finding,) = inspect_bundles(paths)
    assert (finding.severity, finding.study, finding.what) == (ERROR, "a, again", "the same genotype counts")


def test_duplicate__same_scores_with_counts_withheld(people, tmp_path):
    G, y = people["a"]
    paths = [
        write(tmp_path, "a", statistics(G, y), ours=False),
        write(tmp_path, "again", swap(statistics(G, y * 1.01, withheld=True), []), ours=False),
    ]
    (finding,) = inspect_bundles(paths)
    assert finding.what == "the same score statistics"


def test_overlap__shared_people_are_counted(people, tmp_path):
    (Ga, ya), (Gb, yb) = people["a"], people["b"]
    shared = 300
    G, y = np.vstack([Gb[shared:], Ga[:shared]]), np.concatenate([yb[shared:], ya[:shared]])
    paths = [
        write(tmp_path, "a", statistics(Ga, ya), ours=False),
        write(tmp_path, "mixed", statistics(G, y), ours=False),
    ]
    (finding,) = inspect_bundles(paths)
    assert (finding.severity, finding.study) == (WARNING, "a, mixed")
    people_found = int(finding.what.split("about ")[1].split()[0])
    assert finding.what.endswith("shared people")
    assert people_found == pytest.approx(shared, rel=0.35)


def test_open__damage_is_a_finding_and_the_others_are_checked(people, tmp_path):
    good = write(tmp_path, "a", statistics(*people["a"]), ours=False)
    bad = write(tmp_path, "b", statistics(*people["b"]), ours=False)
    data = (bad / "variants.parquet").read_bytes()
    (bad / "variants.parquet").write_bytes(data[:-50])
    (finding,) = inspect_bundles([bad, good])
    assert (finding.severity, finding.study, finding.what) == (ERROR, str(bad), "refused")
    assert "differs from its digest" in finding.where


def test_open__unsigned_is_a_note_and_a_tar_is_unpacked(people, tmp_path):
    path = write(tmp_path, "a", statistics(*people["a"]), ours=False)
    (path / "digests.json").unlink()
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(path, "a")
    (finding,) = inspect_bundles([tmp_path / "a.tar"], tmp_path / "scratch")
    assert (finding.severity, finding.what) == (NOTE, "the bundle is not signed")


def test_builds__differ(people, tmp_path):
    paths = [write(tmp_path, name, statistics(*people[name]), ours=False) for name in ("a", "b")]
    info = json.loads((paths[1] / "study.json").read_text()) | {"genome_build": "GRCh37"}
    (paths[1] / "study.json").write_text(json.dumps(info))
    sign_bundle(paths[1])
    assert [f.what for f in inspect_bundles(paths)] == ["different genome builds"]


def test_x_coding__differs(people, tmp_path):
    paths = [write(tmp_path, name, statistics(*people[name]), ours=False) for name in ("a", "b", "c")]
    for path, coding in zip(paths, ("0/2", "0/1", None), strict=True):
        info = json.loads((path / "study.json").read_text()) | ({"x_coding": coding} if coding else {})
        (path / "study.json").write_text(json.dumps(info))
        sign_bundle(path)
    [finding] = inspect_bundles(paths)
    assert (finding.severity, finding.study, finding.where) == ("error", "a, b", "a: 0/2, b: 0/1")
    assert inspect_bundles(paths[1:]) == []


def test_finding__reads_as_a_sentence():
    text = str(Finding(ERROR, "s", "what", "where", "fix"))
    assert text == "error: s: what [where]; fix"

"""Other programs' files, written by hand from U and V of the definition, must give U and V back."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from scipy import stats

from locomass.bundle.exchange.common import ImportRequest
from locomass.bundle.exchange.registry import FORMATS, find_format
from locomass.bundle.study import Bundle
from locomass.bundle.write import write_trait_bundle
from locomass.errors import FormatError, InputError, MatchError
from tests.reference_exchange import (
    make_toy,
    write_generic,
    write_mass,
    write_pair,
    write_regenie,
    write_saige,
    write_seqmeta,
)  # fmt: skip


@pytest.fixture(scope="module")
def toy():
    return make_toy(7)


@pytest.fixture
def sets(toy, tmp_path):
    return toy.write_sets(tmp_path / "sets.txt")


def request_for(name, toy, folder, sets):
    """Write the files of a format and return the request that reads them."""
    if name in ("rvtests", "raremetal"):
        scores, covariance = write_pair(toy, folder, raremetal=name == "raremetal")
        return ImportRequest(scores, covariance, None, sets)
    if name == "mass":
        return ImportRequest(write_mass(toy, folder / "mass.txt"), None, None, sets)
    if name == "seqmeta":
        return ImportRequest(*write_seqmeta(toy, folder))
    if name == "saige":
        return ImportRequest(*write_saige(toy, folder))
    scores, bed = write_regenie(toy, folder, a1_is_alt=np.arange(toy.m) % 2 == 0)
    return ImportRequest(scores, None, bed, sets)


def correlation_form(toy, rows):
    """V as programs with a genotype correlation have it: ``r_ij sqrt(V_ii V_jj)``, r of mean-imputed genotypes."""
    r = np.corrcoef(toy.imputed[:, rows].T)
    d = np.sqrt(np.diag(toy.V)[rows])
    return r * np.outer(d, d)


def assert_reads(found, toy, *, correlation=False, tolerance=1e-12):
    rows = {toy.key(j): j for j in range(toy.m)}
    keys = [":".join(map(str, k)) for k in zip(found.chromosome, found.position, found.ref, found.alt, strict=True)]
    at = np.array([rows[key] for key in keys])
    assert sorted(at) == list(range(toy.m))
    np.testing.assert_allclose(found.U, toy.U[at], rtol=tolerance)
    np.testing.assert_allclose(found.V, np.diag(toy.V)[at], rtol=tolerance)
    np.testing.assert_allclose(found.alt_frequency, toy.frequency[at], rtol=1e-12)
    assert found.n_samples == toy.n
    genes = {g.gene: g for g in found.genes}
    assert set(genes) == set(toy.genes)
    for name, members in toy.genes.items():
        gene = genes[name]
        mine = at[gene.variant]
        assert sorted(mine) == sorted(members)
        expected = correlation_form(toy, mine) if correlation else toy.V[np.ix_(mine, mine)]
        np.testing.assert_allclose(gene.V, expected, atol=tolerance * np.abs(expected).max())
        assert gene.chromosome == toy.chromosome[members[0]]


@pytest.mark.parametrize("name", ["rvtests", "raremetal", "mass", "seqmeta"])
def test_reader__gives_u_and_v_of_the_definition(name, toy, tmp_path, sets):
    assert_reads(find_format(name).read(request_for(name, toy, tmp_path, sets)), toy)


@pytest.mark.parametrize(("name", "tolerance"), [("saige", 1e-10), ("regenie", 1e-6)])
def test_reader__scales_a_genotype_correlation(name, tolerance, toy, tmp_path, sets):
    # the reference decodes to float32: 1e-7 of each entry
    found = find_format(name).read(request_for(name, toy, tmp_path, sets))
    assert_reads(found, toy, correlation=True, tolerance=tolerance)


def test_saige__turns_markers_that_count_the_other_allele(toy, tmp_path):
    found = find_format("saige").read(ImportRequest(*write_saige(toy, tmp_path, swapped=(0, 2, 3, 15))))
    assert_reads(found, toy, correlation=True, tolerance=1e-10)


def test_saige__variance_returns_the_saddlepoint_p_value(toy, tmp_path):
    scores, prefix = write_saige(toy, tmp_path)
    lines = scores.read_text().splitlines()
    normal = stats.chi2.sf(toy.U**2 / np.diag(toy.V), 1)
    spa = np.where(np.arange(toy.m) % 2 == 0, normal, normal**0.8)
    cells = [f"{a!r}\t{b!r}" for a, b in zip(spa.tolist(), normal.tolist(), strict=True)]
    joined = [lines[0] + "\tp.value\tp.value.NA", *(f"{a}\t{b}" for a, b in zip(lines[1:], cells, strict=True))]
    scores.write_text("\n".join(joined) + "\n")
    found = find_format("saige").read(ImportRequest(scores, prefix, kind="binary"))
    np.testing.assert_allclose(stats.chi2.sf(found.U**2 / found.V, 1), spa, rtol=1e-9)
    for gene in found.genes:
        np.testing.assert_allclose(np.diag(gene.V), found.V[gene.variant], rtol=1e-12)


def test_regenie__counts_what_it_leaves_out(toy, tmp_path, sets):
    found = find_format("regenie").read(request_for("regenie", toy, tmp_path, sets))
    assert "no BETA or SE: 1 variants" in found.notes[0]
    assert "not in the LD reference" in found.notes[1]


def test_generic__names_meet_without_positions(toy, tmp_path):
    scores, covariance = write_generic(toy, tmp_path)
    found = find_format("generic").read(ImportRequest(scores, covariance, n_samples=toy.n))
    (gene,) = found.genes
    order = [int(name.strip("<>").split("_")[1]) for name in found.alt]
    np.testing.assert_allclose(found.U, toy.U[order], rtol=1e-12)
    np.testing.assert_allclose(gene.V, toy.V[np.ix_(order, order)], rtol=1e-9, atol=1e-12)
    assert set(found.position) == {1}
    assert len(set(found.alt)) == toy.m


def test_generic__needs_the_number_of_samples(toy, tmp_path):
    with pytest.raises(InputError, match="give --n"):
        find_format("generic").read(ImportRequest(*write_generic(toy, tmp_path)))


def test_generic__raises_on_a_missing_variance(toy, tmp_path):
    scores, covariance = write_generic(toy, tmp_path)
    text = [x for x in covariance.read_text().splitlines() if not x.startswith("marker_3 marker_3 ")]
    covariance.write_text("\n".join(text) + "\n")
    with pytest.raises(FormatError, match=r"no variance \(row marker_3 marker_3\)"):
        list(find_format("generic").read(ImportRequest(scores, covariance, n_samples=9)).genes)


def test_mass__reads_the_lower_triangle_only(toy, tmp_path, sets):
    lower = find_format("mass").read(ImportRequest(write_mass(toy, tmp_path / "a"), None, None, sets))
    full = find_format("mass").read(ImportRequest(write_mass(toy, tmp_path / "b", upper=True), None, None, sets))
    for a, b in zip(lower.genes, full.genes, strict=True):
        assert np.array_equal(a.V, b.V)
        assert np.array_equal(a.V, a.V.T)


def test_mass__alleles_from_a_plain_list(toy, tmp_path, sets):
    plain = tmp_path / "variants.txt"
    plain.write_text("".join(f"{toy.key(j)}\n" for j in range(toy.m)))
    assert_reads(find_format("mass").read(ImportRequest(write_mass(toy, tmp_path / "a"), None, None, plain)), toy)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.replace("#Samples = 300", "#N = 300"), "line 1: expected '#Samples = N'"),
        (lambda t: t.replace("1:1000\t", "1:77\t"), "no such variant"),
        (lambda t: t.replace("1:1080:A:C\t", "1:1080\t"), "2 variants at this position"),
        (lambda t: "\n".join(t.splitlines()[:-1]) + "\n", "has 11 rows but 12 entries"),
        (lambda t: t + t.splitlines()[1] + "\n", "not contiguous"),
        (lambda t: t.replace(t.splitlines()[3].split("\t")[8], "nan"), "line 4: U or V is not a finite number"),
        (lambda t: t.replace(t.splitlines()[3].split("\t")[8], "x"), "line 4: expected numbers"),
    ],
)
def test_mass__raises_on_damage(change, match, toy, tmp_path, sets):
    path = write_mass(toy, tmp_path / "mass.txt")
    path.write_text(change(path.read_text()))
    with pytest.raises((FormatError, MatchError), match=match):
        find_format("mass").read(ImportRequest(path, None, None, sets))


def edit(path, change):
    text = gzip.decompress(path.read_bytes()).decode()
    lines = text.splitlines()
    path.write_bytes(gzip.compress(("\n".join(change(lines)) + "\n").encode()))


def read_pair(scores, covariance, sets, **more):
    found = find_format("rvtests").read(ImportRequest(scores, covariance, None, sets, **more))
    return found, list(found.genes)


def test_pair__raises_on_another_scale(toy, tmp_path, sets):
    with pytest.raises(FormatError, match=r"scale: N x COV is 1\.7\d* times SQRT_V_STAT\^2"):
        read_pair(*write_pair(toy, tmp_path, scale=1.7), sets)


def test_pair__raises_when_n_is_another(toy, tmp_path, sets):
    with pytest.raises(FormatError, match="N = 299"):
        read_pair(*write_pair(toy, tmp_path), sets, n_samples=299)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda x: x[:3] + x[4:], "no line for variant 1:1020:A:C of gene 'ONE'"),
        (lambda x: [*x, x[1]], "line 26: a second line for the variant at position 1000"),
        (lambda x: [x[0], x[1].rsplit(",", 1)[0], *x[2:]], "12 positions but 11 covariances"),
        (lambda x: [x[0], x[1].rsplit(",", 1)[0] + ",nan", *x[2:]], "not a finite number"),
        (lambda x: [x[0], x[1].rsplit(",", 1)[0] + ",z", *x[2:]], "expected numbers joined by commas"),
        (lambda x: [x[0], x[1].replace("\t1000,", "\t999,"), *x[2:]], "must begin with 1000 itself"),
        (
            lambda x: [x[0], x[1].replace("1080,1080", "1080,1081"), *x[2:]],
            "position 1080 is listed 1 times, but the score",
        ),
        (lambda x: [x[0].replace("COV", "CAV"), *x[1:]], "expected the columns"),
        (lambda x: [x[0], x[1] + ":1:2:3", *x[2:]], "found 4 lists"),
    ],
)
def test_pair__raises_on_damaged_covariances(change, match, toy, tmp_path, sets):
    scores, covariance = write_pair(toy, tmp_path)
    edit(covariance, change)
    with pytest.raises(FormatError, match=match):
        read_pair(scores, covariance, sets)


def test_pair__a_window_shorter_than_the_gene_leaves_zeros(toy, tmp_path, sets):
    _, genes = read_pair(*write_pair(toy, tmp_path, window=25), sets)
    gene = next(g for g in genes if g.gene == "ONE")
    assert gene.V[0, 2] != 0
    assert gene.V[0, 3] == 0


def test_pair__variant_without_statistics_counts_as_untested(toy, tmp_path, sets):
    scores, covariance = write_pair(toy, tmp_path)
    lines = gzip.decompress(scores.read_bytes()).decode().splitlines()
    cells = lines[4].split("\t")
    cells[12:14] = ["NA", "NA"]
    scores.write_bytes(gzip.compress("\n".join([*lines[:4], "\t".join(cells), *lines[5:]]).encode() + b"\n"))
    found, genes = read_pair(scores, covariance, sets)
    assert "without statistics (U = V = 0), as in nobody or everybody: 1 variants" in found.notes
    gene = next(g for g in genes if g.gene == "ONE")
    assert not gene.V[1].any()
    assert gene.V[0, 0] > 0


def test_pair__binary_covariance_with_covariates(toy, tmp_path, sets):
    scores, covariance = write_pair(toy, tmp_path)
    G, X, s2 = toy.imputed, toy.X[:, 1:], toy.sigma2
    centre = lambda a: a - a.mean(axis=0)  # noqa: E731
    XX, XZ, ZZ = centre(G).T @ centre(G) / s2, centre(G).T @ centre(X) / s2, centre(X).T @ centre(X) / s2
    triangle = ",".join(repr(float(ZZ[i, j] / toy.n)) for i in range(2) for j in range(i + 1))

    def with_covariates(lines):
        out = [lines[0]]
        for i, line in enumerate(lines[1:]):
            cells = line.split("\t")
            later = [j for j in range(i, toy.m) if toy.chromosome[j] == toy.chromosome[i]]
            xx = ",".join(repr(float(XX[i, j] / toy.n)) for j in later)
            xz = ",".join(repr(float(v / toy.n)) for v in XZ[i])
            out.append("\t".join([*cells[:5], f"{xx}:{xz}:{triangle}"]))
        return out

    edit(covariance, with_covariates)
    found = find_format("rvtests").read(ImportRequest(scores, covariance, None, sets, kind="binary"))
    assert found.kind == "binary"
    assert_reads(found, toy, tolerance=1e-10)


def test_seqmeta__raises_on_a_name_that_is_no_variant(toy, tmp_path):
    scores, cov = write_seqmeta(toy, tmp_path)
    scores.write_text(scores.read_text().replace("1:1000:A:G", "rs17"))
    with pytest.raises(FormatError, match="'rs17' is not chrom:pos:ref:alt"):
        find_format("seqmeta").read(ImportRequest(scores, cov))


def test_seqmeta__raises_on_a_pair_given_twice(toy, tmp_path):
    scores, cov = write_seqmeta(toy, tmp_path)
    row = cov.read_text().splitlines()[2].split("\t")
    cov.write_text(cov.read_text() + "\t".join([*row[:3], "123"]) + "\n")
    with pytest.raises(FormatError, match="is given twice"):
        find_format("seqmeta").read(ImportRequest(scores, cov))


@pytest.mark.parametrize("name", [n for n, f in FORMATS.items() if f.read])
def test_format__says_which_file_it_needs(name, toy, tmp_path, sets):
    request = (
        request_for(name, toy, tmp_path, sets) if name != "generic" else ImportRequest(write_generic(toy, tmp_path)[0])
    )
    for need in FORMATS[name].needs:
        fields = {k: getattr(request, k) for k in ("scores", "covariance", "reference", "sets")} | {need: None}
        with pytest.raises(InputError, match=f"needs --{need}"):
            FORMATS[name].read(ImportRequest(**fields))


def test_format__unknown_name():
    with pytest.raises(InputError, match="did you mean 'rvtests'"):
        find_format("rvtest")
    with pytest.raises(InputError, match="'saige' cannot be written"):
        find_format("saige", writes=True)


def test_sets_elsewhere__the_study_contributes_single_variants_and_says_so(toy, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("G 9 5 9:5:A:C\n")
    found, genes = read_pair(*write_pair(toy, tmp_path), other)
    assert not genes
    assert len(found.position) == toy.m
    assert any(note.startswith("warning: none of the 1 variants") for note in found.notes)


def test_several_traits__one_bundle_on_the_union(toy, tmp_path):
    one, two = make_toy(8), make_toy(9).swap((0, 7, 15))
    folders = [tmp_path / "1", tmp_path / "2"]
    found = []
    for trait, study, folder in zip(("a", "b"), (one, two), folders, strict=True):
        folder.mkdir()
        found.append(find_format("seqmeta").read(ImportRequest(*write_seqmeta(study, folder), trait=trait)))
    write_trait_bundle(tmp_path / "bundle", found, study="s", genome_build=None)
    bundle = Bundle(tmp_path / "bundle")
    for trait, study in (("a", one), ("b", two)):
        for name, rows in study.genes.items():
            gene = bundle.read_genes([name])[name]
            V = bundle.information(gene, trait)
            place = {key: k for k, key in enumerate(zip(gene.position.tolist(), gene.alt.tolist(), strict=True))}
            for i in rows:
                for j in rows:
                    at, sign = [], 1.0
                    for k in (i, j):
                        turned = (study.position[k], study.alt[k]) not in place
                        at.append(place[study.position[k], study.ref[k] if turned else study.alt[k]])
                        sign *= -1 if turned else 1
                    assert V[at[0], at[1]] == pytest.approx(sign * study.V[i, j], rel=1e-9, abs=1e-9)

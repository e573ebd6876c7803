"""Whatever the study and the alleles' order: files give U and V back, and a swap of alleles changes no test."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from locomass.bundle.exchange.common import ImportRequest
from locomass.bundle.exchange.registry import find_format
from locomass.bundle.open import open_bundle, validate_bundle
from locomass.bundle.study import Bundle
from locomass.bundle.write import write_trait_bundle
from tests.reference_exchange import Toy, make_toy, write_mass, write_pair

M = 24


def import_bundle(name: str, request: ImportRequest, path: Path) -> Bundle:
    write_trait_bundle(path, [find_format(name).read(request)], study="s", genome_build=None)
    bundle = open_bundle(path)
    validate_bundle(bundle)
    return bundle


def turned(bundle: Bundle, toy: Toy, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """U, V and frequencies of a gene, alleles turned to those of ``toy``, in the order of its list."""
    gene = bundle.read_genes([name])[name]
    labels = zip(gene.position.tolist(), gene.ref, gene.alt, strict=True)
    place = {(p, *sorted((r, a))): (k, a) for k, (p, r, a) in enumerate(labels)}
    at, sign = [], []
    for j in toy.genes[name]:
        k, alt = place[(toy.position[j], *sorted((toy.ref[j], toy.alt[j])))]
        at.append(k)
        sign.append(1.0 if alt == toy.alt[j] else -1.0)
    s = np.array(sign)
    frequency = np.where(s > 0, gene.alt_frequency[at, 0], 1 - gene.alt_frequency[at, 0])
    return gene.U[at, 0] * s, bundle.information(gene, "y")[np.ix_(at, at)] * np.outer(s, s), frequency


def assert_is(bundle: Bundle, toy: Toy) -> None:
    for name, rows in toy.genes.items():
        U, V, frequency = turned(bundle, toy, name)
        np.testing.assert_allclose(U, toy.U[rows], rtol=1e-9)
        np.testing.assert_allclose(V, toy.V[np.ix_(rows, rows)], rtol=0, atol=1e-9 * toy.V[rows, rows].max())
        np.testing.assert_allclose(frequency, toy.frequency[rows], rtol=1e-9, atol=1e-12)


@settings(max_examples=15)
@given(
    seed=st.integers(0, 10**6), swapped=st.sets(st.integers(0, M - 1)), name=st.sampled_from(["rvtests", "raremetal"])
)
def test_pair__any_swap_then_export_and_import(seed, swapped, name):
    toy = make_toy(seed, n=80)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        sets = toy.write_sets(folder / "sets.txt")
        files = write_pair(toy.swap(sorted(swapped)), folder, raremetal=name == "raremetal")
        first = import_bundle(name, ImportRequest(*files, None, sets), folder / "first")
        assert_is(first, toy)
        again = find_format(name, writes=True).write(first, "y", folder / "again")
        second = import_bundle(name, ImportRequest(*again, None, sets), folder / "second")
        assert_is(second, toy)
        for gene in toy.genes:  # our own files carry every digit: nothing at all may change in U
            assert np.array_equal(turned(first, toy, gene)[0], turned(second, toy, gene)[0])


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), swapped=st.sets(st.integers(0, M - 1)))
def test_mass__alleles_of_the_list_decide_the_sign(seed, swapped):
    toy = make_toy(seed, n=80)
    other = toy.swap(sorted(swapped))
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        sets = other.write_sets(folder / "sets.txt")
        first = import_bundle(
            "mass", ImportRequest(write_mass(other, folder / "m.txt"), None, None, sets), folder / "first"
        )
        assert_is(first, toy)
        (again,) = find_format("mass", writes=True).write(first, "y", folder / "again.txt.gz")
        assert_is(import_bundle("mass", ImportRequest(again, None, None, sets), folder / "second"), toy)

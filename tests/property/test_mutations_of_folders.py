"""Damage at random, as in `test_mutations`, to files that others make or that are read as folders.

Imports from other programs, annotation, LD stores, genotypes that libraries read, packed bundles.
``-m ci`` 900 mutations; the default run a small share of them.
"""

from __future__ import annotations

import json
import random
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from locomass.bundle.exchange.common import ImportRequest
from locomass.bundle.exchange.registry import FORMATS
from locomass.bundle.open import open_bundle, validate_bundle
from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
from locomass.config import MetaConfig, TimeToEvent, load_config
from locomass.genotypes.fileset import open_fileset
from locomass.tables.annotation.columns import read_columns
from locomass.tables.annotation.rule_file import read_rules
from locomass.tables.annotation.vcf import read_vcf
from locomass.tables.ld_store import read_banded, read_prscs_blocks, read_stored_variants
from locomass.tables.summary_statistics import read_metadata
from locomass.tables.time_to_event import read_times
from tests.factories import make_study, random_calls, write_meta_config
from tests.property.test_mutations import MUTATIONS, attempt
from tests.reference_exchange import make_toy, write_generic, write_regenie, write_saige, write_seqmeta
from tests.unit.test_exchange_remeta import write_metaskat, write_remeta
from tests.unit.test_genotype_formats import write_kind
from tests.unit.test_pgen import write_pgen
from tests.unit.test_stage_predict import write_array

Reader = Callable[[Path], object]


def imported(name: str, request: ImportRequest) -> Reader:
    """Return a reader of the files of a request, wherever their folder is copied to."""

    def read(folder: Path) -> object:
        moved = {
            key: folder / path.name
            for key in ("scores", "covariance", "reference", "sets")
            if (path := getattr(request, key)) is not None
        }
        found = FORMATS[name].read(replace(request, **moved))
        return found, list(found.genes)

    return read


def calls_of(path: Path) -> object:
    fileset = open_fileset(path)
    people = np.arange(fileset.n_samples, dtype=np.int32)
    return fileset.select(np.arange(fileset.n_variants)).carriers(people)


def lay_imports(root: Path) -> dict[str, Reader]:
    toy, found = make_toy(7), {}

    def lay(name: str, make: Callable[[Path], ImportRequest]) -> None:
        folder = root / name
        folder.mkdir(parents=True)
        found[name] = imported(name, make(folder))

    lay("seqmeta", lambda f: ImportRequest(*write_seqmeta(toy, f)))
    lay("saige", lambda f: ImportRequest(*write_saige(toy, f)))
    lay("generic", lambda f: ImportRequest(*write_generic(toy, f), n_samples=toy.n))
    lay("metaskat", lambda f: write_metaskat(toy, f))
    lay("remeta", lambda f: write_remeta(toy, f))
    sets = root / "regenie-sets.txt"
    toy.write_sets(sets)

    def regenie(folder: Path) -> ImportRequest:
        scores, bed = write_regenie(toy, folder, a1_is_alt=np.arange(toy.m) % 2 == 0)
        shutil.copy(sets, folder / "sets.txt")
        return ImportRequest(scores, None, bed, folder / "sets.txt")

    lay("regenie", regenie)
    return found


CSQ = "Allele|Consequence|IMPACT|SYMBOL|Gene|Feature|CANONICAL|MANE_SELECT|LoF|REVEL"
VEP = (
    f'##fileformat=VCFv4.2\n##INFO=<ID=CSQ,Number=.,Type=String,Description="x. Format: {CSQ}">\n'
    "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    + "".join(
        f"1\t{p}\t.\tC\tT\t.\t.\tAC=1;CSQ=T|stop_gained|HIGH|AAA|ENSG1|ENST1|YES|NM_1|HC|0.{p}\n" for p in range(10, 30)
    )
)
TIMES = "FID\tIID\tt\te\ts\n" + "".join(f"{k}\t{k}\t{k}.5\t{k % 2}\t{k % 3}\n" for k in range(1, 30))
TEXTS: dict[str, tuple[str, str, Reader]] = {
    "vep": ("vep.vcf", VEP, lambda f: list(read_vcf(f / "vep.vcf"))),
    "dbnsfp": (
        "n.tsv",
        "#chr\tpos(1-based)\tref\talt\tgenename\tREVEL_score\n"
        + "".join(f"1\t{p}\tC\tT\tAAA;AAA\t0.{p};.\n" for p in range(10, 30)),
        lambda f: list(read_columns(f / "n.tsv")),
    ),
    "rules": (
        "rules.yaml",
        "categories:\n  LoF: LoF == HC\n  missense: REVEL >= 0.5 and CADD_PHRED > 20\nmasks: {M1: [LoF]}\n",
        lambda f: read_rules(f / "rules.yaml"),
    ),
    "metadata": (
        "x.tsv-meta.yaml",
        "genome_assembly: GRCh38\nsamples:\n  - sample_size: 1000\n    ancestry: [EUR]\n",
        lambda f: read_metadata(f / "x.tsv"),
    ),
    "times": (
        "t.tsv",
        TIMES,
        lambda f: read_times(f / "t.tsv", {"death": TimeToEvent(time="t", event="e", strata=["s"])}, ()),
    ),
}


def lay_texts(root: Path) -> dict[str, Reader]:
    found = {}
    for name, (file, text, reader) in TEXTS.items():
        (root / name).mkdir()
        (root / name / file).write_text(text)
        found[name] = reader
    return found


def lay_genotypes(root: Path) -> dict[str, Reader]:
    calls = random_calls(np.random.default_rng(8), 12, 20, missing=0.05)
    rows = [("1", 1000 + 10 * k, f"rs{k}", "A", "G") for k in range(12)]
    samples = [("0", f"I{k}") for k in range(20)]
    found: dict[str, Reader] = {}
    for kind in ("bgen", "vcf.gz", "bcf", "vcz"):
        write_kind(kind, root / kind, calls, rows, samples)
        found[kind] = lambda f, kind=kind: calls_of(f / f"x.{kind}")
    (root / "pgen").mkdir()
    write_pgen(root / "pgen" / "x", calls, rows, samples)
    found["pgen"] = lambda f: calls_of(f / "x.pgen")
    return found


def lay_ld(root: Path) -> dict[str, Reader]:
    folder = root / "viprs" / "chr_1"
    names = np.array([f"rs{k}" for k in range(6)], "S")
    columns = {"snps": names, "bp": np.arange(10, 16), "a1": np.full(6, b"A"), "a2": np.full(6, b"G")}
    for name, values in {**columns, "maf": np.full(6, 0.3)}.items():
        write_array(folder / "metadata" / name, values)
    write_array(folder / "matrix" / "data", np.full(5, 0.25))
    write_array(folder / "matrix" / "indptr", np.array([0, 1, 2, 3, 4, 5, 5]))
    for group in (folder, folder / "matrix", folder / "metadata"):
        (group / ".zgroup").write_text('{"zarr_format": 2}')
    (folder / ".zattrs").write_text(json.dumps({"Chromosome": 1, "Sample size": 1000}))
    prs = root / "prs-cs"
    prs.mkdir()
    head = "CHR SNP BP A1 A2 MAF\n"
    (prs / "snpinfo_x").write_text(head + "".join(f"1 rs{k} {k + 10} A G 0.3\n" for k in range(6)))
    with h5py.File(prs / "ldblk_x_chr1.hdf5", "w") as store:
        store["blk_1/snplist"], store["blk_1/ldblk"] = names, np.eye(6)
    row = {f"rs{k}": k for k in range(6)}
    return {
        "viprs": lambda f: (read_stored_variants(f), read_banded(f, "1").cut(0, 6)),
        "prs-cs": lambda f: (read_stored_variants(f), read_prscs_blocks(f, "1", row)),
    }


def lay_consortium(root: Path) -> dict[str, Reader]:
    study = make_study(2, n=60)
    run_study(study.write(root / "study"), root / "out", Resources(threads=1), "score-statistics")
    shutil.rmtree(root / "study")
    (root / "tar").mkdir()
    with tarfile.open(root / "tar" / "x.tar", "w") as tar:
        tar.add(root / "out" / "bundle", "bundle")
    (root / "meta").mkdir()
    write_meta_config(root / "meta" / "meta.yaml", [Path("bundle")], study)

    def unpack(folder: Path) -> None:
        found = open_bundle(folder / "x.tar", folder / "scratch")
        validate_bundle(found)

    found = {"tar": unpack, "meta": lambda f: load_config(f / "meta.yaml", MetaConfig)}
    shutil.rmtree(root / "out")
    return found


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> tuple[Path, dict[str, Reader]]:
    root = tmp_path_factory.mktemp("sources")
    found = {}
    for lay in (lay_imports, lay_texts, lay_genotypes, lay_ld, lay_consortium):
        found |= lay(root)
    return root, found


def mutate_folders(root: Path, sources: dict[str, Reader], folder: Path, count: int, seed: int) -> list[str]:
    """Read so many copies of folders of which one file is damaged; return what went wrong."""
    rng, wrong, names = random.Random(seed), [], list(sources)
    for k in range(count):
        name = names[k % len(names)]
        work = folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(root / name, work)
        target = rng.choice(sorted(p for p in work.rglob("*") if p.is_file() and p.stat().st_size))
        data = target.read_bytes()
        for _ in range(rng.choice((1, 1, 1, 3))):
            data = rng.choice(MUTATIONS)(data, rng) or b"\n"
        target.write_bytes(data)
        failure = attempt(lambda work=work, name=name: sources[name](work))
        if failure:
            wrong.append(f"{k} {name}/{target.relative_to(work)}: {failure}")
            shutil.copytree(work, folder / f"failed-{k}")
    return wrong


@pytest.mark.filterwarnings("ignore")
def test_undamaged_they_are_read(sources, tmp_path):
    root, readers = sources
    for name, read in readers.items():
        shutil.copytree(root / name, tmp_path / name)
        read(tmp_path / name)


@pytest.mark.filterwarnings("ignore")
def test_folders(sources, tmp_path):
    assert mutate_folders(*sources, tmp_path, 60, 1) == []


@pytest.mark.ci
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", [2, 3, 4])
def test_folders__900(sources, tmp_path, seed):
    assert mutate_folders(*sources, tmp_path, 300, seed) == []

"""Files damaged at random, in bytes, words and numbers: read, or refused by name; no traceback, no hang, no nonsense.

``-m ci`` runs 5,000 mutations of the readers' files and 500 of bundles; the default run a small share of them.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from locomass.bundle.exchange.common import ImportRequest
from locomass.bundle.exchange.registry import FORMATS
from locomass.bundle.open import open_bundle
from locomass.bundle.write import sign_bundle
from locomass.commands.outcome import Resources
from locomass.commands.run import run_study
from locomass.config import RunConfig, load_config
from locomass.errors import BundleError, LocomassError
from locomass.executors.cluster_file import load_cluster_config
from locomass.genotypes.bed import read_bim, read_fam
from locomass.genotypes.fileset import open_fileset
from locomass.genotypes.plink2 import read_samples, read_variants
from locomass.meta.inspect import inspect_opened, validate_and_inspect
from locomass.tables.annotations import read_annotations, read_frequencies, read_masks
from locomass.tables.gene_sets import read_groups, read_regions, read_sets
from locomass.tables.liftover import read_chain
from locomass.tables.loco import read_loco, read_prediction_list
from locomass.tables.pathways import read_pathways
from locomass.tables.samples import read_sample_list, read_table
from locomass.tables.summary_statistics import read_summary_statistics
from locomass.tables.weights import read_weights
from tests.factories import make_study

SECONDS = 20  # for one file of some kilobytes, on a machine that has much else to do
WORDS = [
    b"nan", b"inf", b"-inf", b"1e999", b"-1", b"0", b"", b"9" * 40, b"1:30", b"010", b"NA", b".", b"\x00", b"\xff\xfe",
    "\u202e".encode(), b"\x1b[31m", b"a" * 5_000, b"X", b"chr1", b"*", b"<DEL>", b"[" * 500, b"1_000", b"0x10", b"+5",
]  # fmt: skip
HEADS = b" \t,;\n:="


def flip(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def drop(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.choice((1, 3, 40)) :]


def insert(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + rng.choice(WORDS) + data[at:]


def repeat(data: bytes, rng: random.Random) -> bytes:
    low = rng.randrange(len(data))
    high = min(len(data), low + rng.choice((1, 20, 400)))
    return data[:high] + data[low:high] * rng.choice((1, 3)) + data[high:]


def replace_word(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    low = max(data.rfind(bytes([h]), 0, at) for h in HEADS) + 1
    ends = [end for h in HEADS if (end := data.find(bytes([h]), at)) >= 0]
    return data[:low] + rng.choice(WORDS) + data[min(ends, default=len(data)) :]


def swap_lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[i], lines[j] = lines[j], lines[i]
    return b"\n".join(lines)


MUTATIONS = (flip, cut, drop, insert, repeat, replace_word, replace_word, swap_lines)


@contextmanager
def deadline() -> Iterator[None]:
    """Raise after some seconds."""

    def ring(*_):
        raise TimeoutError(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def table(path: Path) -> object:
    return read_table(path, quantitative=["y", "w"], binary=["cc"])


def covariates(path: Path) -> object:
    return read_table(path, quantitative=["age"], categorical=["sex"])


def carriers(path: Path) -> object:
    """Open a fileset and read all its carriers."""
    fileset = open_fileset(path.with_name("geno.bed"))
    people = np.arange(fileset.n_samples, dtype=np.int32)
    return fileset.select(np.arange(fileset.n_variants)).carriers(people)


TEXTS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "gwas.tsv": (
        "chromosome\tbase_pair_location\teffect_allele\tother_allele\tbeta\tstandard_error\teffect_allele_frequency\t"
        "p_value\trsid\tn\n" + "".join(f"1\t{1000 + k}\tA\tG\t0.{k}1\t0.1\t0.3\t0.5\trs{k}\t1000\n" for k in range(20)),
        read_summary_statistics,
    ),
    "ldsc.sumstats": (
        "SNP\tA1\tA2\tN\tZ\n" + "".join(f"rs{k}\tA\tG\t1000\t{k / 7:.3f}\n" for k in range(20)),
        read_summary_statistics,
    ),
    "pgs.txt": (
        "#pgs_id=PGS1\n#genome_build=GRCh38\nrsID\tchr_name\tchr_position\teffect_allele\tother_allele\teffect_weight\n"
        + "".join(f"rs{k}\t1\t{1000 + k}\tA\tG\t0.{k}\n" for k in range(20)),
        read_weights,
    ),
    "plink.score": ("".join(f"1:{k}:A:G A 0.{k}\n" for k in range(1, 20)), read_weights),
    "chain": ("chain 100 chr1 1000 + 10 900 chr1 2000 + 20 910 1\n400 5 5\n485\n\n", read_chain),
    "freq.afreq": (
        "#CHROM\tID\tREF\tALT\tALT_FREQS\tOBS_CT\n" + "".join(f"1\t1:{k}:A:G\tA\tG\t0.{k}\t90\n" for k in range(1, 9)),
        read_frequencies,
    ),
    "saige.groups": ("G1 var 1:1:A:C 1:2:A:C\nG1 anno lof missense\nG1 weight 7.8 3.9\n", read_groups),
    "epacts.groups": ("G1\t22:16150801_T/A\t22:16150805_C/A\nG2\t22:26150801_T/A\n", read_groups),
    "genes.bed": ("1\t100\t900\tG1\n2\t100\t900\tG2\n", read_regions),
    "keep.txt": ("F1 1\nF2 2\nF3 3\n", read_sample_list),
    "sets.gmt": ("P1\turl\tG1\tG2\nP2\turl\tG3\n", read_pathways),
    "pred.list": ("y all.loco\nw all.loco\n", read_prediction_list),
    "slurm.yaml": (
        "scheduler: slurm\nqueue: main\ncores: 2\nmemory: 4 GB\nwalltime: '1:00:00'\nsetup: [module load x]\n",
        load_cluster_config,
    ),
    "x.psam": ("#FID\tIID\tSEX\nF1\t1\t1\nF2\t2\t2\n", read_samples),
    "x.pvar": ("#CHROM\tPOS\tID\tREF\tALT\n1\t10\tr1\tA\tC\n1\t20\tr2\tA\tC,G\n", read_variants),
}
STUDY_FILES: dict[str, Callable[[Path], object]] = {
    "geno.bed": carriers,
    "geno.bim": read_bim,
    "geno.fam": read_fam,
    "pheno.tsv": table,
    "covar.tsv": covariates,
    "sets.txt": read_sets,
    "annotations.txt": read_annotations,
    "masks.txt": lambda path: read_masks(path, ["LoF", "missense", "synonymous"]),
    "all.loco": read_loco,
    "study.yaml": lambda path: load_config(path, RunConfig),
}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """A study, its bundle, and what `export` makes of it."""
    folder = tmp_path_factory.mktemp("mutations")
    config = make_study(2, n=60).write(folder)
    bundle = run_study(config, folder / "out", Resources(threads=1), "score-statistics").path / "bundle"
    opened = open_bundle(bundle)
    for name in ("rvtests", "raremetal", "mass", "remeta"):
        (folder / name).mkdir()
        FORMATS[name].write(opened, "z", folder / name / "x")
    return folder


def exchanged(folder: Path) -> dict[str, tuple[Path, Callable[[Path], object]]]:
    """Exported files with readers that find the other files of the format where they are."""
    found = {}
    for name in ("rvtests", "raremetal", "mass", "remeta"):
        files = sorted(p for p in (folder / name).iterdir() if p.is_file())
        for path in files:
            found[f"{name}/{path.name}"] = (path, _reader_of(name))
    return found


def _reader_of(name: str) -> Callable[[Path], object]:
    def read(path: Path) -> object:
        files = sorted(path.parent.iterdir())
        scores = next(
            (p for p in files if "MetaScore" in p.name or "score" in p.name.lower() or "htp" in p.name), files[0]
        )
        covariance = next((p for p in files if "cov" in p.name.lower() and p != scores), path.parent / "x")
        sets = path.parent.parent / "sets.txt"
        return FORMATS[name].read(ImportRequest(scores, covariance, sets=sets, n_samples=60))

    return read


def mutate_readers(study: Path, folder: Path, count: int, seed: int) -> list[str]:
    """Read ``count`` damaged files; return what went wrong, with all that is needed to repeat it."""
    rng = random.Random(seed)
    sources: list[tuple[str, Path, Callable[[Path], object]]] = []
    for name, (text, reader) in TEXTS.items():
        (study / name).write_text(text)
        sources.append((name, study / name, reader))
    sources += [(name, study / name, reader) for name, reader in STUDY_FILES.items()]
    sources += [(name, *rest) for name, rest in exchanged(study).items()]
    wrong = []
    for k in range(count):
        name, source, reader = sources[k % len(sources)]
        work = folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(source.parent, work / source.parent.name, ignore=shutil.ignore_patterns("out", "work"))
        shutil.copy(study / "sets.txt", work / "sets.txt")
        target = work / source.parent.name / source.name
        data = source.read_bytes()
        for _ in range(rng.choice((1, 1, 1, 3))):
            data = rng.choice(MUTATIONS)(data, rng) or b"\n"
        target.write_bytes(data)
        failure = attempt(lambda target=target, reader=reader: reader(target))
        if failure:
            wrong.append(f"{k} {name}: {failure}")
            (folder / f"failed-{k}").write_bytes(data)
    return wrong


def attempt(action: Callable[[], object]) -> str:
    """Return what went wrong beside an error of ours, whose text is printable; '' where nothing did."""
    try:
        with deadline():
            action()
    except LocomassError as error:
        return "" if str(error).replace("\n", "").isprintable() else f"control characters in {str(error)!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]
    return ""


def test_readers(study, tmp_path):
    assert mutate_readers(study, tmp_path, 120, 1) == []


@pytest.mark.ci
@pytest.mark.parametrize("seed", range(2, 12))
def test_readers__5000(study, tmp_path, seed):
    assert mutate_readers(study, tmp_path, 500, seed) == []


# ---- bundles ----

NUMBERS = [float("nan"), float("inf"), -1.0, 0.0, 1e308, -1e308, 1e-320, 0.5, 2.0, 1e6]
INTEGERS = [-1, 0, 1, 2**31 - 1, -(2**31), 7, 10**6]
STRINGS = ["", "chr1", "1", "X", "a", "A" * 300, "\u202eA", "\x1b[0m", "NA", "GENE1", "<DEL>", "*"]
KEYS: list[object] = [None, -1, 0, 1, "x", [], {}, [1], 10**30, 0.5, "\u202e", True]


def change_cell(path: Path, rng: random.Random) -> None:
    """Change one value of one column of a table."""
    found = pq.read_table(path)
    if not found.num_rows:
        return
    name = rng.choice(found.column_names)
    kind, values = found.schema.field(name).type, found.column(name).to_pylist()
    row = rng.randrange(len(values))
    values[row] = _other(values[row], kind, rng)
    try:
        column = pa.array(values, kind)
    except (pa.ArrowInvalid, OverflowError, pa.ArrowTypeError):
        return
    pq.write_table(found.set_column(found.column_names.index(name), name, column), path, compression="zstd")


def _other(value: object, kind: pa.DataType, rng: random.Random) -> object:
    if pa.types.is_list(kind):
        values = list(value)
        if not values or rng.random() < 0.3:
            return rng.choice([values[:-1], values + values[:1], values[::-1], [], values * 2])
        at = rng.randrange(len(values))
        return [*values[:at], _other(values[at], kind.value_type, rng), *values[at + 1 :]]
    return rng.choice(STRINGS if pa.types.is_string(kind) else INTEGERS if pa.types.is_integer(kind) else NUMBERS)


def change_key(path: Path, rng: random.Random) -> None:
    """Change, remove or add one value anywhere in a JSON file."""
    content = json.loads(path.read_text())
    places = [(content, key) for key in content]
    for box, key in places:  # grows as it is walked
        inner = box[key]
        if isinstance(inner, dict):
            places += [(inner, k) for k in inner]
        elif isinstance(inner, list) and len(inner) < 50:
            places += [(inner, k) for k in range(len(inner))]
    box, key = rng.choice(places)
    if rng.random() < 0.2 and isinstance(box, dict):
        del box[key]
    else:
        box[key] = rng.choice(KEYS)
    path.write_text(json.dumps(content))


def mutate_bundles(study: Path, folder: Path, count: int, seed: int) -> list[str]:
    """Damage a bundle, sign it, and read it; what is accepted must hold numbers that can be."""
    rng = random.Random(seed)
    wrong = []
    for k in range(count):
        bundle = folder / "bundle"
        shutil.rmtree(bundle, ignore_errors=True)
        shutil.copytree(study / "out" / "bundle", bundle)
        path = rng.choice(sorted(p for p in bundle.rglob("*") if p.is_file() and p.name != "digests.json"))
        if path.suffix == ".json" and rng.random() < 0.8:
            change_key(path, rng)
        elif path.suffix == ".parquet" and rng.random() < 0.8:
            change_cell(path, rng)
        else:
            path.write_bytes(rng.choice((flip, cut, drop, insert, repeat))(path.read_bytes(), rng) or b"x")
        sign_bundle(bundle)
        failure = attempt(lambda bundle=bundle: use(bundle))
        if failure:
            wrong.append(f"{k} {path.relative_to(bundle)}: {failure}")
            shutil.copytree(bundle, folder / f"failed-{k}")
    return wrong


def use(path: Path) -> None:
    """Do with a bundle what `meta` does before it tests, and look at its numbers."""
    bundle = open_bundle(path)
    validate_and_inspect(bundle)
    inspect_opened([bundle])
    for gene in bundle.read_genes(list(bundle.index)).values():
        assert np.isfinite(gene.U).all()
        assert (gene.V >= 0).all()
        assert (gene.n_obs >= 0).all()
        for trait in bundle.traits:
            assert np.isfinite(bundle.information(gene, trait)).all()


def test_bundles(study, tmp_path):
    assert mutate_bundles(study, tmp_path, 25, 1) == []


@pytest.mark.ci
@pytest.mark.parametrize("seed", range(2, 7))
def test_bundles__500(study, tmp_path, seed):
    assert mutate_bundles(study, tmp_path, 100, seed) == []


def test_the_mutations_change_something_and_a_whole_bundle_passes(study, tmp_path):
    use(study / "out" / "bundle")
    with pytest.raises(BundleError):
        use(tmp_path)
    rng = random.Random(1)
    data = b"a b\nc d\n" * 20
    assert sum(m(data, rng) != data for m in MUTATIONS for _ in range(10)) > 70

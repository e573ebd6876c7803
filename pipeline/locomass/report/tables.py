"""What the report reads: the gene tests as arrays with coded labels, the other tables, the studies' records."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from locomass.errors import InputError
from locomass.numbers import Floats
from locomass.schema import PREDICTORS, STUDIES, TableSchema
from locomass.variants.chromosomes import chromosome_order

Codes = NDArray[np.int64]
LABELS = ("gene", "chromosome", "trait", "mask", "weights", "test", "method", "note")
NUMBERS = ("start", "end", "max_maf", "n_studies", "n_samples", "n_variants", "mac", "beta", "se", "log10p", "p_error")


@dataclass(frozen=True)
class Coded:
    """A text column: ``labels[codes]`` is its content; codes (N,)."""

    labels: tuple[str, ...]
    codes: Codes

    def take(self, rows: Codes) -> Coded:
        """Return chosen rows, with the same labels."""
        return Coded(self.labels, self.codes[rows])


@dataclass(frozen=True)
class GeneTests:
    """gene_tests.parquet by column, N rows.

    Attributes:
        label: text columns (`LABELS`) and ``row_test``, the test with its weights.
        number: numeric columns (`NUMBERS`) as (N,) float64; log10p is NaN where there is no p-value.
        bins: the distinct frequency bounds, increasing.
        bin: (N,) index into ``bins``.
    """

    label: dict[str, Coded]
    number: dict[str, Floats]
    bins: Floats
    bin: Codes

    @property
    def log10p(self) -> Floats:
        """(N,) -log10 p."""
        return self.number["log10p"]

    def __len__(self) -> int:
        return len(self.bin)


def read_gene_tests(path: Path, searches: Path | None = None) -> GeneTests:
    """Read the columns of gene_tests.parquet that the report shows.

    Args:
        path: gene_tests.parquet.
        searches: permutation_tests.parquet, whose rows follow under the weights `permutation`, where it is there.

    Raises:
        InputError: a file cannot be read or lacks a column.
    """
    try:
        table = pq.read_table(path, columns=[*LABELS, *NUMBERS], read_dictionary=list(LABELS))
        if searches is not None and searches.exists():
            table = pa.concat_tables([table, _lay_searches(pq.read_table(searches), table)])
        label = {name: encode_column(table.column(name)) for name in LABELS}
        number = {n: table.column(n).to_numpy().astype(np.float64) for n in NUMBERS}
    except (OSError, KeyError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read: {error}; run `locomass run` or `locomass meta` again") from None
    label["row_test"] = _join_labels(label["test"], label["weights"])
    bins, place = np.unique(number["max_maf"], return_inverse=True)
    return GeneTests(label, number, bins, place.astype(np.int64))


def _lay_searches(searches: pa.Table, tests: pa.Table) -> pa.Table:
    """Return rows of permutation_tests.parquet with the columns of gene_tests, of the genes that are there.

    The note names the grouping that won and the number of permutations, before what the row has to say itself.
    """
    genes = encode_column(tests["gene"])
    first = dict(zip(*np.unique(genes.codes, return_index=True), strict=True))
    row = {genes.labels[code]: k for code, k in first.items()}
    searches = searches.filter(pc.is_in(searches["gene"], pa.array(list(row), pa.string())))
    at = pa.array([row[gene] for gene in searches["gene"].to_pylist()], pa.int64())
    n = len(searches)
    notes = zip(*(searches[name].to_pylist() for name in ("note", "grouping", "permutations")), strict=True)
    columns = {
        **{name: tests[name].take(at) for name in ("start", "end")},
        **{name: pa.nulls(n, pa.float64()) for name in ("beta", "se")},
        "weights": pa.array(["permutation"] * n, pa.string()),
        "n_studies": pa.array([1] * n, pa.int32()),
        "note": pa.array(
            [
                "; ".join(x for x in (best, f"{p:,} permutations" if p or not note else "", note) if x)
                for note, best, p in notes
            ]
        ),
    }
    fields = [tests.schema.field(name) for name in tests.column_names]
    found = [columns[field.name] if field.name in columns else searches[field.name] for field in fields]
    return pa.table({f.name: _cast(values, f.type) for f, values in zip(fields, found, strict=True)})


def _cast(values: Any, kind: pa.DataType) -> Any:
    """Return a column as a type, which may be a dictionary of texts."""
    return pc.cast(values, pa.string()).dictionary_encode() if pa.types.is_dictionary(kind) else pc.cast(values, kind)


def encode_column(column: pa.ChunkedArray) -> Coded:
    """Return a text column as codes into its distinct values; null counts as an empty text."""
    coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    values = coded.unify_dictionaries().combine_chunks()
    if not len(values):
        return Coded((), np.empty(0, np.int64))
    labels = ["" if text is None else text for text in values.dictionary.to_pylist()]
    codes = pc.fill_null(values.indices, len(labels)).to_numpy(zero_copy_only=False).astype(np.int64)
    return Coded((*labels, ""), codes)


def _join_labels(test: Coded, weights: Coded) -> Coded:
    """Return the test with its weights, such as ``burden (flat)``."""
    n = len(weights.labels)
    pairs, codes = np.unique(test.codes * n + weights.codes, return_inverse=True)
    names = []
    for pair in pairs.tolist():
        name, weight = test.labels[pair // n], weights.labels[pair % n]
        names.append(f"{name} ({weight})" if weight else name)
    return Coded(tuple(names), codes.astype(np.int64))


def read_text_table(path: Path, schema: TableSchema) -> pa.Table | None:
    """Read a tab-separated table of a results directory, or return None where there is none.

    Raises:
        InputError: the file is damaged.
    """
    if not path.exists():
        return None
    options = pacsv.ConvertOptions(
        column_types={c.name: c.type for c in schema.columns},
        include_columns=[c.name for c in schema.columns],
        null_values=["NA", ""],
        strings_can_be_null=False,
    )
    try:
        return pacsv.read_csv(path, parse_options=pacsv.ParseOptions(delimiter="\t"), convert_options=options)
    except (OSError, KeyError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read: {error}") from None


def read_record(path: Path) -> dict[str, Any]:
    """Read a JSON record; empty where there is none or it is not a JSON object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def read_list(path: Path) -> list[dict[str, Any]]:
    """Read a JSON list of objects; empty where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


@dataclass(frozen=True)
class Studies:
    """What was combined.

    Attributes:
        traits: rows of studies.tsv, one per study and trait, by study.
        n_variants: distinct variants; None where the folder has no such table.
        predictors: how the predictors were made, by study (predictors.json).
    """

    traits: dict[str, list[dict[str, Any]]]
    n_variants: int | None
    predictors: dict[str, Any]

    def record(self, study: str, trait: str) -> dict[str, Any]:
        """Return how the predictor of a trait was made; empty where that is not known."""
        return dict(self.predictors.get(study, {}).get("traits", {}).get(trait, {}))

    def messages(self, study: str) -> list[str]:
        """Return what the making of a study's predictors warned of."""
        return [str(text) for text in self.predictors.get(study, {}).get("messages", [])]


def read_studies(results: Path) -> Studies:
    """Read what a results folder says of the studies that were combined."""
    table = read_text_table(results / STUDIES.name, STUDIES)
    rows: list[dict[str, Any]] = [] if table is None else table.to_pylist()
    traits: dict[str, list[dict[str, Any]]] = {}
    for row in rows[:-1]:  # the last is that of all studies
        traits.setdefault(row["study"], []).append(row)
    return Studies(traits, rows[-1]["n_variants"] if rows else None, read_record(results / PREDICTORS))


def genes_in_order(tests: GeneTests) -> Codes:
    """Return the code of every gene, by chromosome and position."""
    gene = tests.label["gene"]
    found, first = np.unique(gene.codes, return_index=True)
    chromosome = tests.label["chromosome"].take(first)
    rank = {code: chromosome_order(chromosome.labels[code]) for code in set(chromosome.codes.tolist())}
    start = tests.number["start"][first]
    order = sorted(range(len(found)), key=lambda i: (rank[int(chromosome.codes[i])], start[i], gene.labels[found[i]]))
    return found[np.array(order, np.int64)]


def iterate_variants(path: Path, columns: Sequence[str], traits: Sequence[str]) -> Iterator[pa.Table]:
    """Give the rows of single_variants.parquet for some traits, a stretch at a time.

    Raises:
        InputError: the file is damaged.
    """
    if not path.exists():
        return
    try:
        with pq.ParquetFile(path, read_dictionary=["trait", "chromosome"]) as file:
            for batch in file.iter_batches(1 << 18, columns=list(columns)):
                table = pa.Table.from_batches([batch])
                yield table.filter(pc.is_in(pc.cast(table["trait"], pa.string()), pa.array(traits, pa.string())))
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read: {error}") from None

"""Which variants the masks took, summed over genes; where the results come from."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from locomass.report.embed import format_number
from locomass.report.tables import GeneTests, read_list, read_record
from locomass.run.provenance import describe_environment
from locomass.schema import INSPECTION

COUNTS = ("listed", "absent", "not_in_mask", "monomorphic", "too_frequent", "kept")
MAX_ROWS = 200


def audit_rows(audit: pa.Table | None) -> list[list[str]]:
    """Return per mask, bin and group of traits: genes, genes without a variant, and variants by fate."""
    if audit is None or not audit.num_rows:
        return []
    empty = pa.array((audit.column("kept").to_numpy() == 0).astype(np.int64))
    grouped = (
        audit.append_column("empty", empty)
        .group_by(["mask", "max_maf", "traits"], use_threads=False)
        .aggregate([("gene", "count"), ("empty", "sum"), *((name, "sum") for name in COUNTS)])
    )
    rows = []
    for row in grouped.slice(0, MAX_ROWS).to_pylist():
        traits = row["traits"].split(",")
        shown = ", ".join(traits[:3]) + (f" and {len(traits) - 3:,} more" if len(traits) > 3 else "")
        counts = [row["gene_count"], row["empty_sum"], *(row[f"{name}_sum"] for name in COUNTS)]
        rows.append([row["mask"], f"{row['max_maf']:g}", shown, *map(format_number, counts)])
    return rows


def allowed_errors(results: Path) -> list[str]:
    """Return the errors of the bundles that the meta-analysis was told to accept (`--allow`), in words."""
    found = [f for f in read_list(results / INSPECTION) if f.get("severity") == "error"]
    return ["{name}: {study}: {what} [{where}]; {fix}".format_map(f) for f in found]


def missing_rows(tests: GeneTests) -> list[list[str]]:
    """Return why gene tests have no p-value: test, note, rows."""
    rows = np.flatnonzero(np.isnan(tests.log10p))
    test, note = tests.label["row_test"], tests.label["note"]
    pairs, counts = np.unique(test.codes[rows] * len(note.labels) + note.codes[rows], return_counts=True)
    out = []
    for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
        t, n = divmod(pair, len(note.labels))
        out.append([test.labels[t], note.labels[n] or "no reason recorded", f"{count:,}"])
    return out


def describe_provenance(results: Path) -> dict[str, Any]:
    """Return command, versions, stages and input digests, as far as they are known when the page is written.

    A provenance.json older than the tables is of an earlier run, and is not used.
    """
    plan = read_record(results / "plan.json")
    record = read_record(results / "provenance.json")
    table, file = results / "gene_tests.parquet", results / "provenance.json"
    if record and table.exists() and file.stat().st_mtime < table.stat().st_mtime:
        record = {}
    argv = [str(a) for a in record.get("command", sys.argv)]
    command = shlex.join(["locomass", *argv[1:]])
    environment = record.get("environment") or describe_environment()
    files = {p: entry.get("digest", "") for p, entry in plan.get("files", {}).items()}
    stages = {name: entry.get("digest", "") for name, entry in plan.get("stages", {}).items()}
    return {
        "command": command,
        "directory": str(record.get("directory", os.getcwd())),
        "started": str(record.get("started", "")),
        "versions": {
            "locomass": environment.get("locomass", ""),
            "Python": environment.get("python", ""),
            **environment.get("packages", {}),
        },
        "stages": stages,
        "inputs": dict(record.get("inputs") or files),
    }

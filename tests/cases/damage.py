"""A bundle of a golden cohort, damaged and signed again, as a stranger would; and its refusal."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from locomass.bundle.open import open_bundle, validate_bundle
from locomass.bundle.write import sign_bundle
from locomass.errors import BundleError
from locomass.meta.inspect import inspect_bundles


def change_json(bundle, change):
    info = json.loads((bundle / "study.json").read_text())
    change(info)
    (bundle / "study.json").write_text(json.dumps(info))
    sign_bundle(bundle)


def change_column(bundle, pattern, name, change):
    for path in sorted(bundle.glob(pattern)):
        table = pq.read_table(path)
        at = table.column_names.index(name)
        values = pa.array(change(table.column(name).to_pylist()), table.schema.field(name).type)
        pq.write_table(table.set_column(at, name, values), path, compression="zstd")
    sign_bundle(bundle)


def refuse(bundle, match):
    with pytest.raises(BundleError, match=match) as error:
        validate_bundle(open_bundle(bundle))
    assert str(error.value).replace("\n", "").isprintable()
    (finding,) = inspect_bundles([bundle])
    assert (finding.severity, finding.name) == ("error", "")

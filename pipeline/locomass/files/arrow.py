"""Arrow columns as numpy arrays of Python texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def decode_strings(column: Any) -> NDArray[np.object_]:
    """Return an Arrow string column as an object array in which equal texts share one ``str``."""
    encoded = pc.dictionary_encode(column)
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    if isinstance(encoded, pa.ChunkedArray):
        encoded = pa.concat_arrays(encoded.unify_dictionaries().chunks) if encoded.num_chunks else pa.array([])
    if len(encoded) == 0:
        return np.empty(0, dtype=object)
    words = np.array([*encoded.dictionary.to_pylist(), None], dtype=object)[:-1]
    return np.asarray(words[encoded.indices.to_numpy(zero_copy_only=False)], dtype=object)

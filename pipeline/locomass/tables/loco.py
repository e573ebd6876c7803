"""LOCO predictions in REGENIE's step 1 format: ``.loco`` files and the ``pred.list`` that names them.

A ``.loco`` file has one line per chromosome, and on the line of chromosome c the prediction made without c:

    FID_IID 1_1 2_2 3_3
    1 0.11 -0.44 NA
    2 0.32 -0.11 NA
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from locomass.errors import FormatError
from locomass.files.atomic import atomic_path
from locomass.tables.delimited import decode_line, read_lines, read_raw_lines
from locomass.variants.chromosomes import normalise_chromosome

_HEADER = "FID_IID"


def read_loco(path: str | Path) -> xr.DataArray:
    """Read a ``.loco`` file.

    Args:
        path: plain or gzip text.

    Returns:
        (chromosome, sample) float64, NaN where ``NA``; chromosomes normalised, samples labelled ``FID_IID`` as in the
        file (labels may hold further underscores: match with ``people.match_labels``, never by splitting).

    Raises:
        FormatError: wrong header, a sample or chromosome twice, a row with another number of fields, a text where a
            number is expected; names line and column.
    """
    numbered = read_raw_lines(path)
    header = decode_line(next(numbered, (1, b""))[1], path, 1).split()
    if header[:1] != [_HEADER]:
        found = "".join(header[:1])[:40]
        raise FormatError(f"expected a header that starts with {_HEADER}, got '{found}'", path=path, line=1)
    samples = np.array(header[1:], dtype=str)
    _check_samples(samples, path)
    rows: list[NDArray[np.float64]] = []
    lines: dict[str, int] = {}
    for number, line in numbered:
        label, *rest = line.split(maxsplit=1)[:2] or [b""]
        if not label:
            continue
        chromosome = normalise_chromosome(decode_line(label, path, number))
        if lines.setdefault(chromosome, number) != number:
            message = f"chromosome {chromosome} is on lines {lines[chromosome]} and {number}"
            raise FormatError(message, path=path)
        rows.append(_parse_row(rest[0] if rest else b"", samples, path, number))
    if not rows:
        raise FormatError("has a header but no chromosome", path=path)
    coords = {"chromosome": np.array(list(lines), dtype=str), "sample": samples}
    return xr.DataArray(np.stack(rows), dims=("chromosome", "sample"), coords=coords, name="loco_prediction")


def _check_samples(samples: NDArray[np.str_], path: str | Path) -> None:
    if samples.size == 0:
        raise FormatError("names no samples", path=path, line=1)
    labels, count = np.unique(samples, return_counts=True)
    if (count > 1).any():
        label = labels[count > 1][0]
        where = np.flatnonzero(samples == label)[:2] + 2
        raise FormatError(f"sample '{label}' is in columns {where[0]} and {where[1]}", path=path, line=1)


def _parse_row(text: bytes, samples: NDArray[np.str_], path: str | Path, line: int) -> NDArray[np.float64]:
    """Parse the values of one chromosome; the slow search for the culprit runs only when the fast parse fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        try:
            # fromstring reads "nan", not "NA"; values are separated by any blanks
            values = np.fromstring((b" " + text).replace(b"\t", b" ").replace(b" NA", b" nan"), dtype=float, sep=" ")
        except (DeprecationWarning, ValueError):
            values = np.empty(0)
    if values.size == samples.size and not np.isinf(values).any():
        return values
    fields = text.decode("utf-8", "replace").split()
    if len(fields) != samples.size:
        message = f"expected {samples.size + 1} fields (chromosome and {samples.size} samples), found {len(fields) + 1}"
        raise FormatError(message, path=path, line=line)
    return np.array([_parse_value(f, samples[i], path, line, i + 2) for i, f in enumerate(fields)], dtype=float)


def _parse_value(field: str, sample: str, path: str | Path, line: int, column: int) -> float:
    try:
        value = np.nan if field == "NA" else float(field.replace("_", "?"))
    except ValueError:
        value = np.inf
    if np.isinf(value):
        raise FormatError(
            f"expected a number or NA for sample '{sample}', got '{field}'", path=path, line=line, column=column
        )
    return value


def write_loco(path: str | Path, prediction: xr.DataArray) -> None:
    """Write a ``.loco`` file (atomically; ten significant digits, relative error below 1e-9).

    Args:
        path: file to write.
        prediction: dims (chromosome, sample); sample labels ``FID_IID``; NaN is written as ``NA``.

    Raises:
        ValueError: a dimension without labels.
    """
    if not {"chromosome", "sample"} <= prediction.coords.keys():
        raise ValueError("a LOCO prediction needs the labels of its chromosomes and samples")
    prediction = prediction.transpose("chromosome", "sample")
    values = np.asarray(prediction.values, dtype=np.float64)
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as handle:
        handle.write(" ".join([_HEADER, *prediction["sample"].values.astype(str).tolist()]) + "\n")
        for chromosome, row in zip(prediction["chromosome"].values.astype(str).tolist(), values, strict=True):
            text = " ".join(map("%.10g".__mod__, row.tolist()))
            handle.write(f"{chromosome} {text}".replace(" nan", " NA") + "\n")


def read_prediction_list(path: str | Path) -> dict[str, Path]:
    """Read a ``pred.list``: ``Y1 /path/fit_1.loco``; relative paths start at the list's folder.

    Raises:
        FormatError: not two fields, a trait twice, a file that is not there; names the line.
    """
    path = Path(path)
    files: dict[str, Path] = {}
    for number, text in read_lines(path):
        fields = text.split(maxsplit=1)
        if len(fields) != 2:
            raise FormatError(f"expected a trait and a .loco file, got '{text.strip()}'", path=path, line=number)
        if fields[0] == "FID_IID":
            raise FormatError(
                "this is a .loco file, not a list of them; expected lines `trait file.loco` (in a configuration: "
                "loco: {trait: file.loco})",
                path=path,
                line=number,
            )
        trait, target = fields[0], path.parent / fields[1].strip()
        if trait in files:
            raise FormatError(f"trait '{trait}' is listed twice", path=path, line=number)
        if not os.path.isfile(target):  # False, too, for a name that is too long
            raise FormatError(f"no such file for trait '{trait}': {str(target)[:300]}", path=path, line=number)
        files[trait] = target
    if not files:
        raise FormatError("names no .loco file", path=path)
    return files


def write_prediction_list(path: str | Path, files: Mapping[str, str | Path]) -> None:
    """Write a ``pred.list`` with absolute paths, as REGENIE does."""
    with atomic_path(path) as temporary:
        lines = [f"{trait} {Path(target).resolve()}\n" for trait, target in files.items()]
        temporary.write_text("".join(lines), encoding="utf-8")

"""The process of one measurement: ``python -m benchmarks.child CASE FOLDER [SAVE]``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from benchmarks.cases import CASES
from benchmarks.measure import describe, measure


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2])
    usage, result = measure(CASES[name].prepare(folder))
    if len(sys.argv) > 3:
        np.savez(sys.argv[3], **result)
    print(describe(usage, result))


if __name__ == "__main__":
    main()

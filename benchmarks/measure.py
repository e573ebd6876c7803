"""One measurement is one process: wall, CPU, peak memory and bytes read of one call, after a warm-up that compiles."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_program_peak = 0.0  # kB, largest of the programs that this process ran
ROOT = Path(__file__).resolve().parents[1]
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

Array = NDArray[Any]
#: What a case returns: arrays by name, compared between the cases of a group before anything is timed.
Result = dict[str, Array]


@dataclass(frozen=True)
class Usage:
    """Cost of one call: seconds, megabytes."""

    wall: float
    cpu: float
    peak_mb: float
    read_mb: float


def measure(run: Callable[[], Result]) -> tuple[Usage, Result]:
    """Call once; CPU and reads include programs that were waited for, memory is theirs where `run_command` ran one."""
    before = _clock()
    result = run()
    after = _clock()
    wall, cpu, read = (b - a for a, b in zip(before, after, strict=True))
    peak = _program_peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Usage(wall, cpu, peak / 1024, read / 1e6), result


def run_command(command: Sequence[object]) -> None:
    """Run a program to its end and note its peak memory, which its parent's would hide in the operating system's count.

    Raises:
        RuntimeError: it failed; with the end of what it printed.
    """
    global _program_peak
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen([*map(str, command)], stdout=output, stderr=subprocess.STDOUT)
        while process.poll() is None:
            _program_peak = max(_program_peak, _peak_kb(process.pid))
            time.sleep(0.01)
        if process.returncode:
            output.seek(0)
            raise RuntimeError(f"{command[0]} failed: {output.read()[-2000:].decode(errors='replace')}")


def _peak_kb(pid: int) -> float:
    """Peak memory of a running process or, where it is a wrapper, of what it started; 0 when it is gone."""
    try:
        status = dict(x.split(":", 1) for x in Path(f"/proc/{pid}/status").read_text().splitlines())
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0.0
    own = float(status.get("VmHWM", "0").split()[0])
    return max([own, *(_peak_kb(int(child)) for child in children)])


def _clock() -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and bytes read so far."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    counters = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return time.perf_counter(), cpu, float(counters["rchar"])


def run_child(name: str, folder: Path, save: Path | None = None) -> tuple[Usage, dict[str, Any]]:
    """Measure one case in a process of its own; return its cost and the numbers it wants printed."""
    command = [sys.executable, "-m", "benchmarks.child", name, str(folder), *([str(save)] if save else [])]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, env={**os.environ, **ONE_THREAD, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"case {name} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    answer = json.loads(done.stdout.splitlines()[-1])
    return Usage(**answer["usage"]), answer["numbers"]


def describe(usage: Usage, result: Result) -> str:
    """Return the line that a child hands to its parent: scalars go along as they are."""
    numbers = {name: float(value) for name, value in result.items() if np.ndim(value) == 0}
    return json.dumps({"usage": asdict(usage), "numbers": numbers})


def median(usages: list[Usage]) -> Usage:
    """Return the median of each quantity."""
    return Usage(*(statistics.median(getattr(u, f.name) for u in usages) for f in fields(Usage)))

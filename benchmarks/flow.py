"""What a golden run and meta-analysis open, hash and write, file by file, and the report's share of the time.

``python -m benchmarks.flow [--tree DIR --package NAME]`` runs the golden cohorts and their consortium under strace
(opens are the kernel's own: Python, Arrow and C libraries alike), counts `hashlib.file_digest`, and prints a table.
``--tree`` and ``--package`` take another checkout: commit b29274b has ``--package pipeline``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import ROOT

GOLDEN = "tests/golden/data"
OPENED = re.compile(r'open(?:at)?\((?:AT_FDCWD, )?"([^"]+)", ([A-Z_|]+)')
TEMPORARY = re.compile(r"^\.(.+)\.[A-Za-z0-9_]{8}\.partial$")
KINDS = {
    "genotypes": r"\.(bed|bim|fam|pgen|pvar|psam)$",
    "other inputs": r"^(?!.*(results|/\.)).*\.(tsv|txt|loco)$",
    "configuration": r"\.yaml$",
    "bundles": r"/bundle/",
    "parts": r"/parts/",
    "plan.json": r"/plan\.json$",
    "result tables": r"/results/[^/]+/[^/]+\.(parquet|tsv|tsv\.gz|json)$",
    "predictions, null models": r"/(predict|denoise)/",
}
#: Run before the program: counts hashes, times the report, and says so when the process ends.
HOOK = '''
import atexit, collections, hashlib, json, os, sys, time
hashed, spent = collections.Counter(), [0.0]
plain = hashlib.file_digest
def counted(handle, *rest, **options):
    hashed[os.path.abspath(handle.name)] += 1
    return plain(handle, *rest, **options)
hashlib.file_digest = counted
def report(package):
    """Time the report, its imports included."""
    begin = time.perf_counter()
    page = __import__(package + ".report.page", fromlist=["write_report"])
    spent[0] += time.perf_counter() - begin
    write = page.write_report
    def timed(*args, **options):
        begin = time.perf_counter()
        try:
            return write(*args, **options)
        finally:
            spent[0] += time.perf_counter() - begin
    page.write_report = timed
package, out = sys.argv[1], sys.argv[2]
del sys.argv[1:3]
sys.argv[0] = "locomass"
report(package)
def write():
    with open(out, "w") as handle:
        json.dump({"hashed": hashed, "report": spent[0]}, handle)
atexit.register(write)
begin = time.perf_counter()
__import__(package + ".cli", fromlist=["main"]).main()
'''


@dataclass(frozen=True)
class Flow:
    """What one command did: opens for reading, writes and hashes by file; seconds in all, and in the report."""

    read: Counter[str]
    written: Counter[str]
    hashed: Counter[str]
    seconds: float
    report: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flow", description="Count opens and hashes of a run.")
    parser.add_argument("--tree", type=Path, default=ROOT, help="checkout to run (default: this one)")
    parser.add_argument("--package", default="locomass", help="its import package")
    parser.add_argument("--json", type=Path, help="write the counts here, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch).resolve() / "golden"
        shutil.copytree(options.tree / GOLDEN, folder)
        commands = [["run", f"cohort_{x}.yaml", "--out", f"results/cohort_{x}"] for x in "ab"]
        commands.append(["meta", "consortium.yaml", "--out", "results/consortium"])
        flows = {" ".join(c[:2]): run(options.tree, options.package, folder, c, traced=True) for c in commands}
        shutil.rmtree(folder / "results" / "consortium")
        timed = run(options.tree, options.package, folder, commands[-1], traced=False)  # kernels are compiled by now
    for name, flow in flows.items():
        describe(name, flow)
    print(
        f"meta: {timed.seconds:.1f} s, of these {timed.report:.1f} s in the report ({timed.report / timed.seconds:.0%})"
    )
    if options.json:
        counts = {name: [sum(f.read.values()), sum(f.hashed.values())] for name, f in flows.items()}
        options.json.write_text(json.dumps(counts) + "\n")


def run(tree: Path, package: str, folder: Path, command: list[str], *, traced: bool) -> Flow:
    """Run one command in the folder of the golden cohorts; opens are counted where it is traced."""
    trace, counts = folder.parent / "trace", folder.parent / "counts.json"
    roots = ("pipeline", "predictors") if package == "locomass" else (".",)
    path = os.pathsep.join(str(tree / name) for name in roots)
    watch = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=open,openat", "-e", "status=successful", "-o", trace]
    call = [sys.executable, "-c", HOOK, package, counts, *command, "--quiet"]
    begin = time.perf_counter()
    subprocess.run(
        [str(x) for x in ((*watch, *call) if traced else call)],
        cwd=folder, env={**os.environ, "PYTHONPATH": path}, check=True,
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    found = json.loads(counts.read_text())
    read, written = read_trace(trace, folder) if traced else (Counter[str](), Counter[str]())
    return Flow(read, written, Counter(found["hashed"]), seconds, found["report"])


def read_trace(trace: Path, folder: Path) -> tuple[Counter[str], Counter[str]]:
    """Return how often each file below a folder was opened for reading, and for writing (by its final name)."""
    read, written = Counter[str](), Counter[str]()
    for line in trace.read_text(errors="replace").splitlines():
        match = OPENED.search(line)
        if match is None or "O_DIRECTORY" in match[2]:
            continue
        path = Path(folder, match[1])
        if not path.is_relative_to(folder) or path.suffix == ".log":
            continue
        temporary = TEMPORARY.match(path.name)
        if "O_CREAT" in match[2] and "O_EXCL" in match[2] and temporary:
            written[str(path.with_name(temporary[1]))] += 1
        elif not temporary and "O_WRONLY" not in match[2] and "O_RDWR" not in match[2]:
            read[str(path)] += 1
    return read, written


def describe(name: str, flow: Flow) -> None:
    """Print one command's opens and hashes by kind of file, and the files opened most."""
    print(f"\n{name}: {sum(flow.read.values())} opens, {sum(flow.hashed.values())} hashes; plan.json written "
          f"{sum(n for path, n in flow.written.items() if path.endswith('/plan.json'))} times")  # fmt: skip
    print("| files | opened | hashed | opens of the one opened most |\n|---|--:|--:|---|")
    for kind, pattern in KINDS.items():
        own = {path: n for path, n in flow.read.items() if re.search(pattern, path)}
        hashed = sum(n for path, n in flow.hashed.items() if re.search(pattern, path))
        top = max(own, key=own.__getitem__, default="")
        print(f"| {kind} | {sum(own.values())} | {hashed} | {own.get(top, 0)} {'/'.join(Path(top).parts[-2:])} |")


if __name__ == "__main__":
    main()

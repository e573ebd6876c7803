"""Watch a folder for new summary statistics, run, and keep every result set by date.

    OUT/work          the directory of the runs: what did not change is not computed again
    OUT/inputs        the summary statistics in use, by trait
    OUT/2026-11-21    a result set (a second one of a day is 2026-11-21-2), with changes.md and changes.json
    OUT/latest        link to the newest result set
    OUT/watch.json    which files are in use

A file is taken when it is complete: its name says that it is no temporary file, its size and time stood still between
two looks, and, compressed, it can be read to its end.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import shutil
import time
import zlib
from collections.abc import Mapping
from pathlib import Path

import msgspec
import yaml

from pipeline.config import RunConfig, load_config
from pipeline.errors import ConfigError, FormatError, InputError, LocomassError
from pipeline.io.atomic import atomic_path
from pipeline.provenance import digest_file, write_json
from pipeline.report.changes import compare_results, write_changes
from pipeline.run import Resources, run_study

log = logging.getLogger("locomass")

UNFINISHED = (".part", ".partial", ".tmp", ".temp", ".crdownload", ".filepart", "~")
STATE, LATEST, WORK, INPUTS = "watch.json", "latest", "work", "inputs"
ALL_TRAITS = "all traits"  # the owner of one file for all
SETTLE_SECONDS = 2.0  # between two looks, at least
MAX_PAUSE = 64  # intervals to wait after a run that failed, at most
KEPT = (
    "gene_tests.parquet", "gene_tests.tsv.gz", "single_variants.parquet", "mask_audit.tsv", "drivers.parquet",
    "pathway_tests.parquet", "null_models.tsv", "report.html", "provenance.json", "bundle", "figures",
)  # fmt: skip

#: size and time of a file at one look
Stamp = tuple[int, int]


#: trait -> file and digest of the summary statistics in use
Taken = dict[str, dict[str, str]]


def watch(
    config_path: Path, folder: Path, out: Path, resources: Resources, once: bool = False, interval: float = 60.0
) -> Path | None:
    """Run a study whenever new summary statistics are dropped in a folder.

    A file belongs to the trait whose configured file has its name, or whose name it starts with (``bmi.2026.tsv.gz``
    for trait bmi). The first look also runs when there is no result set.

    Args:
        config_path: configuration of `locomass run`, with predictor.summary_statistics.
        folder: where files are dropped; they are copied, not moved.
        out: where result sets are kept.
        resources: workers, threads, progress.
        once: look once (cron, systemd timers) instead of for ever.
        interval: seconds between looks.

    Returns:
        The newest result set of the last look, None when nothing was new; only with ``once``.

    Raises:
        ConfigError: the configuration has no summary statistics.
        InputError: no such folder.
        LocomassError: with ``once``, whatever stopped the run; otherwise it is logged and watching goes on.
    """
    traits = _read_traits(config_path)
    if not folder.is_dir():
        raise InputError(f"no such folder to watch: {folder}")
    before, failures = look(folder), 0
    handled: dict[str, Stamp] = {}
    while True:
        time.sleep(SETTLE_SECONDS if once else max(interval, SETTLE_SECONDS))
        now = look(folder)
        settled = {name: stamp for name, stamp in now.items() if stamp == before.get(name) != handled.get(name)}
        before = now
        try:
            files = [folder / name for name in sorted(settled, key=lambda name: settled[name][1])]
            result = take(config_path, files, traits, out, resources)
        except LocomassError as error:
            if once:
                raise
            failures += 1
            log.error("%s", error)
            time.sleep(interval * min(2**failures, MAX_PAUSE))
            continue
        handled |= settled
        failures = 0
        if once:
            return result


def look(folder: Path) -> dict[str, Stamp]:
    """Return size and time of the files of a folder that could be complete."""
    found: dict[str, Stamp] = {}
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        unfinished = entry.name.startswith(".") or entry.name.lower().endswith(UNFINISHED)
        if entry.is_file() and not unfinished and entry.stat().st_size:
            found[entry.name] = (entry.stat().st_size, entry.stat().st_mtime_ns)
    return found


def is_whole(path: Path) -> bool:
    """Return whether a compressed file can be read to its end (always true of another)."""
    if path.suffix not in (".gz", ".bgz"):
        return True
    try:
        with gzip.open(path) as handle:
            while handle.read(1 << 20):
                pass
    except (OSError, EOFError, zlib.error):
        return False
    return True


def take(
    config_path: Path, files: list[Path], traits: Mapping[str, str], out: Path, resources: Resources
) -> Path | None:
    """Take the files that are new and whole, run, and keep the results.

    Args:
        config_path: the configuration.
        files: files of the watched folder that stood still, the newest last.
        traits: trait -> configured file of summary statistics.
        out: where result sets are kept.
        resources: workers, threads, progress.

    Returns:
        The new result set; None when nothing was new.

    Raises:
        LocomassError: the run was stopped; the files are tried again at the next look.
    """
    before = _read_state(out)
    news = _find_news(files, traits, before)
    if not news and (out / LATEST).exists():
        return None
    taken = dict(before)
    for trait, (path, digest) in news.items():
        log.info("new summary statistics of %s: %s", trait, path.name)
        taken[trait] = {"file": _copy(path, out / INPUTS / trait, digest), "digest": digest}
    result = _run(config_path, taken, out, resources, {t: p.name for t, (p, _) in news.items()})
    write_json(out / STATE, taken)
    return result


def _read_traits(config_path: Path) -> dict[str, str]:
    """Return the configured file of summary statistics of every trait, or of all."""
    files = load_config(config_path, RunConfig).predictor.summary_statistics
    if not files:
        raise ConfigError(f"{config_path}: key predictor.summary_statistics: there is nothing to watch for")
    return {ALL_TRAITS: files} if isinstance(files, str) else dict(files)


def _find_news(files: list[Path], traits: Mapping[str, str], taken: Taken) -> dict[str, tuple[Path, str]]:
    """Return, for each trait, the newest whole file (with its digest) unless it is in use."""
    news: dict[str, tuple[Path, str]] = {}
    for path in files:
        owners = [t for t, configured in traits.items() if _belongs(path.name, t, configured)]
        if not path.exists():
            continue  # taken away since the look
        if not owners:
            log.warning("%s belongs to no trait: name it like the configured file, or TRAIT.anything", path.name)
        elif not is_whole(path):
            log.warning("%s is not whole: it cannot be read to its end", path.name)
        else:
            news |= dict.fromkeys(owners, (path, digest_file(path)))
    return {t: found for t, found in news.items() if taken.get(t, {}).get("digest") != found[1]}


def _belongs(name: str, trait: str, configured: str) -> bool:
    """Return whether a dropped file is of a trait."""
    return name == Path(configured).name or name.startswith(f"{trait}.")


def _copy(path: Path, folder: Path, digest: str) -> str:
    """Copy a file, so that the run does not see what is dropped meanwhile; return the path of the copy."""
    target = folder / path.name
    with atomic_path(target) as temporary:
        shutil.copyfile(path, temporary)
        if digest_file(temporary) != digest:
            raise InputError(f"{path} was changed while it was copied; it is looked at again the next time")
    return str(target.absolute())


def _run(
    config_path: Path, taken: Mapping[str, Mapping[str, str]], out: Path, resources: Resources, news: dict[str, str]
) -> Path:
    """Run with the files in use, keep the results by date, compare them with those before, and move the link."""
    config = load_config(config_path, RunConfig)
    files = {**_read_traits(config_path), **{trait: entry["file"] for trait, entry in taken.items()}}
    predictor = msgspec.structs.replace(config.predictor, summary_statistics=files.get(ALL_TRAITS, files))
    used = msgspec.structs.replace(config, predictor=predictor)
    derived = out / "config.yaml"
    with atomic_path(derived) as temporary:
        temporary.write_text(yaml.safe_dump(msgspec.to_builtins(used), sort_keys=False), encoding="utf-8")
    outcome = run_study(derived, out / WORK, resources, folder=config_path.resolve().parent)
    if outcome.failed:
        log.warning("%d genes failed; the note of their rows says why", outcome.failed)
    result = _keep(outcome.path, out)
    shutil.copyfile(derived, result / "config.yaml")
    latest = out / LATEST
    if latest.exists():
        write_changes(result, compare_results(latest.resolve(), result), news)
    link = out / f".{LATEST}.new"
    link.unlink(missing_ok=True)
    link.symlink_to(result.name)
    link.replace(latest)
    log.info("results: %s", result)
    return result


def _keep(work: Path, out: Path) -> Path:
    """Give the results a folder named by the day."""
    day = time.strftime("%Y-%m-%d")
    number = 1
    while (result := out / (day if number == 1 else f"{day}-{number}")).exists():
        number += 1
    result.mkdir()
    for name in KEPT:
        source = work / name
        for path in [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file()):
            target = result / path.relative_to(work)
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(path, target)
    return result


def _link(path: Path, target: Path) -> None:
    """Link a table, which the next run replaces rather than writes into; copy other files, and where links fail."""
    if path.suffix in (".parquet", ".gz"):
        try:
            os.link(path, target)
        except OSError:
            pass
        else:
            return
    shutil.copyfile(path, target)


def _read_state(out: Path) -> Taken:
    """Return the files in use; none at first."""
    try:
        return dict(json.loads((out / STATE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError):
        raise FormatError("is not what `locomass watch` wrote; remove it", path=out / STATE) from None

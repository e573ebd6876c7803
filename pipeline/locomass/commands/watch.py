"""Watch a folder for new summary statistics, run, and keep every result set by date.

    OUT/work          the directory of the runs: what did not change is not computed again
    OUT/inputs        the summary statistics in use with their metadata, by trait and content
    OUT/2026-11-21    a result set (a second one of a day is 2026-11-21-2), with changes.md and changes.json
    OUT/latest        link to the newest result set
    OUT/watch.json    which files are in use, and which were seen

Which file belongs to which trait, and when it is complete, is said in `dropped`. A file is new when its content, or
that of its metadata, is not what was seen under its name; its time does not matter. A file that no predictor can be
made of leaves its trait with the statistics in use, and the other traits go on.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import yaml

from locomass.commands.dropped import Stamp, count_lines, find_fault, find_owners, has_checksum, look
from locomass.commands.outcome import Outcome, Resources
from locomass.commands.run import run_study
from locomass.config import RunConfig, load_config
from locomass.errors import ConfigError, FormatError, InputError, LockError, LocomassError
from locomass.files.atomic import atomic_directory, atomic_path
from locomass.report.changes import compare_results, write_changes
from locomass.run.provenance import digest_file, digest_value, write_json
from locomass.tables.samples import read_column_names
from locomass.tables.summary_statistics import find_metadata

log = logging.getLogger("locomass")

STATE, LATEST, WORK, INPUTS = "watch.json", "latest", "work", "inputs"
LAST_LOOK = "last-look"  # touched whenever a look ended well: what the recipe for cron watches
ALL_TRAITS = "all traits"  # the owner of one file for all
SETTLE_SECONDS = 2.0  # between two looks, at least
STALLED_SECONDS = 600.0  # an upload that is incomplete and has not grown for so long has failed
FEWER_LINES = 0.95  # of the lines of the statistics in use: a file with fewer may have been cut
MAX_PAUSE = 64  # intervals to wait after a run that failed, at most
KEPT = (
    "gene_tests.parquet",
    "gene_tests.tsv.gz",
    "single_variants.parquet",
    "mask_audit.tsv",
    "drivers.parquet",
    "pathway_tests.parquet",
    "null_models.tsv",
    "report.html",
    "provenance.json",
    "bundle",
    "figures",
)

#: trait -> its statistics in use (file, digest, lines), and the digests of all files seen by name (seen)
State = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Look:
    """What a look at the folder led to.

    Attributes:
        outcome: the run that was made, its path being that of the new result set; None when nothing was new.
        failures: files that cannot be used, by name, with the reason; their traits keep what they had.
        waiting: files that are incomplete and may yet grow, by name, with the reason.
    """

    outcome: Outcome | None = None
    failures: Mapping[str, str] = field(default_factory=dict)
    waiting: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Watched:
    """What is watched for.

    Attributes:
        config: path of the configuration.
        traits: trait -> configured file of summary statistics; `ALL_TRAITS` where one file serves all.
        others: names of further traits, whose files belong to none of these.
        out: where result sets are kept.
    """

    config: Path
    traits: Mapping[str, str]
    others: Collection[str]
    out: Path

    @classmethod
    def open(cls, config_path: Path, out: Path) -> Watched:
        """Read what is watched for from a configuration.

        Raises:
            ConfigError: it has no summary statistics.
        """
        config = load_config(config_path, RunConfig)
        files = config.predictor.summary_statistics
        if not files:
            raise ConfigError(f"{config_path}: key predictor.summary_statistics: there is nothing to watch for")
        traits = {ALL_TRAITS: files} if isinstance(files, str) else dict(files)
        columns = read_column_names(config_path.resolve().parent / config.phenotypes.file)
        return cls(config_path, traits, {*columns} - {*traits}, out)

    def resolve(self, file: str) -> Path:
        """Return the path of a file that the configuration names."""
        return self.config.resolve().parent / file


def watch(
    config_path: Path, folder: Path, out: Path, resources: Resources, once: bool = False, interval: float = 60.0
) -> Look:
    """Run a study whenever new summary statistics are dropped in a folder; the first look also runs without any.

    Args:
        config_path: configuration of `locomass run`, with predictor.summary_statistics.
        folder: where files are dropped; they are copied, not moved.
        out: where result sets are kept.
        resources: workers, threads, progress.
        once: look once (cron, systemd timers) instead of for ever.
        interval: seconds between looks.

    Returns:
        What the look led to; only with ``once``.

    Raises:
        ConfigError: the configuration has no summary statistics.
        InputError: no such folder.
        LocomassError: with ``once``, what stopped a run whatever files it had; otherwise it is logged and watching goes
            on.
    """
    watched = Watched.open(config_path, out)
    if not folder.is_dir():
        raise InputError(f"no such folder to watch: {folder}")
    before, stops = look(folder), 0
    handled: dict[str, Stamp] = {}
    told: dict[str, Stamp] = {}
    while True:
        time.sleep(SETTLE_SECONDS if once else max(interval, SETTLE_SECONDS))
        now = look(folder)
        settled = {name: stamp for name, stamp in now.items() if stamp == before.get(name) != handled.get(name)}
        before = now
        try:
            found = take(watched, [folder / name for name in settled], resources)
        except LocomassError as error:
            if once:
                raise
            stops += 1
            log.error("%s", error)
            time.sleep(interval * min(2**stops, MAX_PAUSE))
            continue
        stops = 0
        for name, reason in found.failures.items():
            log.error("%s is not used: %s", name, reason)
        for name in found.waiting.keys() - {n for n in told if told[n] == settled[n]}:
            log.warning("%s is not used yet: %s", name, found.waiting[name])
        told = {name: settled[name] for name in found.waiting}
        handled |= {name: stamp for name, stamp in settled.items() if name not in found.waiting}
        if not found.failures:
            (out / LAST_LOOK).touch()
        if once:
            return found


@dataclass(frozen=True)
class _New:
    """New statistics of a trait: file, digest of it and its metadata, lines; digests of all that was seen, by name."""

    path: Path
    digest: str
    lines: int
    seen: Mapping[str, str]


def take(watched: Watched, files: Sequence[Path], resources: Resources) -> Look:
    """Take the files that are new and complete, run, and keep the results.

    Args:
        watched: what is watched for.
        files: files of the watched folder that did not change between two looks.
        resources: workers, threads, progress.

    Raises:
        LocomassError: the run was stopped whatever files it had; they are tried again at the next look.
    """
    state = _read_state(watched.out)
    news, failures, waiting = _find_news(files, watched, state)
    first = not (watched.out / LATEST).exists()
    if not news and not first:
        return Look(None, failures, waiting)
    taken = {trait: _copy(new, watched.out / INPUTS / trait) for trait, new in news.items()}
    for trait, new in news.items():
        log.info("new summary statistics of %s: %s", trait, new.path.name)
    try:
        ran = _run(watched, state | taken, resources)
    except LockError:
        raise
    except LocomassError:
        if not news:
            raise
        bad = _sift(watched, state, taken, resources)
        failures |= {news[trait].path.name: reason for trait, reason in bad.items()}
        taken = {trait: entry for trait, entry in taken.items() if trait not in bad}
        if not taken and not first:
            return Look(None, failures, waiting)
        ran = _run(watched, state | taken, resources)
    result = _publish(watched, ran, {trait: news[trait].path.name for trait in taken})
    _write_state(watched.out, state | taken)
    return Look(result, failures, waiting)


def _sift(watched: Watched, state: State, taken: State, resources: Resources) -> dict[str, str]:
    """Return the traits whose new statistics stop a run, one by one, with the reason of each.

    Raises:
        LocomassError: what stops a run without any of them.
    """
    bad: dict[str, str] = {}
    good: State = {}
    for trait, entry in taken.items():
        try:
            _run(watched, state | good | {trait: entry}, resources, "denoise")
        except LockError:
            raise
        except LocomassError as error:
            bad[trait] = str(error)
        else:
            good[trait] = entry
    if not good:
        _run(watched, state, resources, "denoise")
    return bad


def _find_news(
    files: Sequence[Path], watched: Watched, state: State
) -> tuple[dict[str, _New], dict[str, str], dict[str, str]]:
    """Return the new file of every trait that has one, and why files cannot be used, by name: for good, and as yet.

    Of several new files of a trait the one of the newest time counts; if that cannot be used, none does.
    """
    by_trait: dict[str, list[Path]] = {}
    for path in files:
        owners = find_owners(path.name, watched.traits, watched.others)
        if not owners:
            log.warning(
                "%s matches no trait; rename it to TRAIT.tsv, TRAIT.VERSION.tsv.gz or the name of the configured file",
                path.name,
            )
        for trait in owners:
            by_trait.setdefault(trait, []).append(path)
    news: dict[str, _New] = {}
    failures: dict[str, str] = {}
    waiting: dict[str, str] = {}
    for trait, mine in by_trait.items():
        used = state.get(trait, {})
        digests = {path: _digest(path) for path in mine if path.exists()}  # some were taken away since the look
        fresh = [path for path, digest in digests.items() if used.get("seen", {}).get(path.name) != digest]
        fresh = [path for path in fresh if digests[path] != used.get("digest")]
        if not fresh:
            continue
        newest = max(fresh, key=lambda path: path.stat().st_mtime_ns)
        lines = count_lines(newest) if not (fault := find_fault(newest)) else 0
        fault = fault or _compare_lines(newest, lines, watched, trait, used)
        if fault:
            stalled = time.time() - newest.stat().st_ctime > STALLED_SECONDS
            (failures if stalled else waiting)[newest.name] = fault
            continue
        seen = {path.name: digest for path, digest in digests.items()}
        news[trait] = _New(newest, digests[newest], lines, {**used.get("seen", {}), **seen})
    return news, failures, waiting


def _digest(path: Path) -> str:
    """Return the digest of a file, and of its metadata where it has any."""
    metadata = find_metadata(path)
    return digest_value([digest_file(path), digest_file(metadata)]) if metadata else digest_file(path)


def _compare_lines(path: Path, lines: int, watched: Watched, trait: str, used: Mapping[str, Any]) -> str:
    """Return a fault where a file without a checksum has far fewer lines than the statistics in use; else nothing."""
    if has_checksum(path):
        return ""
    configured = watched.resolve(watched.traits[trait])
    before = used.get("lines") or (count_lines(configured) if configured.is_file() else 0)
    if lines >= FEWER_LINES * before:
        return ""
    name = Path(used.get("file", configured)).name
    return (
        f"it has {lines:,} lines, and the statistics in use ({name}) have {before:,}: the upload may have been cut; if "
        f"it is complete, put its checksum beside it ({path.name}.md5 or .sha256)"
    )


def _copy(new: _New, folder: Path) -> dict[str, Any]:
    """Copy a file with its metadata, so that the run does not see what is dropped meanwhile; return its state."""
    target = folder / new.digest[:12]
    with atomic_directory(target) as temporary:
        copy = temporary / new.path.name
        shutil.copyfile(new.path, copy)
        metadata = find_metadata(new.path)
        if metadata:
            shutil.copyfile(metadata, temporary / metadata.name)
        if _digest(copy) != new.digest:
            raise InputError(f"{new.path} was changed while it was copied; it is looked at again the next time")
    file = str((target / new.path.name).absolute())
    return {"file": file, "digest": new.digest, "lines": new.lines, "seen": dict(new.seen)}


def _run(watched: Watched, state: State, resources: Resources, upto: str = "report") -> Outcome:
    """Run with the files in use, up to a stage."""
    config = load_config(watched.config, RunConfig)
    files = {**watched.traits, **{trait: entry["file"] for trait, entry in state.items()}}
    predictor = msgspec.structs.replace(config.predictor, summary_statistics=files.get(ALL_TRAITS, files))
    used = msgspec.structs.replace(config, predictor=predictor)
    derived = watched.out / "config.yaml"
    with atomic_path(derived) as temporary:
        temporary.write_text(yaml.safe_dump(msgspec.to_builtins(used), sort_keys=False), encoding="utf-8")
    return run_study(derived, watched.out / WORK, resources, upto, folder=watched.config.resolve().parent)


def _publish(watched: Watched, ran: Outcome, news: dict[str, str]) -> Outcome:
    """Keep the results by date, compare them with those before, and move the link."""
    out = watched.out
    if ran.failed:
        log.error("%d genes failed; the note of their rows says why", ran.failed)
    for trait, reason in ran.unfit.items():
        log.error("trait '%s' cannot be fitted and is left out: %s", trait, reason)
    result = _keep(ran.path, out)
    shutil.copyfile(out / "config.yaml", result / "config.yaml")
    latest = out / LATEST
    if latest.exists():
        write_changes(result, compare_results(latest.resolve(), result), news)
    link = out / f".{LATEST}.new"
    link.unlink(missing_ok=True)
    link.symlink_to(result.name)
    link.replace(latest)
    log.info("results: %s", result)
    return Outcome(result, ran.failed, ran.unfit)


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


def _read_state(out: Path) -> State:
    """Return the files in use and seen; none at first."""
    try:
        return dict(json.loads((out / STATE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError):
        raise FormatError("is not what `locomass watch` wrote; remove it", path=out / STATE) from None


def _write_state(out: Path, state: State) -> None:
    """Write the files in use and seen, and remove the copies of others."""
    write_json(out / STATE, state)
    used = {Path(entry["file"]).parent for entry in state.values()}
    for folder in (out / INPUTS).absolute().glob("*/*"):
        if folder.is_dir() and folder not in used:
            shutil.rmtree(folder)

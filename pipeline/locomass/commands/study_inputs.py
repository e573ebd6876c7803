"""What the inputs of a study hold, in words and numbers: for the log, and for `locomass check`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from locomass.commands.study import StudyRun

log = logging.getLogger("locomass")


def log_inputs(run: StudyRun) -> None:
    """Log samples, traits and variants, and what was dropped."""
    for line in describe_inputs(read_inputs(run)):
        log.info(line)


def read_inputs(run: StudyRun) -> dict[str, Any]:
    """Return what a study's inputs hold: samples kept and dropped, traits, variants matched, genes."""
    c, found, sets = run.cohort, run.found, run.catalogue.sets
    traits = []
    for trait, y in zip(c.traits, c.y.T, strict=True):
        cases = int(np.nansum(y)) if trait.kind != "quantitative" else None
        known = np.isfinite(y)
        told = {"name": trait.name, "kind": trait.kind, "samples": int(known.sum()), "cases": cases}
        if trait.name in c.follow_up:
            told["person_time"] = c.follow_up[trait.name].take(known).person_time
        traits.append(told)
    keys = run.catalogue.sets.variants
    cost = c.fileset.cost(found.row)
    return {
        "genotypes": {
            "format": c.fileset.kind,
            "name": c.fileset.name,
            "files": len(c.fileset.parts),
            "bytes": sum(path.stat().st_size for path in c.fileset.paths if path.is_file()),
            "bytes_to_read": int(cost.read.sum()),
            "expected_carriers": int(cost.carriers.sum()),
            "sample_file": c.fileset.sample_path.suffix,
        },
        "samples": {"in_fam": c.fileset.n_samples, "analysed": len(c.rows), "dropped": dict(c.drops)},
        "traits": traits,
        "unfit_traits": {u.trait.name: u.reason for u in c.unfit},
        "covariates": ["intercept", *c.covariates],
        "variants": {
            "listed": None if keys is None else len(set(keys.tolist())),
            "found": len(found.row),
            "in_fileset": c.fileset.n_variants,
        },
        "genes": len(sets),
        "genes_without_variant": int((np.diff(found.offsets) == 0).sum()),
        "masks": list(run.catalogue.masks),
    }


def describe_inputs(inputs: Mapping[str, Any]) -> list[str]:
    """Return `read_inputs` as lines for people."""
    samples, variants, genotypes = inputs["samples"], inputs["variants"], inputs["genotypes"]
    files = "" if genotypes["files"] == 1 else f", {genotypes['files']} files"
    lines = [
        f"genotypes: {genotypes['format']}{files} of {genotypes['bytes'] / 1e6:,.1f} MB; "
        f"{genotypes['bytes_to_read'] / 1e6:,.1f} MB are read, about {genotypes['expected_carriers']:,} carriers",
        f"samples: {samples['analysed']:,} of {samples['in_fam']:,} in the {genotypes['sample_file']} are analysed",
    ]
    lines += [f"  dropped, {reason}: {count:,}" for reason, count in samples["dropped"].items()]
    for trait in inputs["traits"][:20]:
        cases = "" if trait["cases"] is None else f", {trait['cases']:,} cases"
        if "person_time" in trait:
            cases = f", {trait['cases']:,} events in {trait['person_time']:,.6g} of person-time"
        lines.append(f"trait {trait['name']} ({trait['kind']}): {trait['samples']:,} samples{cases}")
    if len(inputs["traits"]) > 20:
        lines.append(f"  and {len(inputs['traits']) - 20} further traits")
    lines.append(f"covariates: {', '.join(inputs['covariates'])}")
    of = f" of {variants['listed']:,} listed" if variants["listed"] else ""
    lines.append(f"variants: {variants['found']:,}{of} are in the fileset of {variants['in_fileset']:,}")
    lines.append(f"genes: {inputs['genes']:,}; masks: {', '.join(inputs['masks'])}")
    if inputs["genes_without_variant"]:
        lines.append(f"  {inputs['genes_without_variant']:,} genes have no variant in the fileset")
    return lines

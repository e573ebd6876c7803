"""What the chains of LDpred2-auto did: a table and a figure per trait."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from locomass.files.atomic import atomic_path
from locomass.predict.scoring import FittedWeights

DRAWN = 80  # sweeps of a chain in the report


def write_chains(fitted: FittedWeights, folder: Path) -> FittedWeights:
    """Write ``chains-TRAIT.parquet`` and ``chains-TRAIT.png`` and take the paths of the chains out of the record.

    The table has one row per chain and sweep: chain, sweep, p_init, jumps, kept, range, h2, p.

    Args:
        fitted: fitted weights, any method.
        folder: where to write.

    Returns:
        The weights with the record of each trait naming the table instead.
    """
    record = {}
    for trait, entry in fitted.record.items():
        entry = dict(entry)
        chains: list[dict[str, Any]] = entry.pop("chains", [])
        if chains:
            path = folder / f"chains-{trait}.parquet"
            table = tabulate_chains(chains)
            with atomic_path(path) as temporary:
                table.to_parquet(temporary, index=False)
            _plot_chains(chains, int(entry["burn_in"]), path.with_suffix(".png"), trait)
            entry |= {"chains": path.name, "paths": [thin_chain(chain) for chain in chains]}
        record[trait] = entry
    return dataclasses.replace(fitted, record=record)


def thin_chain(chain: dict[str, Any]) -> dict[str, Any]:
    """Return a chain as the report draws it: whether it was kept, and its h2 and p at `DRAWN` sweeps, evenly spaced."""
    paths = {"h2": np.asarray(chain["h2_path"], np.float64), "p": np.asarray(chain["p_path"], np.float64)}
    at = np.unique(np.linspace(0, len(paths["h2"]) - 1, DRAWN).round().astype(np.int64))
    drawn = {name: [float(f"{v:.4g}") for v in path[at].tolist()] for name, path in paths.items()}
    return {"kept": bool(chain["kept"]), **drawn}


def tabulate_chains(chains: list[dict[str, Any]]) -> pd.DataFrame:
    """Return one row per chain and sweep."""
    parts = []
    for k, chain in enumerate(chains):
        h2, p = np.asarray(chain["h2_path"], np.float64), np.asarray(chain["p_path"], np.float64)
        columns = {"chain": k, "sweep": np.arange(len(h2)), "p_init": float(chain["p_init"])}
        columns |= {
            "jumps": bool(chain["jumps"]),
            "kept": bool(chain["kept"]),
            "range": float(chain["range"]),
            "h2": h2,
            "p": p,
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def _plot_chains(chains: list[dict[str, Any]], burn_in: int, path: Path, trait: str) -> None:
    """Draw h2 and p of every chain; those kept in colour."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    matplotlib.rcParams["text.usetex"] = False  # a matplotlibrc in the working directory may ask for it
    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 1, sharex=True)
    for chain in sorted(chains, key=lambda c: bool(c["kept"])):
        colour, alpha = ("tab:blue", 0.5) if chain["kept"] else ("tab:gray", 0.3)
        for axis, name in zip(axes, ("h2_path", "p_path"), strict=True):
            axis.plot(np.asarray(chain[name]), color=colour, alpha=alpha, linewidth=0.7)
    kept = sum(bool(c["kept"]) for c in chains)
    axes[0].set(ylabel="h2", title=f"{trait}: {kept} of {len(chains)} chains kept (blue)")
    axes[1].set(ylabel="p", xlabel="sweep", yscale="log")
    for axis in axes:
        axis.axvline(burn_in, color="black", linewidth=0.8, linestyle=":")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)

"""Groups of studies, such as ancestries: effects are the same within a group, and may differ between groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from locomass.errors import ConfigError, suggest
from locomass.meta.sums import SharedV


def assign_groups(groups: Mapping[str, Sequence[str]], studies: Sequence[str]) -> tuple[str, ...]:
    """Return the group of every study; nothing when no groups are configured.

    Args:
        groups: studies of each group, by the names in their bundles.
        studies: names of all studies.

    Raises:
        ConfigError: a study is unknown, in two groups, or in none; fewer than two groups.
    """
    if not groups:
        return ()
    of: dict[str, str] = {}
    for group, members in groups.items():
        for study in members:
            if study not in studies:
                raise ConfigError(f"key groups.{group}: there is no study '{study}'{suggest(study, studies)}")
            if study in of:
                raise ConfigError(
                    f"key groups: study '{study}' is in {of[study]} and in {group}; a study has one group"
                )
            of[study] = group
    left = [study for study in studies if study not in of]
    if left:
        raise ConfigError(f"key groups: study '{left[0]}' is in no group; name every study ({', '.join(left[:10])})")
    if len(set(of.values())) < 2:
        raise ConfigError("key groups: one group is no grouping; give two or more, or leave the key out")
    return tuple(of[study] for study in studies)


def merge_groups(shared: SharedV, labels: Sequence[str]) -> SharedV:
    """Return the sums with one entry per group in ``per_study``: ``U_g = sum_k U_k``, ``V_g = sum_k V_k`` in group g.

    Args:
        shared: sums over studies.
        labels: the group of every entry of ``per_study``.
    """
    merged, groups = [], []
    for group in dict.fromkeys(labels):
        members = tuple(k for k, label in enumerate(labels) if label == group)
        own = [shared.per_study[k] for k in members]
        U = np.sum([U for U, _, _ in own], axis=0)
        V = np.sum([V * scale[0] for _, V, scale in own], axis=0)
        merged.append((U, V, np.ones(1)))
        groups.append(members)
    return replace(shared, per_study=tuple(merged), members=tuple(groups))

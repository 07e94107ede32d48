"""Surroundings: how this machine and its packages differ from those of the run, before anything is run."""

from __future__ import annotations

from dataclasses import replace

from stemmata.capture import to_json
from stemmata.capturing import machine, packages
from stemmata.compare.environment import MACHINE, EnvironmentDiff, Item, environment_changes, items
from stemmata.errors import Damage, NotFound, Redacted
from stemmata.version import Version

_LOADED = frozenset(("torch", "gpus", "driver"))
"""Facts that are told alone where torch is loaded, as it is not here."""


def differences(version: Version) -> EnvironmentDiff:
    """What leads from the run's environment to this process's, the most important first."""
    now = {"packages": to_json(packages.collect()), "environment": to_json(machine.collect()[0])}
    unknown: dict[str, str] = {}
    before: dict[str, bytes] = {}
    for kind in now:
        try:
            before[kind] = version.provenance(kind)
        except (NotFound, Redacted, Damage) as error:
            unknown[kind] = str(error)
    try:
        left = items(before)
        right = items({kind: now[kind] for kind in before})
    except ValueError as error:
        return EnvironmentDiff(unknown={**unknown, "environment": str(error)})
    found = environment_changes(left, right, unknown)
    return replace(found, changes=tuple(c for c in found.changes if not _is_untold(c.item)))


def _is_untold(item: Item) -> bool:
    return item.kind == "variable" or (item.kind == MACHINE and item.name in _LOADED)

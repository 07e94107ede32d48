"""The hint that a run overfits, for people: which of the versions shown it concerns, and its words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stemmata.cli import text
from stemmata.names import name_key

if TYPE_CHECKING:
    from stemmata.histories.overfitting import Overfitting
    from stemmata.version import Version


def of_version(version: Version) -> Overfitting | None:
    """What is to be said of the run of a version."""
    if version.run is None:
        return None
    from stemmata.histories.overfitting import of_run

    return of_run(version.source.catalog.connection, name_key(version.model), version.run)


def of_versions(versions: Sequence[Version]) -> list[Overfitting]:
    """What is to be said of the runs of which many of these versions are."""
    from stemmata.histories.overfitting import LEAST

    first = {(v.model, v.run.id): v for v in reversed(versions) if v.run is not None}
    counted = Counter((v.model, v.run.id) for v in versions if v.run is not None)
    told = [of_version(version) for key, version in first.items() if counted[key] >= LEAST]
    return [each for each in told if each is not None]


def words(found: Overfitting) -> str:
    """`loss falls, eval_loss rises since r8/epoch-5 (0.375 → 0.498): it may be overfitting`."""
    before, after = text.apart(found.since.value, found.last.value)
    said = f"{text.plain(str(found))} ({before} → {after}): it may be overfitting"
    if found.best.id != found.since.id:
        said += f"; the best is {text.plain(found.best.name)}"
    return said

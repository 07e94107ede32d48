"""Measurements: what a metric's value was measured on. Owns how an annotation says it, and when two compare.

An annotation's `details` may hold `{"measured": {"dataset", "fingerprint", "source"}}`, said of all its
metrics. Of the metrics of the save the record's `data` says it: `eval.fingerprint`, or `train.fingerprint`
of the training's own loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from stemmata.metricnames import is_aside
from stemmata.records import Stored

DETAIL = "measured"
"""The key under an annotation's `details`."""


class Dataset(msgspec.Struct, frozen=True):
    """What something was measured on; each part may be unknown."""

    name: str = ""
    fingerprint: str = ""

    def __bool__(self) -> bool:
        return bool(self.name or self.fingerprint)

    def __str__(self) -> str:
        if self.name and self.fingerprint:
            return f"{self.name} ({self.fingerprint[:12]})"
        return self.name or (f"the data {self.fingerprint[:12]}" if self.fingerprint else "nothing known")

    def to_dict(self) -> dict[str, str | None]:
        return {"name": self.name or None, "fingerprint": self.fingerprint or None}


NO_DATASET = Dataset()


class Measurement(msgspec.Struct, frozen=True):
    """One metric as it stands: what it is, what it was measured on, by whom, when and with what."""

    value: float
    dataset: Dataset
    source: str
    at: str
    """RFC 3339 in UTC."""
    by: str
    later: bool
    """An annotation added it after the save."""

    @property
    def told(self) -> str:
        """`by ann, on sst2-test, with lm-eval`, as far as it is known."""
        parts = [f"by {self.by}"] * bool(self.by) + [f"on {self.dataset}"] * bool(self.dataset)
        return ", ".join([*parts, *([f"with {self.source}"] if self.source else [])])


def details_of(dataset: Dataset, source: str) -> dict[str, object] | None:
    """What an annotation says of its metrics; None if there is nothing to say."""
    said = {"dataset": dataset.name, "fingerprint": dataset.fingerprint, "source": source}
    known: dict[str, object] = {key: value for key, value in said.items() if value}
    return {DETAIL: known} if known else None


def measured(details: Mapping[str, object] | None) -> tuple[Dataset, str]:
    """Dataset and source that an annotation names; what is ill-formed counts as unsaid."""
    said = (details or {}).get(DETAIL)
    found = {k: v for k, v in said.items() if isinstance(v, str)} if isinstance(said, Mapping) else {}
    return Dataset(found.get("dataset", ""), found.get("fingerprint", "")), found.get("source", "")


def dataset_of_save(metric: str, data: Mapping[str, Stored]) -> Dataset:
    """What a metric of the save itself was measured on, as far as the record tells; nothing, where it tells
    how a training went."""
    if is_aside(metric):
        return NO_DATASET
    part = "train" if metric == "loss" or metric.startswith("train") else "eval"
    name, fingerprint = data.get(f"{part}.dataset"), data.get(f"{part}.fingerprint")
    return Dataset(name if isinstance(name, str) else "", fingerprint if isinstance(fingerprint, str) else "")


def contradiction(datasets: Iterable[Dataset]) -> str | None:
    """Why values measured on these cannot be held against each other; None if they can.

    Fingerprints decide where both are known, else names. Nothing known of either is no contradiction, for
    then people compare what they always compared; known of one alone is.
    """
    found = list(dict.fromkeys(datasets))
    for one in found:
        for two in found:
            if one.fingerprint and two.fingerprint:
                same = one.fingerprint == two.fingerprint
            elif one.name and two.name:
                same = one.name == two.name
            else:
                same = one == two
            if not same:
                return f"measured on {one}, the other on {two}"
    return None

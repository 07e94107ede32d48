"""Which metrics a table shows, in which order, and which value of each is the best."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from stemmata.catalog.declared import Primary
from stemmata.metricnames import by_interest, is_aside

__all__ = ["Primary", "best_of", "columns"]


def columns(rows: Sequence[Mapping[str, float]], wanted: Iterable[str], primary: str | None) -> list[str]:
    """Metric names in the order of interest: asked for, primary, evaluation results, the rest."""
    asked = list(dict.fromkeys(wanted))
    if asked:
        return asked
    seen: dict[str, int] = {}
    for row in rows:
        for key in row:
            if not is_aside(key) or key == primary:
                seen[key] = seen.get(key, 0) + 1
    found = by_interest(seen, primary)
    # A metric that few versions have would be a column of blanks.
    return found[:1] + sorted(found[1:], key=lambda k: (not k.startswith("eval"), -seen[k]))


def best_of(values: Iterable[float | None], direction: str | None) -> float | None:
    """The best number of a column that has at least two different ones."""
    numbers = [v for v in values if v is not None and not math.isnan(v)]
    if direction is None or len(set(numbers)) < 2:
        return None
    return min(numbers) if direction == "min" else max(numbers)

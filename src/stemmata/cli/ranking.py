"""Which metrics a table shows, in which order, and which value of each is the best."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from stemmata.catalog import queries
from stemmata.metricnames import by_interest, direction_of, is_aside
from stemmata.names import name_key
from stemmata.session import Session


class Primary:
    """A model's declared metric and direction; both None where nothing is declared."""

    def __init__(self, session: Session, model: str) -> None:
        settings = queries.settings(session.catalog.connection, name_key(model))
        metric, direction = settings.get("primary_metric"), settings.get("direction")
        self.metric = metric if isinstance(metric, str) else None
        self._direction = str(direction) if direction in ("min", "max") else None

    def direction(self, metric: str) -> str | None:
        """min, max, or None where it cannot be told."""
        if metric == self.metric and self._direction:
            return self._direction
        return None if is_aside(metric) else direction_of(metric)


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

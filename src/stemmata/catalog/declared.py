"""Declared: what a model's settings say of its metrics: the primary one, and whether less of it is better."""

from __future__ import annotations

import sqlite3

from stemmata.catalog import queries
from stemmata.metricnames import direction_of, is_aside
from stemmata.names import name_key


class Primary:
    """A model's declared metric and direction, now or `at` a time; None where nothing is declared."""

    def __init__(self, connection: sqlite3.Connection, model: str, *, at: str | None = None) -> None:
        settings = queries.settings(connection, name_key(model), at=at)
        metric, direction = settings.get("primary_metric"), settings.get("direction")
        self.metric = metric if isinstance(metric, str) else None
        self.declared = str(direction) if direction in ("min", "max") else None

    def direction(self, metric: str) -> str | None:
        """min, max, or None where it cannot be told."""
        if metric == self.metric and self.declared:
            return self.declared
        return None if is_aside(metric) else direction_of(metric)

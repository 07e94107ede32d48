"""VersionList: versions as a list that filters and sorts itself. Owns no rule of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

from stemmata.catalog import selecting
from stemmata.errors import InvalidArgument, MissingExtra
from stemmata.session import Session
from stemmata.version import Version


@dataclass(frozen=True, slots=True)
class Query:
    """What a list asks the catalog: model key, filters, order, cut."""

    model: str | None = None
    expressions: tuple[str, ...] = ()
    sort: str | None = None
    descending: bool = False
    limit: int | None = None
    at: str | None = None


class VersionList(Sequence[Version]):
    """Visible versions, newest first until sorted. Read from the catalog when first looked at.

    repo.versions("sentiment").where("eval_loss < 0.5 and lora.r == 8").sort("eval_loss")[:5]
    """

    def __init__(self, session: Session, query: Query) -> None:
        self._session = session
        self._query = query
        self._found: list[Version] | None = None

    def where(self, expression: str) -> VersionList:
        """Those for which the expression holds. Raises InvalidExpression."""
        selecting.check_expression(expression)
        return self._with(expressions=(*self._query.expressions, expression))

    def sort(self, key: str, *, descending: bool = False) -> VersionList:
        """By a metric, config key or field; versions without it, or with NaN, come last."""
        return self._with(sort=key, descending=descending)

    def limit(self, count: int) -> VersionList:
        """At most so many, the first ones. Raises InvalidArgument."""
        if not 0 <= count < 1 << 63:
            raise InvalidArgument(argument="limit", reason=f"{count} is no number of versions")
        return self._with(limit=count)

    def _with(self, **changes: Any) -> VersionList:
        return VersionList(self._session, replace(self._query, **changes))

    @property
    def _versions(self) -> list[Version]:
        if self._found is None:
            q = self._query
            rows = selecting.versions(
                self._session.catalog.connection,
                q.model,
                expressions=q.expressions,
                sort=q.sort,
                descending=q.descending,
                limit=q.limit,
                at=q.at,
            )
            self._found = [Version(self._session, row) for row in rows]
        return self._found

    @overload
    def __getitem__(self, index: int) -> Version: ...
    @overload
    def __getitem__(self, index: slice) -> list[Version]: ...
    def __getitem__(self, index: int | slice) -> Version | list[Version]:
        return self._versions[index]

    def __len__(self) -> int:
        return len(self._versions)

    def __iter__(self) -> Iterator[Version]:
        return iter(self._versions)

    def to_dicts(self) -> list[dict[str, Any]]:
        return [v.to_dict() for v in self]

    def to_pandas(self) -> Any:
        """A DataFrame: one row a version; metrics, config and labels as columns.

        Raises MissingExtra without pandas.
        """
        try:
            import pandas
        except ModuleNotFoundError as error:
            raise MissingExtra(feature="to_pandas()", package="pandas", extra="pandas") from error
        rows = []
        for version in self:
            row: dict[str, Any] = {
                "id": version.short,
                "name": version.name,
                "run": version.run.name if version.run else None,
                "epoch": version.epoch,
                "step": version.step,
                "created_at": version.created_at,
            }
            row.update(version.metrics)
            row.update({f"config.{k}": v for k, v in version.config.items()})
            row.update({f"label.{k}": v for k, v in version.labels.items()})
            rows.append(row)
        return pandas.DataFrame(rows)

    def __repr__(self) -> str:
        return f"[{', '.join(map(repr, self._versions[:10]))}{', …' if len(self._versions) > 10 else ''}]"

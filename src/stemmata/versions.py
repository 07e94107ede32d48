"""VersionList: versions as a list that filters and sorts itself. Owns no rule of its own."""

from __future__ import annotations

import os
import sys
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import msgspec

from stemmata.catalog import asking, queries, selecting
from stemmata.deferred import deferred
from stemmata.errors import InvalidArgument, MissingExtra, StemmataError
from stemmata.ids import VersionId
from stemmata.session import Session, seen_files
from stemmata.version import Version

if TYPE_CHECKING:
    from stemmata import bases, portraits, resolve
    from stemmata.bases import Weights
    from stemmata.pictures.curves import Axis, Curves
    from stemmata.pictures.parallel import Parallel
else:
    bases = deferred("stemmata.bases")
    portraits = deferred("stemmata.portraits")
    resolve = deferred("stemmata.resolve")


class Query(msgspec.Struct, frozen=True):
    """What a list asks the catalog: model key, filters, order, cut."""

    model: str | None = None
    expressions: tuple[str, ...] = ()
    sort: str | None = None
    descending: bool = False
    limit: int | None = None
    at: str | None = None
    run: str | None = None


_SEARCHED = 256
_BESIDE = 1 << 30
"""Bytes of files that a model has beside its weights, at most."""
_PAGE = 200
"""Versions that are read at a time."""
_PAGES = 4
"""Pages that stay in memory."""


class VersionList(Sequence[Version]):
    """Visible versions, newest first until sorted.

    Which ones and in which order is settled when it is first looked at; each version is read from the
    catalog when it is asked for, a page at a time. A list of very many takes eight bytes for each.

    repo.versions("sentiment").where("eval_loss < 0.5 and lora.r == 8").sort("eval_loss")[:5]
    """

    def __init__(self, session: Session, query: Query) -> None:
        self._session = session
        self._query = query
        self._found: array[int] | None = None
        self._pages: dict[int, list[Version]] = {}

    def where(self, expression: str) -> VersionList:
        """Those for which the expression holds. Raises InvalidExpression."""
        selecting.check_expression(expression)
        return self._with(expressions=(*self._query.expressions, expression))

    def descends_from(self, version: Version | VersionId | str) -> VersionList:
        """Those that came from this version, over any number of others, in any model; not itself.

        All parents of a merge count, and the version that an adapter is loaded on. Deleted versions on the
        way are walked through. Takes whatever names a version. Raises VersionNotFound and what a reference
        raises.
        """
        if isinstance(version, str):
            version = resolve.resolve(self._session.catalog.connection, version).row.id
        found = version if isinstance(version, VersionId) else version.id
        return self._with_term("descends_from", found.hex)

    def trained_on(self, dataset: str) -> VersionList:
        """Those that were trained on this data, by its name or fingerprint as `data` or `config` has it."""
        return self._with_term("trained_on", dataset)

    def from_base(self, base: str) -> VersionList:
        """Those that are loaded on this base model: by its name, whole or after its last slash, or by the
        version that it is (an id, model@name)."""
        return self._with_term("from_base", base)

    def _with_term(self, field: str, value: str) -> VersionList:
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return self.where(f'{field} == "{escaped}"')

    def sort(self, key: str, *, descending: bool = False) -> VersionList:
        """By a metric, config key or field; versions without it, or with NaN, come last."""
        return self._with(sort=key, descending=descending)

    def limit(self, count: int) -> VersionList:
        """At most so many, the first ones. Raises InvalidArgument."""
        if not 0 <= count < 1 << 63:
            raise InvalidArgument(argument="limit", reason=f"{count} is no number of versions")
        return self._with(limit=min(count, sys.maxsize))

    def of_run(self, run: str) -> VersionList:
        """Those of runs of that name."""
        connection, model = self._session.catalog.connection, self._query.model
        models = [model] if model is not None else [each.key for each in queries.models(connection)]
        known = [name for each in models for name in queries.runs(connection, each)]
        return self._with(run=resolve.as_it_is(run, known))

    def _with(self, **changes: Any) -> VersionList:
        return VersionList(self._session, msgspec.structs.replace(self._query, **changes))

    @property
    def _numbers(self) -> array[int]:
        if self._found is None:
            q = self._query
            found = selecting.numbers(
                self._session.catalog.connection,
                q.model,
                expressions=q.expressions,
                run=q.run,
                sort=q.sort,
                descending=q.descending,
                limit=q.limit,
                at=q.at,
            )
            self._found = array("q", found)
        return self._found

    def _page(self, number: int) -> list[Version]:
        page = self._pages.get(number)
        if page is None:
            wanted = self._numbers[number * _PAGE : (number + 1) * _PAGE]
            rows = asking.versions_numbered(self._session.catalog.connection, wanted)
            page = [Version(self._session, row, at=self._query.at) for row in rows]
            while len(self._pages) >= _PAGES:
                # Other threads may drop the same one.
                self._pages.pop(next(iter(self._pages)), None)
            self._pages[number] = page
        return page

    @overload
    def __getitem__(self, index: int) -> Version: ...
    @overload
    def __getitem__(self, index: slice) -> list[Version]: ...
    def __getitem__(self, index: int | slice) -> Version | list[Version]:
        places = range(len(self))[index]
        if isinstance(places, range):
            return [self._page(place // _PAGE)[place % _PAGE] for place in places]
        return self._page(places // _PAGE)[places % _PAGE]

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[Version]:
        for number in range(-(-len(self) // _PAGE)):
            yield from self._page(number)

    # --- looking at them ------------------------------------------------------------------------

    @property
    def session(self) -> Session:
        return self._session

    @property
    def at(self) -> str | None:
        """The moment as of which they were asked for, RFC 3339, UTC; None: as they are now."""
        return self._query.at

    @property
    def model(self) -> str | None:
        """Key of the one model that the list is of, where it is of one."""
        return self._query.model

    def curves(self, *metrics: str, axis: Axis | None = None) -> Curves:
        """Metrics of the runs as a picture; those of most interest by default, the first one ranks the runs.

        `axis`: "epoch", "step" or "version" (the number in its run); by default what most versions have.
        """
        return portraits.curves(self, metrics, axis)

    def parallel(self, metric: str | None = None) -> Parallel:
        """Settings that vary between the runs, against the best of a metric in each, as a picture."""
        return portraits.parallel(self, metric)

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """A page with curves, settings, lineage and a table; it needs no network and no other file.

        Raises PictureNotWritten.
        """
        return portraits.page_of_list(self).to_html(path)

    def _repr_html_(self) -> str:
        return portraits.snippet_of_list(self)

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
        columns: dict[str, list[Any]] = {}
        for place, version in enumerate(self):
            for key, value in dict(_cells(version)).items():
                column = columns.setdefault(key, [])
                # What earlier versions do not have is None, as it is in a frame made of rows.
                column.extend([None] * (place - len(column)))
                column.append(value)
        for column in columns.values():
            column.extend([None] * (len(self) - len(column)))
        return pandas.DataFrame(columns)

    def __repr__(self) -> str:
        return f"[{', '.join(map(repr, self[:10]))}{', …' if len(self) > 10 else ''}]"


def _cells(version: Version) -> Iterator[tuple[str, Any]]:
    """A version's row of a table, by column."""
    yield "id", version.short
    yield "name", version.name
    yield "run", version.run.name if version.run else None
    yield "epoch", version.epoch
    yield "step", version.step
    yield "created_at", version.created_at
    yield from version.metrics.items()
    yield from ((f"config.{key}", value) for key, value in version.config.items())
    yield from ((f"label.{key}", value) for key, value in version.labels.items())


def folder_weights(folder: Path) -> Weights:
    """Digest of a folder's weight files; cached by path, inode, size and times."""
    return bases.weights_of_folder(folder, seen_files())


def version_with_weights(session: Session, digest: str, rows: Sequence[bases.Row]) -> Version | None:
    """The newest visible version whose weight files have this digest; `rows` tell the bytes of each."""
    session.refresh()
    least = sum(size for _, size, _ in rows)
    # Beside them a version has a tokenizer, a card and code: of those of another size no list is read.
    sized = (f"size >= {least} and size <= {least + _BESIDE}",) if least else ()
    models = VersionList(session, Query(expressions=('kind == "model"', *sized), limit=_SEARCHED))
    for version in models:
        try:
            if bases.weights_of_tree(version.tree()).digest == digest:
                return version
        except StemmataError:
            continue  # a damaged version elsewhere is no reason to fail here
    return None

"""Resolving: from what people write to one version. Owns which reading of a reference wins.

Nothing is guessed: what could mean two versions is refused with the candidates. As of a moment, names,
metrics and settings count as the log had them then: the last entry whose effective time is not later. What a
reference named then but has been deleted since is not handed out in silence, but refused.
"""

from __future__ import annotations

import difflib
import re
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, tzinfo

import msgspec

from stemmata.arguments import instant_of, require_text
from stemmata.catalog import queries, selecting
from stemmata.catalog.queries import RefMove, VersionRow
from stemmata.errors import (
    AmbiguousReference,
    InvalidArgument,
    InvalidReference,
    ModelNotFound,
    VersionNotFound,
)
from stemmata.ids import VersionId
from stemmata.metricnames import Direction, direction_of
from stemmata.names import RESERVED, Reference, name_key, parse_reference
from stemmata.timephrases import parse_when

_MANY = 8
_NEAR = 1000
"""Names that are compared with one that is not there."""


class BestFound(msgspec.Struct, frozen=True):
    """The best version, and what decided."""

    row: VersionRow
    metric: str
    direction: Direction
    value: float
    ties: tuple[VersionId, ...]
    """Versions that are just as good, but later."""
    metric_guessed: bool
    """No primary metric is declared, so this one was taken for it."""
    direction_guessed: bool
    """Told from the metric's name alone."""


class Resolved(msgspec.Struct, frozen=True):
    """One version, and how it was found."""

    reference: str
    row: VersionRow
    at_utc: str | None = None
    """The instant that a time phrase was read as (stored time), if there was one."""
    best: BestFound | None = None
    """What decided, if `best` was asked for."""

    @property
    def version_id(self) -> VersionId:
        return self.row.id


def resolve(
    connection: sqlite3.Connection,
    reference: str,
    *,
    at: str | datetime | None = None,
    now: datetime | None = None,
    tz: tzinfo | None = None,
    prefer: str = "visible",
    hidden: bool = False,
) -> Resolved:
    """The one visible version that `reference` names, or named at `at` (a phrase or a moment).

    `hidden`: one of any state is handed out; where an id could mean several, those in the state `prefer` come
    first. `now` and `tz` (default: the system's) are what phrases
    are read against. Raises InvalidReference, InvalidTime, ModelNotFound, VersionNotFound,
    AmbiguousReference.
    """
    parsed = parse_reference(reference)
    if at is not None and parsed.when is not None:
        raise InvalidReference(reference=reference, reason="it says @{…} and a time is given beside it")
    moment = at if at is not None else parsed.when
    if isinstance(moment, str):
        moment = parse_when(moment, now or datetime.now(UTC), tz)
    instant = instant_of("at", moment) if moment is not None else None
    found = _Resolver(connection, parsed, instant, prefer).find(hidden=hidden)
    return msgspec.structs.replace(found, at_utc=instant)


def best_of(
    connection: sqlite3.Connection,
    model: str,
    *,
    metric: str | None = None,
    direction: str | None = None,
    run: str | Iterable[str] | None = None,
    at: str | None = None,
    reference: str | None = None,
) -> BestFound:
    """The best version of a model (by key) by `metric`, else by its primary metric.

    Where none is declared: eval_loss if any version has it, else the only metric there is, else loss.
    NaN never wins; of equal versions the earliest does. Raises VersionNotFound, InvalidArgument.
    """
    for text in (metric, run):
        if isinstance(text, str):
            require_text("best", text)
    if direction not in (None, "min", "max"):
        raise InvalidArgument(argument="direction", reason=f"{direction!r} is neither 'min' nor 'max'")
    name = queries.model_name(connection, model)
    shown = reference if reference is not None else f"{name}@best"
    settings = queries.settings(connection, model, at=at)
    declared = settings.get("primary_metric")
    chosen = metric or (declared if isinstance(declared, str) else None)
    guessed = chosen is None
    if chosen is None:
        chosen = _guess(selecting.metric_names(connection, model, at=at), shown, name)
    way, way_guessed = direction, False
    if way is None and chosen == declared:
        way = settings.get("direction")
    if way not in ("min", "max"):
        way, way_guessed = direction_of(chosen), True
    if isinstance(run, str):
        run = as_it_is(run, queries.runs(connection, model))
    wanted = run if run is None or isinstance(run, str) else list(run)
    found = selecting.best(connection, model, chosen, way, run=wanted, at=at)
    if found is None:
        names = queries.runs(connection, model)
        if isinstance(run, str) and run not in names:
            raise no_such_run(name, run, names, shown)
        close = _close(chosen, selecting.metric_names(connection, model, at=at))
        hint = f"did you mean {', '.join(close)}?" if close else f"stemmata log {name} shows what there is"
        if chosen in close:
            hint = "what it has is NaN"
        of_run = f" of run {run!r}" if isinstance(run, str) else ""
        reason = f"no version{of_run} has a number for the metric {chosen!r}"
        raise VersionNotFound(reference=shown, reason=reason, hint=hint)
    least: Direction = "min" if way == "min" else "max"
    return BestFound(found.row, chosen, least, found.value, found.ties, guessed, way_guessed)


def no_such_run(model: str, run: str, known: list[str], reference: str) -> VersionNotFound:
    """The error for a run that the model does not have; `known` are those it has."""
    close = _close(run, known)
    if close:
        hint = f"did you mean the run {' or '.join(close)}?"
    elif 0 < len(known) <= _MANY:
        hint = f"its runs: {', '.join(known)}"
    else:
        hint = f"stemmata log {model} lists its versions"
    return VersionNotFound(reference=reference, reason=f"the model has no run {run!r}", hint=hint)


def _guess(names: list[str], reference: str, model: str) -> str:
    if "eval_loss" in names:
        return "eval_loss"
    if len(names) == 1:
        return names[0]
    if "loss" in names:
        return "loss"
    reason = "no version has a metric" if not names else "no metric is declared to decide"
    shown = ", ".join(names[:_MANY])
    hint = f"declare one: stemmata best {model} --metric NAME --declare" + (
        f" (of: {shown})" if shown else ""
    )
    raise VersionNotFound(reference=reference, reason=reason, hint=hint)


def as_it_is(run: str, names: Sequence[str]) -> str:
    """The run as it is written, if case alone differs."""
    if run in names:
        return run
    return next((name for name in names if name_key(name) == name_key(run)), run)


def _to_the_second(at: str) -> str:
    return f"{at[:19].replace('T', ' ')} UTC"


def _close(text: str, known: Iterable[str]) -> list[str]:
    by_key = {name_key(name): name for name in known}
    return [by_key[key] for key in difflib.get_close_matches(name_key(text), by_key, n=3, cutoff=0.6)]


class _Resolver:
    """One reference against the catalog, as of `at` (None: now)."""

    def __init__(
        self, connection: sqlite3.Connection, reference: Reference, at: str | None, prefer: str
    ) -> None:
        self.connection = connection
        self.reference = reference
        self.at = at
        self.prefer = prefer

    # --- what goes wrong ------------------------------------------------------------------------

    def missing(self, reason: str, hint: str) -> VersionNotFound:
        if self.at is not None:
            reason += f" (as of {_to_the_second(self.at)})"
        return VersionNotFound(reference=self.reference.text, reason=reason, hint=hint)

    def ambiguous(self, rows: Iterable[VersionRow], *others: str) -> AmbiguousReference:
        shown = [*others, *(self.shown(row) for row in rows)]
        cut = [*shown[:_MANY], "…"] if len(shown) > _MANY else shown
        return AmbiguousReference(reference=self.reference.text, candidates=", ".join(cut))

    def shown(self, row: VersionRow) -> str:
        return f"{row.id.short} ({queries.model_name(self.connection, row.model)}@{row.name})"

    # --- the reference --------------------------------------------------------------------------

    def find(self, *, hidden: bool) -> Resolved:
        reference = self.reference
        if reference.id_prefix is None:
            found = self.in_model(self.model())
        elif reference.model is None or not self.is_model(reference.model):
            found = Resolved(reference.text, self.by_id(reference.id_prefix, None))
        else:
            found = self.hex_word(reference.model, reference.id_prefix)
        row = self.ancestor(found.row, reference.ancestors)
        if not hidden:
            self.require_visible(row)
        return msgspec.structs.replace(found, row=row)

    def is_model(self, name: str) -> bool:
        return any(m.key == name_key(name) for m in queries.models(self.connection))

    def model(self) -> str:
        """The key of the reference's model."""
        name = self.reference.model or ""
        known = queries.models(self.connection)
        if any(m.key == name_key(name) for m in known):
            return name_key(name)
        names = [m.name for m in known]
        close = _close(name, names)
        if close:
            hint = f"did you mean {', '.join(close)}?"
        elif names:
            hint = f"models here: {', '.join(names[:_MANY])}{', …' if len(names) > _MANY else ''}"
        else:
            hint = "it holds no model yet; stemmata save SOURCE MODEL makes the first version"
        raise ModelNotFound(model=name, hint=hint)

    def hex_word(self, model: str, prefix: str) -> Resolved:
        """A bare word that names a model and may also be the beginning of an id."""
        versions = self.wanted(queries.ids_by_prefix(self.connection, prefix, limit=_MANY + 1))
        if not versions:
            return self.in_model(name_key(model))
        try:
            newest = self.in_model(name_key(model)).row
        except VersionNotFound:
            newest = None
        if newest is None or (self.at is None and [v.id for v in versions] == [newest.id]):
            return Resolved(self.reference.text, self.by_id(prefix, None))
        raise self.ambiguous(versions, f"{model}@latest")

    def in_model(self, model: str) -> Resolved:
        selector = self.reference.selector
        if self.reference.previous is not None:
            return Resolved(self.reference.text, self.earlier_value(model, selector))
        if selector is None or name_key(selector) == "latest":
            return Resolved(self.reference.text, self.newest(model, None))
        if name_key(selector) == "best":
            return self.best(model, None)
        named, prefixed = self.named(model, selector), self.prefixed(model, selector)
        if named is not None:
            others = [row for row in self.wanted(prefixed) if row.id != named.id]
            if others:
                raise self.ambiguous([named, *others])
            return Resolved(self.reference.text, named)
        if prefixed:
            return Resolved(self.reference.text, self.by_id(selector.lower(), model))
        return self.of_run(model, selector)

    # --- selectors ------------------------------------------------------------------------------

    def named(self, model: str, selector: str) -> VersionRow | None:
        """What the alias, tag or version name points at."""
        key = name_key(selector)
        if self.at is None:
            ref = queries.ref(self.connection, model, key)
            target = ref.target if ref is not None else None
        else:
            move = queries.ref_at(self.connection, model, key, self.at)
            target = move.target if move is not None else None
        return self.row(target) if target is not None else None

    def prefixed(self, model: str, selector: str) -> list[VersionRow]:
        if not re.fullmatch(r"[0-9a-fA-F]{4,64}", selector):
            return []
        return queries.ids_by_prefix(self.connection, selector.lower(), model=model, limit=_MANY + 1)

    def of_run(self, model: str, selector: str) -> Resolved:
        """`<run>/latest` and `<run>/best` of versions that have no such name."""
        run, slash, word = selector.rpartition("/")
        if slash and name_key(word) in RESERVED:
            names = queries.runs(self.connection, model)
            same = [name for name in names if name_key(name) == name_key(run)]
            if not same:
                raise self.missing(
                    f"the model has no run {run!r}", self.suggestion(model, run, names, f"/{word}")
                )
            if name_key(word) == "latest":
                return Resolved(self.reference.text, self.newest(model, same))
            return self.best(model, same)
        move = queries.ref_moves(self.connection, model, name_key(selector))
        if move:
            deleted = move[-1].target is None
            reason = f"{selector!r} was deleted" if deleted else f"{selector!r} named nothing"
            raise self.missing(reason, self.told_of(move[-1]))
        reason = f"the model has no alias, tag, version or id {selector!r}"
        names = queries.names_near(self.connection, model, name_key(selector), _NEAR)
        raise self.missing(reason, self.suggestion(model, selector, [*names, *RESERVED]))

    def told_of(self, move: RefMove) -> str:
        """What to do about a name that named nothing, of which this is the last move."""
        if move.kind == "alias":
            name = queries.model_name(self.connection, move.model)
            return f"stemmata history {name} {move.name} shows its values"
        if move.target is None:
            return f"its {move.kind} was taken away at {_to_the_second(move.at)}"
        done = "tagged" if move.kind == "tag" else "saved"
        return f"it was {done} at {_to_the_second(move.at)}: name a later time, or leave it out"

    def suggestion(self, model: str, text: str, known: list[str], suffix: str = "") -> str:
        name = queries.model_name(self.connection, model)
        close = _close(text, known[-5000:])
        if close:
            return f"did you mean {', '.join(f'{name}@{c}{suffix}' for c in close)}?"
        if suffix and 0 < len(known) <= _MANY:
            return f"its runs: {', '.join(known)}"
        return f"stemmata log {name} lists its versions"

    def newest(self, model: str, run: list[str] | None) -> VersionRow:
        found = selecting.latest(self.connection, model, run=run, at=self.at)
        if found is None:
            raise self.missing("there is no version", "stemmata log lists what is there")
        return found

    def best(self, model: str, run: list[str] | None) -> Resolved:
        try:
            found = best_of(self.connection, model, run=run, at=self.at, reference=self.reference.text)
        except VersionNotFound as error:
            raise self.missing(str(error.data["reason"]), str(error.data["hint"])) from None
        return Resolved(self.reference.text, found.row, best=found)

    def earlier_value(self, model: str, selector: str | None) -> VersionRow:
        """`@{N}`: the alias's value N values ago."""
        steps = self.reference.previous or 0
        moves = queries.ref_moves(self.connection, model, name_key(selector or ""), at=self.at)
        aliases = [m for m in moves if m.kind == "alias"]
        if not aliases:
            reason = (
                f"@{{{steps}}} goes back in an alias's history, and {selector or 'the model'!r} is no alias"
            )
            raise InvalidReference(reference=self.reference.text, reason=reason)
        values: list[VersionId | None] = []
        for move in aliases:
            # Being absent for a while is no value of its own; being absent now is.
            if values and values[-1] is None:
                values.pop()
            if not values or values[-1] != move.target:
                values.append(move.target)
        target = values[-1 - steps] if steps < len(values) else None
        if target is None:
            reason = "it is deleted" if steps == 0 else f"it has had {len(values)} values"
            hint = f"stemmata history {queries.model_name(self.connection, model)} {selector} shows them"
            raise self.missing(reason, hint)
        return self.row(target)

    # --- versions -------------------------------------------------------------------------------

    def wanted(self, rows: list[VersionRow]) -> list[VersionRow]:
        return [row for row in rows if row.state == self.prefer]

    def row(self, version: VersionId) -> VersionRow:
        found = queries.version_by_id(self.connection, version)
        if found is None:
            raise self.missing(
                f"version {version.short} is not in this repository", "pull it from where it is"
            )
        return found

    def by_id(self, prefix: str, model: str | None) -> VersionRow:
        rows = queries.ids_by_prefix(self.connection, prefix, model=model, limit=1000)
        wanted = self.wanted(rows)
        if len(wanted) > 1:
            raise self.ambiguous(wanted)
        if not rows:
            raise self.missing("no id begins so", "stemmata log lists the ids that there are")
        row = wanted[0] if wanted else rows[0]
        if self.at is not None and row.at > self.at:
            raise self.missing(f"version {row.id.short} did not exist then", "leave the time out")
        return row

    def ancestor(self, row: VersionRow, steps: int) -> VersionRow:
        for taken in range(steps):
            parents = queries.parents(self.connection, row.seq)
            if not parents:
                reason = f"its history ends after {taken} of {steps} steps, at {self.shown(row)}"
                raise self.missing(
                    reason, f"write ~{taken} or less" if taken else "leave ~ out: it has no parent"
                )
            parent = queries.version_by_id(self.connection, parents[0])
            if parent is None:
                reason = f"{parents[0].short}, the parent of {self.shown(row)}, is not in this repository"
                raise self.missing(reason, f"write ~{taken} or less")
            row = parent
        return row

    def require_visible(self, row: VersionRow) -> None:
        if row.state == "visible":
            return
        name = queries.model_name(self.connection, row.model)
        if row.state == "deleted":
            hint = f"bring it back with: stemmata restore {row.id.short}"
        else:
            hint = f"it cannot be brought back; stemmata log {name} lists the versions there are"
        raise self.missing(f"{self.shown(row)} was deleted", hint)

"""Saving: from a folder to a visible version. Owns the order objects -> packs -> log entry.

The commit itself is `transaction.commit`; this module decides what the entry says.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

import msgspec

from stemmata import sources
from stemmata.candidates import candidates_for, files_above
from stemmata.capturing import configs
from stemmata.catalog import queries, selecting
from stemmata.catalog.catalog import Catalog
from stemmata.catalog.queries import VersionRow
from stemmata.compare import lora, statistics
from stemmata.compare.lora import LoraFacts
from stemmata.compare.surprises import Surprise, surprises
from stemmata.compare.tensors import tensors_of
from stemmata.errors import (
    CommitContention,
    EmptySource,
    NameTaken,
    SourceChanged,
    StemmataError,
    SurprisingSave,
)
from stemmata.ids import PackName, VersionId, random_letters
from stemmata.leaning import Leaning
from stemmata.log.ops import Op, VersionAdd, VersionAnnotate
from stemmata.names import clean_name, name_key
from stemmata.naming import alias_op, holder_of, name_version, refuse_protected
from stemmata.objects import ObjectWriter
from stemmata.recording import OF_SECRETS, SaveRequest, leave_out, settle, write_side_objects
from stemmata.records import Statistics
from stemmata.session import Session, seen_files
from stemmata.sources import Source
from stemmata.surveyor import Surveyor
from stemmata.trees import Tree, content_of
from stemmata.unread import Held, Unread

_ATTEMPTS = 10
"""How often all is stored anew because packs that it was built on were collected, or put together."""
_log = logging.getLogger("stemmata")
# Runs whose adapters were said to have grown; of this process.
_told_of_growth: set[str] = set()


class Saved(msgspec.Struct, frozen=True):
    """What a save did. Sizes in bytes."""

    version: VersionId
    name: str
    existed: bool
    """True: the bytes were there already and `name` became another name of that version."""
    left_out: tuple[tuple[str, str], ...]
    bytes_total: int
    bytes_new: int
    bytes_stored: int
    surprises: tuple[Surprise, ...] = ()
    """What nobody would expect who knows its parent."""


class _PacksGone(StemmataError):
    """A pack that this save leans on was retired meanwhile; its bytes must be stored again."""

    kind = "packs-gone"
    what = "packs were collected during the save"


def save(session: Session, request: SaveRequest) -> Saved:
    """Make a version of `request.source`. Raises an error of the tree and leaves no trace."""
    settle(request)
    if request.name is not None:
        request.name = clean_name(request.name)
    if request.alias is not None:
        request.alias = clean_name(request.alias)
    session.storage.require_writable()
    session.refresh()
    if not request.same_as_existing:
        _name_for(session.catalog, request)
    elif request.alias:
        _refuse_alias(session.catalog, request.model, request.alias)
    session.learn_packs()
    for _ in range(_ATTEMPTS):
        try:
            return _attempt(session, request)
        except _PacksGone:
            session.refresh()
    raise CommitContention(attempts=_ATTEMPTS)


def _attempt(session: Session, request: SaveRequest) -> Saved:
    source = sources.scan(
        request.source,
        include=request.include,
        exclude=request.exclude,
        leave_out=leave_out,
        allow_broken=request.allow_broken,
    )
    if request.listed is not None and tuple(request.listed) != source.on_disk:
        raise SourceChanged(path=str(source.path))
    leaning = Leaning(session.storage, session.catalog)
    parents = _parents(session, request) if request.parents is None else request.parents
    alike = candidates_for(session, request.model, parents, sources.planned(source))
    surveyor = Surveyor.of(session, parents)
    seen = seen_files()
    with Held(seen, lambda: [*alike.files, *files_above(session, parents)]) as held:
        writer = ObjectWriter(session.storage, leaning.packs_holding, session.reader, held=held)
        try:
            unread = Unread(seen, alike, surveyor, writer, reread=request.reread)
            tree = sources.store(source, writer, request.progress, alike.of, surveyor.looks, unread)
            unread.remember(source.on_disk, tree)
            if not tree.files and not tree.empty_folders:
                raise EmptySource(path=str(source.path))
            existing = _existing(session, request, tree, leaning)
            if existing is not None:
                writer.abort()
                return _second_name(session, request, existing, source)
            if request.same_as_existing:
                _name_for(session.catalog, request)  # of other bytes
            if request.parents is None:
                request.parents = _parents(session, request)
            learnt, found = _learnt(request, surveyor, tree, writer, source)
            record, tree_digests = write_side_objects(request, source, tree, writer, learnt)
            grown = _grown(tree, source)
            packs = writer.finish()
        except BaseException:
            writer.abort()
            raise
    version = VersionId.of(record)
    needed = sorted(writer.packs_used)
    name = [""]

    def plan(catalog: Catalog) -> list[Op]:
        if any(not catalog.pack_is_live(base) for pack in packs for base in pack.bases):
            raise _PacksGone()
        if any(catalog.pack_state(pack.name) is not None for pack in packs):
            # It took so long that a collection has taken them for leftovers.
            raise _PacksGone()
        ops, name[0] = _plan(catalog, request, record, version, tree_digests, needed, {p.name for p in packs})
        return ops

    session.commit(plan, new_packs=packs)
    with suppress(StemmataError):  # it is saved; who asks next is told of what is the matter
        for pack in packs:
            session.catalog.remember_pack(pack.name, pack.index.digests())
    if grown is not None:
        _tell_of_growth(request, grown)
    _tell_of_secrets(request, name[0], source)
    for surprise in found:
        _log.warning("%s@%s: %s", request.model, name[0], surprise)
    stats = writer.stats
    return Saved(
        version,
        name[0],
        False,
        tuple(source.left_out),
        stats.bytes_in,
        stats.bytes_new,
        stats.bytes_stored,
        tuple(found),
    )


def _learnt(
    request: SaveRequest, surveyor: Surveyor, tree: Tree, writer: ObjectWriter, source: Source
) -> tuple[Statistics | None, list[Surprise]]:
    """What the record says of the tensors' statistics, which are stored; and what is surprising in them."""
    rows = surveyor.table()
    learnt = surveyor.summary(writer.put(statistics.encode(rows), "F64").hex, rows) if rows else None
    found = [*surprises(surveyor.tree, tree, learnt), *_tokens_in(source)]
    if found and request.strict:
        raise SurprisingSave(model=request.model, surprises="; ".join(map(str, found)))
    return learnt, found


def _tokens_in(source: Source) -> Iterator[Surprise]:
    """Configurations that somebody else wrote are kept as they are: what is in them can only be told."""
    for file in source.on_disk:
        if configs.is_config(file.path) and file.size <= configs.MAX_BYTES:
            names = sorted(set(configs.without_tokens(source.read(file.path))[1].values()))
            if names:
                said = f"{file.path} holds a token in clear ({', '.join(names)}), which whoever reads it gets"
                yield Surprise("token", said)


def _grown(tree: Tree, source: Source) -> LoraFacts | None:
    """An adapter with more bytes of whole tensors in it (embeddings, heads) than of its own."""
    found = lora.facts(tree, lambda path: source.read(path))
    if found is None or not found.from_weights:
        return None
    total = sum(tensor.length for tensor in tensors_of(tree))
    return found if 2 * found.other_bytes > total else None


def _tell_of_secrets(request: SaveRequest, name: str, source: Source) -> None:
    """A model may lack what somebody took for a part of it."""
    named = [path for path, why in source.left_out if why == OF_SECRETS]
    if named:
        shown = ", ".join(named[:3]) + (", …" if len(named) > 3 else "")
        words = "%s@%s: left out %s: its name says that it holds secrets; include it by name to keep it"
        _log.warning(words, request.model, name, shown)


def _tell_of_growth(request: SaveRequest, found: LoraFacts) -> None:
    """Say it once a run: such an adapter is many times the size that was meant, or expected."""
    if request.run is not None:
        if request.run.id in _told_of_growth:
            return
        _told_of_growth.add(request.run.id)
    _log.warning(
        "%s: more than half of the adapter are whole tensors saved along: %s. They were resized, or named in "
        "modules_to_save; where they did not change, save_embedding_layers=False and a shorter "
        "modules_to_save leave them out",
        request.name or request.model,
        found.beside,
    )


def _parents(session: Session, request: SaveRequest) -> list[VersionId]:
    """A run's versions form a line; without a run nothing is claimed about ancestry."""
    if request.run is None:
        return []
    row = selecting.latest(session.catalog.connection, name_key(request.model), run=request.run.name)
    return [row.id] if row is not None else []


def _plan(
    catalog: Catalog,
    request: SaveRequest,
    record: bytes,
    version: VersionId,
    tree: list[str],
    needed: list[PackName],
    fresh: set[PackName],
) -> tuple[list[Op], str]:
    """The ops of a save, computed at the log's end; raises what makes the save impossible there."""
    if any(not catalog.pack_is_live(pack) for pack in needed if pack not in fresh):
        raise _PacksGone()
    name = _name_for(catalog, request) or _fresh_name(request)
    ops: list[Op] = [
        VersionAdd(
            model=request.model,
            name=name,
            record=msgspec.Raw(record),
            tree=tree,
            packs=[p.hex for p in needed],
        )
    ]
    if request.labels:
        ops.append(VersionAnnotate(version=version.hex, labels=dict(request.labels)))
    if request.alias:
        ops.append(alias_op(catalog, request.model, request.alias, version, "saved with it"))
    return ops, name


def _name_for(catalog: Catalog, request: SaveRequest, own: VersionId | None = None) -> str | None:
    """The name that the version gets, or that `own` has or gets; None if none was asked for.

    Raises NameTaken, AliasProtected.
    """
    if request.alias:
        _refuse_alias(catalog, request.model, request.alias)
    number, name = 1, request.name
    while name is not None:
        taken = queries.ref(catalog.connection, name_key(request.model), name_key(name))
        is_alias = request.alias is not None and name_key(name) == name_key(request.alias)
        free = taken is None or (own is not None and (taken.kind, taken.target) == ("name", own))
        if free and not is_alias:
            break
        if not request.numbered:
            holder = "name of this version" if is_alias or taken is None else holder_of(catalog, taken)
            raise NameTaken(model=request.model, name=name, holder=holder)
        number += 1
        name = f"{request.name}-{number}"
    if name is not None:
        refuse_protected(catalog, request.model, name)
    return name


def _refuse_alias(catalog: Catalog, model: str, alias: str) -> None:
    from stemmata.protecting import refuse_unless_free  # it needs what judges gates

    taken = queries.ref(catalog.connection, name_key(model), name_key(alias))
    if taken is not None and taken.kind != "alias":
        raise NameTaken(model=model, name=alias, holder=holder_of(catalog, taken))
    hint = f"save without it, then: stemmata promote REF {alias}"
    refuse_unless_free(catalog, model, alias, "a version that is new has no evidence", hint)


def _fresh_name(request: SaveRequest) -> str:
    moment = (request.created_at or datetime.now(UTC)).astimezone()
    stamp = f"{moment:%Y%m%d-%H%M%S}-{random_letters(4)}"
    return f"{request.run.name}/{stamp}" if request.run else f"save-{stamp}"


def _existing(session: Session, request: SaveRequest, tree: Tree, leaning: Leaning) -> VersionRow | None:
    """The visible version of this model (of the run, where there is one) that holds the same bytes, and
    still has them: a name for what is lost would save nothing."""
    if not request.same_as_existing or request.name is None:
        return None
    found = queries.version_with_content(
        session.catalog.connection,
        name_key(request.model),
        content_of(tree).digest,
        run_id=request.run.id if request.run else None,
        step=request.step,
    )
    return found if found is not None and all(map(leaning.may, session.packs(found))) else None


def _second_name(session: Session, request: SaveRequest, row: VersionRow, source: Source) -> Saved:
    name = request.name
    if name is None:
        raise TypeError("a second name needs a name")
    while True:
        name = _name_for(session.catalog, request, row.id) or name
        there = queries.ref(session.catalog.connection, name_key(request.model), name_key(name))
        if there is not None:
            break
        try:
            name_version(session, request.model, name, row.id)
        except NameTaken:
            if not request.numbered:
                raise
    if alias := request.alias:
        session.commit(partial(_alias_of, request.model, alias, row.id))
    return Saved(row.id, name, True, tuple(source.left_out), row.bytes, 0, 0)


def _alias_of(model: str, alias: str, version: VersionId, catalog: Catalog) -> list[Op]:
    _refuse_alias(catalog, model, alias)
    there = queries.ref(catalog.connection, name_key(model), name_key(alias))
    if there is not None and there.target == version:
        return []
    return [alias_op(catalog, model, alias, version, "saved with it")]

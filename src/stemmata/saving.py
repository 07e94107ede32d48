"""Saving: from a folder to a visible version. Owns the order objects -> packs -> log entry.

The commit itself is `transaction.commit`; this module decides what the entry says.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import cast

import msgspec

from stemmata import sources, training_args
from stemmata.arguments import finite_of, instant_of, key_of, labels_of, metrics_of, text_of, whole_of
from stemmata.bases import complete
from stemmata.candidates import candidates_for
from stemmata.capture import mask, mask_config, mask_value
from stemmata.catalog import queries, selecting
from stemmata.catalog.catalog import Catalog, user_cache_folder
from stemmata.catalog.queries import VersionRow
from stemmata.compare import lora
from stemmata.compare.lora import LoraFacts
from stemmata.compare.tensors import tensors_of
from stemmata.describe import Description, describe
from stemmata.errors import (
    CommitContention,
    EmptySource,
    InvalidArgument,
    NameTaken,
    SourceChanged,
    StemmataError,
    UnsupportedFile,
)
from stemmata.ids import PackName, VersionId
from stemmata.log.ops import Op, VersionAdd, VersionAnnotate
from stemmata.names import clean_name, name_key
from stemmata.naming import alias_op, holder_of, name_version
from stemmata.objects import ObjectWriter
from stemmata.records import (
    Base,
    Record,
    Run,
    Stored,
    encode_record,
    flatten,
    fresh_nonce,
    store_number,
)
from stemmata.session import Session
from stemmata.sources import MemoryFolder, Source, SourceFile
from stemmata.trees import MAX_TREE_BYTES, Tree, content_of, encode_tree

_TREE_CHUNK = 64 << 20
_ATTEMPTS = 10
"""How often all is stored anew because packs that it was built on were collected, or put together."""
_MAX_PROVENANCE = 64 << 20
_MAX_ARGUMENTS = 1000
_MAX_ARGUMENTS_BYTES = 16 << 20  # some kilobytes in practice
TRAINING_ARGS = "training_args.bin"
LEAVE_OUT = {TRAINING_ARGS: "it may hold tokens in clear; kept as sanitised JSON"}

Progress = Callable[[int], None]
_log = logging.getLogger("stemmata")
# Runs whose adapters were said to have grown; of this process.
_told_of_growth: set[str] = set()


@dataclass(slots=True)
class SaveRequest:
    """What the caller says of a version. Everything is optional but model and source."""

    source: Path | MemoryFolder
    model: str
    name: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    config: Mapping[str, object] = field(default_factory=dict)
    message: str = ""
    parents: Sequence[VersionId] | None = None
    """None: the run's newest version, if there is one; else none."""
    run: Run | None = None
    step: int | None = None
    epoch: float | None = None
    event: str = "manual"
    kind: str | None = None
    base: Base | None = None
    data: Mapping[str, object] = field(default_factory=dict)
    provenance: Mapping[str, bytes] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    alias: str | None = None
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    allow_broken: bool = False
    author: str = ""
    created_at: datetime | None = None
    progress: Progress | None = None
    same_as_existing: bool = False
    listed: Sequence[SourceFile] | None = None
    """The files that were looked at before: SourceChanged unless the source holds these, as they were."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What a save did. Sizes in bytes."""

    version: VersionId
    name: str
    existed: bool
    """True: the bytes were there already and `name` became another name of that version."""
    left_out: tuple[tuple[str, str], ...]
    bytes_total: int
    bytes_new: int
    bytes_stored: int


class _PacksGone(StemmataError):
    """A pack that this save leans on was retired meanwhile; its bytes must be stored again."""

    kind = "packs-gone"
    what = "packs were collected during the save"


def save(session: Session, request: SaveRequest) -> Saved:
    """Make a version of `request.source`. Raises an error of the tree and leaves no trace."""
    _settle_arguments(request)
    if request.name is not None:
        request.name = clean_name(request.name)
    if request.alias is not None:
        request.alias = clean_name(request.alias)
    session.storage.require_writable()
    session.refresh()
    _refuse_taken_name(session.catalog, request)
    session.learn_packs()
    for _ in range(_ATTEMPTS):
        try:
            return _attempt(session, request)
        except _PacksGone:
            session.refresh()
    raise CommitContention(attempts=_ATTEMPTS)


def _settle_arguments(request: SaveRequest) -> None:
    """Refuse, before anything is read, what no record could keep. Raises InvalidArgument, InvalidName."""
    request.model = clean_name(request.model)
    if request.run is not None:
        # Its name leads those of its versions, and references name it.
        request.run = Run(text_of(request.run.id), clean_name(request.run.name, reserved=frozenset()))
    request.step = whole_of("step", request.step)
    request.epoch = finite_of("epoch", request.epoch)
    metrics_of(request.metrics)
    request.labels = {k: str(mask_value(k, v)) for k, v in labels_of(request.labels).items() if v is not None}
    if request.created_at is not None:
        instant_of("created_at", request.created_at)
    for kind, data in request.provenance.items():
        argument = f"provenance {key_of('provenance', kind)!r}"
        if not isinstance(cast("object", data), bytes | bytearray):
            raise InvalidArgument(argument=argument, reason=f"{type(data).__name__} is not bytes")
        if len(data) > _MAX_PROVENANCE:
            raise InvalidArgument(argument=argument, reason=f"it is longer than {_MAX_PROVENANCE} bytes")


def _attempt(session: Session, request: SaveRequest) -> Saved:
    source = sources.scan(
        request.source,
        include=request.include,
        exclude=request.exclude,
        leave_out=LEAVE_OUT,
        allow_broken=request.allow_broken,
    )
    if request.listed is not None and tuple(request.listed) != source.on_disk:
        raise SourceChanged(path=str(source.path))
    writer = ObjectWriter(session.storage, lookup=session.catalog.packs_holding, reader=session.reader)
    try:
        parents = _parents(session, request) if request.parents is None else request.parents
        alike = candidates_for(session, request.model, parents, sources.planned(source))
        tree = sources.store(source, writer, request.progress, alike.of)
        if not tree.files and not tree.empty_folders:
            raise EmptySource(path=str(source.path))
        existing = _existing(session, request, tree)
        if existing is not None:
            writer.abort()
            return _second_name(session, request, existing, source)
        if request.parents is None:
            request.parents = _parents(session, request)
        record, tree_digests = _write_side_objects(request, source, tree, writer)
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
    for pack in packs:
        session.catalog.remember_pack(pack.name, pack.index.digests())
    if grown is not None:
        _tell_of_growth(request, grown)
    stats = writer.stats
    return Saved(
        version, name[0], False, tuple(source.left_out), stats.bytes_in, stats.bytes_new, stats.bytes_stored
    )


def _grown(tree: Tree, source: Source) -> LoraFacts | None:
    """An adapter with more bytes of whole tensors in it (embeddings, heads) than of its own."""
    found = lora.facts(tree, lambda path: source.read(path))
    if found is None or not found.from_weights:
        return None
    total = sum(tensor.length for tensor in tensors_of(tree))
    return found if 2 * found.other_bytes > total else None


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


def _write_side_objects(
    request: SaveRequest, source: Source, tree: Tree, writer: ObjectWriter
) -> tuple[bytes, list[str]]:
    """Store provenance and tree; return the record's bytes and the digests of the tree's objects."""
    provenance = dict(request.provenance)
    found = describe([f.path for f in tree.files], lambda path: source.read(path))
    config = dict(found.config)
    for path, arguments in _training_arguments(source):
        folder = path.rpartition("/")[0]
        if not folder:
            flatten("", arguments, config)
        kind = f"training_arguments:{folder}" if folder else "training_arguments"
        provenance.setdefault(kind, msgspec.json.encode(arguments))
    for key, value in request.config.items():
        flatten(text_of(key), value, config)
    digests = {kind: writer.put(data, "bytes").hex for kind, data in sorted(provenance.items())}
    encoded = encode_tree(tree)
    if len(encoded) > MAX_TREE_BYTES:
        # No reader would take it: refuse while the source is still there.
        raise UnsupportedFile(path=str(source.path), reason="it holds too many files or tensors")
    chunks = [encoded[i : i + _TREE_CHUNK] for i in range(0, len(encoded), _TREE_CHUNK)]
    tree_digests = [writer.put(chunk, "bytes").hex for chunk in chunks]
    return encode_record(_record(request, found, config, tree, digests)), tree_digests


def _record(
    request: SaveRequest,
    found: Description,
    config: dict[str, Stored],
    tree: Tree,
    provenance: dict[str, str],
) -> Record:
    metrics = {k: store_number(v) for k, v in found.metrics.items()} | metrics_of(request.metrics)
    data: dict[str, Stored] = {}
    flatten("", dict(request.data), data)
    data.pop("", None)
    created = request.created_at or datetime.now(UTC)
    return Record(
        created_at=instant_of("created_at", created),
        nonce=fresh_nonce(),
        content=content_of(tree),
        author=mask(text_of(request.author)),
        message=mask(text_of(request.message)),
        parents=[p.hex for p in request.parents or ()],
        run=request.run,
        step=request.step if request.step is not None else found.step,
        epoch=request.epoch if request.epoch is not None else found.epoch,
        event=mask(text_of(request.event)),
        kind=text_of(request.kind or found.kind),
        metrics=metrics,
        config=_masked(config),
        base=_masked_base(request.base or _base_found(found)),
        data=_masked(data),
        provenance=provenance,
    )


def _masked_base(base: Base | None) -> Base | None:
    if base is None:
        return None
    # It may be an address with a password in it.
    return msgspec.structs.replace(base, name_or_path=mask(text_of(base.name_or_path)))


def _base_found(found: Description) -> Base | None:
    return found.base and complete(found.base, user_cache_folder() / "digests")


def _masked(flat: dict[str, Stored]) -> dict[str, Stored]:
    # Masking only ever puts a string in place of a value.
    return cast("dict[str, Stored]", mask_config(flat))


def _training_arguments(source: Source) -> Iterator[tuple[str, dict[str, object]]]:
    """Path and sanitised content of each left-out training_args.bin that says anything."""
    left_out = (path for path, _ in source.left_out if path.rpartition("/")[2] == TRAINING_ARGS)
    for path in islice(left_out, _MAX_ARGUMENTS):
        try:
            with (source.root / path).open("rb") as file:
                data = file.read(_MAX_ARGUMENTS_BYTES)
        except OSError:
            continue  # what is left out may also be a folder, or gone
        arguments = training_args.sanitised(data)
        if arguments:
            yield path, arguments


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
    name = _refuse_taken_name(catalog, request) or _fresh_name(request)
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


def _refuse_taken_name(catalog: Catalog, request: SaveRequest) -> str | None:
    for name, movable in ((request.name, None), (request.alias, "alias")):
        key = name_key(name) if name is not None else ""
        taken = queries.ref(catalog.connection, name_key(request.model), key)
        if taken is not None and taken.kind != movable:
            raise NameTaken(model=request.model, name=name, holder=holder_of(catalog, taken))
    if request.alias:
        from stemmata.protecting import refuse_unless_free  # it needs what judges gates

        hint = f"save without it, then: stemmata promote REF {request.alias}"
        refuse_unless_free(
            catalog, request.model, request.alias, "a version that is new has no evidence", hint
        )
    if request.name and request.alias and name_key(request.name) == name_key(request.alias):
        raise NameTaken(model=request.model, name=request.alias, holder="name of this version")
    return request.name


def _fresh_name(request: SaveRequest) -> str:
    moment = (request.created_at or datetime.now(UTC)).astimezone()
    unique = "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz234567") for _ in range(4))
    stamp = f"{moment:%Y%m%d-%H%M%S}-{unique}"
    return f"{request.run.name}/{stamp}" if request.run else f"save-{stamp}"


def _existing(session: Session, request: SaveRequest, tree: Tree) -> VersionRow | None:
    """The visible version of this model (of the run, where there is one) that holds the same bytes."""
    if not request.same_as_existing or request.name is None:
        return None
    return queries.version_with_content(
        session.catalog.connection,
        name_key(request.model),
        content_of(tree).digest,
        run_id=request.run.id if request.run else None,
        step=request.step,
    )


def _second_name(session: Session, request: SaveRequest, row: VersionRow, source: Source) -> Saved:
    name = request.name
    if name is None:
        raise TypeError("a second name needs a name")
    name_version(session, request.model, name, row.id)
    return Saved(row.id, name, True, tuple(source.left_out), row.bytes, 0, 0)

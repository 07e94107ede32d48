"""Recording: what a caller says of a version, and the record that it becomes. Owns what of it is masked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from stemmata.arguments import finite_of, instant_of, key_of, labels_of, metrics_of, text_of, whole_of
from stemmata.bases import complete
from stemmata.capture import mask, mask_config, mask_value
from stemmata.capturing.secrets import holds_secrets
from stemmata.describe import Description, describe
from stemmata.errors import InvalidArgument, InvalidName, UnsafePath, UnsupportedFile
from stemmata.ids import VersionId
from stemmata.names import MAX_NAME_BYTES, clean_name
from stemmata.objects import ObjectWriter
from stemmata.records import (
    MAX_RECORD_BYTES,
    Base,
    Record,
    Run,
    Statistics,
    Stored,
    encode_record,
    flatten,
    fresh_nonce,
    store_number,
)
from stemmata.session import seen_files
from stemmata.sources import MemoryFolder, Source, SourceFile, read_inside
from stemmata.trees import MAX_TREE_BYTES, Tree, check_paths, content_of, encode_tree, split_tree

if TYPE_CHECKING:
    from stemmata.capturing import Capturing

_MAX_PROVENANCE = 64 << 20
_OF_A_MOMENT = 21
"""Bytes that follow the name of a run where a version is named after the time."""
_MAX_ARGUMENTS = 1000
_MAX_ARGUMENTS_BYTES = 16 << 20  # some kilobytes in practice
_NOTHING: dict[str, Any] = {"config": {}, "metrics": {}, "base": None}
"""Of what a folder's own files may tell at length."""
_SAID = ("config", "metrics", "data", "message", "base", "author", "event", "kind", "run", "parents")
"""What callers may say at length."""
TRAINING_ARGS = "training_args.bin"
_OF_ARGUMENTS = "it may hold tokens in clear; what can be read of it is kept as sanitised JSON"
OF_SECRETS = "its name says that it holds secrets"

Progress = Callable[[int], None]
_log = logging.getLogger("stemmata")


def leave_out(name: str) -> str | None:
    """Why a save takes no file of this name unless it is told to; None of all others."""
    if name == TRAINING_ARGS:
        return _OF_ARGUMENTS
    return OF_SECRETS if holds_secrets(name) else None


class SaveRequest(msgspec.Struct):
    """What the caller says of a version. Everything is optional but model and source."""

    source: Path | MemoryFolder
    model: str
    name: str | None = None
    metrics: Mapping[str, float] = msgspec.field(default_factory=dict)
    config: Mapping[str, object] = msgspec.field(default_factory=dict)
    message: str = ""
    parents: Sequence[VersionId] | None = None
    """None: the run's newest version, if there is one; else none."""
    run: Run | None = None
    step: int | None = None
    epoch: float | None = None
    event: str = "manual"
    kind: str | None = None
    base: Base | None = None
    data: Mapping[str, object] = msgspec.field(default_factory=dict)
    provenance: Mapping[str, bytes] = msgspec.field(default_factory=dict)
    captured: Capturing | None = None
    """What is captured while this is saved; `provenance` goes before it."""
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    alias: str | None = None
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    allow_broken: bool = False
    strict: bool = False
    """Refuse what is surprising against its parent."""
    author: str = ""
    created_at: datetime | None = None
    progress: Progress | None = None
    same_as_existing: bool = False
    numbered: bool = False
    """With a name that is another version's, take `<name>-2`, or the next that is free."""
    reread: bool = False
    """Read every file, also those that nothing has touched since they were read last."""
    listed: Sequence[SourceFile] | None = None
    """The files that were looked at before: SourceChanged unless the source holds these, as they were."""


def settle(request: SaveRequest) -> None:
    """Refuse, before anything is read, what no record could keep. Raises InvalidArgument, InvalidName."""
    request.model = clean_name(request.model)
    for name, wanted in (("run", Run), ("base", Base)):
        given = getattr(request, name)
        if given is not None and not isinstance(given, wanted):
            reason = f"{type(given).__name__} is no stemmata.records.{wanted.__name__}"
            raise InvalidArgument(argument=name, reason=reason)
    if request.run is not None:
        # Its name leads those of its versions, and references name it.
        request.run = Run(text_of(request.run.id), clean_name(request.run.name, reserved=frozenset()))
        if request.name is None and len(request.run.name.encode()) > MAX_NAME_BYTES - _OF_A_MOMENT:
            reason = f"a version that is named after it and the time would have over {MAX_NAME_BYTES} bytes"
            raise InvalidName(name=request.run.name, reason=f"{reason}; give the version a name")
    request.step = whole_of("step", request.step)
    if request.step is not None and request.step < 0:
        raise InvalidArgument(argument="step", reason=f"{request.step} is below 0")
    if request.parents is not None:
        request.parents = list(dict.fromkeys(request.parents))
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


def write_side_objects(
    request: SaveRequest, source: Source, tree: Tree, writer: ObjectWriter, learnt: Statistics | None
) -> tuple[bytes, list[str]]:
    """Store provenance and tree; return the record's bytes and the digests of the tree's objects.

    Raises UnsupportedFile, InvalidArgument.
    """
    captured = request.captured.objects() if request.captured is not None else {}
    provenance = {**captured, **request.provenance}
    found = describe({f.path: f.size for f in tree.files}, source.read)
    config = dict(found.config)
    for path, arguments in _training_arguments(source):
        folder = path.rpartition("/")[0]
        if not folder:
            flatten("", arguments, config)
        kind = f"training_arguments:{folder}" if folder else "training_arguments"
        provenance.setdefault(kind, msgspec.json.encode(arguments))
    digests = {kind: writer.put(data, "bytes").hex for kind, data in sorted(provenance.items())}
    # No reader would take what these refuse: they do so while the source is still there.
    try:
        check_paths([f.path for f in tree.files], tree.empty_folders)
    except UnsafePath as error:
        raise UnsupportedFile(path=str(source.path), reason=str(error)) from None
    encoded = encode_tree(tree)
    if len(encoded) > MAX_TREE_BYTES:
        raise UnsupportedFile(path=str(source.path), reason="it holds too many files or tensors")
    tree_digests = [writer.put(chunk, "bytes").hex for chunk in split_tree(encoded)]
    found = msgspec.structs.replace(found, config=config)
    record = _within_bounds(lambda found: _record(request, found, tree, digests, learnt), found)
    return record, tree_digests


def _within_bounds(record_of: Callable[[Description], Record], found: Description) -> bytes:
    """The record's bytes; of what was `found` the longest is left out where no reader would take them all: a
    side file must not cost the weights. Raises InvalidArgument where what the caller says is too long."""
    encoded = encode_record(record_of(found))
    if len(encoded) <= MAX_RECORD_BYTES:
        return encoded
    said = record_of(msgspec.structs.replace(found, **_NOTHING))
    if (length := len(encode_record(said))) > MAX_RECORD_BYTES:
        reason = (
            f"the record would be {length} bytes long, and {MAX_RECORD_BYTES} is the most: keep it as a file"
        )
        raise InvalidArgument(argument=_longest(said, _SAID), reason=reason)
    while len(encoded) > MAX_RECORD_BYTES:
        part = _longest(found, _NOTHING)
        _log.warning("the %s that the folder's own files tell is left out: too long for a record", part)
        found = msgspec.structs.replace(found, **{part: _NOTHING[part]})
        encoded = encode_record(record_of(found))
    return encoded


def _longest(of: Description | Record, parts: Iterable[str]) -> str:
    return max(parts, key=lambda part: len(str(getattr(of, part) or "")))


def _record(
    request: SaveRequest,
    found: Description,
    tree: Tree,
    provenance: dict[str, str],
    learnt: Statistics | None,
) -> Record:
    config = dict(found.config)
    for key, value in request.config.items():
        flatten(text_of(key), value, config)
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
        message=mask(text_of(request.message or "")),
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
        statistics=learnt,
    )


def _masked_base(base: Base | None) -> Base | None:
    if base is None:
        return None
    # It may be an address with a password in it.
    place = mask(text_of(base.name_or_path))
    revision = text_of(base.revision) if base.revision is not None else None
    return msgspec.structs.replace(base, name_or_path=place, revision=revision)


def _base_found(found: Description) -> Base | None:
    return found.base and complete(found.base, seen_files())


def _masked(flat: dict[str, Stored]) -> dict[str, Stored]:
    # Masking only ever puts a string in place of a value.
    return cast("dict[str, Stored]", mask_config(flat))


def _training_arguments(source: Source) -> Iterator[tuple[str, dict[str, object]]]:
    """Path and sanitised content of each left-out training_args.bin that says anything."""
    # Not one that somebody excluded: of that nothing is kept.
    left_out = (path for path, why in source.left_out if why == _OF_ARGUMENTS)
    for path in islice(left_out, _MAX_ARGUMENTS):
        data = read_inside(source.root, path, _MAX_ARGUMENTS_BYTES)
        if data is None:
            continue
        from stemmata import training_args  # few folders have one: it reads pickles

        arguments = training_args.sanitised(data)
        if arguments:
            yield path, arguments

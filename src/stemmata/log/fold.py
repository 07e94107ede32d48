"""The fold: what the log amounts to. Owns every precondition of FORMAT.md, section 3.1.

An entry takes effect as a whole or not at all. Whatever a sealed entry says, folding it ends in a
state or in the reason why it is void: two readers of one log always agree.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import msgspec

from stemmata.errors import DamagedRecord, NewerFormat
from stemmata.ids import PackName, VersionId
from stemmata.log import ops
from stemmata.log.entries import Entry, Position, is_hex
from stemmata.names import MAX_NAME_BYTES, name_key
from stemmata.records import Outline, decode_outline

LIVE, RETIRED, DROPPED = "live", "retired", "dropped"
VISIBLE, DELETED, FORGOTTEN = "visible", "deleted", "forgotten"
ALIAS, TAG, NAME = "alias", "tag", "name"

_INT_MAX = 2**63 - 1
_TAGGED = frozenset({"~nan", "~inf", "~-inf"})


class Moment(NamedTuple):
    """The entry that an effect belongs to. `at` is its effective time."""

    n: int
    at: str
    by: str
    txn: str


class Standing(msgspec.Struct, frozen=True):
    """What the fold needs to know of a version. `model` is the model's key."""

    model: str
    state: str


class Pointer(msgspec.Struct, frozen=True):
    """What a name of a model is and points at."""

    kind: str
    target: VersionId


class State(Protocol):
    """What the log has amounted to so far. Preconditions are the fold's; a state only remembers."""

    def savepoint(self) -> AbstractContextManager[object]:
        """Changes made inside are undone if the block is left by an exception."""

    def format(self) -> int: ...
    def pack_state(self, pack: PackName) -> str | None: ...
    def packs_upon(self, pack: PackName) -> Iterable[PackName]:
        """Packs that name `pack` as a base."""

    def pack_is_named(self, pack: PackName) -> bool:
        """Does a visible or deleted version name it?"""

    def version(self, version: VersionId) -> Standing | None: ...
    def object_kinds(self, version: VersionId) -> set[str]:
        """Kinds of provenance in its record, and of objects attached since."""

    def redacted(self, version: VersionId) -> set[str]: ...
    def is_pointed_at(self, version: VersionId) -> bool:
        """By an alias or tag of any model."""

    def ref(self, model: str, key: str) -> Pointer | None: ...

    def set_format(self, to: int) -> None: ...
    def add_pack(self, moment: Moment, pack: PackName, op: ops.PackAdd) -> None: ...
    def set_pack_state(self, moment: Moment, pack: PackName, state: str) -> None:
        """Also of a pack that was never added."""

    def add_version(
        self, moment: Moment, version: VersionId, record: Outline, op: ops.VersionAdd
    ) -> None: ...
    def place_version(self, version: VersionId, op: ops.VersionPlace) -> None: ...
    def set_version_state(self, moment: Moment, version: VersionId, state: str) -> None: ...
    def annotate(self, moment: Moment, version: VersionId, op: ops.VersionAnnotate) -> None: ...
    def redact(self, moment: Moment, version: VersionId, item: str, why: str) -> None: ...
    def set_ref(self, moment: Moment, target: VersionId, op: ops.RefSet) -> None: ...
    def delete_ref(self, moment: Moment, op: ops.RefDelete) -> None: ...
    def configure(self, moment: Moment, op: ops.ModelConfigure) -> None: ...


class VoidOp(Exception):
    """A precondition does not hold. Never leaves this module but through `apply`'s answer."""


def apply(state: State, position: Position, entry: Entry) -> str | None:
    """Fold one entry into `state`. Returns the reason if it is void; then `state` is as before.

    Raises NewerFormat, `state` untouched, if the entry lifts the log to a format beyond this release.
    """
    moment = Moment(position.n, position.effective, entry.by, entry.txn)
    try:
        with state.savepoint():
            for index, op in enumerate(entry.ops):
                try:
                    _RULES[type(op)](state, moment, op)
                except VoidOp as void:
                    raise VoidOp(f"op {index + 1}: {void}") from None
            if state.format() > ops.FORMAT:
                reason = f"it lifts the log to format {state.format()}, this release reads {ops.FORMAT}"
                raise NewerFormat(where=f"log entry {position.n}", reason=reason)
    except VoidOp as void:
        return str(void)
    return None


# --- small checks ---------------------------------------------------------------------------------


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise VoidOp(reason)


# Reasons are put together only where they are needed: of very many entries hardly one is void.


@lru_cache(maxsize=1024)
def _pack(text: str) -> PackName:
    if not is_hex(text, 32):
        raise VoidOp(f"{text[:80]!r} is no pack's name")
    return PackName(bytes.fromhex(text))


def _id(text: str) -> VersionId:
    if not is_hex(text, 64):
        raise VoidOp(f"{text[:80]!r} is no version's id")
    return VersionId(bytes.fromhex(text))


def _digests(texts: list[str]) -> None:
    for text in texts:
        if not is_hex(text, 64):
            raise VoidOp(f"{text[:80]!r} is no digest")


def _name(text: str, what: str) -> str:
    size = len(text.encode("utf-8"))
    if not 0 < size <= MAX_NAME_BYTES:
        raise VoidOp(f"a {what} of {size} bytes")
    # What is printable is no control character; a space or a mark that is not may still be none.
    if not text.isprintable() and any(unicodedata.category(c) == "Cc" for c in text):
        raise VoidOp(f"a {what} with a control character")
    return name_key(text)


def _number(value: int | None, what: str) -> None:
    _require(value is None or -_INT_MAX <= value <= _INT_MAX, f"{what} is beyond 63 bits")


def _require_live(state: State, packs: Iterable[str]) -> None:
    for text in packs:
        found = state.pack_state(_pack(text))
        if found != LIVE:
            raise VoidOp(f"pack {text} is {found or 'unknown'}")


def _require_state(state: State, text: str, *wanted: str) -> VersionId:
    version = _id(text)
    standing = state.version(version)
    found = standing.state if standing is not None else "unknown"
    if found not in wanted:
        raise VoidOp(f"version {version.short} is {found}")
    return version


def is_needed(state: State, pack: PackName, idle: set[PackName] | None = None) -> bool:
    """Does a visible or deleted version need this pack, by its name or as a base? `idle`: packs of which that
    is known that none does; it takes in what is found: packs of a run lean on one another in long chains."""
    idle = set() if idle is None else idle
    if pack in idle:
        return False
    seen = {pack}
    ahead = [pack]
    while ahead:
        here = ahead.pop()
        if state.pack_is_named(here):
            return True
        upon = set(state.packs_upon(here)) - seen - idle
        seen |= upon
        ahead.extend(upon)
    idle |= seen
    return False


# --- one rule per op ------------------------------------------------------------------------------


def format_upgrade(state: State, _moment: Moment, op: ops.FormatUpgrade) -> None:
    _require(op.to > state.format(), f"format {op.to} is not above the current one")
    _number(op.to, "the format")
    state.set_format(op.to)


def pack_add(state: State, moment: Moment, op: ops.PackAdd) -> None:
    pack = _pack(op.pack)
    found = state.pack_state(pack)
    _require(found is None, f"pack {op.pack} is already {found}")
    _digests([op.digest])
    _require(0 <= op.size <= _INT_MAX, f"a size of {op.size}")
    _require_live(state, op.bases)
    state.add_pack(moment, pack, op)


def version_add(state: State, moment: Moment, op: ops.VersionAdd) -> None:
    data = bytes(op.record)
    version = VersionId.of(data)
    if state.version(version) is not None:
        raise VoidOp(f"version {version.short} is there already")
    try:
        record = decode_outline(data)
    except DamagedRecord as error:
        raise VoidOp(f"the record cannot be read: {error.data['reason']}") from None
    _number(record.step, "the step")
    _number(record.content.files, "the number of files")
    _number(record.content.bytes, "the size")
    model, key = _name(op.model, "model"), _name(op.name, "name")
    if state.ref(model, key) is not None:
        raise VoidOp(f"the name {op.name!r} is taken")
    _require_placed(state, op.tree, op.packs)
    state.add_version(moment, version, record, op)


def version_place(state: State, _moment: Moment, op: ops.VersionPlace) -> None:
    version = _require_state(state, op.version, VISIBLE, DELETED)
    _require_placed(state, op.tree, op.packs)
    state.place_version(version, op)


def _require_placed(state: State, tree: list[str], packs: list[str]) -> None:
    _require(bool(packs), "no packs")
    _require_live(state, packs)
    _require(bool(tree), "no tree")
    _digests(tree)


def version_delete(state: State, moment: Moment, op: ops.VersionDelete) -> None:
    version = _require_state(state, op.version, VISIBLE)
    _require(not state.is_pointed_at(version), f"an alias or tag points at {version.short}")
    state.set_version_state(moment, version, DELETED)


def version_restore(state: State, moment: Moment, op: ops.VersionRestore) -> None:
    state.set_version_state(moment, _require_state(state, op.version, DELETED), VISIBLE)


def version_forget(state: State, moment: Moment, op: ops.VersionForget) -> None:
    for text in op.versions:
        state.set_version_state(moment, _require_state(state, text, DELETED), FORGOTTEN)


def version_annotate(state: State, moment: Moment, op: ops.VersionAnnotate) -> None:
    version = _require_state(state, op.version, VISIBLE)
    _require(bool(op.metrics or op.labels or op.notes or op.details or op.objects), "nothing to add")
    _require_metrics(op.metrics or {})
    _require(bool(op.objects) == bool(op.packs), "objects without packs, or packs without objects")
    _digests(list((op.objects or {}).values()))
    _require_live(state, op.packs)
    # A kind names one object for good, so that redacting it is never ambiguous.
    taken = state.object_kinds(version) & set(op.objects) if op.objects else ()
    _require(not taken, f"version {version.short} already has {sorted(taken)[:1]}")
    state.annotate(moment, version, op)


def _require_metrics(metrics: Mapping[str, float | str]) -> None:
    for key, value in metrics.items():
        _require(not isinstance(value, str) or value in _TAGGED, f"the metric {key[:80]!r} is no number")


def version_redact(state: State, moment: Moment, op: ops.VersionRedact) -> None:
    version = _require_state(state, op.version, VISIBLE, DELETED)
    kinds = state.object_kinds(version)
    for item in op.items:
        _require(item in kinds, f"version {version.short} has no {item[:80]!r}")
        _require(item not in state.redacted(version), f"{item[:80]!r} is redacted already")
        state.redact(moment, version, item, op.why)


def ref_set(state: State, moment: Moment, op: ops.RefSet) -> None:
    model, key = _name(op.model, "model"), _name(op.name, "name")
    target = _require_state(state, op.to, VISIBLE)
    standing = state.version(target)
    _require(standing is not None and standing.model == model, f"{target.short} is of another model")
    current = state.ref(model, key)
    expected = _id(op.expect) if op.expect is not None else None
    if op.kind == ALIAS:
        _require(current is None or current.kind == ALIAS, f"{op.name!r} is no alias")
        found = current.target if current is not None else None
        _require(found == expected, f"{op.name!r} is not where it was expected to be")
    else:
        _require(op.kind in (TAG, NAME), f"no kind of name: {op.kind[:80]!r}")
        _require(current is None, f"the name {op.name!r} is taken")
        _require(expected is None, "a tag or name has no value before")
    state.set_ref(moment, target, op)


def ref_delete(state: State, moment: Moment, op: ops.RefDelete) -> None:
    _require(op.kind in (ALIAS, TAG), f"a {op.kind[:80]!r} cannot be deleted")
    current = state.ref(_name(op.model, "model"), _name(op.name, "name"))
    _require(current == Pointer(op.kind, _id(op.expect)), f"{op.name!r} is not where it was expected to be")
    state.delete_ref(moment, op)


def model_configure(state: State, moment: Moment, op: ops.ModelConfigure) -> None:
    _name(op.model, "model")
    _require(bool(op.settings), "no settings")
    state.configure(moment, op)


def pack_retire(state: State, moment: Moment, op: ops.PackRetire) -> None:
    idle: set[PackName] = set()
    for text in op.packs:
        pack = _pack(text)
        found = state.pack_state(pack)
        _require(found in (None, LIVE), f"pack {text} is already {found}")
        _require(not is_needed(state, pack, idle), f"pack {text} is needed")
        state.set_pack_state(moment, pack, RETIRED)


def pack_drop(state: State, moment: Moment, op: ops.PackDrop) -> None:
    for text in op.packs:
        pack = _pack(text)
        _require(state.pack_state(pack) == RETIRED, f"pack {text} is not retired")
        state.set_pack_state(moment, pack, DROPPED)


# Any: each rule takes its own op; the key of this table is what says so.
_RULES: dict[type, Callable[[State, Moment, Any], None]] = {
    ops.FormatUpgrade: format_upgrade,
    ops.PackAdd: pack_add,
    ops.VersionAdd: version_add,
    ops.VersionPlace: version_place,
    ops.VersionDelete: version_delete,
    ops.VersionRestore: version_restore,
    ops.VersionForget: version_forget,
    ops.VersionAnnotate: version_annotate,
    ops.VersionRedact: version_redact,
    ops.RefSet: ref_set,
    ops.RefDelete: ref_delete,
    ops.ModelConfigure: model_configure,
    ops.PackRetire: pack_retire,
    ops.PackDrop: pack_drop,
}

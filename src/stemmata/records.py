"""Records: what a version says of itself. Owns the frozen structs and how numbers survive JSON.

A record's bytes are kept verbatim: the version's id is the BLAKE3 of exactly these bytes.
Unknown fields are skipped, so that an older release reads a record of a newer one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import TypeAlias

import msgspec

from stemmata.errors import DamagedRecord
from stemmata.ids import VersionId, random_hex

MAX_RECORD_BYTES = 4 << 20

Scalar: TypeAlias = str | int | float | bool | None
Value: TypeAlias = "Scalar | list[Scalar]"
Stored: TypeAlias = str | int | float | bool | list[str | int | float | bool | None] | None

_ESCAPE = "~"
_SPECIAL = {"~nan": math.nan, "~inf": math.inf, "~-inf": -math.inf}
_INT_MAX = 2**63 - 1
_INT_BITS = 8192
_INT_TEXT = re.compile(r"~int:-?[0-9]{1,2500}")


class Content(msgspec.Struct, frozen=True, gc=False):
    """What the record commits to: see FORMAT.md, "Content digest"."""

    digest: str
    files: int
    bytes: int


class Run(msgspec.Struct, frozen=True, gc=False):
    """The training process that a version came from."""

    id: str
    name: str


class Base(msgspec.Struct, frozen=True, gc=False):
    """Where an adapter's base model came from, and what its files were."""

    name_or_path: str
    revision: str | None = None
    digest: str | None = None
    """Content digest over the weight files of the base; None when no file could be read."""
    files: list[tuple[str, int, str]] = []
    """(path, bytes, BLAKE3 hex) of each weight and config file."""
    version: str | None = None
    """Id of the version in this repository that holds these files, if one did at save."""


STATISTICS = "statistics"
"""The kind of the object that holds a version's statistics, among what it has beside its files."""


class Statistics(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What was learnt of the tensors' numbers while they were stored: FORMAT.md, "Statistics"."""

    digest: str
    """Of the object that holds a row for each tensor."""
    against: str | None = None
    """Id of the version that they were held against; None: of none."""
    nonfinite: int = 0
    """Numbers of the weights that are not finite."""
    grown: list[str] = []
    """Some of the tensors that have exploded since then."""


class Record(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One version's own statement. Times are RFC 3339 in UTC with microseconds."""

    created_at: str
    nonce: str
    content: Content
    author: str = ""
    message: str = ""
    parents: list[str] = []
    run: Run | None = None
    step: int | None = None
    epoch: float | None = None
    event: str = "manual"
    """manual, epoch, step, eval, save, end, best or import."""
    kind: str = "files"
    """model, adapter, checkpoint or files: what `load` can make of it."""
    metrics: dict[str, float | str] = {}
    config: dict[str, Stored] = {}
    base: Base | None = None
    data: dict[str, Stored] = {}
    """Row counts and fingerprints of the data, flat."""
    provenance: dict[str, str] = {}
    """Kind -> digest of an erasable object: command, environment, packages, code, config files."""
    statistics: Statistics | None = None

    def beside(self) -> dict[str, str]:
        """Kind -> digest of every object that the record names: of what is kept beside tree and files."""
        kept = {STATISTICS: self.statistics.digest} if self.statistics is not None else {}
        return {**kept, **self.provenance}


class Outline(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A record whose config and data, which the versions of a run share, are as they were written."""

    created_at: str
    nonce: str
    content: Content
    author: str = ""
    message: str = ""
    parents: list[str] = []
    run: Run | None = None
    step: int | None = None
    epoch: float | None = None
    event: str = "manual"
    kind: str = "files"
    metrics: dict[str, float | str] = {}
    written_config: msgspec.Raw = msgspec.field(name="config", default=msgspec.Raw(b"{}"))
    base: Base | None = None
    written_data: msgspec.Raw = msgspec.field(name="data", default=msgspec.Raw(b"{}"))
    provenance: dict[str, str] = {}
    statistics: Statistics | None = None

    @property
    def config(self) -> bytes:
        return bytes(self.written_config)

    @property
    def data(self) -> bytes:
        return bytes(self.written_data)


_decoder = msgspec.json.Decoder(Record)
_outlines = msgspec.json.Decoder(Outline)
_values = msgspec.json.Decoder(dict[str, Stored])
_encoder = msgspec.json.Encoder()


def encode_record(record: Record) -> bytes:
    return _encoder.encode(record)


def decode_record(data: bytes | memoryview, version: VersionId | None = None) -> Record:
    """Decode and, if `version` is given, hold the bytes against it. Raises DamagedRecord."""
    shown = version.short if version else "?"
    if len(data) > MAX_RECORD_BYTES:
        raise DamagedRecord(version=shown, reason=f"it is {len(data)} bytes long")
    if version is not None and VersionId.of(data) != version:
        raise DamagedRecord(version=shown, reason="its digest is not the version's id")
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedRecord(version=shown, reason=str(error)) from None


def decode_outline(data: bytes) -> Outline:
    """As `decode_record`, and as strict, for whoever reads very many. Raises DamagedRecord."""
    if len(data) <= MAX_RECORD_BYTES:
        try:
            outline = _outlines.decode(data)
            stored_values(outline.config)
            stored_values(outline.data)
            # As a writer writes it: nothing in it was passed over, such as a field that is there twice.
            if _encoder.encode(outline) == data:
                return outline
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
    record = decode_record(data)
    fields = {name: getattr(record, name) for name in Record.__struct_fields__}
    config, said = (msgspec.Raw(_encoder.encode(fields.pop(name))) for name in ("config", "data"))
    return Outline(**fields, written_config=config, written_data=said)


@lru_cache(maxsize=256)
def stored_values(text: bytes) -> Mapping[str, Stored]:
    """A record's config or data, as written. Kept for a while: change nothing. Raises msgspec.DecodeError."""
    return _values.decode(text)


def fresh_nonce() -> str:
    return random_hex(8)


def timestamp(moment: datetime) -> str:
    """RFC 3339, UTC, microseconds: as text these sort in time's order."""
    if moment.tzinfo is None:
        raise ValueError("a stored time needs a time zone")
    # Not strftime: it drops the leading zeros of early years, and text would sort wrongly.
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def store_value(value: object) -> Stored:
    """A JSON-safe form of a scalar or a list of scalars; anything else becomes its text.

    JSON has no NaN or infinity and many readers no big integers: these become strings that
    begin with '~'; a real string that begins with '~' is written with a second one.
    """
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [_store_scalar(item) for item in items]
    return _store_scalar(value)


def _store_scalar(value: object) -> str | int | float | bool | None:
    if getattr(value, "ndim", None) == 0 and callable(item := getattr(value, "item", None)):
        value = item()  # a scalar of numpy or torch: the number that it is, not its text
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        number = int(value)
        if -_INT_MAX <= number <= _INT_MAX:
            return number
        # Python itself refuses to write or read integers of very many decimal digits.
        return f"~int:{number}" if number.bit_length() <= _INT_BITS else hex(number)
    if isinstance(value, float):
        return store_number(value)
    text = str(value)
    text = text.encode("utf-8", "replace").decode("utf-8")
    return _ESCAPE + text if text.startswith(_ESCAPE) else text


def store_number(value: float) -> float | str:
    """A float as JSON keeps it: NaN and infinities become tagged strings."""
    number = float(value)
    if math.isnan(number):
        return "~nan"
    if math.isinf(number):
        return "~inf" if number > 0 else "~-inf"
    return number


def load_value(value: Stored) -> Value:
    """The inverse of `store_value`."""
    if isinstance(value, list):
        return [_load_scalar(item) for item in value]
    return _load_scalar(value)


def _load_scalar(value: str | int | float | bool | None) -> Scalar:
    if not isinstance(value, str) or not value.startswith(_ESCAPE):
        return value
    if value in _SPECIAL:
        return _SPECIAL[value]
    if value.startswith("~int:"):
        # A record may come from a hostile place: what is no number stays text.
        return int(value[5:]) if _INT_TEXT.fullmatch(value) else value
    return value[1:]


def load_metrics(stored: Mapping[str, float | str]) -> dict[str, float]:
    """Metrics as floats. A text that is no tagged number reads as NaN."""
    return {
        k: float(_SPECIAL.get(v, math.nan)) if isinstance(v, str) else float(v) for k, v in stored.items()
    }


def flatten(prefix: str, tree: object, into: dict[str, Stored], depth: int = 0) -> None:
    """Write a nested config into `into` under dotted keys (`lora.r`); lists of scalars stay lists."""
    if isinstance(tree, Mapping) and depth < 8:
        for key, value in tree.items():
            name = str(key).encode("utf-8", "replace").decode("utf-8")
            flatten(f"{prefix}.{name}" if prefix else name, value, into, depth + 1)
        return
    try:
        into[prefix] = store_value(tree)
    except RecursionError:
        into[prefix] = "…"

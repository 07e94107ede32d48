"""Entries: one transaction's bytes. Owns the seal, the chain and the order in which an entry is judged.

An entry is damaged (reading stops), of a newer format (reading stops), void (it happened, to no
effect) or sound; FORMAT.md, section 3, gives the order of the questions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from typing import NamedTuple

import msgspec
from blake3 import blake3

from stemmata.errors import DamagedLog, NewerFormat
from stemmata.ids import Digest
from stemmata.log.ops import FORMAT, KINDS, Op

MAX_ENTRY_BYTES = 64 << 20
MAX_DEPTH = 64
"""Nesting of an entry's JSON. Decoders recurse; an entry is void or not on every machine alike."""

_SEAL_BYTES = 66
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d\.\d{6}Z", re.ASCII)
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


class Position(NamedTuple):
    """A place in the log: entry `n`, the BLAKE3 of its bytes, and its effective time ('' at 0)."""

    n: int
    hash: Digest
    effective: str


class Void(msgspec.Struct, frozen=True):
    """An entry without effect. `at` is its time, where it states one."""

    reason: str
    at: str | None = None


# gc=False here and in `ops` and `records`: trees of values, and of very many entries Python's collector would
# look at each again and again.
class Entry(msgspec.Struct, frozen=True, gc=False):
    """One transaction. `at` is what the writer's clock said; `prev` the hash of the entry before."""

    n: int
    format: int
    txn: str
    prev: str
    at: str
    by: str
    ops: list[Op]


class _Header(msgspec.Struct, frozen=True, gc=False):
    n: int
    format: int
    txn: str
    prev: str
    at: str
    by: str
    ops: list[msgspec.Raw]


class _Link(msgspec.Struct, frozen=True, gc=False):
    prev: str


class _Kind(msgspec.Struct, frozen=True, gc=False):
    op: str


_encoder = msgspec.json.Encoder()
_entries = msgspec.json.Decoder(Entry)
_headers = msgspec.json.Decoder(_Header)
_links = msgspec.json.Decoder(_Link)
_kinds = msgspec.json.Decoder(_Kind)
_ops = msgspec.json.Decoder(list[Op])


def log_key(n: int) -> str:
    """Where entry `n` lies."""
    return f"log/{n:020d}.json"


def seal(body: bytes) -> bytes:
    """`body` as a sealed text: with its own BLAKE3 behind it."""
    return b"%b\n%b\n" % (body, blake3(body).hexdigest().encode())


def unseal(data: bytes) -> bytes:
    """The body of a sealed text. ValueError if the seal does not fit."""
    body = data[:-_SEAL_BYTES]
    if len(data) < _SEAL_BYTES or data[-_SEAL_BYTES:] != b"\n%b\n" % blake3(body).hexdigest().encode():
        raise ValueError("its seal does not fit its content")
    return body


def encode_entry(after: Position, ops: Sequence[Op], *, txn: str, at: str, by: str) -> bytes:
    """The bytes of the entry that follows `after`. ValueError if they exceed 64 MiB."""
    entry = Entry(n=after.n + 1, format=FORMAT, txn=txn, prev=after.hash.hex, at=at, by=by, ops=list(ops))
    data = seal(_encoder.encode(entry))
    if len(data) > MAX_ENTRY_BYTES:
        raise ValueError(f"one entry of the log may hold {MAX_ENTRY_BYTES} bytes, this one has {len(data)}")
    return data


def read_entry(n: int, data: bytes, prev: Position, *, sealed: bool = False) -> Entry | Void:
    """Judge the bytes found as entry `n`, which should follow `prev`. Raises DamagedLog, NewerFormat.

    `sealed`: `follow` has held these very bytes against their seal.
    """
    if len(data) > MAX_ENTRY_BYTES:
        raise DamagedLog(entry=n, reason="it is longer than 64 MiB")
    try:
        body = data[:-_SEAL_BYTES] if sealed else unseal(data)
    except ValueError as error:
        raise DamagedLog(entry=n, reason=str(error)) from None
    if not _is_shallow_utf8(body):
        return Void(f"it is no UTF-8 or nested deeper than {MAX_DEPTH} levels")
    try:
        entry: Entry | _Header = _entries.decode(body)
    except msgspec.MsgspecError:
        # The usual way round costs one pass; what it refuses is judged question by question.
        try:
            entry = _headers.decode(body)
        except msgspec.MsgspecError as error:
            return Void(f"it is no entry: {error}")
    follows = entry.prev == prev.hash.hex
    wrong = _wrong_field(entry, follows)
    if wrong:
        return Void(f"it is no entry: {wrong}")
    if entry.n != n or n != prev.n + 1:
        raise DamagedLog(entry=n, reason=f"it calls itself entry {entry.n}")
    if not follows:
        raise DamagedLog(entry=n, reason="it does not follow the entry before it")
    if entry.format > FORMAT:
        reason = f"it has format {entry.format}, this release reads {FORMAT}"
        raise NewerFormat(where=f"log entry {n}", reason=reason)
    return entry if isinstance(entry, Entry) else _judge_ops(entry)


def advance(prev: Position, data: bytes, found: Entry | Void, digest: Digest | None = None) -> Position:
    """The position of an entry that was read after `prev`; `digest` is that of `data`, where it is known.

    Effective time never runs backwards.
    """
    return Position(prev.n + 1, digest or Digest.of(data), max(prev.effective, found.at or ""))


def follow(data: bytes, before: str | None) -> bytes | None:
    """The digest of a sealed entry that names `before`, in hex, as what it follows (None: whatever it names).

    None where the seal does not fit or the entry names something else. The bytes are hashed once for both.
    """
    body, tail = data[:-_SEAL_BYTES], data[-_SEAL_BYTES:]
    hasher = blake3(body)
    if tail != b"\n%b\n" % hasher.hexdigest().encode():
        return None
    try:
        link = _links.decode(body).prev
    except ValueError:
        return None
    if before is not None and link != before:
        return None
    return hasher.update(tail).digest()


def link_of(data: bytes) -> Digest | None:
    """The hash that a sealed entry claims to follow; None where it says nothing sound."""
    try:
        return Digest.parse(_links.decode(unseal(data)).prev)
    except ValueError:
        return None


def is_time(text: str) -> bool:
    """Is this RFC 3339 in UTC with microseconds, as the store writes every time?"""
    match = _TIME.fullmatch(text)
    return match is not None and _is_date(match[1])


@lru_cache(maxsize=1024)
def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def is_hex(text: str, digits: int) -> bool:
    """Is this lower-case hex of exactly so many digits?"""
    return len(text) == digits and not text.strip("0123456789abcdef")


def _wrong_field(entry: Entry | _Header, follows: bool) -> str | None:
    if entry.format < 1:
        return f"format {entry.format}"
    if not is_hex(entry.txn, 32):
        return f"txn {entry.txn[:80]!r}"
    if not follows and not is_hex(entry.prev, 64):
        return f"prev {entry.prev[:80]!r}"
    if not is_time(entry.at):
        return f"at {entry.at[:80]!r}"
    return None


def _judge_ops(entry: _Header) -> Void:
    """Why an entry with a sound header has no sound ops. Raises NewerFormat for an unknown op."""
    reason = "its ops cannot be read"
    for raw in entry.ops:
        try:
            kind = _kinds.decode(raw).op
        except msgspec.MsgspecError as error:
            reason = f"an op without a kind: {error}"
            continue
        if kind not in KINDS:
            raise NewerFormat(where=f"log entry {entry.n}", reason=f"it has the op {kind[:80]!r}")
    try:
        _ops.decode(_encoder.encode(entry.ops))
    except msgspec.MsgspecError as error:
        reason = f"an op with a wrong field: {error}"
    return Void(reason, entry.at)


def _is_shallow_utf8(body: bytes) -> bool:
    if not body.isascii():
        try:
            body.decode("utf-8")
        except UnicodeDecodeError:
            return False
    # So many are taken out; `count` looks at each byte by itself and takes four times as long.
    if 2 * len(body) - len(body.replace(b"[", b"")) - len(body.replace(b"{", b"")) <= MAX_DEPTH:
        return True
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", body)):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            return False
    return True

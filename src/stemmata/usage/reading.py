"""Reading: what packs and versions hold. Owns how that is kept; decodes no object but trees.

Of a pack the index is read, and of each object its header and its frames' heads. An object is known by the
first eight bytes of its digest: of a million objects two fall together once in thirty million repositories,
and then a figure is off by one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import numpy as np

from stemmata.catalog import asking, contents
from stemmata.catalog.contents import Holder
from stemmata.codecs.looking import CODECS, look_at
from stemmata.errors import StemmataError
from stemmata.ids import Digest, PackName
from stemmata.packs import PackReader
from stemmata.session import Session

if TYPE_CHECKING:
    import numpy.typing as npt

Keys: TypeAlias = "npt.NDArray[Any]"

_BY_CODEC = (len(CODECS),)
OBJECT = np.dtype(
    [
        ("key", "<u8"),
        ("base", "<u8"),
        ("stored", "<u4"),
        ("raw", "<u4", _BY_CODEC),
        ("coded", "<u4", _BY_CODEC),
    ]
)
"""One object. `base`: the object that it leans on, 0 if none; `raw` and `coded` by codec."""
_KEY = 8
_WHOLE = 8 << 20
"""Packs up to this size are read at once: that costs less than a look at each object."""
_AT_ONCE = 200

Told: TypeAlias = Callable[[str], None]
"""Called with what could not be read."""


def objects_of(session: Session, unread: Told, progress: Callable[[], None]) -> npt.NDArray[Any]:
    """Every object of every live pack, in the order of packs."""
    tables: list[npt.NDArray[Any]] = []
    fresh: list[tuple[PackName, bytes]] = []
    for pack, kept in contents.live_packs(session.catalog.connection):
        if kept is None or len(kept) % OBJECT.itemsize:
            try:
                kept = _read_pack(session, pack)
            except StemmataError:
                unread(f"pack {pack}")
                continue
            fresh.append((pack, kept))
            if len(fresh) >= _AT_ONCE:
                contents.keep_packs(session.catalog, fresh)
                fresh.clear()
        tables.append(np.frombuffer(kept, OBJECT))
        progress()
    contents.keep_packs(session.catalog, fresh)
    return np.concatenate(tables) if tables else np.empty(0, OBJECT)


def held_by(
    session: Session, versions: Sequence[Holder], unread: Told, progress: Callable[[], None]
) -> Iterator[tuple[Holder, Keys, Keys]]:
    """Of each version, the objects of its files and those beside them: tree, provenance and statistics."""
    added = _attached(session)
    ahead = iter(versions)
    while some := list(islice(ahead, _AT_ONCE)):
        kept = contents.version_contents(session.catalog.connection, [version.seq for version in some])
        missing = [version.seq for version in some if version.seq not in kept]
        fresh = dict(_read_versions(session, missing, unread))
        contents.keep_versions(session.catalog, [(seq, *found) for seq, found in fresh.items()])
        for version in some:
            found = kept.get(version.seq) or fresh.get(version.seq)
            progress()
            if found is not None:
                files, beside = (np.frombuffer(keys, "<u8") for keys in found)
                if version.seq in added:
                    beside = np.union1d(beside, added[version.seq])
                yield version, files, beside


def _read_versions(
    session: Session, seqs: Sequence[int], unread: Told
) -> Iterator[tuple[int, tuple[bytes, bytes]]]:
    for row in asking.versions_numbered(session.catalog.connection, seqs):
        try:
            tree, record = session.tree(row), session.record(row)
        except StemmataError:
            unread(f"version {row.id.short}")
            continue
        files = (digest for file in tree.files for segment in file.segments for digest in segment.objects)
        yield row.seq, (_keys(files), _keys([*row.tree, *record.beside().values()]))


def _attached(session: Session) -> dict[int, Keys]:
    found: dict[int, Keys] = {}
    for seq, objects in contents.attached(session.catalog.connection):
        keys = np.frombuffer(_keys(msgspec.json.decode(objects, type=dict[str, str]).values()), "<u8")
        found[seq] = np.union1d(found[seq], keys) if seq in found else keys
    return found


def _keys(digests: Iterable[str]) -> bytes:
    found = set()
    for text in digests:
        try:
            found.add(_key(Digest.parse(text)))
        except ValueError:
            continue  # a record may say anything; what is no digest names nothing
    return np.array(sorted(found), "<u8").tobytes()


def _read_pack(session: Session, pack: PackName) -> bytes:
    """Rows of OBJECT for a pack's objects."""
    index = PackReader(session.storage, pack).index
    rows = list(index.rows())
    end = max((row.offset + row.stored for _, row in rows), default=0)
    whole = memoryview(session.storage.get(pack.key, 0, end)) if end <= _WHOLE else None

    found = np.zeros(len(rows), OBJECT)
    for place, (digest, row) in enumerate(rows):

        def read(offset: int, length: int, begin: int = row.offset) -> memoryview:
            if whole is not None:
                return whole[begin + offset : begin + offset + length]
            return memoryview(session.storage.get(pack.key, begin + offset, length))

        look = look_at(row.stored, read, digest.hex, pack.hex)
        base = _key(look.references[0].digest) if look.references else 0
        found[place] = (_key(digest), base, row.stored, look.raw, look.coded)
    return found.tobytes()


def _key(digest: Digest) -> int:
    return int.from_bytes(digest.raw[:_KEY], "little")

"""New packs: what is written anew before somebody commits it. Owns when one is full, and the reading back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from stemmata.codecs.hashing import Buffer
from stemmata.errors import Damage
from stemmata.ids import Digest, PackName
from stemmata.objects import ObjectReader
from stemmata.objects.writing import PACK_BYTES, PACK_OBJECTS
from stemmata.packs import PackSummary, PackWriter
from stemmata.storage.base import Storage


class NewPacks:
    """Writes encoded objects, what one leans on before it. No log names any of it before a commit."""

    def __init__(self, storage: Storage, reader: ObjectReader) -> None:
        self.written: list[PackSummary] = []
        self._storage, self._reader = storage, reader
        self._open: PackWriter | None = None

    def add(
        self, digest: Digest, parts: Sequence[Buffer], raw_length: int, bases: Iterable[PackName] = ()
    ) -> PackName:
        """Store one; where. Raises as storages do."""
        if self._open is None:
            self._open = PackWriter(self._storage)
        pack = self._open
        pack.add(digest, parts, raw_length)
        for base in bases:
            pack.lean_on(base)
        if pack.size >= PACK_BYTES or len(pack) >= PACK_OBJECTS:
            self.close()
        return pack.name

    def close(self) -> None:
        """Make what was written so far durable (I1)."""
        if self._open is not None:
            pack, self._open = self._open, None
            self.written.append(pack.commit())

    def discard(self) -> None:
        """Delete what was written: no log has ever named it."""
        pack, self._open = self._open, None
        if pack is not None:
            pack.abort()
        for summary in self.written:
            self._storage.delete(summary.name.key)

    def unreadable(self, progress: Callable[[int], None] | None = None) -> Iterator[tuple[Digest, Damage]]:
        """Read back every object that was written, through what it leans on; those that fail, and how."""
        for summary in self.written:
            for digest in summary.index.digests():
                try:
                    length = len(self._reader.read(digest, [summary.name]))
                except Damage as error:
                    yield digest, error
                else:
                    if progress is not None:
                        progress(length)

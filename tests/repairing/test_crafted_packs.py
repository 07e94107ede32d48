"""Packs that no fault of a disk makes: sound by their checksums, and not what they should be."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from faults import Damage, damage
from shop import Epochs, planted
from spoiled import pack_of, require_all, tensors
from stemmata.codecs.dtypes import dtype_of
from stemmata.codecs.frames import Reference
from stemmata.codecs.hashing import Buffer
from stemmata.codecs.objectcode import Base, encode_object
from stemmata.ids import Digest, PackName
from stemmata.packs import PackReader, PackWriter
from stemmata.repository import Repository
from stemmata.storage.memory import MemoryStorage

Stores = Callable[[], MemoryStorage]


def written_again(storage: MemoryStorage, pack: PackName, instead: dict[Digest, Sequence[Buffer]]) -> None:
    """The pack under its own name, some of its objects stored as something else; left out if as nothing."""
    reader = PackReader(storage, pack)
    objects = [(digest, row.raw, reader.read_row(digest, row)) for digest, row in reader.index.rows()]
    storage.delete(pack.key)
    writer = PackWriter(storage, pack)
    for digest, raw, stored in objects:
        parts = instead.get(digest, [stored])
        if parts:
            writer.add(digest, parts, raw)
    writer.commit()


def test_a_copy_that_decodes_to_something_else_is_not_moved(epochs: Epochs, store: Stores) -> None:
    storage = store()
    pack = pack_of(storage, 0)
    digest = tensors(storage, pack)[0]
    size = len(Repository(storage).session.reader.read(digest, [pack]))
    zeros = encode_object(bytes(size), dtype_of("F32"))
    written_again(storage, pack, {digest: [zeros]})
    with Repository(storage) as repo:
        assert repo.repair(level="stored").lost
        assert repo.repair(epochs.folder(0), level="stored").sound
    require_all(epochs, storage)


def test_an_object_that_is_in_none_of_the_packs(epochs: Epochs, store: Stores) -> None:
    storage = store()
    pack = pack_of(storage, 0)
    written_again(storage, pack, {tensors(storage, pack)[1]: []})
    with Repository(storage) as repo:
        assert repo.repair().lost
        assert repo.repair(epochs.folder(0)).sound
    require_all(epochs, storage)


def test_copies_that_lean_on_each_other_in_a_circle_are_not_both_taken(epochs: Epochs, store: Stores) -> None:
    """The first save's tensor has another copy, which leans on the second's, which leans on the first's."""
    storage = store()
    first, second = pack_of(storage, 0), pack_of(storage, 1)
    with Repository(storage) as repo:
        read = repo.session.reader.read
        for under, upon in zip(tensors(storage, first), tensors(storage, second), strict=True):
            dtype = dtype_of("F32")
            base = Base(Reference(second, upon), dtype, memoryview(read(upon, [second])))
            content = read(under, [first])
            for name in (bytes(16), b"\xff" * 16):  # asked before and after the other copy
                name = PackName(bytes([name[0] ^ under.raw[0] & 15]) + name[1:])
                writer = PackWriter(storage, name)
                writer.add(under, [encode_object(content, dtype, None, base)], len(content), second)
                summary = writer.commit()
                assert summary.bases == (second,)
                repo.session.commit(lambda _: [], new_packs=[summary])
        for pack, k in ((first, 0), (second, 1)):
            _spoil_text(storage, pack, Digest.of(planted("provenance", k).encode()))
        for k in (0, 1):
            epochs.folder(k).with_suffix(".txt").write_text(planted("provenance", k))
        found = repo.repair(epochs.folder(0).parent)
        assert found.sound, found
        assert sum(each.objects for each in found.restored) == 2  # the texts alone
    require_all(epochs, storage)


def _spoil_text(storage: MemoryStorage, pack: PackName, digest: Digest) -> None:
    row = PackReader(storage, pack).index.find(digest)
    assert row is not None
    damage(storage, pack.key, Damage.FLIP, row.offset + row.stored - 3)

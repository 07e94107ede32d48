"""Spoiled: repositories of `shop.Epochs` whose packs go bad in a chosen place."""

from __future__ import annotations

from faults import Damage, damage, replace
from shop import Epochs, require_sound
from stemmata.codecs.frames import read_header
from stemmata.errors import Damage as Unsound
from stemmata.ids import Digest, PackName
from stemmata.packs import PackReader
from stemmata.repository import Repository
from stemmata.storage.base import Storage


def pack_of(storage: Storage, k: int) -> PackName:
    """The pack that save `k` wrote."""
    with Repository(storage) as repo:
        rows = repo.session.catalog.connection.execute("SELECT name FROM packs ORDER BY n").fetchall()
        return PackName(rows[k][0])


def tensors(storage: Storage, pack: PackName) -> list[Digest]:
    """Of a pack, in the order in which they lie there."""
    reader = PackReader(storage, pack)
    rows = sorted(reader.index.rows(), key=lambda each: each[1].offset)
    return [d for d, row in rows if read_header(memoryview(reader.read_row(d, row))).dtype.has_planes]


def spoil(storage: Storage, pack: PackName, where: str) -> None:
    """Damage a pack: a `frame` or the `header` of its first tensor, its `begin`, `index` or `footer`; it is
    `cut` in its middle, or `gone`."""
    size = storage.size(pack.key)
    if where == "gone":
        replace(storage, pack.key, None)
        return
    if where == "cut":
        damage(storage, pack.key, Damage.CUT, size // 2)
        return
    at = {"begin": 3, "index": size - 80, "footer": size - 30}.get(where)
    if at is None:
        row = PackReader(storage, pack).index.find(tensors(storage, pack)[0])
        assert row is not None
        at = row.offset + (4 if where == "header" else row.stored // 2)
    damage(storage, pack.key, Damage.FLIP, at)


PLACES = ("frame", "header", "begin", "index", "footer", "cut", "gone")


def readable(epochs: Epochs, storage: Storage, count: int = 4) -> set[tuple[int, str]]:
    """What reads as it was saved. Nothing reads otherwise (I4)."""
    found = set()
    with Repository(storage) as repo:
        for k in range(count):
            for path in ("model.safetensors", "config.json", "tokenizer.json"):
                try:
                    content = repo[f"m@e{k}"].read(path)
                except Unsound:
                    continue
                assert content == (epochs.folder(k) / path).read_bytes()
                found.add((k, path))
    return found


def require_all(epochs: Epochs, storage: Storage, count: int = 4) -> None:
    """Everything reads as it was saved, and a full check finds nothing."""
    with Repository(storage) as repo:
        for k in range(count):
            epochs.require(repo, k)
            assert repo[f"m@e{k}"].provenance("python") == b'{"same": "in all"}'
    require_sound(storage)

"""Records and trees of a hostile log: bounded and named before anything is taken from them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from ledger import Ledger, add_pack, pack, record
from makers import model_folder
from stemmata import trees
from stemmata.errors import DamagedTree, HostileData
from stemmata.ids import VersionId
from stemmata.log import ops
from stemmata.records import Content
from stemmata.repository import Repository
from stemmata.trees import decode_tree


def test_provenance_that_names_no_digest() -> None:
    ledger = Ledger()
    ledger.append(add_pack(1))
    made = record(1, provenance={"command": "../../etc/passwd"})
    ledger.append(ops.VersionAdd("m", "v", msgspec.Raw(made), ["ab" * 32], [pack(1)]))
    version = Repository(ledger.storage)["m"]
    assert version.id == VersionId.of(made)
    with pytest.raises(HostileData):
        version.provenance("command")


def test_a_tree_that_is_no_utf8() -> None:
    with pytest.raises(DamagedTree):
        decode_tree(b'{"files":[{"path":"\xff"}]}', Content("ab" * 32, 0, 0), "v")


def test_a_tree_of_one_object_named_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = Repository.in_memory()
    version = repo.save(model_folder(tmp_path / "src"), "m", provenance={})
    row = repo.session.row(version.id)
    packs = [name.hex for name in repo.session.packs(row)]
    bomb = ops.VersionPlace(version=version.id.hex, tree=list(row.tree) * 1000, packs=packs)
    repo.session.commit(lambda _: [bomb])
    monkeypatch.setattr(trees, "MAX_TREE_BYTES", 10_000)
    read: list[str] = []
    real = repo.session.read_object
    monkeypatch.setattr(repo.session, "read_object", lambda r, d: (read.append(d), real(r, d))[1])
    with pytest.raises(DamagedTree, match="longer"):
        repo["m"].tree()
    assert len(read) < 1000
    assert not repo.check().sound

"""Objects that an annotation attaches to a version: read, verified, redacted like provenance."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults import Damage, damage
from makers import model_folder
from stemmata import errors
from stemmata.log.ops import VersionAnnotate, VersionRedact
from stemmata.objects import ObjectWriter
from stemmata.repository import Repository
from stemmata.version import Version


def attach(repo: Repository, version: Version, kind: str, data: bytes) -> str:
    """Attach one object; the key of the pack it lies in."""
    session = repo.session
    writer = ObjectWriter(session.storage, session.catalog.packs_holding, session.reader)
    digest = writer.put(data)
    packs = writer.finish()
    op = VersionAnnotate(version=version.id.hex, objects={kind: digest.hex}, packs=[packs[0].name.hex])
    session.commit(lambda _: [op], new_packs=packs)
    return packs[0].name.key


def test_an_attached_object_is_read_checked_and_redacted(tmp_path: Path) -> None:
    repo = Repository.in_memory()
    version = repo.save(model_folder(tmp_path / "out"), "m", provenance={})
    key = attach(repo, version, "eval", b'{"rows": 3}')
    again = repo.get(version.id)
    assert again.provenance("eval") == b'{"rows": 3}'
    assert repo.check().problems == []
    repo.session.commit(lambda _: [VersionRedact(version=version.id.hex, items=["eval"])])
    with pytest.raises(errors.Redacted):
        repo.get(version.id).provenance("eval")
    damage(repo.session.storage, key, Damage.FLIP, 40)
    assert repo.check().problems


def test_i4_a_damaged_attachment_is_found_and_not_handed_out(tmp_path: Path) -> None:
    repo = Repository.in_memory()
    version = repo.save(model_folder(tmp_path / "out"), "m", provenance={})
    key = attach(repo, version, "eval", b'{"rows": 3}')
    damage(repo.session.storage, key, Damage.FLIP, 40)
    kinds = {p.kind for p in repo.check().problems}
    assert "provenance" in kinds
    with pytest.raises(errors.Damage):
        Repository(repo.session.storage).get(version.id).provenance("eval")

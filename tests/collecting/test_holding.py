"""What a version keeps alive, alone and with others."""

from __future__ import annotations

from shop import Epochs, delete
from stemmata.collecting import holdings
from stemmata.repository import Repository


def test_bytes_that_several_need_are_freed_only_with_all_of_them(small_epochs: Epochs) -> None:
    repo = Repository.in_memory()
    versions = [v.id for v in small_epochs.history(repo, 3)]
    held = holdings(repo.session)
    each = {holding.id: holding for holding in held}
    assert set(each) == set(versions)
    total = held.freed_by(versions)
    for version in versions:
        assert 0 < each[version].alone < each[version].bytes
        assert held.freed_by([version]) == each[version].alone
    assert total > sum(holding.alone for holding in each.values())
    stored = repo.session.storage
    index = 64 * len({r for rows in held._rows.values() for r in rows.tolist()}) + 3 * 72
    assert sum(key.size for key in stored.list("packs/")) == total + index


def test_what_pins_the_rest_is_named(small_epochs: Epochs) -> None:
    repo = Repository.in_memory()
    first, second, third = small_epochs.history(repo, 3)
    held = holdings(repo.session)
    # Both lean on the first one's weights: it alone frees next to nothing.
    pins = held.pins(first.id)
    assert {version for version, _ in pins} == {second.id, third.id}
    assert all(shared > held.alone(first.id) for _, shared in pins)
    delete(repo, second, third)
    # Restorable ones need theirs too.
    assert holdings(repo.session).pins(first.id) == pins


def test_what_it_says_is_what_a_collection_frees(small_epochs: Epochs) -> None:
    repo = Repository.in_memory()
    versions = small_epochs.history(repo, 3)
    alone = holdings(repo.session).alone(versions[2].id)
    delete(repo, versions[2])
    found = repo.gc(undo_window=0, grace=0)
    assert [f.alone for f in found.forgotten] == [alone]

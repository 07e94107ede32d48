"""Where an object is to come from is decided for any chain that a pack may claim."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from stemmata.codecs.frames import MAX_CHAIN, Reference
from stemmata.ids import Digest, PackName
from stemmata.repairing.deciding import Deciding, Move


def chain(length: int) -> tuple[Any, list[Digest]]:
    """Objects of which each leans on the next, in a pack that was retired; no source has any of them."""
    names, pack = [Digest.of(n.to_bytes(4, "little")) for n in range(length)], PackName.fresh()
    bases = {name: (Reference(pack, below),) for name, below in pairwise(names)}
    shelves = SimpleNamespace(
        stock=SimpleNamespace(packs_with=lambda _: [pack]),
        live=frozenset(),
        reads=lambda _pack, _digest: False,
        head=lambda _pack, digest: (SimpleNamespace(raw=1), bases.get(digest, ())),
    )
    return Deciding(shelves, SimpleNamespace(where=lambda _: None), (), ()), names  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [1, 2, MAX_CHAIN + 1])
def test_a_chain_that_a_reader_follows_moves(length: int) -> None:
    deciding, names = chain(length)
    assert all(isinstance(deciding.of(name), Move) for name in names)


@pytest.mark.parametrize("asked", ["the longest first", "the shortest first"])
def test_of_a_longer_one_is_lost_what_no_reader_could_read_and_nothing_else(asked: str) -> None:
    deciding, names = chain(3000)
    order = names if asked == "the longest first" else names[::-1]
    moved = {name for name in order if isinstance(deciding.of(name), Move)}
    assert moved == set(names[-MAX_CHAIN - 1 :])

"""Which versions a tensor is coded against when what it leaned on is gone."""

from __future__ import annotations

import random
import time

import pytest

from stemmata.collecting.picture import Kept
from stemmata.collecting.rebasing import Before
from stemmata.ids import VersionId

NEAR = 4


def history(chance: random.Random, count: int, models: int) -> list[Kept]:
    return [
        Kept(VersionId(chance.randbytes(32)), f"m{chance.randrange(models)}", f"e{n}", "visible", n, (), ())
        for n in range(count)
    ]


@pytest.mark.parametrize("seed", range(40))
def test_the_parents_then_the_newest_of_the_model_then_of_all(seed: int) -> None:
    chance = random.Random(seed)
    stay = history(chance, chance.randrange(1, 40), chance.choice([1, 2, 5, 20]))
    before = Before(stay)
    for at, version in enumerate(stay):
        # Also versions that are gone, that come later, and the same twice.
        parents = [chance.choice(stay).id.hex for _ in range(chance.randrange(4))] + ["ab" * 32]
        newest = list(reversed(stay[:at]))
        near = [v for v in newest if v.id.hex in parents]
        near += [v for v in newest if v.model == version.model and v not in near][:NEAR]
        others = [v for v in newest if v not in near][:NEAR]
        assert before.near(at, parents) == (near, others)


def test_what_it_takes_does_not_grow_with_what_came_before() -> None:
    stay = history(random.Random(0), 100_000, 2)
    started = time.perf_counter()
    before = Before(stay)
    for at in range(1, len(stay)):
        before.near(at, [stay[at - 1].id.hex])
    # All versions before each, looked at once, would be five thousand million.
    assert time.perf_counter() - started < 30

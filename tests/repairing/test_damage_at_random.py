"""Random damage, random sources: what some source has comes back, the rest is named, nothing is made worse
(I3, I4). A thousand rounds: scripts/test-slow.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from faults import Damage, contents, damage
from shop import Epochs
from spoiled import readable, require_all
from stemmata.checking import check
from stemmata.repository import Repository
from stemmata.storage.base import Storage
from stemmata.storage.local import LocalStorage
from stemmata.storage.memory import MemoryStorage

COUNT = 4
ROUNDS = 1000 if os.environ.get("STEMMATA_TEST_LARGE") else 3
Stores = Callable[[], MemoryStorage]


def spoil_at_random(dice: random.Random, storage: Storage) -> None:
    keys = [key.key for key in storage.list("packs/")]
    for key in dice.sample(keys, dice.randint(1, len(keys))):
        for _ in range(dice.randint(1, 4)):
            how = dice.choice([Damage.FLIP] * 4 + [Damage.ZERO, Damage.CUT, Damage.GROW, Damage.GONE])
            damage(storage, key, how, dice.randrange(1 << 20))
            if how in (Damage.CUT, Damage.GONE):
                break


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_at_random(epochs: Epochs, store: Stores, laid_out: Path, seed: int) -> None:
    dice = random.Random(seed)
    storage = store()
    spoil_at_random(dice, storage)
    assert not check(storage).sound
    spoil_at_random(dice, LocalStorage(laid_out))
    given = [laid_out, *(epochs.folder(k) for k in range(COUNT))]
    given = dice.sample(given, dice.randint(0, 3))
    before = readable(epochs, storage)
    with Repository(storage) as repo:
        found = repo.repair(given)
    after = readable(epochs, storage)
    assert after >= before
    report = check(storage)
    assert report.sound == found.sound, (found, report.problems)
    assert {v.id for v in report.affected} == {lost.version for lost in found.lost}
    lost = {(lost.version_name, lost.name) for lost in found.lost if lost.what == "file"}
    unlisted = {lost.version_name for lost in found.lost if lost.what == "tree"}
    for k in range(COUNT):
        for path in ("model.safetensors", "config.json", "tokenizer.json"):
            assert ((k, path) in after) == ((f"e{k}", path) not in lost and f"e{k}" not in unlisted)
    held = contents(storage)
    with Repository(storage) as repo:
        again = repo.repair(given)
        assert again.lost == found.lost
    assert contents(storage) == held
    # With a whole copy nothing stays lost.
    whole = laid_out.with_name("whole")
    for key, data in contents(store()).items():
        (whole / key).parent.mkdir(parents=True, exist_ok=True)
        (whole / key).write_bytes(data)
    with Repository(storage) as repo:
        assert repo.repair(whole).sound
    require_all(epochs, storage)

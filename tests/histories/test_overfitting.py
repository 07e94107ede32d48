"""When a run is said to overfit: where it does, and not where it is noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from campaigns import cases
from stemmata.histories.overfitting import Valley, _chance, _rising, valley
from stemmata.repository import Repository
from stemmata.version import Version

Save = Callable[..., Version]
FALLING = [1 / (1 + k) for k in range(60)]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([0.9, 0.7, 0.5, 0.4, 0.45, 0.5, 0.6], Valley(3, 3)),
        ([0.9, 0.5, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8], Valley(2, 2)),
        # It stays about as good for a while: it gets worse since the end of that.
        ([0.9, 0.5, 0.4, 0.43, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], Valley(2, 4)),
        # Some noise does not hide it.
        ([0.9, 0.7, 0.72, 0.5, 0.4, 0.45, 0.43, 0.5, 0.55, 0.54, 0.62, 0.7], Valley(4, 4)),
        # Best from the start.
        ([0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7], Valley(0, 0)),
        # Getting better, and no more than that.
        ([0.9, 0.8, 0.7, 0.6, 0.5, 0.45, 0.44], None),
        # Two worse ones are no trend, and six values are too few.
        ([0.9, 0.8, 0.7, 0.6, 0.5, 0.55, 0.6], None),
        ([0.9, 0.7, 0.4, 0.45, 0.5, 0.6], None),
        # A plateau, flat or with noise.
        ([0.9, 0.6, 0.5, 0.4, 0.4, 0.4, 0.4, 0.4], None),
        ([0.9, 0.6, 0.5, 0.41, 0.4, 0.42, 0.41, 0.405, 0.415], None),
        # Worse by less than anybody cares for.
        ([0.9, 0.7, 0.5, 0.4, 0.401, 0.402, 0.403], None),
        # Up and down.
        ([0.5, 0.7, 0.4, 0.6, 0.45, 0.7, 0.5, 0.65], None),
        ([], None),
    ],
)
def test_a_table_of_runs(values: list[float], found: Valley | None) -> None:
    assert valley(values, FALLING[: len(values)]) == found


@pytest.mark.parametrize(
    "training",
    [
        [0.5] * 7,  # it stands still: nothing is learnt by heart
        [0.5, 0.4, 0.3, 0.2, 0.3, 0.4, 0.5],  # it gets worse too: the training diverges
        [0.5, 0.4, 0.3, 0.2, 0.25, 0.15, 0.3],
    ],
)
def test_it_takes_a_training_loss_that_falls_meanwhile(training: list[float]) -> None:
    values = [0.9, 0.7, 0.5, 0.4, 0.45, 0.5, 0.6]
    assert valley(values, training) is None


@pytest.mark.parametrize("count", [7, 10, 20, 40])
@pytest.mark.parametrize("kind", ["plateau", "settling"])
def test_noise_gives_no_alarm(count: int, kind: str) -> None:
    """Of a thousand runs without overfitting, whose evaluation scatters by 5 %, fewer than twenty get it."""
    rng = np.random.default_rng(count)
    alarms = 0
    for _ in range(1000):
        level = 1 + (np.exp(-np.arange(count) / (count / 4)) if kind == "settling" else 0)
        values = level + rng.normal(size=count) * 0.05
        alarms += valley(values.tolist(), FALLING[:count]) is not None
    assert alarms < 20


@pytest.mark.parametrize("count", [7, 10, 20, 40, 1000])
def test_what_overfits_is_found_through_noise(count: int) -> None:
    rng = np.random.default_rng(count)
    steps = np.arange(count)
    middle = round(count * 0.4)
    curve = np.where(steps < middle, (middle - steps) / middle, (steps - middle) / (count - middle))
    training = np.exp(-steps / count).tolist()
    found = 0
    for _ in range(100):
        values = 1 + 0.4 * curve + rng.normal(size=count) * 0.02
        told = valley(values.tolist(), training)
        if told is not None:
            found += 1
            assert told.best <= told.since
            assert abs(told.best - middle) <= max(2, count / 8)
    assert found >= 85


@given(st.lists(st.floats(0.1, 10, allow_nan=False), min_size=7, max_size=30), st.floats(0.01, 100))
def test_a_series_that_never_gets_worse_is_never_told(steps: list[float], scale: float) -> None:
    values = [scale * 40 - scale * sum(steps[:k]) / 10 for k in range(len(steps))]
    assert valley(values, FALLING[: len(values)]) is None


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40), st.floats(0.1, 1e3))
def test_the_unit_of_the_metric_decides_nothing(values: list[float], scale: float) -> None:
    """A power of two, so that nothing is rounded."""
    scale = 2.0 ** math.floor(math.log2(scale))
    training = [1 / (1 + k) for k in range(len(values))]
    assert valley(values, training) == valley([scale * v for v in values], training)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=12))
def test_the_nearest_rising_series(values: Sequence[int]) -> None:
    found = _rising(values)
    assert len(found) == len(values)
    assert all(a <= b for a, b in pairwise(found))
    assert math.fsum(found) == pytest.approx(sum(values))
    # No level of it can be moved towards the values without its order breaking.
    for k in range(1, len(values) + 1):
        assert math.fsum(found[:k]) <= math.fsum(values[:k]) + 1e-9


@pytest.mark.parametrize("lengths", [(1, 1), (0, 4), (3, 3), (4, 5)])
def test_chance_is_what_counting_all_orders_tells(lengths: tuple[int, int]) -> None:
    def wrongs(length: int) -> list[int]:
        return [
            sum(order[i] > order[j] for i in range(length) for j in range(i + 1, length))
            for order in permutations(range(length))
        ]

    both = [a + b for a in wrongs(lengths[0]) for b in wrongs(lengths[1])]
    for wrong in range(max(both) + 1):
        assert _chance(lengths, wrong) == pytest.approx(sum(w <= wrong for w in both) / len(both))


def test_beyond_twelve_values_chance_goes_on_as_before() -> None:
    for wrong in range(0, 60, 5):
        assert _chance((13,), wrong) == pytest.approx(_chance((12,), round(wrong * 66 / 78)), abs=0.06)


# --- of a repository ------------------------------------------------------------------------------


def saved(
    save: Save, run: str, values: Sequence[float], metric: str = "eval_loss", training: str = "loss"
) -> list[Version]:
    made: list[Version] = []
    for k, value in enumerate(values):
        metrics = {metric: value, training: FALLING[k]}
        made.append(save(f"{run}/{k}", *made[-1:], run=run, step=10 * k, epoch=k, metrics=metrics))
    return made


VALLEY = [0.9, 0.7, 0.5, 0.4, 0.45, 0.5, 0.6]


def test_it_says_since_when_and_which_was_the_best(repo: Repository, save: Save) -> None:
    versions = saved(save, "a", VALLEY)
    saved(save, "b", [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3])
    (found,) = repo.overfitting("m")
    assert str(found) == "loss falls, eval_loss rises since a/3"
    assert (found.best.id, found.last.name, found.points) == (versions[3].id.hex, "a/6", 7)
    assert found.to_dict()["best"] == {
        "id": versions[3].id.hex,
        "name": "a/3",
        "step": 30,
        "epoch": 3.0,
        "value": 0.4,
    }
    assert repo.overfitting("m", "b") == []
    assert repo.overfitting("m", "a") == [found]


def test_more_may_be_better(repo: Repository, save: Save) -> None:
    saved(save, "a", [1 - value for value in VALLEY], "eval_accuracy", "train_loss")
    saved(save, "b", VALLEY, "eval_accuracy")
    (found,) = repo.overfitting("m")
    assert str(found) == "train_loss falls, eval_accuracy falls since a/3"
    repo.configure("m", metric="eval_accuracy", direction="min")
    (found,) = repo.overfitting("m")
    assert str(found) == "loss falls, eval_accuracy rises since b/3"


def test_metrics_that_lightning_tells_once_an_epoch_are_results(repo: Repository, save: Save) -> None:
    a, *_, b = saved(save, "a", VALLEY, "val_loss_epoch", "train_loss_epoch")
    (found,) = repo.overfitting("m")
    assert str(found) == "train_loss_epoch falls, val_loss_epoch rises since a/3"
    better = {change.key: change.better for change in repo.diff(a, b).metrics}
    assert better == dict.fromkeys(("train_loss_epoch", "val_loss_epoch"), True)


def test_the_primary_metric_decides_added_later_or_not(repo: Repository, save: Save) -> None:
    versions = saved(save, "a", VALLEY)
    repo.configure("m", metric="f1")
    assert repo.overfitting("m") == []
    for k, version in enumerate(versions):
        repo.annotate(version, metrics={"f1": k / 10})
    assert repo.overfitting("m") == []
    for version, value in zip(versions, VALLEY, strict=True):
        repo.annotate(version, metrics={"f1": 1 - value})
    assert str(repo.overfitting("m")[0]) == "loss falls, f1 falls since a/3"


@pytest.mark.parametrize("lost", ["eval_loss", "loss"])
def test_where_metrics_are_missing_nothing_is_said(repo: Repository, save: Save, lost: str) -> None:
    for k, value in enumerate(VALLEY):
        metrics = {"eval_loss": value, "loss": FALLING[k]}
        if k in (2, 5):
            metrics[lost] = math.nan
        save(f"a/{k}", run="a", step=k, metrics=metrics)
    for k in range(9):
        save(f"b/{k}", run="b", step=k, metrics={})
        save(f"c/{k}", run="c", step=k, metrics={lost: VALLEY[min(k, 6)]})
        save(f"d/{k}", metrics={"loss": 1 / (k + 1), "eval_loss": VALLEY[min(k, 6)]})
    assert repo.overfitting("m") == []


def test_a_step_that_was_saved_twice_counts_once(repo: Repository, save: Save) -> None:
    saved(save, "a", VALLEY[:6])
    save("a/end", run="a", step=50, metrics={"eval_loss": 0.6, "loss": 0.01})
    assert repo.overfitting("m") == []


def test_deleted_versions_say_nothing(repo: Repository, save: Save) -> None:
    versions = saved(save, "a", VALLEY)
    repo.delete(versions[-1])
    assert repo.overfitting("m") == []


def test_a_run_of_very_many_versions_is_looked_at_in_means() -> None:
    count = cases(5_000, 50_000)
    middle = count // 3
    values = [1 + abs(k - middle) / count for k in range(count)]
    training = [1 / (1 + k) for k in range(count)]
    found = valley(values, training)
    assert found is not None
    assert found.best == middle

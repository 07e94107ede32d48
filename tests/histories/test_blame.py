"""Who last moved a tensor: from what was kept at the saves, from lists of tensors where nothing was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from makers import Array, safetensors_bytes
from stemmata import surveyor
from stemmata.errors import InvalidArgument, TensorNotInVersion
from stemmata.histories.blame import fits
from stemmata.histories.blamed import Blame, layer_of
from stemmata.objects import ObjectReader
from stemmata.repository import Repository
from stemmata.version import Version

Tensors = dict[str, Array]
Save = Callable[..., Version]
NAMES = [*(f"layer.{k}.{part}" for k in range(3) for part in ("weight", "bias")), "head.weight"]


@pytest.fixture
def weights(save: Save) -> Callable[..., Version]:
    def call(name: str, tensors: Mapping[str, Array], *parents: Version, **more: object) -> Version:
        return save(name, *parents, files=[("model.safetensors", safetensors_bytes(tensors))], **more)

    return call


@pytest.fixture
def sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing reads an object of weights, into memory or otherwise."""

    def refuse(self: ObjectReader, *_: object) -> Iterator[object]:
        raise AssertionError("weights were read")

    monkeypatch.setattr(ObjectReader, "lend", refuse)
    monkeypatch.setattr(ObjectReader, "fill", refuse)


def start(seed: int = 0) -> Tensors:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(8, 4)).astype(np.float32) for name in NAMES}


def moved(tensors: Mapping[str, Array], *names: str, by: float = 0.5) -> Tensors:
    found = dict(tensors)
    for name in names:
        array = tensors[name].copy()
        array[0, 0] += np.float32(by)
        found[name] = array
    return found


def far(before: Array, after: Array) -> float:
    return float(np.linalg.norm(after.astype(float) - before) / np.linalg.norm(before.astype(float)))


def of(found: Blame) -> dict[str, tuple[str, str, int]]:
    return {b.name: (b.move.how, b.move.place.name, b.move.place.back) for b in found.tensors}


def test_the_last_version_that_moved_it_is_named_and_how_far(
    repo: Repository, weights: Save, sealed: None
) -> None:
    one = start()
    two = moved(one, "layer.0.weight", "layer.1.bias")
    three = moved(two, "layer.1.bias", "head.weight", by=0.25)
    a = weights("a", one)
    b = weights("b", two, a)
    weights("c", three, b)
    found = repo.blame("m@c")
    assert of(found) == {
        **dict.fromkeys(NAMES, ("came", "a", 2)),
        "layer.0.weight": ("moved", "b", 1),
        "layer.1.bias": ("moved", "c", 0),
        "head.weight": ("moved", "c", 0),
    }
    by_name = {b.name: b.move.movement for b in found.tensors}
    for name, before, after in (("layer.0.weight", one, two), ("layer.1.bias", two, three)):
        movement = by_name[name]
        assert movement is not None
        assert movement.relative == pytest.approx(far(before[name], after[name]), rel=1e-6)
    assert (found.read, found.unmeasured, found.looked_at) == (0, (), 3)


def test_layers_are_told_as_one(repo: Repository, weights: Save) -> None:
    one = start()
    two = moved(one, "layer.0.weight")
    three = moved(two, "layer.1.bias", "layer.1.weight")
    weights("c", three, weights("b", two, weights("a", one)))
    found = repo.blame("m@c")
    told = {b.name: (b.move.how, b.move.place.name, b.moved, len(b.tensors)) for b in found.layers}
    assert told == {
        "layer.0": ("moved", "b", 1, 2),
        "layer.1": ("moved", "c", 2, 2),
        "layer.2": ("came", "a", 2, 2),
        "head": ("came", "a", 1, 1),
    }
    layer = found.layers[1]
    before, after = (
        np.concatenate([side[f"layer.1.{part}"] for part in ("weight", "bias")]) for side in (two, three)
    )
    assert layer.move.movement is not None
    assert layer.move.movement.relative == pytest.approx(far(before, after), rel=1e-6)


def test_the_furthest_is_another_question_than_the_last(repo: Repository, weights: Save) -> None:
    line: list[Version] = []
    tensors = start()
    for k, by in enumerate((0.0, 0.1, 3.0, 0.2)):
        tensors = moved(tensors, "head.weight", by=by)
        line.append(weights(f"v{k}", tensors, *line[-1:]))
    assert of(repo.blame("m@v3", "head"))["head.weight"] == ("moved", "v3", 0)
    assert of(repo.blame("m@v3", "head", most=True))["head.weight"] == ("moved", "v2", 1)
    (told,) = repo.blame("m@v3", "head", most=True).tensors
    assert [(m.how, m.place.name) for m in told.moves] == [
        ("moved", "v3"),
        ("moved", "v2"),
        ("moved", "v1"),
        ("came", "v0"),
    ]


def test_small_changes_need_not_count(repo: Repository, weights: Save) -> None:
    one = start()
    two = moved(one, "head.weight", by=2.0)
    three = moved(two, "head.weight", by=0.001)
    weights("c", three, weights("b", two, weights("a", one)))
    assert of(repo.blame("m@c", "head.weight", at_least=0.05))["head.weight"] == ("moved", "b", 1)
    assert of(repo.blame("m@c", "head.weight", at_least=5.0))["head.weight"] == ("came", "a", 2)
    with pytest.raises(InvalidArgument, match="at_least"):
        repo.blame("m@c", at_least=-1)


def test_what_was_renamed_is_followed_under_its_old_name(repo: Repository, weights: Save) -> None:
    one = start()
    two = moved(one, "head.weight")
    three = {("classifier.weight" if name == "head.weight" else name): t for name, t in two.items()}
    four = moved(three, "layer.0.bias")
    c = weights("c", three, weights("b", two, weights("a", one)))
    weights("d", four, c)
    (told,) = repo.blame("m@d", "classifier").tensors
    assert (told.move.how, told.move.place.name, told.move.was) == ("moved", "b", "head.weight")


def test_what_is_new_came_with_its_version(repo: Repository, weights: Save) -> None:
    one = start()
    two = {**one, "extra.weight": one["head.weight"] * 3}
    weights("c", two, weights("b", two, weights("a", one)))
    assert of(repo.blame("m@c"))["extra.weight"] == ("came", "b", 1)


def test_another_dtype_or_shape_is_said(repo: Repository, weights: Save) -> None:
    one = start()
    two = {
        **one,
        "head.weight": one["head.weight"].astype(np.float16),
        "layer.0.bias": one["layer.0.bias"][:2],
    }
    weights("b", two, weights("a", one))
    found = {b.name: b.move for b in repo.blame("m@b").tensors}
    assert (found["head.weight"].how, found["head.weight"].was) == ("refitted", "F32 8×4")
    assert (found["layer.0.bias"].how, found["layer.0.bias"].movement) == ("refitted", None)


def test_a_version_without_statistics_tells_what_moved_and_weights_how_far(
    repo: Repository, weights: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = start()
    two = moved(one, "head.weight")
    a = weights("a", one)
    with monkeypatch.context() as old:
        old.setattr(surveyor.Surveyor, "table", lambda _: {})
        b = weights("b", two, a)
    weights("c", two, b)
    assert b.statistics() == {}
    with monkeypatch.context() as context:
        context.setattr(ObjectReader, "lend", None)
        found = repo.blame("m@c", "head.weight")
    (told,) = found.tensors
    assert (told.move.how, told.move.place.name, told.move.movement) == ("moved", "b", None)
    assert (told.move.known_by, [p.name for p in found.unmeasured]) == ("digests", ["b"])
    asked: list[int] = []
    found = repo.blame("m@c", "head.weight", weights=True, progress=asked.append)
    (told,) = found.tensors
    assert told.move.movement is not None
    assert told.move.movement.relative == pytest.approx(far(one["head.weight"], two["head.weight"]), rel=1e-6)
    assert (told.move.known_by, found.unmeasured, found.read) == ("weights", (), 256)
    assert sum(asked) == found.read


def test_a_line_that_is_not_whole_is_told_as_far_as_it_goes(repo: Repository, weights: Save) -> None:
    one = start()
    two = moved(one, "layer.0.weight")
    three = moved(two, "head.weight")
    b = weights("b", two, weights("a", one))
    weights("c", three, b)
    repo.delete([b])
    # A deleted one can still be read, and is named.
    assert of(repo.blame("m@c"))["layer.0.weight"] == ("moved", "b", 1)
    repo.gc(undo_window=0, grace=0)
    found = repo.blame("m@c")
    assert of(found)["head.weight"] == ("moved", "c", 0)
    assert of(found)["layer.0.weight"] == ("earlier", "c", 0)
    assert [p.name for p in found.unreadable] == ["b"]


def test_what_has_another_name_or_shape_than_in_a_forgotten_parent_is_not_said_to_have_come(
    repo: Repository, weights: Save
) -> None:
    one = start()
    two = {**one, "classifier.weight": one["head.weight"], "layer.0.weight": np.ones((9, 4), np.float32)}
    del two["head.weight"]
    a = weights("a", one)
    weights("b", moved(two, "layer.1.bias"), a)
    repo.delete([a])
    for _ in range(2):
        repo.gc(undo_window=0, grace=0)
    found = of(repo.blame("m@b"))
    assert found.pop("layer.1.bias") == ("moved", "b", 0)
    assert set(found.values()) == {("earlier", "b", 0)}


@pytest.mark.parametrize(
    ("before", "after", "broke"),
    [
        ([np.nan, 1, 1], [1, np.nan, 1], 1),
        ([np.nan, 1, 1], [np.nan, np.nan, 1], 1),
        ([np.inf, 1, 1], [1, 1, 1], 0),
        ([np.nan, 1, 1], [np.inf, 1, 1], 0),
    ],
)
@pytest.mark.parametrize("kept", [True, False])
def test_a_number_that_is_none_any_more_counts_wherever_another_became_one(
    repo: Repository,
    weights: Save,
    monkeypatch: pytest.MonkeyPatch,
    before: list[float],
    after: list[float],
    broke: int,
    kept: bool,
) -> None:
    if not kept:
        monkeypatch.setattr(surveyor.Surveyor, "table", lambda _: {})
    first = weights("p", {"w": np.array(before, np.float32)})
    weights("q", {"w": np.array(after, np.float32)}, first)
    (told,) = repo.blame("m@q", at_least=0.01, weights=True).tensors
    assert (told.move.how, told.move.place.name) == ("moved", "q")
    assert told.move.broke == (broke if kept else 0)


def test_a_version_on_a_model_of_another_architecture_brought_all_its_tensors(
    repo: Repository, weights: Save
) -> None:
    base = weights("base", start(), model="encoder")
    weights("first", {"lora_A.weight": np.ones((2, 4), np.float32)}, base)
    assert of(repo.blame("m@first")) == {"lora_A.weight": ("came", "first", 0)}


def test_files_without_tensors_have_nobody_to_blame(repo: Repository, save: Save) -> None:
    save("a")
    assert repo.blame("m@a").tensors == ()
    with pytest.raises(TensorNotInVersion, match="no tensors"):
        repo.blame("m@a", "head")


def test_a_pattern_that_fits_nothing_is_an_error_that_names_what_is_there(
    repo: Repository, weights: Save
) -> None:
    weights("a", start())
    with pytest.raises(TensorNotInVersion, match=r"layer\.0\.weight"):
        repo.blame("m@a", "layer.7")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("layer.1", ["layer.1.weight", "layer.1.bias"]),
        ("bias", ["layer.0.bias", "layer.1.bias", "layer.2.bias"]),
        ("*.1.*", ["layer.1.weight", "layer.1.bias"]),
        ("head.weight", ["head.weight"]),
        ("ayer.1", []),
        ("LAYER.1", []),
    ],
)
def test_what_a_pattern_fits(pattern: str, names: list[str]) -> None:
    assert [name for name in NAMES if fits(name, pattern)] == names


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("encoder.layer.11.attention.self.query.weight", "encoder.layer.11"),
        ("base_model.model.layers.0.q_proj.lora_A.weight", "base_model.model.layers.0"),
        ("embeddings.word_embeddings.weight", "embeddings.word_embeddings"),
        ("lm_head.weight", "lm_head"),
        ("scale", "scale"),
        (
            "adapter.model.safetensors:transformer.h.3.mlp.c_fc.weight",
            "adapter.model.safetensors:transformer.h.3",
        ),
        ("blocks.0", "blocks"),
    ],
)
def test_the_layer_of_a_tensor(name: str, layer: str) -> None:
    assert layer_of(name) == layer


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.sets(st.sampled_from(NAMES)), min_size=1, max_size=5), kept=st.booleans())
def test_it_agrees_with_a_book_that_was_kept(
    tmp_path_factory: pytest.TempPathFactory, steps: list[set[str]], kept: bool
) -> None:
    """Whatever moved when, and whether statistics were kept or not, it says who did it last."""
    folder = tmp_path_factory.mktemp("model")
    tensors, book = start(), dict.fromkeys(NAMES, ("came", "v0", len(steps)))
    with Repository.in_memory() as repo, pytest.MonkeyPatch.context() as patch:
        if not kept:
            patch.setattr(surveyor.Surveyor, "table", lambda _: {})
        parents: list[Version] = []
        for k, names in enumerate([set(), *steps]):
            tensors = moved(tensors, *names, by=k + 1)
            (folder / "model.safetensors").write_bytes(safetensors_bytes(tensors))
            parents = [repo.save(folder, "m", name=f"v{k}", parents=parents, provenance={})]
            book.update(dict.fromkeys(names, ("moved", f"v{k}", len(steps) - k)))
        found = repo.blame("m")
        assert of(found) == book
        assert all((b.move.movement is not None) == (kept and b.move.how == "moved") for b in found.tensors)


def test_the_same_by_path_where_two_files_have_one_name(repo: Repository, save: Save) -> None:
    one = {"w": np.ones((2, 2), np.float32)}
    two = {"w": np.full((2, 2), 2, np.float32)}
    files = [("a.safetensors", safetensors_bytes(one)), ("b.safetensors", safetensors_bytes(two))]
    first = save("first", files=files)
    files[1] = ("b.safetensors", safetensors_bytes({"w": np.full((2, 2), 3, np.float32)}))
    save("second", first, files=files)
    assert of(repo.blame("m@second")) == {
        "a.safetensors:w": ("came", "first", 1),
        "b.safetensors:w": ("moved", "second", 0),
    }


@pytest.mark.parametrize("most", [False, True])
def test_what_became_nan_is_to_blame_however_little_else_moved(
    repo: Repository, weights: Callable[..., Version], most: bool
) -> None:
    first = start()
    a = weights("a", first)
    b = weights("b", {**first, "head.weight": first["head.weight"] * 2}, a)
    broken = first["head.weight"] * np.float32(2.000001)
    broken[0, 0] = np.nan
    c = weights("c", {**first, "head.weight": broken}, b)
    d = weights("d", {**first, "head.weight": broken * np.float32(1.000001)}, c)
    (told,) = [each for each in repo.blame(d, most=most, at_least=0.01).tensors if each.name == "head.weight"]
    assert (told.move.place.name, told.move.broke) == ("c", 1)
    assert told.to_dict()["broke"] == 1
    (last,) = [each for each in repo.blame(d).tensors if each.name == "head.weight"]
    assert (last.move.place.name, last.move.broke) == ("d", 0)

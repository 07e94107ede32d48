"""The digest over a dataset's rows: of the content, however it lies in memory; every change moves it."""

from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import datasets
import hypothesis.strategies as st
import msgspec
import numpy as np
import pyarrow as pa
import pytest
import torch
from blake3 import blake3
from hypothesis import given, settings

from campaigns import cases
from stemmata.capturing import rows
from stemmata.capturing.arrow import Arrow

VALUES: dict[str, tuple[Any, Any]] = {
    "int": (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    "float": (pa.float64(), st.floats(allow_nan=False)),
    "bool": (pa.bool_(), st.booleans()),
    "text": (pa.string(), st.text(st.characters(codec="utf-8"), max_size=6)),
    "bytes": (pa.large_binary(), st.binary(max_size=6)),
    "list": (pa.list_(pa.int16()), st.lists(st.none() | st.integers(-9, 9), max_size=4)),
    "fixed": (pa.list_(pa.int8(), 2), st.lists(st.integers(-9, 9), min_size=2, max_size=2)),
    "struct": (
        pa.struct([("a", pa.string()), ("b", pa.list_(pa.float32()))]),
        st.fixed_dictionaries({"a": st.none() | st.text("xyz", max_size=3), "b": st.just([1.0])}),
    ),
    "words": (pa.dictionary(pa.int8(), pa.string()), st.sampled_from(["red", "green"])),
    "time": (pa.timestamp("us"), st.integers(0, 2**40)),
    "map": (
        pa.map_(pa.string(), pa.int8()),
        st.lists(st.tuples(st.text("ab", max_size=2), st.just(1)), max_size=2),
    ),
}


def fed(column: Any) -> str:
    hasher = blake3()
    Arrow(pa).feed(hasher, column)
    return hasher.hexdigest()


@st.composite
def columns(draw: Any) -> tuple[Any, list[Any]]:
    kind, values = VALUES[draw(st.sampled_from(sorted(VALUES)))]
    return kind, draw(st.lists(st.none() | values, max_size=12))


@settings(max_examples=cases(40, 2000))
@given(columns(), st.data())
def test_however_a_column_is_cut_its_digest_is_the_same(column: tuple[Any, list[Any]], data: Any) -> None:
    kind, values = column
    whole = pa.array(values, kind)
    cut = data.draw(st.integers(0, len(values)))
    padded = pa.array([None, *values[:cut], None], kind).slice(1, cut)
    rest = pa.array([*values[cut:], None], kind).slice(0, len(values) - cut)
    assert fed(whole) == fed(pa.chunked_array([padded, rest], kind))


@settings(max_examples=cases(40, 2000))
@given(columns(), st.data())
def test_every_other_content_has_another_digest(column: tuple[Any, list[Any]], data: Any) -> None:
    kind, values = column
    others = data.draw(st.lists(st.none() | next(v for k, v in VALUES.values() if k == kind), max_size=12))
    one, two = pa.array(values, kind), pa.array(others, kind)
    assert (fed(one) == fed(two)) == (repr(one.to_pylist()) == repr(two.to_pylist()))


def made(count: int = 3000, **more: Any) -> datasets.Dataset:
    return datasets.Dataset.from_dict(
        {"text": [f"row {i}" for i in range(count)], "n": list(range(count)), **more}
    )


def test_the_digest_is_what_the_format_says() -> None:
    """Rebuilt from FORMAT.md alone, for two columns and a block of two rows."""
    data = datasets.Dataset.from_dict({"text": ["ab", "c"], "n": [1, None]})
    expected = blake3(b"stemmata rows 1\n" + b'[2,[["text","string"],["n","int64"]]]' + b"\n")
    expected.update(struct.pack("<Q", 2) + b"\0" + struct.pack("<qq", 2, 1) + b"abc")
    expected.update(struct.pack("<Q", 2) + b"\1" + b"\1\0" + struct.pack("<q", 1))
    assert rows.digest(data) == (expected.hexdigest(), "all")


def test_one_row_one_name_one_type_and_the_order_count() -> None:
    data = made()
    changed = data.map(lambda row: {"text": "row X" if row["n"] == 2999 else row["text"]})
    others = [
        changed,
        data.rename_column("n", "m"),
        data.cast_column("n", datasets.Value("int32")),
        data.select(range(2999)),
        data.select(reversed(range(3000))),
        data.remove_columns("n"),
    ]
    assert len({rows.digest(each)[0] for each in (data, *others)}) == 7


def test_what_is_no_content_does_not_count(tmp_path: Any) -> None:
    data = made()
    data.save_to_disk(tmp_path / "saved", num_shards=3)
    shuffled = data.shuffle(seed=1)
    back = shuffled.select(sorted(range(3000), key=lambda at: shuffled[at]["n"]))
    lazily = data.with_transform(lambda batch: batch)
    for same in (datasets.load_from_disk(tmp_path / "saved"), back, lazily, data.with_format("torch")):
        assert rows.digest(same) == rows.digest(data)


def test_of_very_much_data_blocks_stand_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "SAMPLED", 3)
    data = made(10 * rows.BLOCK)
    found, covers = rows.digest(data, whole=1000)
    assert covers == "3 of 10 blocks"
    assert found != rows.digest(data)[0]
    last = data.map(lambda row: {"text": "X" if row["n"] == 10 * rows.BLOCK - 1 else row["text"]})
    assert rows.digest(last, whole=1000)[0] != found


def test_a_time_limit_holds() -> None:
    with pytest.raises(rows._Later, match="took longer"):
        rows.digest(made(), seconds=-1)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([{"a": [1, 2]}], [{"a": [1, 3]}]),
        ([{"x": torch.ones(2)}], [{"x": torch.ones(2, dtype=torch.bfloat16)}]),
        (torch.utils.data.TensorDataset(torch.zeros(3)), torch.utils.data.TensorDataset(torch.ones(3))),
        (torch.utils.data.Subset([1, 2, 3], [0, 1]), torch.utils.data.Subset([1, 2, 3], [0, 2])),
    ],
    ids=["list", "tensors", "tensor-dataset", "subset"],
)
def test_rows_in_memory_have_a_digest(one: Any, other: Any) -> None:
    assert rows.digest(one) == rows.digest(one)
    assert rows.digest(one)[0] != rows.digest(other)[0]


def test_rows_that_are_made_when_asked_for_are_not_asked_for() -> None:
    class Random(torch.utils.data.Dataset[float]):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, _at: int) -> float:
            raise AssertionError("it was asked")

    missing: list[Any] = []
    assert rows.describe("train", Random(), missing)["digest"] is None
    assert "move the random numbers" in missing[0].why
    assert rows.describe("train", [object()], missing)["digest"] is None
    assert missing[1].why == "its rows hold more than plain values and arrays"


def test_files_that_rows_came_from_are_told_with_their_digests(tmp_path: Any) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b"}\n')
    data = made(2)
    data.info.download_checksums = {
        str(path): {"num_bytes": 1}
    }  # as load_dataset notes them when it verifies
    data = data.map(lambda row: {"length": len(row["text"])})
    missing: list[Any] = []
    (file,) = rows.describe("train", data, missing)["files"]  # type: ignore[misc]
    assert file["bytes"] == path.stat().st_size
    assert file["digest"] == blake3(path.read_bytes()).hexdigest()
    assert file["path"] == str(path)
    path.unlink()
    (file,) = rows.describe("train", data, missing)["files"]  # type: ignore[misc]
    assert file["digest"] is None
    assert missing[0].why == "the file is not here any more"


def test_large_arrays_are_hashed_in_slices_to_the_digest_that_their_message_has() -> None:
    """The definition is that of the MessagePack of the whole: digests of earlier releases stay valid."""
    tensor = torch.arange(3 << 20, dtype=torch.float32).reshape(3, -1)
    arrays = [tensor.numpy(), tensor.numpy().T, tensor.numpy().astype("M8[s]"), np.float32(1.0)]
    for value in [tensor, tensor.T, tensor.bfloat16(), *arrays]:
        is_tensor = isinstance(value, torch.Tensor)
        data = (value.reshape(-1).view(torch.uint8).numpy() if is_tensor else value).tobytes()
        message = msgspec.msgpack.encode([str(value.dtype), list(value.shape), data])
        assert rows.digest([value])[0] == blake3(b"stemmata values 1\n" + message).hexdigest()


def test_a_large_tensor_is_hashed_without_a_copy_of_it() -> None:
    tensor = torch.zeros(64 << 20, dtype=torch.uint8)
    tracemalloc.start()
    rows.digest([tensor])
    rows.digest([tensor.numpy()])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20

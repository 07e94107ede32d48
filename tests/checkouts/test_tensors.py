"""Tensors of a file in memory that is given: each byte in its place, and nothing believed of a tree."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from blake3 import blake3
from safetensors.numpy import save

from stemmata.checkouts import TensorFile
from stemmata.containers import chunks
from stemmata.containers.cut import plan
from stemmata.errors import DamagedFile
from stemmata.trees import Segment, TreeFile
from trees_by_hand import Objects

TENSORS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.arange(6, 12, dtype=np.float32).reshape(2, 3),
    "empty": np.zeros((0, 3), np.float32),
    "one": np.array(7, np.int8),
}


class Bytes:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def read_at(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


def cut(data: bytes, objects: Objects) -> TreeFile:
    """As a save cuts it."""
    segments = []
    found = plan(Bytes(data), len(data), "w.safetensors")
    for s in found.segments:
        names = [objects.add(data[p.offset : p.offset + p.length]) for p in s.pieces]
        shape = None if s.shape is None else list(s.shape)
        segments.append(Segment(s.length, names, s.name, s.dtype or None, shape))
    return TreeFile("w.safetensors", len(data), blake3(data).hexdigest(), segments, False, found.container)


def opened(file: TreeFile, objects: Objects) -> TensorFile:
    def fill(digest: str, into: memoryview) -> None:
        into[:] = objects.read(digest)

    found = TensorFile.of(file, objects.read, fill, lambda digest: len(objects.kept[digest]))
    assert found is not None
    return found


def read(file: TreeFile, objects: Objects, names: Sequence[str] | None = None) -> dict[str, bytes]:
    source = opened(file, objects)
    targets = {e.name: bytearray(e.end - e.begin) for e in source.extents if names is None or e.name in names}
    source.fill({name: memoryview(target) for name, target in targets.items()})
    return {name: bytes(target) for name, target in targets.items()}


def test_all_tensors_are_what_they_were() -> None:
    objects = Objects()
    file = cut(save(TENSORS), objects)
    assert read(file, objects) == {name: tensor.tobytes() for name, tensor in TENSORS.items()}
    assert [(e.name, e.dtype, e.shape) for e in opened(file, objects).extents if e.name == "one"] == [
        ("one", "I8", ())
    ]


def test_for_one_tensor_only_its_objects_and_the_header_are_read() -> None:
    objects = Objects()
    file = cut(save(TENSORS), objects)
    objects.asked.clear()
    assert read(file, objects, ["b"]) == {"b": TENSORS["b"].tobytes()}
    (segment,) = [s for s in file.segments if s.name == "b"]
    assert objects.asked == [file.segments[0].objects[0], *segment.objects]


def test_tensors_whose_bytes_are_cut_otherwise_are_put_together() -> None:
    """Of a type that the store does not know: objects begin and end anywhere."""
    objects = Objects()
    data = save(TENSORS)
    start = 8 + int.from_bytes(data[:8], "little")
    edges = [0, start + 5, start + 30, len(data)]
    segments = [Segment(e - b, [objects.add(data[b:e])]) for b, e in pairwise(edges)]
    file = TreeFile("w.safetensors", len(data), blake3(data).hexdigest(), segments, False, "safetensors")
    assert read(file, objects) == {name: tensor.tobytes() for name, tensor in TENSORS.items()}
    assert read(file, objects, ["one"]) == {"one": TENSORS["one"].tobytes()}


def test_a_header_and_a_tensor_in_many_objects_cost_no_more_than_those_that_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chunks, "CHUNK", 32)
    objects = Objects()
    data = header(
        {
            "a": {"dtype": "NOPE", "shape": [70], "data_offsets": [0, 70]},
            "b": {"dtype": "F32", "shape": [2], "data_offsets": [70, 78]},
        }
    ) + bytes(range(78))
    file = cut(data, objects)
    head, unknown, known = file.segments
    assert [len(s.objects) for s in file.segments] == [-(-head.length // 32), 3, 1]
    assert read(file, objects) == {"a": bytes(range(70)), "b": bytes(range(70, 78))}
    assert read(file, objects, ["a"]) == {"a": bytes(range(70))}
    objects.asked.clear()
    assert read(file, objects, ["b"]) == {"b": bytes(range(70, 78))}
    assert objects.asked == [*head.objects, *known.objects]
    objects.kept[unknown.objects[0]] += b"longer"
    with pytest.raises(DamagedFile, match="its objects are not as long as it is"):
        opened(file, objects)


def test_a_file_that_was_cut_as_bytes_is_not_read_so() -> None:
    objects = Objects()
    file = cut(save(TENSORS), objects)
    plain = TreeFile(file.path, file.size, file.digest, file.segments)
    assert TensorFile.of(plain, objects.read, lambda digest, into: None, len) is None


def swapped(file: TreeFile) -> TreeFile:
    """The objects of two tensors of one shape have changed places."""
    a, b = (next(s for s in file.segments if s.name == name) for name in "ab")
    other = {"a": b.objects, "b": a.objects}
    segments = [
        Segment(s.length, other.get(s.name or "", s.objects), s.name, s.dtype, s.shape) for s in file.segments
    ]
    return TreeFile(file.path, file.size, file.digest, segments, False, file.container)


def test_objects_that_changed_places_are_found_by_the_files_digest() -> None:
    objects = Objects()
    with pytest.raises(DamagedFile, match="digest is not the one of the version"):
        read(swapped(cut(save(TENSORS), objects)), objects)


def test_what_the_tree_calls_a_tensor_is_not_believed() -> None:
    objects = Objects()
    file = cut(save(TENSORS), objects)
    renamed = {"a": "b", "b": "a"}
    segments = [
        Segment(s.length, s.objects, renamed.get(s.name or "", s.name), s.dtype, s.shape)
        for s in file.segments
    ]
    lying = TreeFile(file.path, file.size, file.digest, segments, False, file.container)
    assert read(lying, objects) == {name: tensor.tobytes() for name, tensor in TENSORS.items()}


def test_objects_of_another_length_are_an_error() -> None:
    objects = Objects()
    file = cut(save(TENSORS), objects)
    objects.kept[file.segments[-1].objects[0]] = b"longer"
    with pytest.raises((DamagedFile, ValueError)):
        read(file, objects)


def header(rows: dict[str, object]) -> bytes:
    text = json.dumps(rows).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"short", "only 5 bytes"),
        (header({"a": {"dtype": "U8", "shape": [9], "data_offsets": [0, 9]}}) + b"1", "ends beyond"),
        (
            header(
                {
                    "a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},
                    "b": {"dtype": "U8", "shape": [4], "data_offsets": [2, 6]},
                }
            )
            + b"123456",
            "overlaps",
        ),
    ],
)
def test_a_file_that_is_none_is_damaged(data: bytes, reason: str) -> None:
    objects = Objects()
    segments = [Segment(len(data), [objects.add(data)])]
    file = TreeFile("w.safetensors", len(data), blake3(data).hexdigest(), segments, False, "safetensors")
    with pytest.raises(DamagedFile, match=reason):
        opened(file, objects)

"""GGUF: a file of the reference writer comes apart at its tensors; any other is cut into chunks."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cuts import Memory, by_name, check_tiles, cut, names
from stemmata.containers import gguf
from stemmata.containers.cut import plan

REFERENCE = Path(__file__).parent / "reference.gguf"
"""Made by the PyPI package gguf 0.19.0 (GGUFWriter): see `reference_tensors`."""


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def info(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], kind, offset)


def file(
    infos: list[bytes],
    data: bytes,
    pairs: tuple[bytes, ...] = (),
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
    alignment: int = 32,
) -> bytes:
    tensors, keys = counts or (len(infos), len(pairs))
    head = b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + b"".join([*pairs, *infos])
    return head + bytes(-len(head) % alignment) + data


F32, F16, Q4_0 = 0, 1, 2
ONE = [info("a", (2, 4), F32, 0)]
TWO = [info("a", (2, 4), F32, 0), info("b", (3,), F16, 32)]
NUMBERS = np.arange(8, dtype=np.float32).tobytes()


def reference_tensors() -> dict[str, Any]:
    """What was given to the writer beside a block-quantised `blk.0.q` (Q8_0) and metadata of every type."""
    return {
        "token_embd.weight": np.arange(35, dtype=np.float32).reshape(5, 7),
        "blk.0.norm": np.arange(3, dtype=np.float16),
        "blk.0.small": np.arange(5, dtype=np.int8),
        "blk.0.f64": np.arange(4, dtype=np.float64).reshape(2, 1, 2),
        "blk.0.i64": np.arange(2, dtype=np.int64),
    }


def test_a_real_file_is_cut_at_its_tensors() -> None:
    data = REFERENCE.read_bytes()
    found = cut(data, "model.gguf")
    assert found.container == "gguf"
    kinds = {"float32": "F32", "float16": "F16", "int8": "I8", "float64": "F64", "int64": "I64"}
    assert by_name(found, data) == {
        name: (kinds[str(array.dtype)], array.shape, array.tobytes())
        for name, array in reference_tensors().items()
    }
    blocks = [s for s in found.segments if s.name is None and s.length >= 4 * 2 * 34]
    assert len(blocks) == 2, "the header and the quantised tensor"


@pytest.mark.parametrize("version", [2, 3])
def test_both_versions_are_read(version: int) -> None:
    data = file(TWO, NUMBERS + bytes(6) + bytes(26), version=version)
    assert by_name(cut(data), data) == {"a": ("F32", (2, 4), NUMBERS), "b": ("F16", (3,), bytes(6))}


def test_every_plain_type_is_a_tensor() -> None:
    for kind, word in gguf._WORDS.items():
        found = cut(file([info("t", (16,), kind, 0)], bytes(16 * int(word.strip("BFI")) // 8)))
        assert [s.dtype for s in found.segments] == ["", word]


def test_quantised_and_unknown_types_are_bytes_of_their_own() -> None:
    infos = [info("a", (32,), Q4_0, 0), info("b", (32,), 9999, 32), info("c", (8,), F32, 64)]
    found = cut(file(infos, bytes(96)))
    assert [(s.name, s.length) for s in found.segments][1:] == [(None, 32), (None, 32), ("c", 32)]


def test_other_alignments_are_followed() -> None:
    pairs = (pair("general.alignment", 4, struct.pack("<I", 128)),)
    infos = [info("a", (2, 4), F32, 0), info("b", (3,), F16, 128)]
    data = file(infos, NUMBERS + bytes(96) + bytes(6), pairs, alignment=128)
    assert by_name(cut(data), data)["b"] == ("F16", (3,), bytes(6))


def test_metadata_of_every_type_is_gone_over() -> None:
    array = struct.pack("<IQ", 8, 2) + text("x") + text("yz")
    nested = struct.pack("<IQ", 9, 2) + array * 2
    numbers = struct.pack("<IQ", 5, 3) + bytes(12)
    pairs = [pair(f"k{kind}", kind, bytes(size)) for kind, size in gguf._SIZES.items()]
    pairs += [pair("t", 8, text("value")), pair("a", 9, array), pair("n", 9, nested), pair("m", 9, numbers)]
    data = file(TWO, NUMBERS + bytes(6), tuple(pairs))
    assert set(by_name(cut(data), data)) == {"a", "b"}


def test_a_file_without_tensors_is_one() -> None:
    assert cut(file([], b"")).container == "gguf"


def test_empty_tensors_and_odd_names() -> None:
    infos = [info("e", (0, 3), F32, 0), info("x" * 2000, (8,), F32, 0), info("", (1,), F32, 32)]
    found = cut(file(infos, NUMBERS + bytes(4)))
    assert names(found) == [None, "e", None, None]
    assert [s.dtype for s in found.segments] == ["", "F32", "F32", "F32"]


def test_an_empty_tensor_may_have_a_later_name_than_the_one_at_its_place() -> None:
    assert names(cut(file([info("z", (0,), F32, 0), info("a", (8,), F32, 0)], NUMBERS))) == [None, "z", "a"]


def test_a_header_longer_than_the_window_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf, "_WINDOW", 64)
    words = struct.pack("<IQ", 8, 500) + b"".join(text(f"word-{i}") for i in range(500))
    data = file(TWO, NUMBERS + bytes(6), (pair("tokens", 9, words),))
    reader = Memory(data)
    found = plan(reader, len(data), "m")
    check_tiles(found, len(data))
    assert set(by_name(found, data)) == {"a", "b"}
    assert max(length for _, length in reader.reads) <= 64


HUGE = 2**63
FAULTS = {
    "version 1": file(ONE, NUMBERS, version=1),
    "big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    "only its magic": b"GGUF",
    "cut off in the header": file(ONE, NUMBERS)[:50],
    "cut off in the data": file(ONE, NUMBERS)[:-1],
    "more tensors than there are": file(ONE, NUMBERS, counts=(2, 0)),
    "fewer tensors": file(TWO, NUMBERS + bytes(32), counts=(1, 0)),
    "absurdly many tensors": file(ONE, NUMBERS, counts=(HUGE, 0)),
    "absurdly many pairs": file(ONE, NUMBERS, counts=(1, HUGE)),
    "more pairs": file(ONE, NUMBERS, counts=(1, 1)),
    "a text of absurd length": file(ONE, NUMBERS, (struct.pack("<Q", HUGE),)),
    "an array of absurd length": file(ONE, NUMBERS, (pair("k", 9, struct.pack("<IQ", 5, HUGE)),)),
    "an array of absurdly many texts": file(ONE, NUMBERS, (pair("k", 9, struct.pack("<IQ", 8, HUGE)),)),
    "deep arrays": file(ONE, NUMBERS, (pair("k", 9, struct.pack("<IQ", 9, 1) * 6),)),
    "an unknown type": file(ONE, NUMBERS, (pair("k", 13, bytes(8)),)),
    "an alignment that is a text": file(ONE, NUMBERS, (pair("general.alignment", 8, text("32")),)),
    "no alignment": file(ONE, NUMBERS, (pair("general.alignment", 4, bytes(4)),)),
    "an odd alignment": file(ONE, NUMBERS, (pair("general.alignment", 4, struct.pack("<I", 24)),)),
    "too many dimensions": file([info("a", (1,) * 9, F32, 0)], NUMBERS),
    "absurd dimensions": file([info("a", (HUGE, HUGE), F32, 0)], NUMBERS),
    "an offset between": file([info("a", (2,), F32, 8)], NUMBERS),
    "an offset beyond the file": file([info("a", (2,), F32, 1 << 40)], NUMBERS),
    "an absurd offset": file([info("a", (2,), F32, HUGE)], NUMBERS),
    "overlap": file([info("a", (9,), F32, 0), info("b", (2,), F32, 32)], NUMBERS + bytes(32)),
    "two at one place": file([info("a", (8,), F32, 0), info("b", (8,), F32, 0)], NUMBERS),
    "blocks without bytes": file([info("a", (32,), Q4_0, 0), info("b", (8,), F32, 0)], NUMBERS),
    "shorter than its place": file([info("a", (2,), F32, 0), info("b", (8,), F32, 64)], bytes(96)),
    "one name twice": file([info("a", (8,), F32, 0), info("a", (8,), F32, 32)], bytes(64)),
    "a name that is no text": file([ONE[0].replace(b"a", b"\xff")], NUMBERS),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_doubtful_file_is_cut_into_chunks(fault: str) -> None:
    assert cut(FAULTS[fault], "model.gguf").container == ""


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    words = struct.pack("<IQ", 8, 500) + b"".join(text(f"word-{i}") for i in range(500))
    data = file(TWO, NUMBERS + bytes(6), (pair("tokens", 9, words),))
    monkeypatch.setattr(gguf, "MAX_ITEMS", 400)
    assert cut(data).container == ""
    monkeypatch.undo()
    monkeypatch.setattr(gguf, "MAX_HEADER", 400)
    assert cut(data).container == ""

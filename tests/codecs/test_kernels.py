"""The inner loops: numpy's and the compiled ones make the same bytes, today's and those of every release."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kernel_choices import CHOICES, needs_native
from stemmata.codecs import kernels, native, native_kernels, numpy_kernels
from stemmata.codecs.dtypes import DTYPES, DType, dtype_of
from stemmata.codecs.faults import DamagedFault
from stemmata.codecs.numpy_kernels import DeltaParts
from tensor_pairs import CODED, Bytes, pair

ROOT = Path(__file__).parents[2]
LARGE = 30_011

coded = st.sampled_from(CODED)


def kept(parts: DeltaParts) -> DeltaParts:
    """A copy: the compiled ones are good until the next frame."""
    arrays = {f.name: np.array(getattr(parts, f.name)) for f in fields(parts) if f.name != "groups"}
    return DeltaParts(groups=list(parts.groups), **arrays)


def same(a: DeltaParts, b: DeltaParts) -> bool:
    return list(a.groups) == list(b.groups) and all(
        np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a) if f.name != "groups"
    )


def joined(kernel: ModuleType, base: Bytes, parts: DeltaParts, dtype: DType) -> Bytes:
    """What `kernel` puts together, the sizes held against what it says of them."""
    groups = kernel.delta_groups(base, parts.classes, dtype)
    assert (list(groups.counts), groups.drifted) == (list(parts.groups), len(parts.low))
    into = np.full(len(base), 0xAA, np.uint8)
    kernel.delta_join(base, groups, parts, dtype, into)
    return into


def hold(data: Bytes, base: Bytes, dtype: DType) -> DeltaParts:
    """Each splits, each joins what either split. Returns the parts."""
    parts = kept(numpy_kernels.delta_split(data, base, dtype))
    assert np.array_equal(joined(numpy_kernels, base, parts, dtype), data)
    for suffix in native.suffixes if native.library is not None else ():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(native, "suffix", suffix)
            assert same(parts, kept(native_kernels.delta_split(data, base, dtype)))
            assert np.array_equal(joined(native_kernels, base, parts, dtype), data)
    return parts


# --- which of them runs ---------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("cc") is None and shutil.which("gcc") is None, reason="no C compiler here")
def test_where_there_is_a_compiler_the_compiled_ones_run(tmp_path: Path) -> None:
    """As an installation would: compile what lies here, load it, and use it."""
    folder = tmp_path / "src/stemmata/codecs"
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    compiler = shutil.which("cc") or shutil.which("gcc") or ""
    flags = ["-std=c11", "-O1", "-Wall", "-Werror", "-fPIC", "-shared", "-fvisibility=hidden"]
    made = [compiler, *flags, "-o", str(folder / native.FILE.name), str(folder / "kernels.c")]
    subprocess.run(made, check=True)
    code = (
        "from stemmata.codecs import kernels as k, native_kernels as n; print(k.delta_join is n.delta_join)"
    )
    env = {k: v for k, v in os.environ.items() if k != native.VARIABLE} | {
        "PYTHONPATH": str(tmp_path / "src")
    }
    for variables, answer in (({}, "True"), ({native.VARIABLE: "0"}, "False")):
        done = subprocess.run(
            [sys.executable, "-c", code], env=env | variables, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == answer
    whole = (folder / native.FILE.name).read_bytes()
    # One that lacks its end kills the process that loads it.
    for other in (b"of another machine", b"", whole[:40], whole[: len(whole) // 2], whole[:-1]):
        (folder / native.FILE.name).write_bytes(other)
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "False", len(other)


@needs_native
def test_what_was_compiled_at_installation_is_what_runs() -> None:
    assert os.environ.get(native.VARIABLE) != "0"
    assert kernels.delta_split is native_kernels.delta_split
    assert kernels.narrow is native_kernels.narrow


# --- the same bytes -----------------------------------------------------------------------------------


@given(coded, st.data())
def test_i3_any_bytes_against_any_others(dtype: DType, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 400)) * dtype.itemsize
    one, other = (np.frombuffer(data.draw(st.binary(min_size=count, max_size=count)), np.uint8) for _ in "ab")
    hold(one, other, dtype)


@given(coded, st.integers(1, 9_999), st.integers())
@example(CODED[0], 1, 0)
@example(dtype_of("F64"), 129, 1)
@example(dtype_of("BF16"), 4096, 2)
@settings(max_examples=150)
def test_i3_blocks_of_every_kind(dtype: DType, count: int, seed: int) -> None:
    hold(*pair(str(seed), count, dtype), dtype)


@pytest.mark.parametrize("dtype", CODED, ids=lambda d: d.word)
def test_i3_many_groups_and_every_class_of_blocks(dtype: DType) -> None:
    parts = hold(*pair("large", LARGE, dtype), dtype)
    assert set(parts.classes.tolist()) == ({0, 1, 2} if dtype.mantissa > 6 else {0, 1})
    assert len(parts.groups) == 1 or dtype.is_float
    assert len(parts.groups) >= 2 or not dtype.is_float
    assert all(size >= numpy_kernels.GROUP_MIN for size in parts.groups)


@pytest.mark.parametrize("dtype", CODED, ids=lambda d: d.word)
def test_i3_a_whole_frame_of_noise_and_one_of_nothing(dtype: DType) -> None:
    data, base = (np.random.default_rng(n).bytes(dtype.max_frame_bytes) for n in (1, 2))
    noise = np.frombuffer(data, np.uint8)
    hold(noise, np.frombuffer(base, np.uint8), dtype)
    parts = hold(noise, noise, dtype)
    assert not parts.classes.any()
    assert (list(parts.groups), len(parts.tokens), len(parts.raw)) == ([], 0, 0)


@pytest.mark.parametrize("word", ["F8_E4M3", "F8_E5M2", "I8", "U8"])
def test_i3_every_byte_against_every_byte(word: str) -> None:
    every = np.arange(256, dtype=np.uint8)
    hold(np.tile(every, 256), np.repeat(every, 256), dtype_of(word))


@pytest.mark.parametrize("word", ["F16", "BF16", "I16"])
def test_i3_every_16_bits_against_some(word: str) -> None:
    every = np.arange(1 << 16).astype("<u2")
    for step in (0, 1, 0x80, 0x7FFF, 0x8000, 0xFFFF):
        for base in (every + np.uint16(step), every ^ np.uint16(step)):
            hold(every.view(np.uint8), base.astype("<u2").view(np.uint8), dtype_of(word))


@pytest.mark.parametrize("dtype", CODED, ids=lambda d: d.word)
@pytest.mark.parametrize("kernel", CHOICES)
def test_planes_of_both(kernel: ModuleType, dtype: DType) -> None:
    data, _ = pair("planes", 5_003, dtype)
    planes = [np.array(plane) for plane in kernel.split(data, dtype)]
    assert [p.tolist() for p in planes] == [p.tolist() for p in numpy_kernels.split(data, dtype)]
    into = np.empty_like(data)
    kernel.join(planes, dtype, into)
    assert np.array_equal(into, data)


@pytest.mark.parametrize("kernel", CHOICES)
def test_bytes_may_begin_anywhere(kernel: ModuleType) -> None:
    """A view into a file's bytes need not lie where its elements would like to."""
    for dtype in (dtype_of(word) for word in ("F64", "F32", "BF16")):
        data, base = pair("odd", 1_000, dtype)
        odd, under, into = (np.zeros(len(data) + 1, np.uint8)[1:] for _ in "abc")
        odd[:], under[:] = data, base
        parts = kept(kernel.delta_split(odd, under, dtype))
        assert same(parts, kept(numpy_kernels.delta_split(data, base, dtype)))
        kernel.delta_join(under, kernel.delta_groups(under, parts.classes, dtype), parts, dtype, into)
        assert np.array_equal(into, data)
        assert np.array_equal(kernel.split(odd, dtype)[0], numpy_kernels.split(data, dtype)[0])


def digest_of_parts(kernel: ModuleType, dtype: DType) -> str:
    """Of all that a large pair comes to, before zstd, whose bytes are its own business."""
    state = blake3()
    for seed, count in (("large", LARGE), ("ragged", 1_001)):
        parts = kernel.delta_split(*pair(seed, count, dtype), dtype)
        state.update(repr(list(parts.groups)).encode())
        for part in (parts.classes, parts.tokens, parts.raw, parts.low, parts.high):
            state.update(len(part).to_bytes(8, "little") + part.tobytes())
    if dtype.word in ("F16", "BF16"):
        wide, _ = pair("large", LARGE, dtype_of("F32"))
        finite = wide.view("<u4") & np.uint32(0xBFFFFFFF)
        state.update(kernel.narrow(finite.view(np.uint8), dtype).tobytes())
    return state.hexdigest()[:16]


PINNED = {
    "U8": "4e20539bca278d18",
    "I8": "4e20539bca278d18",
    "F8_E4M3": "c4de72b1cd6c6ad9",
    "F8_E5M2": "4817f4e1c2a60099",
    "I16": "b0d78858bff4330d",
    "U16": "b0d78858bff4330d",
    "F16": "a0fdcb5cc4417f33",
    "BF16": "9a98113e67733e29",
    "I32": "28c17243c9042bab",
    "U32": "28c17243c9042bab",
    "F32": "8cc34e5ee1429ed8",
    "I64": "58ca38dc3dbe62db",
    "U64": "58ca38dc3dbe62db",
    "F64": "f3b9e42d756df7da",
}
"""A change of these is a change of the format: versions are stored so."""


@pytest.mark.parametrize("kernel", CHOICES)
@pytest.mark.parametrize("word", PINNED)
def test_the_bytes_are_those_of_every_release_and_machine(kernel: ModuleType, word: str) -> None:
    assert digest_of_parts(kernel, dtype_of(word)) == PINNED[word]


# --- what was not made by splitting ---------------------------------------------------------------------


def wrong(dtype: DType) -> tuple[Bytes, DeltaParts]:
    data, base = pair("wrong", 700, dtype)
    return base, kept(numpy_kernels.delta_split(data, base, dtype))


@pytest.mark.parametrize("kernel", CHOICES)
@pytest.mark.parametrize("dtype", CODED, ids=lambda d: d.word)
@pytest.mark.parametrize("kind", [2, 3, 4, 255])
def test_a_class_that_there_is_not_is_refused(kernel: ModuleType, dtype: DType, kind: int) -> None:
    base, parts = wrong(dtype)
    groups = kernel.delta_groups(base, parts.classes, dtype)
    parts.classes[-1] = kind
    if kind > 2 or dtype.mantissa <= 6:
        with pytest.raises(DamagedFault, match="unknown class"):
            kernel.delta_groups(base, parts.classes, dtype)
        with pytest.raises(DamagedFault):
            kernel.delta_join(base, groups, parts, dtype, np.empty_like(base))


@pytest.mark.parametrize("kernel", CHOICES)
@pytest.mark.parametrize(
    ("word", "first"), [("F16", 112), ("BF16", 112), ("I16", 112), ("F32", 240), ("U32", 240)]
)
def test_a_token_beyond_the_width_is_refused(kernel: ModuleType, word: str, first: int) -> None:
    base, parts = wrong(dtype_of(word))
    groups = kernel.delta_groups(base, parts.classes, dtype_of(word))
    for token in (first, 255):
        parts.tokens[0] = token
        with pytest.raises(DamagedFault, match="token"):
            kernel.delta_join(base, groups, parts, dtype_of(word), np.empty_like(base))


@pytest.mark.parametrize("kernel", CHOICES)
@pytest.mark.parametrize("dtype", CODED, ids=lambda d: d.word)
@pytest.mark.parametrize("change", [-1, 1, 1 << 21])
def test_raw_bits_too_many_or_too_few_are_refused(kernel: ModuleType, dtype: DType, change: int) -> None:
    base, parts = wrong(dtype)
    groups = kernel.delta_groups(base, parts.classes, dtype)
    size = max(len(parts.raw) + change, 0)
    if size != len(parts.raw):
        raw = np.resize(parts.raw, size) if len(parts.raw) else np.zeros(size, np.uint8)
        changed = DeltaParts(parts.classes, parts.groups, parts.tokens, raw, parts.low, parts.high)
        with pytest.raises(DamagedFault, match="raw bits"):
            kernel.delta_join(base, groups, changed, dtype, np.empty_like(base))


def noise(seed: str, size: int) -> Bytes:
    return np.frombuffer(blake3(seed.encode()).digest(length=size + 1), np.uint8)[:size]


def raw_size(tokens: list[int], groups: Sequence[int], dtype: DType) -> int:
    """Bytes of raw bits that tokens ask for."""
    s, total, at = 2 if dtype.itemsize == 8 else 3, 0, 0
    for size in groups if dtype.itemsize > 1 else ():
        bits = sum((t - 16 >> s) + 4 - s for t in tokens[at : at + size] if t >= 16)
        total += -(-bits // 8)
        at += size
    return total


@given(coded, st.integers(1, 1_500), st.integers(), st.data())
def test_any_content_of_the_streams_is_refused_or_joined_alike(
    dtype: DType, count: int, seed: int, data: st.DataObject
) -> None:
    """Whatever lies in streams of the right lengths: neither goes astray, and both say the same."""
    _, base = pair(str(seed), count, dtype)
    blocks = -(-count // 128)
    top = 2 if dtype.mantissa > 6 else 1
    classes = np.array(data.draw(st.lists(st.integers(0, top), min_size=blocks, max_size=blocks)), np.uint8)
    told = numpy_kernels.delta_groups(base, classes, dtype)
    groups, drifted = told.counts, told.drifted
    limit = data.draw(st.sampled_from([16, 40, 112, 240, 256]))
    tokens = np.minimum(noise(f"{seed}", sum(groups)), limit - 1).astype(np.uint8)
    wanted = raw_size(tokens.tolist(), groups, dtype)
    raw = noise("raw", wanted if wanted <= dtype.max_frame_bytes else 0)
    parts = DeltaParts(classes, groups, tokens, raw, noise("low", drifted), noise("high", drifted))
    answers = []
    for kernel in (numpy_kernels, native_kernels) if native.library is not None else (numpy_kernels,):
        into = np.zeros(len(base), np.uint8)
        try:
            kernel.delta_join(base, kernel.delta_groups(base, classes, dtype), parts, dtype, into)
        except DamagedFault:
            answers.append(b"refused")
        else:
            answers.append(into.tobytes())
    assert len(set(answers)) == 1
    assert answers[0] != b"refused" or limit > 16 + ((8 * dtype.itemsize - 4) << 3)


def test_the_table_of_mantissas_is_that_of_the_format() -> None:
    found = {d.word: d.mantissa for d in DTYPES if d.is_float}
    assert found == {"F8_E4M3": 3, "F8_E5M2": 2, "F16": 10, "BF16": 7, "F32": 23, "F64": 52}
    assert {d.mantissa for d in DTYPES if not d.is_float} == {-1}


@pytest.mark.parametrize("kernel", CHOICES)
@pytest.mark.parametrize("size", [0, 1, 4099])
def test_what_differs_anywhere_is_not_the_same(kernel: ModuleType, size: int) -> None:
    data = np.arange(size, dtype=np.uint32).view(np.uint8)[:size]
    other = data.copy()
    assert kernel.same(data, other)
    for at in {0, size // 2, size - 1} if size else set():
        other[at] ^= 1
        assert not kernel.same(data, other)
        other[at] ^= 1

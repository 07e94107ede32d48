"""How near weights are: what counts as equal, as within a tolerance, and where the largest deviation is."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from makers import Array, weights
from making_again import NOTHING, Stores
from stemmata.codecs.dtypes import DTYPES, DType, dtype_of
from stemmata.compare.floats import to_float64
from stemmata.compare.tensors import Tensor, TensorChange
from stemmata.errors import InvalidArgument
from stemmata.reproducing import Verdict, judge
from stemmata.reproducing.closeness import DEFAULTS, Held, Tolerance, tolerances_of
from stemmata.version import Version
from tensor_pairs import patterns


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    made = Stores(tmp_path)
    yield made
    made.close()


def judged(a: Version, b: Version, **options: float) -> Verdict:
    return judge(a, b, before=NOTHING, after=NOTHING, **options)


def crafted(tensors: dict[str, tuple[str, list[int], bytes]]) -> bytes:
    """A safetensors file of any types."""
    header: dict[str, object] = {}
    at = 0
    for name, (word, shape, data) in tensors.items():
        header[name] = {"dtype": word, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(data for _, _, data in tensors.values())


# --- whole versions ---------------------------------------------------------------------------------


def test_equal_digests_are_bit_identical_and_no_weights_are_read(stores: Stores) -> None:
    found = judged(*stores.pair(weights(0), weights(0)))
    assert found.kind == "bit-identical"
    assert found
    assert (found.weights.same, found.weights.read, found.deviations) == (2, 0, ())
    assert found.summary == "bit-identical: all 2 tensors have the same digest"


def test_only_tensors_that_differ_are_read(stores: Stores) -> None:
    a = weights(0)
    b = dict(a) | {"layer.1.weight": a["layer.1.weight"] + np.float32(1)}
    found = judged(*stores.pair(a, b))
    assert found.kind == "diverged"
    assert (found.weights.same, found.weights.read) == (1, 2 * a["layer.1.weight"].nbytes)


def test_the_largest_deviation_is_told_with_its_tensor_and_place(stores: Stores) -> None:
    a = weights(0)
    b = {name: tensor.copy() for name, tensor in a.items()}
    b["layer.0.weight"][3, 4] += np.float32(1e-6)
    b["layer.1.weight"][5, 6] += np.float32(4e-6)
    found = judged(*stores.pair(a, b))
    assert found.kind == "within-tolerance"
    assert [each.tensor for each in found.deviations] == ["layer.1.weight", "layer.0.weight"]
    worst = found.deviations[0]
    assert (worst.at, worst.differing, worst.beyond) == ((5, 6), 1, 0)
    assert worst.largest == pytest.approx(4e-6, rel=0.1)
    assert worst.before == float(a["layer.1.weight"][5, 6])
    assert worst.after == float(b["layer.1.weight"][5, 6])
    assert "tolerance of F32: 1e-05 + 1.3e-06 of the value" in str(found)
    assert set(found.tolerances) == {"F32"}


def test_a_stricter_tolerance_makes_the_same_deviation_a_divergence(stores: Stores) -> None:
    a = {"w": np.ones(4, np.float32)}
    pair = stores.pair(a, {"w": a["w"] + np.float32(1e-6)})
    assert judged(*pair).kind == "within-tolerance"
    assert judged(*pair, rtol=0, atol=0).kind == "diverged"
    assert judged(*pair, rtol=0, atol=1e-7).deviations[0].beyond == 4


def test_a_tensor_that_is_missing_added_retyped_or_reshaped_diverges(stores: Stores) -> None:
    a = {
        "gone": np.zeros(1, np.float32),
        "typed": np.zeros(2, np.float32),
        "shaped": np.zeros((2, 3), np.float32),
    }
    b = {
        "new": np.zeros(1, np.float32),
        "typed": np.zeros(2, np.float16),
        "shaped": np.zeros((3, 2), np.float32),
    }
    found = judged(*stores.pair(a, b))
    assert found.kind == "diverged"
    assert {each.tensor: each.why for each in found.deviations} == {
        "gone": "the copy lacks it",
        "new": "only the copy has it",
        "typed": "F32 became F16",
        "shaped": "shape 2 × 3 became 3 × 2",
    }
    assert found.weights.read == 0
    assert found.summary == "diverged: 4 of 4 tensors differ; cause unknown"


def test_what_cannot_be_compared_stands_before_the_largest(stores: Stores) -> None:
    found = judged(
        *stores.pair({"a": np.zeros(1, np.float32)}, {"a": np.ones(1, np.float32), "z": np.zeros(1)})
    )
    assert [each.tensor for each in found.deviations] == ["z", "a"]


def test_empty_tensors_scalars_and_integers(stores: Stores) -> None:
    a: dict[str, Array] = {
        "empty": np.zeros((0, 3), np.float32),
        "count": np.array([1, -2], np.int64),
        "scalar": np.array(1.0, np.float32),
    }
    assert judged(*stores.pair(a, a)).kind == "bit-identical"
    b = a | {"count": np.array([1, -3], np.int64)}
    found = judged(*stores.pair(a, b), rtol=1, atol=1)
    (only,) = found.deviations
    assert (found.kind, only.tensor, only.at, only.before, only.after) == ("diverged", "count", (1,), -2, -3)
    assert only.why == "I64 has no tolerance"
    moved = a | {"scalar": np.array(1.000001, np.float32)}
    (only,) = judged(*stores.pair(a, moved)).deviations
    assert (only.within, only.at) == (True, None)


def test_a_shape_of_no_elements_that_differs_diverges(stores: Stores) -> None:
    found = judged(*stores.pair({"e": np.zeros((0, 3), np.float32)}, {"e": np.zeros((3, 0), np.float32)}))
    assert (found.kind, found.deviations[0].why) == ("diverged", "shape 0 × 3 became 3 × 0")


def test_packed_weights_are_compared_bit_for_bit(stores: Stores) -> None:
    a: dict[str, Array] = {
        "l.weight": np.arange(8, dtype=np.uint8),
        "l.weight.absmax": np.ones(2, np.float32),
        "l.weight.quant_state.bitsandbytes__nf4": np.zeros(3, np.uint8),
    }
    b = a | {"l.weight": np.arange(1, 9, dtype=np.uint8)}
    found = judged(*stores.pair(a, b), atol=100)
    (only,) = found.deviations
    assert (found.kind, only.why) == ("diverged", "bitsandbytes 4-bit: compared bit for bit")
    scaled = a | {"l.weight.absmax": a["l.weight.absmax"] + np.float32(1e-6)}
    assert judged(*stores.pair(a, scaled)).kind == "within-tolerance"


def test_a_type_that_is_no_number_here_is_compared_bit_for_bit(stores: Stores) -> None:
    one, two = (
        stores.save(side, raw=crafted({"s": ("F8_E8M0", [2], data)}))
        for side, data in enumerate((b"ab", b"ac"))
    )
    (only,) = judged(one, two).deviations
    assert (only.tensor, only.why) == ("s", "F8_E8M0: compared bit for bit")


def test_another_order_and_other_metadata_in_the_file_change_no_tensor(stores: Stores) -> None:
    a = weights(0)
    one = stores.save(0, a)
    two = stores.save(1, dict(reversed(a.items())))
    assert one.files[-1].digest != two.files[-1].digest
    assert judged(one, two).kind == "bit-identical"


def test_a_pickle_of_other_bytes_diverges_for_its_tensors_cannot_be_told_apart(stores: Stores) -> None:
    one = stores.save(0, files={"pytorch_model.bin": b"one"})
    two = stores.save(1, files={"pytorch_model.bin": b"two"})
    found = judged(one, two)
    (only,) = found.deviations
    assert (found.kind, only.file, only.tensor) == ("diverged", "pytorch_model.bin", "")
    assert "no tensors can be told apart" in only.why
    same = judged(one, stores.save(1, files={"pytorch_model.bin": b"one"}))
    assert (same.kind, same.weights.same) == ("bit-identical", 1)
    assert same.summary == "bit-identical: the one file of weights has the same digest"
    assert found.summary == "diverged: 1 of 1 file of weights differs; cause unknown"


def test_an_adapter_written_with_its_set_in_another_order_is_the_same(stores: Stores) -> None:
    said = {"peft_type": "LORA", "r": 4, "target_modules": ["q", "v"], "base_model_name_or_path": "/a/base"}
    other = said | {"target_modules": ["v", "q"], "base_model_name_or_path": "/scratch/base"}
    one, two = (
        stores.save(side, weights(0), files={"adapter_config.json": json.dumps(config).encode()})
        for side, config in enumerate((said, other))
    )
    found = judged(one, two)
    assert found.kind == "bit-identical"
    assert [each.why for each in found.files] == ["only base_model_name_or_path differs"]
    three = stores.save(1, weights(0), files={"adapter_config.json": json.dumps(said | {"r": 8}).encode()})
    assert judged(one, three).kind == "diverged"


def test_a_model_without_any_weights_says_so(stores: Stores) -> None:
    found = judged(stores.save(0), stores.save(1))
    assert found.kind == "bit-identical"
    assert found.notes == ("neither holds any weights: only their other files were compared",)


# --- other files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "a", "b", "kind", "why"),
    [
        ("tokenizer.json", b'{"model": 1}', b'{"model": 2}', "diverged", ""),
        ("vocab.txt", b"a\nb", b"b\na", "diverged", ""),
        ("dict.txt", b"a 1", b"b 1", "diverged", ""),
        ("adapter_config.json", b'{"revision": "a"}', b'{"revision": "b"}', "diverged", ""),
        ("LICENSE.txt", b"a", b"b", "bit-identical", "no load reads it"),
        ("requirements-dev.txt", b"a", b"b", "bit-identical", "no load reads it"),
        ("chat_template.jinja", b"a", b"b", "diverged", ""),
        ("config.json", b'{"n": 1}', b'{ "n": 1 }', "bit-identical", "only its layout differs"),
        ("config.json", b'{"transformers_version": "5.0"}', b'{"transformers_version": "5.1"}',
         "bit-identical", "only transformers_version differs"),
        ("README.md", b"a", b"b", "bit-identical", "no load reads it"),
        ("optimizer.pt", b"a", b"b", "bit-identical", "it is of the training, not of the model"),
        ("trainer_state.json", b"{}", b"[]", "bit-identical", "it is of the training, not of the model"),
        ("m.safetensors.index.json", b"{}", b"[]", "bit-identical", "it says in which file a tensor lies"),
        ("broken.json", b"{", b"}", "diverged", ""),
    ],
)  # fmt: skip
def test_a_file_that_a_load_reads_counts_as_the_weights_do(
    stores: Stores, path: str, a: bytes, b: bytes, kind: str, why: str
) -> None:
    one, two = (stores.save(side, weights(0), files={path: data}) for side, data in enumerate((a, b)))
    found = judged(one, two)
    assert (found.kind, [(f.path, f.what, f.why) for f in found.files]) == (kind, [(path, "changed", why)])
    if kind == "diverged":
        assert found.summary == f"diverged: the weights are the same, but {path} differs; cause unknown"


def test_a_tokenizer_that_one_side_lacks_makes_another_model(stores: Stores) -> None:
    found = judged(stores.save(0, weights(0), files={"tokenizer.json": b"{}"}), stores.save(1, weights(0)))
    assert (found.kind, found.files[0].what, found.files[0].matters) == ("diverged", "removed", True)


# --- element by element -----------------------------------------------------------------------------

FLOATS = [dtype for dtype in DTYPES if dtype.is_float]


def near(x: float, y: float, tolerance: Tolerance) -> bool:
    """The definition, a number at a time."""
    if math.isnan(x) and math.isnan(y):
        return True
    apart = abs(y - x)
    return math.isfinite(apart) and apart <= tolerance.atol + tolerance.rtol * abs(x)


@st.composite
def sides(draw: st.DrawFn) -> tuple[DType, Tolerance, list[int], list[int], int]:
    """Bits of two tensors of one type, a tolerance, and where the second piece begins."""
    dtype = draw(st.sampled_from(FLOATS))
    bits = st.integers(0, (1 << 8 * dtype.itemsize) - 1) | st.sampled_from([int(x) for x in patterns(dtype)])
    a = draw(st.lists(bits, min_size=1, max_size=40))
    step = st.integers(-3, 3)
    top = (1 << 8 * dtype.itemsize) - 1
    b = [draw(st.just(x) | step.map(lambda d, x=x: min(max(x + d, 0), top)) | bits) for x in a]
    tolerance = Tolerance(draw(st.floats(0, 1)), draw(st.floats(0, 1)))
    return dtype, tolerance, a, b, draw(st.integers(0, len(a)))


@settings(max_examples=200)
@given(sides())
def test_elements_are_held_to_the_definition_whatever_their_bits(
    drawn: tuple[DType, Tolerance, list[int], list[int], int],
) -> None:
    dtype, tolerance, a, b, cut = drawn
    old, new = (np.array(side, f"<u{dtype.itemsize}").tobytes() for side in (a, b))
    held = Held(dtype, tolerance)
    at = cut * dtype.itemsize
    held.take(old[:at], new[:at])
    held.take(old[at:], new[at:])
    x, y = (to_float64(side, dtype.word, (len(a),)).tolist() for side in (old, new))
    with np.errstate(all="ignore"):
        other = [place for place in range(len(a)) if a[place] != b[place]]
        beyond = [place for place in other if not near(x[place], y[place], tolerance)]
    assert (held.differing, held.beyond) == (len(other), len(beyond))
    if not other:
        assert held.largest is None
        return
    gaps = [0.0 if math.isnan(p) and math.isnan(q) else abs(q - p) for p, q in zip(x, y, strict=True)]
    gaps = [gap if math.isfinite(gap) else math.inf for gap in gaps]
    assert held.largest == max(gaps[place] for place in other)


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.word)
def test_nan_equals_nan_and_no_number_does(stores: Stores, dtype: DType) -> None:
    top = {"F8_E4M3": 0x7F, "F8_E5M2": 0x7D, "F16": 0x7E00, "BF16": 0x7FC0, "F32": 0x7FC00000}
    nan = top.get(dtype.word, 0x7FF8 << 48).to_bytes(dtype.itemsize, "little")
    other = bytes([*nan[:-1], nan[-1] | 0x80])  # NaN with its sign set: other bits, no number either
    zero = bytes(dtype.itemsize)
    one, *rest = (
        stores.save(side, raw=crafted({"w": (dtype.word, [2], zero + data)}), name=f"v{n}")
        for n, (side, data) in enumerate([(0, nan), (1, nan), (1, other), (1, zero)])
    )
    assert [judged(one, each).kind for each in rest] == ["bit-identical", "within-tolerance", "diverged"]
    against = judged(one, rest[2], rtol=1e300, atol=1e300).deviations[0]
    assert (against.largest, against.beyond, against.at) == (math.inf, 1, (1,))
    assert "one is no finite number" in str(judged(one, rest[2]))
    assert json.loads(json.dumps(against.to_dict(), allow_nan=False))["largest"] == "~inf"


def test_places_are_counted_over_pieces_and_over_what_was_not_read() -> None:
    held = Held(dtype_of("F32"), DEFAULTS["F32"])
    held.skip(1000)
    old = np.zeros(600_000, np.float32)
    new = old.copy()
    new[599_999] = 1
    held.take(old.tobytes(), new.tobytes())
    tensor = Tensor("w", "f", "F32", (601, 1000), 4 * 601_000, ())
    found = held.deviation(TensorChange("w", tensor, tensor))
    assert (found.at, found.differing, found.before, found.after) == ((600, 999), 1, 0.0, 1.0)


def test_tolerances_by_type_by_either_name_and_wrong_ones() -> None:
    assert tolerances_of(None, None) == DEFAULTS
    assert tolerances_of({"bfloat16": 0.5, "F32": 0.25}, None)["BF16"].rtol == 0.5
    assert {t.atol for t in tolerances_of(None, 0).values()} == {0}
    for bad in ({"I64": 1.0}, -1.0, math.nan, math.inf):
        with pytest.raises(InvalidArgument):
            tolerances_of(bad, None)
    assert dtype_of("F32").is_float

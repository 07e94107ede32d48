"""Stored floats mean what torch means by them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stemmata.compare.floats import ROUNDING, to_float64

TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


def test_every_stored_float_is_known() -> None:
    assert sorted(ROUNDING) == sorted(TYPES)


@pytest.mark.parametrize("word", TYPES)
def test_bits_as_torch_reads_them(word: str) -> None:
    rng = np.random.default_rng(0)
    every = (
        np.arange(256, dtype=np.uint8) if word.startswith("F8") else rng.integers(0, 256, 8 * 512, np.uint8)
    )
    expected = torch.from_numpy(every.copy()).view(TYPES[word]).to(torch.float64).numpy()
    found = to_float64(every.tobytes(), word, (2, len(expected) // 2))
    np.testing.assert_array_equal(found.reshape(-1), expected)


@pytest.mark.parametrize("word", [w for w in TYPES if w != "F64"])
def test_rounding_is_bounded_and_reaches_its_bound(word: str) -> None:
    by = ROUNDING[word]
    info = torch.finfo(TYPES[word])
    some = torch.rand(5000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values = torch.cat([1 + some, info.tiny * some])
    moved = (values.to(TYPES[word]).double() - values).abs()
    assert bool((moved <= torch.clamp(by.unit * values, min=by.least)).all())
    assert float((moved / values)[:5000].max()) > by.unit / 3

"""Tensors that are no plain numbers, and models that have little in common: compared as far as that means
anything, and said so."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from makers import Array, model_folder, safetensors_bytes
from stemmata.compare.architectures import blocks_of
from stemmata.compare.diff import Diff
from stemmata.compare.packed import form_of
from stemmata.compare.statistics import WeightsDiff
from stemmata.compare.tensors import Tensor
from stemmata.repository import Repository
from stemmata.surveyor import Surveyor

Typed = Mapping[str, tuple[str, list[int], bytes]]


@pytest.fixture
def repo() -> Repository:
    return Repository.in_memory()


def typed_bytes(tensors: Typed) -> bytes:
    """A safetensors file whose types numpy need not know."""
    header: dict[str, object] = {}
    data = b""
    for name, (word, shape, content) in tensors.items():
        header[name] = {"dtype": word, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def gguf_bytes(q4: bytes, norm: bytes) -> bytes:
    """A header by hand: a quantised tensor of one block, `blk.0.attn_q.weight`, and a plain one."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    infos = text("blk.0.attn_q.weight") + struct.pack("<IQQIQ", 2, 32, 1, 2, 0)
    infos += text("norm.weight") + struct.pack("<IQIQ", 1, len(norm) // 4, 0, 32)
    head = b"GGUF" + struct.pack("<IQQ", 3, 2, 0) + infos
    return head + bytes(-len(head) % 32) + q4 + bytes(32 - len(q4)) + norm


def diff(repo: Repository, folder: Path, name: str, a: bytes, b: bytes) -> Diff:
    folder.mkdir(exist_ok=True)
    versions = []
    for content in (a, b):
        (folder / name).write_bytes(content)
        versions.append(repo.save(folder, "m", parents=versions[-1:], provenance={}))
    return repo.diff(*versions)


def weights(found: Diff) -> WeightsDiff:
    assert found.weights is not None
    return found.weights


def test_types_that_are_not_stored_as_numbers_are_listed_all_the_same(
    repo: Repository, tmp_path: Path
) -> None:
    plain = ("F32", [2], np.float32([1, 2]).tobytes())
    a = {
        "w": plain,
        "z": ("C64", [1], b"complex."),
        "scale": ("F8_E8M0", [3], b"abc"),
        "gone": ("F4", [2], b"x"),
        "kept": ("C128", [1], b"sixteen letters."),
    }
    b = {
        "w": plain, "z": ("C64", [1], b"Complex."), "scale": ("F8_E8M0", [3], b"abd"),
        "kept": a["kept"], "new": ("C64", [1], b"12345678"),
    }  # fmt: skip
    found = diff(repo, tmp_path / "m", "model.safetensors", typed_bytes(a), typed_bytes(b))
    tensors = found.tensors
    assert sorted((c.name, c.b.dtype, c.b.shape, c.b.length) for c in tensors.changed) == [
        ("scale", "F8_E8M0", (3,), 3),
        ("z", "C64", (1,), 8),
    ]
    assert [t.name for t in tensors.added] == ["new"]
    assert [t.name for t in tensors.removed] == ["gone"]
    assert {t.name for t in tensors.same} == {"w", "kept"}
    assert {name: s.form for name, s in weights(found).as_stored.items()} == {"z": "C64", "scale": "F8_E8M0"}
    assert weights(found).read == 0
    assert not weights(found).moved


def test_gguf_blocks_are_listed_and_compared_as_stored(repo: Repository, tmp_path: Path) -> None:
    norm = np.arange(4, dtype=np.float32)
    a, b = gguf_bytes(b"a" * 18, norm.tobytes()), gguf_bytes(b"b" * 18, (norm + 1).tobytes())
    found = diff(repo, tmp_path / "m", "model.gguf", a, b)
    assert {c.name: (c.b.dtype, c.b.shape) for c in found.tensors.changed} == {
        "blk.0.attn_q.weight": ("Q4_0", (1, 32)),
        "norm.weight": ("F32", (4,)),
    }
    assert weights(found).as_stored["blk.0.attn_q.weight"].form == "Q4_0"
    assert list(weights(found).moved) == ["norm.weight"]


def packed(seed: int) -> dict[str, Array]:
    """Layers as bitsandbytes, GPTQ, compressed-tensors and others write them."""
    random = np.random.default_rng(seed)
    numbers = random.integers(0, 100, (8, 4))
    ones = np.ones(4, np.float32)
    return {
        "q.weight": numbers.astype(np.uint8),
        "q.weight.absmax": ones,
        "q.weight.quant_state.bitsandbytes__nf4": np.frombuffer(b'{"blocksize":64}', np.uint8),
        "k.weight": numbers.astype(np.int8),
        "k.SCB": ones,
        "v.qweight": numbers.astype(np.int64),
        "v.scales": ones,
        "e.gate_blocks": numbers.astype(np.uint8),
        "e.gate_scales": numbers.astype(np.uint8),
        "s.weight": numbers.astype(np.int8),
        "s.weight_scale": ones,
        "i.weight": numbers.astype(np.int8),
        "ids": numbers.astype(np.int64),
        "norm.weight": random.normal(size=4).astype(np.float32),
    }


def test_packed_and_quantised_tensors_are_compared_as_stored(repo: Repository, tmp_path: Path) -> None:
    second = packed(2)
    second["q.weight"][1:] = packed(1)["q.weight"][1:]
    found = diff(
        repo, tmp_path / "m", "model.safetensors", safetensors_bytes(packed(1)), safetensors_bytes(second)
    )
    told = weights(found)
    assert {name: stored.form for name, stored in told.as_stored.items()} == {
        "q.weight": "bitsandbytes 4-bit",
        "k.weight": "bitsandbytes 8-bit",
        "v.qweight": "GPTQ or AWQ",
        "e.gate_blocks": "MXFP4",
        "e.gate_scales": "MXFP4",
        "s.weight": "I8 with scales of its own",
        "i.weight": "I8 weights",
    }
    assert set(told.moved) == {"ids", "norm.weight"}
    assert told.as_stored["q.weight"].unchanged == 28 + int(
        (packed(1)["q.weight"][0] == second["q.weight"][0]).sum()
    )
    assert json.loads(json.dumps(told.to_dict()))["as_stored"]["v.qweight"]["form"] == "GPTQ or AWQ"


def test_packed_tensors_are_not_read_where_nothing_was_kept_of_them(repo: Repository, tmp_path: Path) -> None:
    a, b = (safetensors_bytes({"q.qweight": packed(seed)["ids"]}) for seed in (1, 2))
    diff(repo, tmp_path / "m", "model.safetensors", a, b)
    (tmp_path / "m" / "model.safetensors").write_bytes(a)
    unrelated = repo.save(tmp_path / "m", "m", parents=[], provenance={}, name="unrelated")
    told = weights(repo.diff(repo.versions("m")[1], unrelated))
    assert (told.read, told.as_stored["q.qweight"].unchanged) == (0, None)


def test_half_a_weight_against_its_packed_form_cannot_be_compared(repo: Repository, tmp_path: Path) -> None:
    a = safetensors_bytes({"q.weight": np.ones((2, 2), np.float16)})
    b = safetensors_bytes({"q.weight": np.ones((2, 1), np.uint8), "q.weight.absmax": np.ones(1, np.float32)})
    found = diff(repo, tmp_path / "m", "model.safetensors", a, b)
    assert [c.name for c in found.tensors.refitted] == ["q.weight"]
    assert not weights(found).moved


@pytest.mark.parametrize("name", ["weight", "qweight_mask", "absmax", "a_blocks"])
def test_plain_integers_are_no_packed_weights(name: str) -> None:
    names = frozenset({name})
    assert form_of(Tensor(name, "f", "I64", (2,), 16, ()), names, frozenset()) == ""


# --- models with little in common ---------------------------------------------------------------------


def blocks(*names: str) -> list[str]:
    return list(blocks_of(names).values())


def test_the_layer_that_a_tensor_belongs_to() -> None:
    assert blocks("bert.encoder.layer.11.attention.self.query.weight") == ["bert.encoder.layer.11"]
    assert blocks("model.layers.3.mlp.experts.5.w1.weight") == ["model.layers.3"]
    assert blocks("0.weight", "x2.weight", "weight") == ["0", "x2", "weight"]


@pytest.mark.parametrize(
    ("layer", "outside"),
    [
        ("bert.encoder.layer.0.q", {"bert.embeddings.word.weight": "bert.embeddings", "head.weight": "head"}),
        ("encoder.layer.0.q", {"embeddings.word.weight": "embeddings", "pooler.dense.bias": "pooler"}),
        ("model.layers.0.q", {"model.norm.weight": "model.norm", "lm_head.weight": "lm_head"}),
        ("h.0.attn.weight", {"wte.weight": "wte", "ln_f.bias": "ln_f"}),
        (
            "base_model.model.model.layers.0.q",
            {"base_model.model.lm_head.weight": "base_model.model.lm_head"},
        ),
    ],
)
def test_parts_outside_the_layers_stand_beside_them(layer: str, outside: Mapping[str, str]) -> None:
    found = blocks_of([layer, *outside])
    assert {name: found[name] for name in outside} == outside


@given(st.lists(st.text(".01ab", min_size=1, max_size=9)))
def test_a_tensor_is_in_its_block(names: list[str]) -> None:
    found = blocks_of(names)
    assert set(found) == set(names)
    assert all(name.startswith(block) for name, block in found.items())


def test_different_architectures_have_their_common_part_compared(repo: Repository, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    shared = random.normal(size=(4, 4)).astype(np.float32)
    sides = {
        "A": {"emb.weight": shared, "h.0.w": shared, "h.1.w": shared, "x.b": shared[0]},
        "B": {"emb.weight": shared + 1, "l.0.q": shared, "l.1.q": shared, "x.b": shared[:, :2]},
    }
    for kind, tensors in sides.items():
        folder = model_folder(tmp_path / kind)
        (folder / "config.json").write_text(json.dumps({"architectures": [kind]}))
        (folder / "model.safetensors").write_bytes(safetensors_bytes(tensors))
        repo.save(folder, "m", name=kind, parents=[], provenance={}, metrics={kind: 1.0})
    found = repo.diff("m@A", "m@B")
    assert found.notes == (
        "different architectures, A and B: of 4 and 4 tensors 2 have the same name, 1 of them the same "
        "shape; those are compared, the others listed",
    )
    assert [c.name for c in found.tensors.changed] == ["emb.weight"]
    assert list(weights(found).moved) == ["emb.weight"]
    assert weights(found).incomparable == ("x.b",)
    assert {t.name for t in found.tensors.added} == {"l.0.q", "l.1.q"}
    assert found.kinship is not None
    assert found.kinship.ancestor is None
    # No metric is on both sides.
    assert {m.key: (m.a, m.b, m.better) for m in found.metrics} == {
        "A": (1.0, None, None),
        "B": (None, 1.0, None),
    }


def test_weights_whose_tensors_cannot_be_told_apart_are_said_to_be(repo: Repository, tmp_path: Path) -> None:
    found = diff(repo, tmp_path / "m", "model.h5", b"one", b"two")
    assert found.notes == ("compared as bytes, for no tensors can be told apart in: model.h5",)
    assert not found.tensors


def test_versions_without_statistics_are_read(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Surveyor, "looks", lambda _, __, segment: [None] * len(segment.pieces))
    one, two = ({"w": np.full((4, 4), value, np.float32)} for value in (1, 2))
    found = diff(repo, tmp_path / "m", "model.safetensors", safetensors_bytes(one), safetensors_bytes(two))
    assert repo.versions("m")[0].record.statistics is None
    assert (weights(found).read, weights(found).moved["w"].relative) == (128, 1.0)


def test_models_of_one_kind_have_no_such_note(repo: Repository, tmp_path: Path) -> None:
    for seed in (1, 2):
        repo.save(model_folder(tmp_path / str(seed), seed), "m", name=f"v{seed}", parents=[], provenance={})
    assert repo.diff("m@v1", "m@v2").notes == ()


def test_other_names_of_the_same_numbers_are_told(repo: Repository, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a: dict[str, Array] = {name: rng.normal(size=(4, 4)).astype(np.float32) for name in "vwxyz"}
    a |= {"bias.1": np.zeros(4, np.float32), "bias.2": np.zeros(4, np.float32), "none": np.zeros(0)}
    b = {f"_orig_mod.{name}": values for name, values in a.items()}
    b["_orig_mod.z"] = a["z"] + 1
    found = diff(repo, tmp_path / "m", "model.safetensors", safetensors_bytes(a), safetensors_bytes(b))
    (said,) = [note for note in found.notes if "another name" in note]
    assert said == (
        "4 tensors have another name and the same numbers: v → _orig_mod.v, w → _orig_mod.w, "
        "x → _orig_mod.x and 1 more"
    )
    assert len(found.tensors.added) == len(found.tensors.removed) == 8

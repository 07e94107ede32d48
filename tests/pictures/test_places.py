"""Where a tensor stands, as names of the common architectures tell; and that every name finds a place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemmata.pictures.matrix import Entry, matrix
from stemmata.pictures.places import comes_in, in_order, places, short


@pytest.mark.parametrize(
    ("name", "stack", "layer", "module"),
    [
        ("model.layers.11.self_attn.q_proj.weight", "model.layers", 11, "self_attn.q_proj"),
        ("model.layers.0.input_layernorm.weight", "model.layers", 0, "input_layernorm"),
        ("transformer.h.3.attn.c_attn.bias", "transformer.h", 3, "attn.c_attn"),
        ("bert.encoder.layer.2.attention.self.query.weight", "bert.encoder.layer", 2, "attention.self.query"),
        ("decoder.block.1.layer.2.DenseReluDense.wi.weight", "decoder.block", 1, "layer.2.DenseReluDense.wi"),
        ("blk.7.attn_q.weight", "blk", 7, "attn_q"),
        (
            "base_model.model.model.layers.4.mlp.up_proj.lora_A.weight",
            "model.layers",
            4,
            "mlp.up_proj",
        ),
        ("base_model.model.model.layers.4.mlp.up_proj.lora_B.fr.weight", "model.layers", 4, "mlp.up_proj"),
        ("model.layers.0.mlp.down_proj.weight.absmax", "model.layers", 0, "mlp.down_proj"),
        ("lm_head.weight", "", None, "lm_head"),
        ("bert.embeddings.word_embeddings.weight", "", None, "bert.embeddings.word_embeddings"),
        ("layer.0.weight", "layer", 0, "weight"),
        ("weight", "", None, "weight"),
    ],
)
def test_a_name_tells_the_layer_and_the_module(name: str, stack: str, layer: int | None, module: str) -> None:
    found = places([name])[name]
    assert (found.stack, found.layer, found.module) == (stack, layer, module)


def test_experts_of_a_layer_are_one_module_and_sublayers_are_not() -> None:
    experts = [f"model.layers.0.mlp.experts.{e}.gate_proj.weight" for e in range(8)]
    sublayers = [f"encoder.block.0.layer.{k}.layer_norm.weight" for k in range(2)]
    found = places([*experts, *sublayers])
    assert {found[name].module for name in experts} == {"mlp.experts.*.gate_proj"}
    assert {found[name].module for name in sublayers} == {"layer.0.layer_norm", "layer.1.layer_norm"}


def test_a_numbered_head_beside_layers_is_no_stack_of_layers() -> None:
    found = places(["classifier.0.weight", "classifier.2.weight", "h.0.attn.weight", "h.1.attn.weight"])
    assert found["classifier.0.weight"].layer is None
    assert found["h.1.attn.weight"].layer == 1


def test_modules_stand_in_the_order_of_a_layer_with_names_that_tell_them_apart() -> None:
    bert = ["output.dense", "output.LayerNorm", "attention.output.dense", "attention.self.value"]
    ordered = in_order([*bert, "attention.self.query", "intermediate.dense", "attention.self.key"])
    assert [m.rpartition(".")[2] for m in ordered[:3]] == ["query", "key", "value"]
    assert ordered[-1] == "output.LayerNorm"
    labels = short(ordered)
    assert labels["attention.self.query"] == "query"
    assert len(set(labels.values())) == len(ordered)


def test_what_comes_first_stands_above_the_layers() -> None:
    names = ["lm_head.weight", "model.embed_tokens.weight", "model.layers.0.mlp.weight", "model.norm.weight"]
    rows = matrix([Entry(name, amount=1, against=2) for name in names]).rows
    assert [row.label for row in rows] == ["embed_tokens", "0", "lm_head", "norm"]
    assert comes_in("wte")
    assert not comes_in("classifier")


_PART = st.sampled_from(
    ["model", "layers", "0", "1", "17", "weight", "bias", "lora_A", "q_proj", "*", "", "é", "experts", "a:b"]
)


@given(st.lists(st.lists(_PART, min_size=1, max_size=6).map(".".join), min_size=1, max_size=30, unique=True))
def test_every_tensor_is_in_the_matrix_once(names: list[str]) -> None:
    found = matrix([Entry(name, amount=1.0, against=2.0, elements=1) for name in names])
    inner = [name for _, _, cell in found.inner() for name in cell.names]
    assert len(inner) == len(set(inner))
    assert len(inner) + sum(1 for name in names if name not in inner) == len(names)
    assert len(found.left_out) > 0 or set(inner) == set(names) or len(found.columns) > 25
    assert all(0 <= row < len(found.rows) and 0 <= c < len(found.columns) for row, c in found.cells)

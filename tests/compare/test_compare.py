"""What the diff of two versions says, part by part."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pytest
from blake3 import blake3

from stemmata.compare import lora
from stemmata.compare.diff import Diff, Side, compare
from stemmata.compare.lora import LoraFacts
from stemmata.compare.records import changes, equal, metric_changes
from stemmata.compare.tensors import compare_files, compare_tensors
from stemmata.ids import VersionId
from stemmata.records import Base, Record, Run, encode_record, store_number, store_value
from stemmata.trees import Segment, Tree, TreeFile, content_of

Spec = tuple[str, list[int], bytes]


def digest(data: bytes) -> str:
    return blake3(data).hexdigest()


def file(path: str, content: bytes | Mapping[str, Spec], **fields: Any) -> TreeFile:
    """A file of chunks, or of tensors (dtype, shape, bytes) by name."""
    if isinstance(content, bytes):
        return TreeFile(
            path, len(content), digest(content), [Segment(len(content), [digest(content)])], **fields
        )
    header = json.dumps([(n, d, s) for n, (d, s, _) in content.items()]).encode()
    segments = [Segment(len(header), [digest(header)])]
    segments += [Segment(len(data), [digest(data)], n, d, s) for n, (d, s, data) in content.items()]
    whole = header + b"".join(data for _, _, data in content.values())
    return TreeFile(path, len(whole), digest(whole), segments, container="safetensors", **fields)


def tree(**files: bytes | Mapping[str, Spec]) -> Tree:
    """`model_safetensors={...}`: the last underscore is the dot."""
    made = [
        file(".".join(name.rsplit("_", 1)).replace("__", "/"), content) for name, content in files.items()
    ]
    return Tree(sorted(made, key=lambda f: f.path))


def f32(values: str, *shape: int) -> Spec:
    return "F32", list(shape or (len(values),)), values.encode() * 4


# --- records ----------------------------------------------------------------------------------------


def test_keys_are_added_removed_changed_or_the_same() -> None:
    found = changes(
        {"a": 1, "b": "x", "c": None, "l": ["q", "v"]}, {"b": "y", "c": None, "d": 2, "l": ["q", "v"]}
    )
    assert (found.added, found.removed, found.same) == ({"d": 2}, {"a": 1}, 2)
    assert [(c.key, c.a, c.b) for c in found.changed] == [("b", "x", "y")]
    assert found
    assert not changes({"a": 1}, {"a": 1})
    assert found.to_dict() == {
        "added": {"d": 2}, "removed": {"a": 1}, "changed": {"b": {"a": "x", "b": "y"}}, "same": 2
    }  # fmt: skip


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (math.nan, math.nan, True),
        (1, 1.0, True),
        (1, True, False),
        (0, False, False),
        (0.0, -0.0, True),
        ("1", 1, False),
        ([1, math.nan], [1, math.nan], True),
        ([1], [1, 2], False),
        ([1], [True], False),
        (None, 0, False),
        (2**70, 2**70, True),
    ],
)
def test_when_two_values_are_equal(a: object, b: object, same: bool) -> None:
    assert equal(a, b) is same
    assert equal(b, a) is same


def test_metrics_show_both_values_and_the_difference() -> None:
    found = {
        m.key: m
        for m in metric_changes(
            {"x": 0.5, "n": math.nan, "a": 1.0}, {"x": 0.25, "n": math.nan, "b": math.inf}
        )
    }
    assert list(found) == ["a", "b", "n", "x"]
    assert (found["x"].a, found["x"].b, found["x"].difference) == (0.5, 0.25, -0.25)
    assert (found["x"].direction, found["x"].better) == (None, None)
    assert found["n"].same
    assert found["n"].difference is None
    assert not found["a"].same
    assert (found["a"].a, found["a"].b, found["a"].difference) == (1.0, None, None)


@pytest.mark.parametrize(
    ("way", "b", "better"),
    [("min", 0.25, True), ("min", 0.75, False), ("max", 0.75, True), ("max", 0.5, None)],
)
def test_a_metric_knows_which_side_is_better(way: str, b: float, better: bool | None) -> None:
    (found,) = metric_changes({"x": 0.5}, {"x": b}, {"x": way}.get)
    assert found.better is better
    assert found.to_dict()["better"] is better


# --- files and tensors ------------------------------------------------------------------------------


def test_files_by_path_with_their_sizes() -> None:
    a = tree(a_txt=b"one", b_txt=b"two", c_txt=b"three")
    b = tree(b_txt=b"2", c_txt=b"three", d_txt=b"four")
    found = compare_files(a, b)
    assert found.to_dict() == {
        "added": {"d.txt": 4},
        "removed": {"a.txt": 3},
        "changed": {"b.txt": {"a": 3, "b": 1}},
        "same": {"c.txt": 5},
    }
    assert found
    assert not compare_files(a, a)


def test_an_executable_bit_is_a_change_of_its_file() -> None:
    found = compare_files(Tree([file("run.sh", b"x")]), Tree([file("run.sh", b"x", executable=True)]))
    assert [c.path for c in found.changed] == ["run.sh"]


def test_tensors_are_added_removed_changed_refitted_or_the_same() -> None:
    a = tree(
        m_safetensors={
            "same": f32("ab"),
            "changed": f32("ab"),
            "gone": f32("x"),
            "shape": f32("abcd", 4, 1),
            "type": f32("ab"),
        }
    )
    b = tree(
        m_safetensors={
            "new": f32("y"), "same": f32("ab"), "changed": f32("ac"), "shape": f32("abcd", 2, 2),
            "type": ("I32", [2], b"ab" * 4),
        }
    )  # fmt: skip
    found = compare_tensors(a, b)
    assert [t.name for t in found.added] == ["new"]
    assert [t.name for t in found.removed] == ["gone"]
    assert [c.name for c in found.changed] == ["changed"]
    assert [(c.name, c.reshaped, c.retyped) for c in found.refitted] == [
        ("shape", True, False),
        ("type", False, True),
    ]
    assert [t.name for t in found.same] == ["same"]
    assert found.to_dict()["changed"] == {
        "changed": {"dtype": "F32", "shape": [2], "bytes": 8, "file": "m.safetensors"}
    }
    assert not compare_tensors(b, b)


def test_resharding_and_reordering_change_files_but_no_tensor() -> None:
    w, v = f32("abcd"), f32("efgh")
    whole = tree(model_safetensors={"w": w, "v": v})
    shards = tree(model1_safetensors={"v": v}, model2_safetensors={"w": w})
    assert compare_files(whole, shards)
    found = compare_tensors(whole, shards)
    assert not found
    assert len(found.same) == 2


def test_a_name_in_several_files_is_compared_file_by_file() -> None:
    a = tree(a__m_safetensors={"w": f32("ab")}, b__m_safetensors={"w": f32("cd")})
    b = tree(
        a__m_safetensors={"w": f32("ab")},
        b__m_safetensors={"w": f32("xx")},
        c__m_safetensors={"w": f32("ab")},
    )
    found = compare_tensors(a, b)
    assert [c.name for c in found.changed] == ["b/m.safetensors:w"]
    assert [t.path for t in found.added] == ["c/m.safetensors"]
    assert len(found.same) == 1
    assert sorted(found.names()) == [f"{path}/m.safetensors:w" for path in "abc"]
    gone = compare_tensors(b, tree(m_safetensors={"v": f32("y")}))
    assert set(gone.to_dict()["removed"]) == set(found.names())
    assert set(gone.to_dict()["added"]) == {"v"}


def test_chunks_and_headers_are_no_tensors() -> None:
    assert compare_tensors(tree(a_bin=b"x"), tree(a_bin=b"y")).to_dict()["same"] == 0


# --- LoRA -------------------------------------------------------------------------------------------


def adapter(
    ranks: Mapping[str, int], config: object | bytes | None = None, *, prefix: str = "base_model.model.h.0."
) -> tuple[Tree, dict[str, bytes]]:
    """An adapter of linear modules with these ranks, and what its files hold."""
    tensors: dict[str, Spec] = {}
    for module, rank in ranks.items():
        tensors[f"{prefix}{module}.lora_A.weight"] = f32("a" * rank * 3, rank, 3)
        tensors[f"{prefix}{module}.lora_B.weight"] = f32("b" * rank * 5, 5, rank)
    files = [file("adapter_model.safetensors", tensors)]
    held: dict[str, bytes] = {}
    if config is not None:
        held["adapter_config.json"] = config if isinstance(config, bytes) else json.dumps(config).encode()
        files.insert(0, file("adapter_config.json", held["adapter_config.json"]))
    return Tree(files), held


def declared(r: int = 4, **more: object) -> dict[str, object]:
    return {"peft_type": "LORA", "r": r, "lora_alpha": 16, "target_modules": ["c_attn", "c_proj"], **more}


def found_in(made: tuple[Tree, dict[str, bytes]]) -> LoraFacts:
    found = lora.facts(made[0], made[1].__getitem__)
    assert found is not None
    return found


def test_rank_and_targets_are_read_from_the_shapes() -> None:
    found = found_in(adapter({"attn.c_attn": 4, "attn.c_proj": 4}, declared()))
    assert (found.rank, found.alpha, found.targets, found.modules) == (4, 16.0, ("c_attn", "c_proj"), 2)
    assert (found.rank_pattern, found.disagreements, found.from_weights) == ({}, (), True)
    assert found.parameters == 2 * (4 * 3 + 5 * 4)
    assert (found.other_tensors, found.other_bytes) == (0, 0)
    assert str(found) == "r=4, alpha=16 on c_attn, c_proj"


def test_without_a_config_the_weights_speak_alone() -> None:
    found = found_in(adapter({"attn.c_attn": 2}))
    assert (found.rank, found.alpha, found.disagreements) == (2, None, ())


def test_a_config_that_lies_about_the_rank_is_found_out() -> None:
    found = found_in(adapter({"attn.c_attn": 8, "attn.c_proj": 8}, declared(4)))
    assert found.rank == 8
    assert found.disagreements == ("adapter_config.json says r=4 where 2 of 2 modules have 8",)
    assert "but adapter_config.json says r=4" in str(found)


def test_a_config_that_lies_about_the_targets_is_found_out() -> None:
    found = found_in(adapter({"attn.c_attn": 4, "mlp.c_fc": 4}, declared()))
    assert found.targets == ("c_attn", "c_fc")
    assert found.disagreements == (
        "adapter_config.json does not name c_fc, which the weights adapt",
        "adapter_config.json names c_proj, which the weights do not adapt",
    )


def test_ranks_of_their_own_are_a_pattern_and_no_lie_if_the_config_says_so() -> None:
    made = adapter(
        {"attn.c_attn": 8, "attn.c_proj": 4, "mlp.c_proj": 4}, declared(rank_pattern={"c_attn": 8})
    )
    found = found_in(made)
    assert (found.rank, found.rank_pattern, found.disagreements) == (4, {"c_attn": 8}, ())
    assert str(found).startswith("r=4 (c_attn=8), alpha=16 on")
    apart = found_in(adapter({"attn.c_proj": 2, "mlp.c_proj": 4, "mlp.c_attn": 4}))
    assert (apart.rank, apart.rank_pattern) == (4, {"h.0.attn.c_proj": 2})


def test_of_equally_frequent_ranks_the_declared_one_is_the_rank() -> None:
    assert found_in(adapter({"c_attn": 8, "c_proj": 2}, declared(2, rank_pattern={"c_attn": 8}))).rank == 2
    assert found_in(adapter({"c_attn": 8, "c_proj": 2})).rank == 8


def test_embeddings_convolutions_adapter_names_and_dora_are_understood() -> None:
    tensors = {
        "base_model.model.wte.lora_embedding_A": f32("a" * 40, 4, 10),
        "base_model.model.wte.lora_embedding_B": f32("a" * 32, 8, 4),
        "base_model.model.wte.lora_magnitude_vector": f32("a" * 8, 8),
        "model.conv.lora_A.default.weight": f32("a" * 36, 4, 1, 3, 3),
        "model.conv.lora_B.default.weight": f32("a" * 8, 2, 4, 1, 1),
    }
    found = found_in((tree(adapter__model_safetensors=tensors), {}))
    assert (found.rank, found.targets, found.modules, found.dora) == (4, ("conv", "wte"), 2, True)
    assert found.disagreements == ()
    assert found.parameters == 40 + 32 + 8 + 36 + 8
    assert "DoRA" in str(found)


def test_what_was_saved_beside_the_lora_is_counted() -> None:
    made, held = adapter({"c_attn": 4})
    extra = file("more.safetensors", {"base_model.model.lm_head.weight": f32("a" * 100)})
    found = found_in((Tree([*made.files, extra]), held))
    assert (found.other_tensors, found.other_bytes) == (1, 400)


def test_factors_that_do_not_fit_each_other_are_told() -> None:
    tensors = {
        "a.lora_A.weight": f32("a" * 12, 4, 3),
        "a.lora_B.weight": f32("a" * 10, 5, 2),
        "b.lora_A.weight": f32("a" * 12, 4, 3),
        "c.lora_A.weight": f32("", 0),
    }
    found = found_in((tree(adapter_safetensors=tensors), {}))
    assert "the factors of a have ranks 4 and 2" in found.disagreements
    assert "b has one factor of two" in found.disagreements
    assert any("c.lora_A.weight has the shape [0]" in d for d in found.disagreements)


@pytest.mark.parametrize(
    "config",
    [
        b"",
        b"{",
        b"[1]",
        b"null",
        b"[" * 5000,
        b"\xff",
        b'"' + b"x" * (1 << 20) + b'"',
        b'{"r":"4","lora_alpha":[]}',
    ],
)
def test_a_broken_config_costs_nothing_but_itself(config: bytes) -> None:
    found = found_in(adapter({"c_attn": 4}, config))
    assert (found.rank, found.alpha) == (4, None)


def test_a_hostile_pattern_is_not_run_as_a_regular_expression() -> None:
    config = declared(rank_pattern={"(a+)+$": 8}, target_modules=["(a+)+$"], lora_alpha=10**300)
    found = found_in(adapter({"a" * 200 + "!": 4}, config))
    assert (found.rank, found.alpha, found.disagreements) == (4, None, ())


@pytest.mark.parametrize("more", [{"target_parameters": ["experts"]}, {"peft_type": "ADALORA"}])
def test_other_methods_are_not_held_to_lora_s_rules(more: dict[str, object]) -> None:
    assert found_in(adapter({"c_attn": 12}, declared(4) | more)).disagreements == ()


def test_weights_in_a_pickle_are_not_opened_and_it_is_said_so() -> None:
    config = json.dumps(declared(use_rslora=True, rank_pattern={"c_attn": 2})).encode()
    made = [*tree(adapter_bin=b"pickle").files, file("adapter_config.json", config)]
    found = found_in((Tree(made), {"adapter_config.json": config}))
    assert (found.rank, found.targets, found.from_weights, found.rslora) == (
        4,
        ("c_attn", "c_proj"),
        False,
        True,
    )
    assert "without unpickling" in str(found)


def test_what_has_no_lora_has_no_facts() -> None:
    assert lora.facts(tree(model_safetensors={"w": f32("ab")}), lambda path: b"") is None
    other = b'{"base_model_name_or_path":"gpt2"}'
    assert lora.facts(Tree([file("adapter_config.json", other)]), lambda path: other) is None


def test_the_adapter_nearest_to_the_top_is_the_versions_own() -> None:
    top, held = adapter({"c_attn": 4}, declared(target_modules=["c_attn"]))
    deeper, _ = adapter({"c_attn": 8})
    nested = TreeFile(
        "ref/adapter_model.safetensors",
        *[getattr(deeper.files[0], f) for f in ("size", "digest", "segments")],
    )
    assert found_in((Tree([*top.files, nested]), held)).rank == 4
    assert found_in((Tree([nested]), {})).rank == 8


# --- the whole --------------------------------------------------------------------------------------


def side(
    made: tuple[Tree, dict[str, bytes]], label: str, metrics: Mapping[str, float], **fields: Any
) -> Side:
    record = Record(
        created_at="2026-01-01T00:00:00.000000Z",
        nonce="0" * 16,
        content=content_of(made[0]),
        metrics={k: store_number(v) for k, v in metrics.items()},
        **fields,
    )
    return Side(VersionId.of(encode_record(record)), label, record, metrics, made[0], made[1].__getitem__)


def both() -> Diff:
    targets = {"target_modules": ["c_attn"]}
    a = side(
        adapter({"c_attn": 4}, declared(4) | targets), "m@r4", {"loss": 0.5},
        kind="adapter", run=Run("1", "r4"),
        config={"lora.r": 4, "lr": store_value(math.nan)}, data={"train.rows": 10},
        provenance={"code": "1" * 64, "packages": "2" * 64}, base=Base("gpt2", digest="3" * 64),
    )  # fmt: skip
    b = side(
        adapter({"c_attn": 8}, declared(8) | targets), "m@r8", {"loss": 0.25, "acc": 1.0},
        kind="adapter", run=Run("2", "r8"),
        config={"lora.r": 8, "lr": store_value(math.nan)}, data={"train.rows": 20},
        provenance={"code": "4" * 64, "packages": "2" * 64}, base=Base("gpt2", digest="3" * 64),
    )  # fmt: skip
    return compare(a, b)


def test_the_whole_diff_tells_two_adapters_apart() -> None:
    found = both()
    assert [(c.key, c.a, c.b) for c in found.config.changed] == [("lora.r", 4, 8)]
    assert [(c.key, c.a, c.b) for c in found.about.changed] == [("run", "r4", "r8")]
    assert [c.key for c in found.data.changed] == ["train.rows"]
    assert [c.key for c in found.provenance.changed] == ["code"]
    assert [(c.key, c.a, c.b) for c in found.lora.changed if c.key == "rank"] == [("rank", 4, 8)]
    assert len(found.tensors.refitted) == 2
    assert not found.same_bytes


def test_the_diff_is_json() -> None:
    found = json.loads(json.dumps(both().to_dict()))
    assert list(found) == [
        "a",
        "b",
        "about",
        "config",
        "metrics",
        "data",
        "provenance",
        "environment",
        "code",
        "tokenizer",
        "files",
        "texts",
        "tensors",
        "lora",
        "weights",
        "notes",
        "kinship",
        "readings",
    ]
    assert found["a"]["name"] == "m@r4"
    assert found["metrics"]["loss"]["difference"] == -0.25
    assert found["lora"]["changed"]["rank"] == {"a": 4, "b": 8}
    assert found["lora"]["b"]["targets"] == ["c_attn"]


def test_a_version_does_not_differ_from_itself() -> None:
    one = side(adapter({"c_attn": 4}, declared()), "m@a", {"loss": math.nan}, config={"x": "~nan"})
    found = compare(one, one)
    assert found.same_bytes
    assert all(m.same for m in found.metrics)
    parts = (found.about, found.config, found.data, found.provenance, found.files, found.tensors, found.lora)
    assert not any(parts)


def test_an_adapter_beside_none_differs_in_having_one() -> None:
    plain = (tree(model_safetensors={"w": f32("ab")}), {})
    found = compare(side(adapter({"c_attn": 4}), "a", {}), side(plain, "b", {}))
    assert found.lora
    assert found.lora.to_dict()["b"] is None

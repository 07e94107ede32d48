"""Delta-W as told from the stored factors is the one that PEFT merges into the base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from stemmata.compare.deltas import DeltaTable, ModuleDelta
from stemmata.repository import Repository

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*save_embedding_layers"),
    pytest.mark.filterwarnings("ignore:LoRA adapter added to ConvNd layer with groups"),
    pytest.mark.filterwarnings("ignore:.*(rank|alpha)_pattern"),
    pytest.mark.filterwarnings("ignore:Unsupported layer type"),
    pytest.mark.filterwarnings("ignore:Adapter .* LoRA tensor.* have invalid shape"),  # a bias is no matrix
]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(12, 20)
        self.c_attn = Conv1D(24, 12)  # stores its weight transposed


class Net(nn.Module):
    """Every kind of layer that PEFT adapts with two factors."""

    def __init__(self) -> None:
        super().__init__()
        self.wte = nn.Embedding(30, 12)
        self.layers = nn.ModuleList([Block(), Block()])
        self.conv = nn.Conv2d(4, 6, 3)
        self.pointwise = nn.Conv2d(4, 6, 1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.wte(ids)


EVERYWHERE = ["q_proj", "c_attn", "wte", "conv", "pointwise"]


def adapted(**fields: Any) -> Any:
    torch.manual_seed(0)
    fields.setdefault("target_modules", EVERYWHERE)
    config = peft.LoraConfig(init_lora_weights=False, **{"r": 4, "lora_alpha": 12, **fields})
    return peft.get_peft_model(Net().double(), config)


def saved(repo: Repository, folder: Path, model: Any) -> DeltaTable:
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    found = repo.save(folder, "m", provenance={}).lora_spectra()
    assert found is not None
    return found


def merged(model: Any, adapter: str = "default") -> dict[str, np.ndarray[Any, Any]]:
    """What PEFT computes, by module, as outputs times inputs."""
    layers = {n: m for n, m in model.base_model.model.named_modules() if isinstance(m, LoraLayer)}
    found = {}
    for name, layer in layers.items():
        delta = layer.get_delta_weight(adapter).detach().numpy()
        turned = isinstance(layer.get_base_layer(), Conv1D | nn.Embedding)
        found[name] = delta.T if turned else delta.reshape(delta.shape[0], -1)
    return found


def assert_told(module: ModuleDelta, delta: np.ndarray[Any, Any]) -> None:
    assert module.spectrum is not None, module.problem
    assert module.shape == delta.shape
    expected = np.linalg.svd(delta, compute_uv=False)[: len(module.spectrum.singular_values)]
    np.testing.assert_allclose(module.spectrum.singular_values, expected, rtol=1e-9)
    assert module.spectrum.norm == pytest.approx(np.linalg.norm(delta), rel=1e-12)


CONFIGS: dict[str, dict[str, Any]] = {
    "bias": {"lora_bias": True, "target_modules": ["q_proj"]},
    "dora": {"use_dora": True, "target_modules": ["q_proj", "c_attn", "conv"]},
    "patterns": {
        "rank_pattern": {"layers.1.q_proj": 6, "conv": 2, "^wte": 3},
        "alpha_pattern": {r"layers\.0\.q_proj": 5, "c_attn": 7, "^wte": 9, "^q_proj": 100},
    },
    "patterns, rslora": {"use_rslora": True, "rank_pattern": {"q_proj": 8}, "alpha_pattern": {"0.c_attn": 1}},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_delta_is_what_peft_merges(repo: Repository, tmp_path: Path, name: str) -> None:
    model = adapted(**CONFIGS[name])
    told = saved(repo, tmp_path / "out", model)
    expected = merged(model)
    assert {m.module for m in told.modules} == set(expected)
    for module in told.modules:
        assert_told(module, expected[module.module])
        assert module.dtype == "F64"
    kinds = {m.module: m.kind for m in told.modules}
    assert kinds.get("wte", "embedding") == "embedding"
    assert kinds.get("conv", "convolution") == "convolution"
    assert told.norm == pytest.approx(np.sqrt(sum(np.linalg.norm(d) ** 2 for d in expected.values())))
    assert told.biases == (2 if name == "bias" else 0)
    magnitudes = [m for m in told.modules if m.magnitude is not None]
    assert bool(magnitudes) == (name == "dora")
    for module in magnitudes:
        layer = model.base_model.model.get_submodule(module.module)
        vector = layer.lora_magnitude_vector["default"].weight.detach()
        assert module.magnitude == pytest.approx(float(torch.linalg.vector_norm(vector)))
        assert any("before the magnitudes" in note for note in told.notes)


def test_two_adapters_as_peft_merges_them(repo: Repository, tmp_path: Path) -> None:
    """Of other ranks, other scales; one module on one side only."""
    first = adapted(target_modules=["q_proj", "conv", "wte"])
    torch.manual_seed(1)
    second = adapted(r=6, lora_alpha=3, use_rslora=True, target_modules=["q_proj", "conv", "c_attn"])
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    for name, model in (("a", first), ("b", second)):
        model.save_pretrained(tmp_path / name)
        repo.save(tmp_path / name, "m", name=name, provenance={})
    found = repo.diff("m@a", "m@b").lora.deltas
    assert found is not None
    a, b = merged(first), merged(second)
    assert {m.module for m in found.added} == {n for n in b if n.endswith("c_attn")}
    assert {m.module for m in found.dropped} == {"wte"}
    assert {m.module for m in found.common} == set(a) & set(b)
    for move in found.common:
        assert move.relation is not None
        step = b[move.module] - a[move.module]
        assert move.relation.difference == pytest.approx(np.linalg.norm(step), rel=1e-10)
        assert move.relation.relative == pytest.approx(
            np.linalg.norm(step) / np.linalg.norm(a[move.module]), rel=1e-10
        )
    whole = sum(np.linalg.norm(b.get(n, np.zeros(1)) - a.get(n, np.zeros(1))) ** 2 for n in set(a) | set(b))
    assert found.difference == pytest.approx(np.sqrt(whole), rel=1e-10)
    inner = sum(float(np.sum(a[n] * b[n])) for n in set(a) & set(b))
    norms = [np.sqrt(sum(np.linalg.norm(d) ** 2 for d in side.values())) for side in (a, b)]
    assert found.cosine == pytest.approx(inner / norms[0] / norms[1], abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_factors_of_narrow_types_are_taken_as_they_are_stored(
    repo: Repository, tmp_path: Path, dtype: torch.dtype
) -> None:
    model = adapted(target_modules=["q_proj"]).to(dtype)
    told = saved(repo, tmp_path / "out", model)
    exact = merged(model.to(torch.float64))
    for module in told.modules:
        assert_told(module, exact[module.module])
        assert module.dtype == {torch.bfloat16: "BF16", torch.float16: "F16"}[dtype]


def test_adalora_with_its_values_between_the_factors(repo: Repository, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = peft.AdaLoraConfig(
        init_r=6, target_r=3, total_step=10, lora_alpha=8, target_modules=["q_proj"], init_lora_weights=False
    )
    model = peft.get_peft_model(Net().double(), config)
    told = saved(repo, tmp_path / "out", model)
    for module in told.modules:
        layer = model.base_model.model.get_submodule(module.module)
        assert_told(module, layer.get_delta_weight("default").detach().numpy())


def test_kasa_with_its_values_between_the_factors(repo: Repository, tmp_path: Path) -> None:
    model = adapted(target_modules=["q_proj"], kasa_config=peft.KasaConfig())
    told = saved(repo, tmp_path / "out", model)
    for module in told.modules:
        layer = model.base_model.model.get_submodule(module.module)
        b, a = layer.lora_B["default"].weight, layer.lora_A["default"].weight
        delta = layer.scaling["default"] * b @ torch.diag(layer.lora_diag["default"]) @ a
        assert_told(module, delta.detach().numpy())
    assert told.notes == ("KaSA: delta-W is told against the truncated base",)


def test_a_convolution_with_groups_is_told_as_the_operator_it_is(repo: Repository, tmp_path: Path) -> None:
    """PEFT cannot merge it; what its forward computes is compared."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 6, 1, groups=2, bias=False)).double()
    config = peft.LoraConfig(r=4, lora_alpha=12, target_modules=["0"], init_lora_weights=False)
    model = peft.get_peft_model(net, config)
    told = saved(repo, tmp_path / "out", model)
    layer = model.base_model.model[0]
    with torch.no_grad():
        # A pixel for every unit vector of the inputs.
        seen = torch.eye(4, dtype=torch.float64).reshape(4, 4, 1, 1)
        delta = (layer(seen) - layer.base_layer(seen)).reshape(4, 6).T.numpy()
    assert_told(told.modules[0], delta)
    facts = repo["m"].lora()
    assert facts is not None
    assert not facts.disagreements


class Experts(nn.Module):
    """Weights of all experts in one parameter, as mixtures of experts have them."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.zeros(3, 8, 10))
        self.down_proj = nn.Parameter(torch.zeros(3, 10, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bi,eio,eoi->bi", x, self.gate_up_proj, self.down_proj)


def test_stacked_experts_are_told_one_by_one(repo: Repository, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(Experts()).double()
    config = peft.LoraConfig(
        r=2, lora_alpha=6, target_modules=[], init_lora_weights=False,
        target_parameters=["0.gate_up_proj", "0.down_proj"],
    )  # fmt: skip
    model = peft.get_peft_model(net, config)
    told = saved(repo, tmp_path / "out", model)
    outer = model.base_model.model[0]
    assert [m.module for m in told.modules] == [
        *(f"0.base_layer[{e}]" for e in range(3)), *(f"0[{e}]" for e in range(3))
    ]  # fmt: skip
    for layer, modules in ((outer, told.modules[3:]), (outer.base_layer, told.modules[:3])):
        delta = layer.get_delta_weight("default").detach().numpy()  # (experts, inputs, outputs), or turned
        for expert, module in enumerate(modules):
            assert module.shape is not None
            assert module.rank == 2
            turned = delta[expert].T if module.shape != delta[expert].shape else delta[expert]
            assert_told(module, turned)


def test_several_adapters_of_a_version_by_their_names(repo: Repository, tmp_path: Path) -> None:
    model = adapted(target_modules=["q_proj"])
    model.add_adapter(
        "fr", peft.LoraConfig(r=2, lora_alpha=2, target_modules=["conv"], init_lora_weights=False)
    )
    told = saved(repo, tmp_path / "out", model)
    assert [m.module for m in told.modules] == ["layers.0.q_proj", "layers.1.q_proj", "fr:conv"]
    layer = model.base_model.model.conv
    delta = layer.get_delta_weight("fr").detach().numpy().reshape(6, -1)
    assert_told(told.modules[2], delta)


def test_without_a_config_the_scale_is_not_known(repo: Repository, tmp_path: Path) -> None:
    """A state dict of the whole adapted model, names of the adapter within."""
    for name, seed in (("a", 0), ("b", 1)):
        model = adapted(target_modules=["q_proj"])
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(seed * torch.randn_like(parameter))
        (tmp_path / name).mkdir()
        state = {k: v.contiguous() for k, v in model.state_dict().items()}
        save_file(state, tmp_path / name / "model.safetensors")
        repo.save(tmp_path / name, "m", name=name, provenance={})
    told = repo["m@a"].lora_spectra()
    assert told is not None
    assert told.norm is None
    module = told.modules[0]
    assert module.norm is None
    assert module.scale.unknown == "no adapter_config.json"
    assert module.spectrum is not None  # of B A
    assert module.spectrum.effective_rank > 1
    found = repo.diff("m@a", "m@b").lora.deltas
    assert found is not None
    assert (found.difference, found.relative, found.cosine, found.equal) == (None, None, None, False)
    move = found.common[0]
    assert "no adapter_config.json" in move.problem
    assert move.relation is not None
    assert (move.relation.difference, move.relation.relative) == (None, None)
    assert len(move.relation.output_angles) == 4


def test_a_pickle_is_read_as_text_alone(repo: Repository, tmp_path: Path) -> None:
    """torch's zip file of the same tensors tells the same; so does a folder that holds both."""
    model = adapted(target_modules=["q_proj"])
    expected = saved(repo, tmp_path / "out", model)
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    torch.save(tensors, tmp_path / "out" / "adapter_model.bin")
    assert repo.save(tmp_path / "out", "m", provenance={}).lora_spectra() == expected
    (tmp_path / "out" / "adapter_model.safetensors").unlink()
    assert repo.save(tmp_path / "out", "m", provenance={}).lora_spectra() == expected


def test_begun_from_the_base_is_said(repo: Repository, tmp_path: Path) -> None:
    model = adapted(target_modules=["q_proj"])
    model.save_pretrained(tmp_path / "out")
    path = tmp_path / "out" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "init_lora_weights": "pissa_niter_4"}))
    told = repo.save(tmp_path / "out", "m", provenance={}).lora_spectra()
    assert told is not None
    assert told.notes == ("begun by pissa_niter_4: delta-W is told against the base as that left it",)

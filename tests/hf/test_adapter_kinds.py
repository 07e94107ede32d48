"""Every kind of adapter comes back as it was; a rank is told only where the method has one."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import tiny_models as tiny
from stemmata.cli.main import run
from stemmata.describe import describe
from stemmata.errors import InvalidArgument, NotLoadable
from stemmata.hf import VersionCallback
from stemmata.repository import Repository
from stemmata.version import Version

PROMPT = torch.tensor([[1, 2, 3, 4]])
LM = "CAUSAL_LM"

pytestmark = [
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`"),
    pytest.mark.filterwarnings("ignore:Unsupported layer type"),
]


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(PROMPT).logits
    return found


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """A tiny Llama in a folder: every method knows its linear layers."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=290,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


def trained(repo: Repository, tmp_path: Path, model: Any) -> Version:
    callback = VersionCallback(repo, "m", run_name="r")
    tiny.trainer(model, tmp_path / "out", [callback], num_train_epochs=1).train()
    return repo["m@r/final"]


METHODS: dict[str, tuple[Any, str]] = {
    "ia3": (
        lambda: peft.IA3Config(
            task_type=LM, target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]
        ),
        "IA3 on down_proj, k_proj",
    ),
    "prompt": (
        lambda: peft.PromptTuningConfig(task_type=LM, num_virtual_tokens=3),
        "prompt tuning 3 virtual tokens",
    ),
    "prefix": (
        lambda: peft.PrefixTuningConfig(task_type=LM, num_virtual_tokens=5),
        "prefix tuning 5 virtual tokens",
    ),
    "loha": (
        lambda: peft.LoHaConfig(task_type=LM, r=4, alpha=8, target_modules=["q_proj"]),
        "LoHa r=4, alpha=8 on q_proj",
    ),
    "vera": (lambda: peft.VeraConfig(task_type=LM, r=6, target_modules=["q_proj"]), "VeRA r=6 on q_proj"),
    "oft": (
        lambda: peft.OFTConfig(task_type=LM, oft_block_size=4, target_modules=["q_proj"]),
        "OFT on q_proj",
    ),
    "dora": (
        lambda: peft.LoraConfig(task_type=LM, r=4, use_dora=True, target_modules=["q_proj"]),
        "LoRA r=4, alpha=8, DoRA on q_proj",
    ),
    "norms": (lambda: peft.LNTuningConfig(task_type=LM, target_modules=["norm"]), "layer norms on norm"),
}


@pytest.mark.parametrize("method", METHODS)
def test_it_comes_back_bit_for_bit_and_says_what_it_is(
    repo: Repository, tmp_path: Path, llama: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make, said = METHODS[method]
    torch.manual_seed(0)
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(llama), make())
    version = trained(repo, tmp_path, model)
    assert version.kind == "adapter"
    loaded = version.load()
    assert torch.equal(logits(loaded), logits(model))
    facts = version.lora()
    assert facts is not None
    assert f"{facts.title} {facts}" == said
    if " r=" not in said:
        assert facts.rank is None
        assert "lora.r" not in version.config
    assert run(["show", "m@r/final", "--repo", str(tmp_path / "models")]) == 0
    assert said in " ".join(capsys.readouterr().out.split())


def test_prompt_tuning_cannot_be_merged(repo: Repository, tmp_path: Path, llama: Path) -> None:
    config = peft.PromptTuningConfig(task_type=LM, num_virtual_tokens=3)
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(llama), config)
    with pytest.raises(NotLoadable, match="PROMPT_TUNING"):
        trained(repo, tmp_path, model).load(merge=True)


# --- several adapters -------------------------------------------------------------------------------


def two(base: Path) -> Any:
    model = tiny.with_lora(AutoModelForCausalLM.from_pretrained(base))
    model.add_adapter("other", peft.LoraConfig(r=2, target_modules=["c_proj"], fan_in_fan_out=True))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(0.25)
    return model


def test_the_active_one_of_several_adapters_is_chosen(repo: Repository, base: Path, tmp_path: Path) -> None:
    model = two(base)
    version = trained(repo, tmp_path, model)
    expected = {}
    for name in ("default", "other"):
        model.set_adapter(name)
        expected[name] = logits(model)
    assert not torch.equal(expected["default"], expected["other"])
    for chosen, name in ((None, "default"), ("default", "default"), ("other", "other")):
        loaded = version.load(adapter=chosen)
        assert sorted(loaded.peft_config) == ["default", "other"], "all are loaded"
        assert loaded.active_adapter == name
        assert torch.equal(logits(loaded), expected[name])
        assert not [p for p in loaded.parameters() if p.requires_grad]
    trainable = version.load(adapter="other", is_trainable=True)
    names = [n for n, p in trainable.named_parameters() if p.requires_grad]
    assert names
    assert all(".other." in n for n in names)
    assert torch.allclose(logits(version.load(adapter="other", merge=True)), expected["other"], atol=1e-5)
    with pytest.raises(InvalidArgument, match="no adapter 'third', but default, other"):
        version.load(adapter="third")
    state = version.state_dict()
    assert len(state) == 2 * 2 + 2 * 2 * 2, "two layers of one module, and of two; none hides another"
    assert {n.partition("/")[0] for n in state if "/" in n} == {"other"}


def test_a_version_of_one_adapter_with_a_name_of_its_own(
    repo: Repository, base: Path, tmp_path: Path
) -> None:
    model = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        peft.LoraConfig(r=4, task_type=LM, target_modules=["c_attn"], fan_in_fan_out=True),
        adapter_name="style",
    )
    model.save_pretrained(tmp_path / "named")
    version = repo.save(tmp_path / "named", "named")
    assert (version.kind, version.config["lora.r"]) == ("adapter", 4)
    loaded = version.load()
    assert loaded.active_adapter == "style"
    assert torch.equal(logits(loaded), logits(model))


def test_only_an_adapter_has_adapters(repo: Repository, base: Path) -> None:
    with pytest.raises(InvalidArgument, match="no adapter"):
        repo.save(base, "m").load(adapter="default")


def test_checkpoints_of_adapters_in_one_folder_are_no_adapters_of_one_model() -> None:
    config = b'{"peft_type": "LORA", "r": 4}'
    found = describe({"checkpoint-1/adapter_config.json": len(config)}, lambda path: config)
    assert (found.kind, found.config) == ("files", {})
    found = describe({"style/adapter_config.json": len(config)}, lambda path: config)
    assert (found.kind, found.config["lora.r"]) == ("adapter", 4)


# --- what grows -------------------------------------------------------------------------------------


def test_trap_15_an_adapter_that_grew_by_its_embeddings_says_so(
    repo: Repository,
    base: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Embeddings saved along make an adapter many times its size without a word: here it is said at
    the save, in show and in diff."""
    plain = tiny.with_lora(AutoModelForCausalLM.from_pretrained(base), rank=1)
    plain.save_pretrained(tmp_path / "plain")
    with caplog.at_level(logging.WARNING, "stemmata"):
        small = repo.save(tmp_path / "plain", "m", name="plain")
    assert not caplog.records
    assert small.lora().other_tensors == 0

    inner = AutoModelForCausalLM.from_pretrained(base)
    inner.resize_token_embeddings(301, mean_resizing=False)
    model = tiny.with_lora(inner, rank=1)
    with caplog.at_level(logging.WARNING, "stemmata"):
        callback = VersionCallback(repo, "m", run_name="r")
        tiny.trainer(model, tmp_path / "out", [callback], num_train_epochs=2).train()
    told = [r.getMessage() for r in caplog.records if "saved along" in r.getMessage()]
    assert len(told) == 1, "once a run, not at every save"
    assert "wte" in told[0]
    grown = repo["m@r/final"]
    assert grown.size > 4 * small.size, "the naive way: silently"
    facts = grown.lora()
    assert "wte" in facts.others
    assert facts.other_bytes > 301 * 32 * 4 - 1
    assert run(["show", "m@r/final", "--repo", str(tmp_path / "models")]) == 0
    assert "wte (" in " ".join(capsys.readouterr().out.split())
    assert run(["diff", "m@plain", "m@r/final", "--repo", str(tmp_path / "models")]) == 0
    shown = capsys.readouterr().out
    assert "saved along" in shown
    assert "wte" in shown
    assert run(["diff", "m@plain", "m@r/final", "--json", "--repo", str(tmp_path / "models")]) == 0
    changed = json.loads(capsys.readouterr().out)["lora"]["changed"]
    assert changed["other_bytes"]["a"] == 0


# --- around it --------------------------------------------------------------------------------------


def test_an_adapter_in_a_compiled_block_has_its_own_names(
    repo: Repository, base: Path, tmp_path: Path
) -> None:
    model = tiny.with_lora(AutoModelForCausalLM.from_pretrained(base), modules_to_save=["ln_f"])
    blocks = model.get_base_model().transformer.h
    blocks[0] = torch.compile(blocks[0], backend="eager")
    with torch.compiler.set_stance("force_eager"):
        version = trained(repo, tmp_path, model)
        expected = logits(model)
    names = version.state_dict()
    assert names
    assert not [n for n in names if "_orig_mod" in n]
    assert torch.equal(logits(version.load()), expected)

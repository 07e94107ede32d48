"""From a version back to a model: the right class, the same bits, no surprises."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    GPT2Model,
)

import tiny_models as tiny
from stemmata.errors import (
    InvalidArgument,
    NotLoadable,
    PickleRefused,
    TensorNotInVersion,
)
from stemmata.hf import VersionCallback, load_version
from stemmata.repository import Repository
from stemmata.version import Version

PROMPT = torch.tensor([[1, 2, 3, 4]])


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection is refused: what is local needs none."""

    def refuse(*a: Any, **k: Any) -> Any:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(PROMPT).logits
    return found


# --- full models ------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [GPT2LMHeadModel, GPT2ForSequenceClassification, GPT2Model])
def test_a_full_model_comes_back_as_its_own_class_bit_for_bit(
    repo: Repository, tmp_path: Path, make: Any
) -> None:
    torch.manual_seed(1)
    model = make(GPT2Config(vocab_size=50, n_layer=1, n_embd=16, n_head=2, pad_token_id=0, bos_token_id=0))
    model.save_pretrained(tmp_path / "saved")
    loaded = repo.save(tmp_path / "saved", "m").load()
    assert type(loaded) is make
    state = loaded.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_what_the_callback_saved_gives_the_same_logits(repo: Repository, tmp_path: Path) -> None:
    model = tiny.gpt2()
    tiny.trainer(model, tmp_path / "out", [VersionCallback(repo, "m", run_name="r")]).train()
    assert torch.equal(logits(repo["m@r/final"].load()), logits(model))
    assert not torch.equal(logits(repo["m@r/epoch-1"].load()), logits(model))


def test_arguments_of_from_pretrained_are_passed_on(repo: Repository, base: Path) -> None:
    version = repo.save(base, "m")
    assert version.load(dtype=torch.bfloat16).dtype == torch.bfloat16
    assert version.load(attn_implementation="eager").config._attn_implementation == "eager"


def test_a_model_without_a_named_class_is_automodels_choice(repo: Repository, base: Path) -> None:
    settings = json.loads((base / "config.json").read_text())
    del settings["architectures"]
    (base / "config.json").write_text(json.dumps(settings))
    assert type(repo.save(base, "m").load()) is GPT2Model


def test_changing_a_loaded_model_changes_no_later_one(repo: Repository, base: Path) -> None:
    version = repo.save(base, "m")
    first = version.load()
    before = logits(first)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.zero_()
    assert torch.equal(logits(version.load()), before)


def test_the_tokenizer_comes_with_it(repo: Repository, base: Path) -> None:
    version = repo.save(base, "m")
    expected = tiny.tokenizer()
    text = tiny.SENTENCES[0]
    assert version.load_tokenizer()(text)["input_ids"] == expected(text)["input_ids"]


def test_a_version_without_tokenizer_says_so(repo: Repository, tmp_path: Path) -> None:
    tiny.gpt2().save_pretrained(tmp_path / "bare")
    with pytest.raises(NotLoadable, match="holds no tokenizer"):
        repo.save(tmp_path / "bare", "m").load_tokenizer()


def test_folders_that_are_no_model_say_what_they_are(repo: Repository, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/read.txt").write_text("hello")
    version = repo.save(tmp_path / "notes", "m")
    with pytest.raises(NotLoadable, match=r"read\.txt"):
        version.load()
    with pytest.raises(NotLoadable):
        version.state_dict()


def test_code_of_strangers_needs_a_word(repo: Repository, base: Path, tmp_path: Path) -> None:
    settings = json.loads((base / "config.json").read_text())
    settings["architectures"] = ["OddModel"]
    settings["auto_map"] = {"AutoModelForCausalLM": "odd.OddModel"}
    (base / "config.json").write_text(json.dumps(settings))
    marker = tmp_path / "ran"
    (base / "odd.py").write_text(
        f"open({str(marker)!r}, 'w').close()\n"
        "from transformers import GPT2LMHeadModel\nclass OddModel(GPT2LMHeadModel): pass\n"
    )
    version = repo.save(base, "m")
    with pytest.raises(NotLoadable, match="trust_remote_code"):
        version.load()
    assert not marker.exists()
    assert type(version.load(trust_remote_code=True)).__name__ == "OddModel"
    assert marker.exists()


def test_a_class_that_this_release_lacks_is_named(repo: Repository, base: Path) -> None:
    settings = json.loads((base / "config.json").read_text())
    settings["architectures"] = ["GPT9LMHeadModel"]
    (base / "config.json").write_text(json.dumps(settings))
    with pytest.raises(NotLoadable, match="GPT9LMHeadModel"):
        repo.save(base, "m").load()


# --- tensors and pickles ----------------------------------------------------------------------------


def test_state_dict_is_in_memory_of_its_own(repo: Repository, base: Path) -> None:
    version = repo.save(base, "m")
    state = version.state_dict()
    expected = load_file(base / "model.safetensors")
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[k], expected[k]) for k in expected)
    for tensor in state.values():
        tensor.zero_()
    assert all(torch.equal(v, expected[k]) for k, v in version.state_dict().items())
    assert (version.path() / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()


def test_single_tensors_can_be_asked_for(repo: Repository, base: Path) -> None:
    version = repo.save(base, "m")
    assert list(version.state_dict(tensors=["transformer.ln_f.bias"])) == ["transformer.ln_f.bias"]
    assert list(version.state_dict(tensors="transformer.ln_f.bias")) == ["transformer.ln_f.bias"]
    for nobody in (["nobody"], "nobody"):
        with pytest.raises(TensorNotInVersion, match="nobody"):
            version.state_dict(tensors=nobody)


def test_pickles_are_opened_on_an_explicit_word_alone(repo: Repository, base: Path, tmp_path: Path) -> None:
    state = load_file(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    torch.save(state, base / "pytorch_model.bin")
    version = repo.save(base, "m")
    with pytest.raises(PickleRefused, match=r"pytorch_model\.bin"):
        version.load()
    with pytest.raises(PickleRefused):
        version.state_dict()
    assert torch.equal(
        version.state_dict(allow_pickle=True)["transformer.ln_f.bias"], state["transformer.ln_f.bias"]
    )
    loaded = version.load(allow_pickle=True).state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in state.items())


def test_a_pickle_with_code_in_it_does_not_run_even_so(repo: Repository, base: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.system, (f"touch {marker}",))

    (base / "model.safetensors").unlink()
    torch.save({"x": Evil()}, base / "pytorch_model.bin")
    torch.load(base / "pytorch_model.bin", weights_only=False)
    assert marker.exists(), "the naive way runs it"
    marker.unlink()
    version = repo.save(base, "m")
    with pytest.raises(NotLoadable, match=r"pytorch_model\.bin .* weights_only"):
        version.state_dict(allow_pickle=True)
    assert not marker.exists()


def pickled(repo: Repository, folder: Path, held: Any) -> Version:
    folder.mkdir()
    torch.save(held, folder / "last.ckpt")
    return repo.save(folder, "m")


def test_tensors_in_nested_dictionaries_have_the_names_of_the_tree(repo: Repository, tmp_path: Path) -> None:
    """A checkpoint of Lightning's: the weights are one level down."""
    held: dict[str, Any] = {"epoch": 3, "state_dict": {"w": torch.ones(2), "sub": {"b": torch.zeros(3)}}}
    held["optimizer_states"] = [{"state": {0: torch.ones(1)}}]
    version = pickled(repo, tmp_path / "saved", held)
    state = version.state_dict(allow_pickle=True)
    assert sorted(state) == ["state_dict.sub.b", "state_dict.w"]
    assert sorted(state) == sorted(s.name for s in version.files[0].segments if s.name and s.shape)
    assert torch.equal(state["state_dict.w"], torch.ones(2))
    assert torch.equal(version.tensor("state_dict.sub.b", allow_pickle=True), torch.zeros(3))


def test_a_dictionary_that_holds_itself_is_entered_once(repo: Repository, tmp_path: Path) -> None:
    held: dict[Any, Any] = {"w": torch.ones(2), 0: torch.zeros(2)}
    held["again"] = held
    state = pickled(repo, tmp_path / "saved", held).state_dict(allow_pickle=True)
    assert sorted(state) == ["0", "w"]


@pytest.mark.parametrize(
    ("held", "reason"),
    [
        ([torch.ones(2)], "holds a list"),
        (torch.ones(2), "holds a Tensor"),
        (torch.nn.Linear(2, 2), "weights_only does not let in"),
        ({"states": [torch.ones(2)]}, "no tensor in last.ckpt has a name"),
        ({"a": {"b": torch.ones(2)}, "a.b": torch.zeros(2)}, "two tensors that are called a.b"),
    ],
    ids=["list", "tensor", "module", "nameless", "twice"],
)
def test_a_pickle_without_tensors_by_name_says_so(
    repo: Repository, tmp_path: Path, held: Any, reason: str
) -> None:
    with pytest.raises(NotLoadable, match=reason):
        pickled(repo, tmp_path / "saved", held).state_dict(allow_pickle=True)


@pytest.mark.parametrize("data", [b"", b"hello", b"PK\x03\x04 and no more"])
def test_a_file_that_only_has_a_pickles_name_says_so(repo: Repository, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved/weights.pt").write_bytes(data)
    with pytest.raises(NotLoadable, match=r"weights\.pt is no file of tensors"):
        repo.save(tmp_path / "saved", "m").state_dict(allow_pickle=True)


def test_what_to_load_is_one_of_three(repo: Repository, base: Path) -> None:
    version = repo.save(base, "m")
    with pytest.raises(InvalidArgument):
        load_version(version, "optimizer")
    with pytest.raises(InvalidArgument, match="no adapter"):
        version.load(merge=True)


def test_safetensors_beside_an_adapters_pickle_do_not_stand_for_it(
    repo: Repository, base: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    tiny.with_lora(AutoModelForCausalLM.from_pretrained(base)).save_pretrained(folder)
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").rename(folder / "decoy.safetensors")
    version = repo.save(folder, "m")
    with pytest.raises(PickleRefused, match=r"adapter_model\.bin"):
        version.load()
    assert version.load(allow_pickle=True) is not None


CODE = """
from transformers import GPT2Config, GPT2LMHeadModel

class MineConfig(GPT2Config):
    model_type = "mine"

class Mine(GPT2LMHeadModel):
    config_class = MineConfig
"""


def test_code_under_an_adapter_runs_on_an_explicit_word_alone(
    repo: Repository, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = json.loads((base / "config.json").read_text())
    settings.update(
        model_type="mine",
        architectures=["Mine"],
        auto_map={"AutoConfig": "mine.MineConfig", "AutoModelForCausalLM": "mine.Mine"},
    )
    (base / "config.json").write_text(json.dumps(settings))
    (base / "mine.py").write_text(CODE)
    folder = tmp_path / "adapter"
    tiny.with_lora(AutoModelForCausalLM.from_pretrained(base, trust_remote_code=True)).save_pretrained(folder)
    version = repo.save(folder, "m")

    def ask(*a: Any, **k: Any) -> Any:
        raise AssertionError("a question at the terminal")

    monkeypatch.setattr("builtins.input", ask)
    with pytest.raises(NotLoadable, match="trust_remote_code=True"):
        version.load()
    assert type(version.load(trust_remote_code=True).get_base_model()).__name__ == "Mine"


def test_neither_saving_nor_loading_a_full_model_imports_peft(repo: Repository, base: Path) -> None:
    """It takes two seconds, more than the weights of most models."""
    version = repo.save(base, "m")
    script = f"""
import sys
import stemmata
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained({str(base)!r})
with stemmata.open({repo.where!r}) as repo:
    repo["m@{version.name}"].load()
    repo.save(model, "m", name="again")
print([name for name in ("peft", "bitsandbytes") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr

"""An adapter comes back on the base that it was trained on, wherever that went, and on no other."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
)

import tiny_models as tiny
from stemmata.errors import (
    BaseMismatch,
    BaseMissing,
)
from stemmata.hf import VersionCallback
from stemmata.records import Base
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


def trained_adapter(repo: Repository, base: Path, tmp_path: Path, **lora: Any) -> tuple[Any, Version]:
    """A LoRA model in memory after a training, and the version that was saved of it."""
    model = tiny.with_lora(AutoModelForCausalLM.from_pretrained(base), **lora)
    callback = VersionCallback(repo, "adapter", run_name="r")
    tiny.trainer(model, tmp_path / "out", [callback], num_train_epochs=1).train()
    return model, repo["adapter@r/final"]


def test_an_adapter_comes_back_on_its_base_bit_for_bit(repo: Repository, base: Path, tmp_path: Path) -> None:
    model, version = trained_adapter(repo, base, tmp_path)
    assert version.kind == "adapter"
    assert version.config["lora.r"] == 4
    assert version.base is not None
    assert version.base.name_or_path == str(base)
    assert version.base.version is None
    loaded = version.load()
    assert isinstance(loaded, PeftModel)
    assert isinstance(loaded.get_base_model(), GPT2LMHeadModel)
    assert torch.equal(logits(loaded), logits(model))
    assert not [p for p in loaded.parameters() if p.requires_grad]
    trainable = version.load(is_trainable=True)
    assert [n for n, p in trainable.named_parameters() if p.requires_grad]


def test_merged_it_is_one_plain_model(repo: Repository, base: Path, tmp_path: Path) -> None:
    model, version = trained_adapter(repo, base, tmp_path)
    merged = version.load(merge=True)
    assert type(merged) is GPT2LMHeadModel
    assert torch.allclose(logits(merged), logits(model), atol=1e-5)
    assert not torch.equal(logits(merged), logits(AutoModelForCausalLM.from_pretrained(base)))


def test_the_state_of_an_adapter_is_the_adapter_alone(repo: Repository, base: Path, tmp_path: Path) -> None:
    _, version = trained_adapter(repo, base, tmp_path)
    state = version.state_dict()
    assert state
    assert all("lora_" in name for name in state)
    assert {min(t.shape) for t in state.values()} == {4}


def test_a_base_in_the_repository_is_found_wherever_its_folder_went(
    repo: Repository, base: Path, tmp_path: Path
) -> None:
    stored = repo.save(base, "base")
    model, version = trained_adapter(repo, base, tmp_path)
    assert version.base is not None
    assert version.base.version == stored.id.hex
    expected = logits(model)
    shutil.rmtree(base)
    assert torch.equal(logits(version.load()), expected)


def test_a_base_that_was_saved_after_its_adapter_is_found_by_its_files(
    repo: Repository, base: Path, tmp_path: Path
) -> None:
    model, version = trained_adapter(repo, base, tmp_path)
    repo.save(base, "base")
    shutil.rmtree(base)
    assert torch.equal(logits(version.load()), logits(model))


def test_the_adapter_of_a_model_loaded_from_the_repository(
    repo: Repository, base: Path, tmp_path: Path
) -> None:
    stored = repo.save(base, "base")
    shutil.rmtree(base)
    model = tiny.with_lora(stored.load())
    tiny.trainer(model, tmp_path / "out", [VersionCallback(repo, "m", run_name="r")]).train()
    version = repo["m@r/final"]
    assert version.base is not None
    assert version.base.version == stored.id.hex
    shutil.rmtree(repo.session.cache_folder() / "checkouts", onerror=_make_writable)
    assert torch.equal(logits(version.load()), logits(model))


def _make_writable(remove: Any, path: str, _: Any) -> None:
    os.chmod(os.path.dirname(path), 0o700)
    remove(path)


def test_a_base_can_be_given_by_folder_version_or_object(
    repo: Repository, base: Path, tmp_path: Path
) -> None:
    model, version = trained_adapter(repo, base, tmp_path)
    expected = logits(model)
    moved = tmp_path / "moved"
    shutil.move(base, moved)
    with pytest.raises(BaseMissing, match="base="):
        version.load()
    assert torch.equal(logits(version.load(base=moved)), expected)
    assert torch.equal(logits(version.load(base=str(moved))), expected)
    stored = repo.save(moved, "base")
    assert torch.equal(logits(version.load(base=stored)), expected)
    in_memory = AutoModelForCausalLM.from_pretrained(moved)
    assert torch.equal(logits(version.load(base=in_memory)), expected)


def test_another_base_is_refused_unless_it_is_asked_for(repo: Repository, base: Path, tmp_path: Path) -> None:
    _, version = trained_adapter(repo, base, tmp_path)
    other = tiny.saved_base(tmp_path / "other", seed=9)
    stored = repo.save(other, "other")
    for given in (other, stored):
        with pytest.raises(BaseMismatch):
            version.load(base=given)
        assert version.load(base=given, allow_other_base=True) is not None
    with pytest.raises(BaseMissing):
        version.load(base=tmp_path / "nowhere")


def test_a_base_that_nothing_is_known_of_is_taken_with_a_warning(
    repo: Repository, base: Path, tmp_path: Path
) -> None:
    trained_adapter(repo, base, tmp_path)
    folder = repo["adapter@r/final"].checkout(tmp_path / "by-hand")
    settings = (folder / "adapter_config.json").read_text().replace(str(base), "team/nowhere")
    (folder / "adapter_config.json").write_text(settings)
    version = repo.save(folder, "by-hand")
    with pytest.warns(UserWarning, match="could not be checked"):
        version.load(base=base)


def test_files_that_decide_no_weights_may_change(repo: Repository, base: Path, tmp_path: Path) -> None:
    model, version = trained_adapter(repo, base, tmp_path)
    (base / "README.md").write_text("a card")
    (base / "tokenizer_config.json").unlink()
    assert torch.equal(logits(version.load()), logits(model))


def test_a_base_that_was_never_on_disk(repo: Repository, tmp_path: Path) -> None:
    in_memory = tiny.gpt2()
    model = tiny.with_lora(in_memory)
    tiny.trainer(model, tmp_path / "out", [VersionCallback(repo, "m", run_name="r")]).train()
    version = repo["m@r/final"]
    assert version.base is not None
    assert version.base.digest is None
    with pytest.raises(BaseMissing):
        version.load()
    assert torch.equal(logits(version.load(base=tiny.gpt2())), logits(model))


def test_an_adapter_is_saved_also_if_no_folder_can_have_its_bases_name(
    repo: Repository, base: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    tiny.with_lora(AutoModelForCausalLM.from_pretrained(base)).save_pretrained(folder)
    said = json.loads((folder / "adapter_config.json").read_text())
    said["base_model_name_or_path"] = "x" * 300
    (folder / "adapter_config.json").write_text(json.dumps(said))
    version = repo.save(folder, "m")
    assert version.base == Base(name_or_path="x" * 300)
    with pytest.raises(BaseMissing):
        version.load()


def test_a_base_from_a_hub_stays_at_its_commit(
    repo: Repository, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The branch moves on in the hub's cache; the adapter still loads on the commit it knows."""
    hub = tmp_path / "hub/models--team--base"
    first, second = "a" * 40, "b" * 40
    (hub / "snapshots").mkdir(parents=True)
    (hub / "refs").mkdir()
    shutil.move(base, hub / "snapshots" / first)
    (hub / "refs/main").write_text(first)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    inner = AutoModelForCausalLM.from_pretrained(hub / "snapshots" / first)
    inner.name_or_path = inner.config._name_or_path = "team/base"
    model = tiny.with_lora(inner)
    model.peft_config["default"].base_model_name_or_path = None
    callback = VersionCallback(repo, "m", run_name="r")
    tiny.trainer(model, tmp_path / "out", [callback], num_train_epochs=1).train()
    version = repo["m@r/final"]
    assert version.base is not None
    assert (version.base.name_or_path, version.base.revision) == ("team/base", first)
    tiny.saved_base(hub / "snapshots" / second, seed=9)
    (hub / "refs/main").write_text(second)
    assert torch.equal(logits(version.load()), logits(model))
    shutil.rmtree(hub / "snapshots" / first)
    with pytest.raises(BaseMissing):
        version.load()


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`")
def test_an_adapter_with_a_larger_vocabulary(repo: Repository, base: Path, tmp_path: Path) -> None:
    inner = AutoModelForCausalLM.from_pretrained(base)
    inner.resize_token_embeddings(301, mean_resizing=False)
    model = tiny.with_lora(inner)
    tiny.trainer(model, tmp_path / "out", [VersionCallback(repo, "m", run_name="r")]).train()
    loaded = repo["m@r/final"].load()
    assert loaded.get_input_embeddings().weight.shape[0] == 301
    assert torch.equal(logits(loaded), logits(model))


def test_a_classifiers_adapter_on_a_language_models_base(
    repo: Repository, base: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification

    inner = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3, pad_token_id=0)
    model = tiny.with_lora(inner, task_type="SEQ_CLS")
    callback = VersionCallback(repo, "m", run_name="r")
    trainer = tiny.trainer(model, tmp_path / "out", [callback], num_train_epochs=1)
    trainer.train_dataset = trainer.train_dataset.remove_columns("labels").add_column(
        "labels", [0, 1, 2, 0] * 2
    )
    trainer.train()
    loaded = repo["m@r/final"].load(pad_token_id=0)
    assert type(loaded.get_base_model()) is GPT2ForSequenceClassification
    assert torch.equal(logits(loaded), logits(model))


def test_several_adapters_in_one_version(repo: Repository, base: Path, tmp_path: Path) -> None:
    from peft import LoraConfig

    model = tiny.with_lora(AutoModelForCausalLM.from_pretrained(base))
    model.add_adapter("other", LoraConfig(r=2, target_modules=["c_proj"], fan_in_fan_out=True))
    tiny.trainer(model, tmp_path / "out", [VersionCallback(repo, "m", run_name="r")]).train()
    loaded = repo["m@r/final"].load()
    assert sorted(loaded.peft_config) == ["default", "other"]
    assert torch.equal(logits(loaded), logits(model))


def test_the_files_of_a_base_are_hashed_once(
    repo: Repository, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stemmata import bases, seen

    settled = dict.fromkeys(base.iterdir(), 10**18)
    for path, moment in settled.items():
        os.utime(path, ns=(moment, moment))
    monkeypatch.setattr(seen, "SETTLED_NS", -(10**18))
    read: list[Path] = []
    real = bases.hash_file
    monkeypatch.setattr(bases, "hash_file", lambda path: (read.append(path), real(path))[1])
    cache = seen.Seen(tmp_path / "digests")
    first = bases.weights_of_folder(base, cache)
    assert len(read) == 2
    assert bases.weights_of_folder(base, cache) == first
    assert len(read) == 2
    # Same size and times, another file: the inode tells.
    state = load_file(base / "model.safetensors")
    save_file({k: v + 1 for k, v in state.items()}, tmp_path / "fresh", metadata={"format": "pt"})
    os.utime(tmp_path / "fresh", ns=(10**18, 10**18))
    os.replace(tmp_path / "fresh", base / "model.safetensors")
    assert bases.weights_of_folder(base, cache).digest != first.digest
    for note in (tmp_path / "digests").iterdir():
        note.write_text("{")
    assert bases.weights_of_folder(base, cache).rows

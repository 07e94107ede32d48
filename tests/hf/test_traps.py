"""Traps that today's tools fall into: each shown with the naive way, then with stemmata.

The numbers are those of the project's list of traps; the docstrings say what goes wrong.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

import tiny_models as tiny
from stemmata.errors import BaseMismatch, BaseMissing, Damage, NotLoadable, PickleRefused
from stemmata.hf import VersionCallback
from stemmata.repository import Repository
from stemmata.version import Version

PROMPT = torch.tensor([[1, 2, 3, 4]])
WAIT = 30


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(PROMPT).logits
    return found


def moved(model: Any) -> Any:
    """The model after something that changes every weight that is trained."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.5)
    return model


def adapter(repo: Repository, base: Path, tmp_path: Path) -> tuple[Any, Version]:
    model = tiny.with_lora(AutoModelForCausalLM.from_pretrained(base))
    callback = VersionCallback(repo, "adapter", run_name="r")
    tiny.trainer(model, tmp_path / "out", [callback], num_train_epochs=1).train()
    return model, repo["adapter@r/final"]


def flip_a_bit(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << 6
    path.chmod(0o600)
    path.write_bytes(data)


def test_trap_1_an_unsharded_save_is_not_hidden_under_a_sharded_one(repo: Repository, tmp_path: Path) -> None:
    """A sharded save into a folder with an unsharded one: loading gives the old weights."""
    out = tmp_path / "out"
    old = tiny.gpt2()
    old.save_pretrained(out)
    before = logits(old)
    new = moved(old)
    new.save_pretrained(out, max_shard_size="20KB")
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(out)), before), "the naive way"

    version = repo.save(out, "mixed")
    with pytest.raises(NotLoadable, match="two sets of weights"):
        version.load()
    with pytest.raises(NotLoadable, match="two sets of weights"):
        version.state_dict()
    # The callback's versions never share a folder, so the trap is not there.
    callback = VersionCallback(repo, "m", run_name="r")
    trainer = tiny.trainer(new, out, [callback], num_train_epochs=1)
    trainer.train()
    assert torch.equal(logits(repo["m@r/final"].load()), logits(new))


def test_trap_2_a_base_replaced_by_other_weights_is_noticed(
    repo: Repository, base: Path, tmp_path: Path
) -> None:
    """Other weights of the same shape under an adapter load without a word."""
    model, version = adapter(repo, base, tmp_path)
    model.save_pretrained(tmp_path / "adapter")
    tiny.saved_base(base, seed=99)
    naive = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "adapter")
    assert not torch.equal(logits(naive), logits(model)), "the naive way"

    with pytest.raises(BaseMismatch, match="not the one"):
        version.load()
    with pytest.raises(BaseMismatch):
        version.load(base=base)


@pytest.mark.parametrize("kind", ["full", "adapter"])
def test_trap_3_i4_a_flipped_bit_is_never_handed_out(
    repo: Repository, base: Path, tmp_path: Path, kind: str
) -> None:
    """One flipped bit in a model or an adapter loads without a word."""
    stored = repo.save(base, "base")
    if kind == "full":
        model, version = stored.load(), stored
        name = "model.safetensors"
    else:
        model, version = adapter(repo, base, tmp_path)
        name = "adapter_model.safetensors"
    expected = logits(model)
    naive = tmp_path / "naive"
    version.checkout(naive)
    flip_a_bit(naive / name, -3)
    if kind == "full":
        loaded = AutoModelForCausalLM.from_pretrained(naive)
    else:
        loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), naive)
    assert loaded is not None, "the naive way"

    # In the cached checkout: rebuilt, not handed out.
    flip_a_bit(version.path() / name, -3)
    assert torch.equal(logits(version.load()), expected)
    # In the store itself: refused.
    shutil.rmtree(repo.session.cache_folder() / "checkouts", onerror=_make_writable)
    for pack in (tmp_path / "models/packs").rglob("*.pack"):
        flip_a_bit(pack, pack.stat().st_size // 3)
    with Repository(repo.session.storage) as fresh, pytest.raises(Damage):
        fresh.get(version.id).load()


def _make_writable(remove: Any, path: str, _: Any) -> None:
    os.chmod(os.path.dirname(path), 0o700)
    os.chmod(path, 0o700)
    remove(path)


def test_trap_6_a_base_that_moved_is_found_or_asked_for_by_name(
    repo: Repository, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative base path is stored verbatim: elsewhere, the error speaks of repository ids."""
    monkeypatch.chdir(base.parent)
    model = tiny.with_lora(AutoModelForCausalLM.from_pretrained(base.name))
    callback = VersionCallback(repo, "m", run_name="r")
    tiny.trainer(model, tmp_path / "out", [callback], num_train_epochs=1).train()
    model.save_pretrained(tmp_path / "adapter")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match=r"huggingface\.co|repo|cached"):
        AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")

    version = repo["m@r/final"]
    assert version.base is not None
    assert version.base.name_or_path == str(base)
    assert torch.equal(logits(version.load()), logits(model)), "another working directory"
    shutil.move(base, tmp_path / "moved")
    with pytest.raises(BaseMissing, match="pass base="):
        version.load()
    assert torch.equal(logits(version.load(base=tmp_path / "moved")), logits(model))
    repo.save(tmp_path / "moved", "base")
    assert torch.equal(logits(version.load()), logits(model)), "found in the repository"


def test_trap_7_an_adapters_revision_is_not_asked_of_its_base(
    repo: Repository, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adapter loaded with revision= asks for the same revision of its base's repository."""
    asked: list[tuple[str, Any]] = []

    def spy(name: Any, revision: Any, **k: Any) -> Any:
        asked.append((str(name), revision))
        if name == "team/base":
            raise ConnectionError("seen enough")
        return revision

    model, version = adapter(repo, base, tmp_path)
    model.save_pretrained(tmp_path / "adapter")
    settings = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    settings["base_model_name_or_path"] = "team/base"
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(settings))
    with monkeypatch.context() as patched:
        patched.setattr("transformers.models.auto.auto_factory.resolve_revision", spy)
        with pytest.raises(ConnectionError):
            AutoModelForCausalLM.from_pretrained(tmp_path / "adapter", revision="adapter-v2")
    assert asked[-1] == ("team/base", "adapter-v2"), "the naive way"

    downloads: list[tuple[str, Any]] = []

    def download(name: str, *, revision: Any = None, local_files_only: bool = False, **k: Any) -> str:
        if local_files_only:
            raise FileNotFoundError(name)
        downloads.append((name, revision))
        return str(tmp_path / "cached")

    shutil.move(base, tmp_path / "cached")
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    from stemmata.hf import adapters
    from stemmata.records import Base

    assert version.base is not None
    recorded = Base(name_or_path="team/base", revision="base-commit", digest=version.base.digest)
    monkeypatch.setattr(Version, "base", property(lambda self: recorded))
    place = adapters._find_base(version, None, False, allow_download=True)
    assert place == tmp_path / "cached"
    assert downloads == [("team/base", "base-commit")]


def test_trap_8_every_save_is_the_step_it_says_it_is(
    repo: Repository, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A push in flight makes later ones be skipped; what it reads late is the newer step's adapter."""
    out = tmp_path / "out"
    state_at: dict[int, torch.Tensor] = {}
    last_saved = threading.Event()
    pushed: list[tuple[str, torch.Tensor]] = []
    threads: list[threading.Thread] = []

    def probe(weights: dict[str, torch.Tensor]) -> torch.Tensor:
        return weights[next(n for n in sorted(weights) if "lora_B" in n)].clone()

    def upload_folder(*, folder_path: str, commit_message: str, **k: Any) -> Any:
        def upload() -> None:
            assert last_saved.wait(WAIT)  # a slow network
            pushed.append((commit_message, probe(load_file(Path(folder_path) / "adapter_model.safetensors"))))

        thread = threading.Thread(target=upload)
        thread.start()
        threads.append(thread)
        return SimpleNamespace(done=lambda: not thread.is_alive(), is_done=lambda: not thread.is_alive())

    class Watch(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **live: Any) -> None:
            state_at[state.global_step] = probe(get_peft_model_state_dict(live["model"]))
            if state.global_step == 4:
                last_saved.set()

    api = SimpleNamespace(
        create_repo=lambda *a, **k: SimpleNamespace(repo_id="team/x"), upload_folder=upload_folder
    )
    monkeypatch.setattr("transformers.trainer.hf_api", lambda *a, **k: api)
    model = tiny.with_lora(AutoModelForCausalLM.from_pretrained(base))
    callback = VersionCallback(repo, "m", every="save", run_name="r")
    trainer = tiny.trainer(
        model,
        out,
        [callback, Watch()],
        save_strategy="steps",
        save_steps=2,
        push_to_hub=True,
        hub_strategy="every_save",
        hub_always_push=True,
        hub_model_id="team/x",
    )
    trainer.train()
    for thread in threads:
        thread.join(WAIT)
    titles = dict(reversed(pushed))
    named_2 = next(weights for title, weights in titles.items() if "step 2" in title)
    assert torch.equal(named_2, state_at[4]), "the naive way: titled step 2, it is step 4"
    assert not torch.equal(named_2, state_at[2])

    for step in (2, 4):
        version = repo[f"m@r/step-{step}"]
        assert version.step == step
        assert torch.equal(probe(version.state_dict()), state_at[step])


def test_trap_5_a_half_written_checkpoint_is_not_what_a_training_goes_on_from(
    repo: Repository, tmp_path: Path
) -> None:
    """A process that dies in the middle of a save leaves the highest number, and the Trainer takes it."""
    out = tmp_path / "out"

    class Half(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **live: Any) -> None:
            if state.global_step == 4:
                (out / "checkpoint-4").mkdir()
                live["model"].save_pretrained(out / "checkpoint-4")
                raise KeyboardInterrupt  # the power went

    callback = VersionCallback(repo, "m", run_name="r", resume=True)

    def training(*more: Any) -> Any:
        return tiny.trainer(tiny.gpt2(), out, [callback, *more], save_strategy="epoch", num_train_epochs=3)

    with pytest.raises(KeyboardInterrupt):
        training(Half()).train()
    callback.wait()
    assert get_last_checkpoint(str(out)) == str(out / "checkpoint-4")
    naive = tiny.trainer(tiny.gpt2(), out, [], save_strategy="epoch", num_train_epochs=3)
    with pytest.raises(FileNotFoundError, match="trainer_state"):
        naive.train(resume_from_checkpoint=True)

    state = repo.resume("m", run="r")
    assert state is not None
    assert json.loads((state / "trainer_state.json").read_text())["global_step"] == 2
    trainer = training()
    trainer.train(resume_from_checkpoint=state)
    whole = tiny.trainer(tiny.gpt2(), tmp_path / "whole", [], num_train_epochs=3)
    whole.train()
    assert torch.equal(logits(trainer.model), logits(whole.model))


def test_trap_9_what_save_total_limit_deletes_stays_a_version(repo: Repository, tmp_path: Path) -> None:
    """With a limit of one and a best model, the Trainer deletes the last state too."""
    out = tmp_path / "out"
    trainer = tiny.trainer(
        tiny.gpt2(),
        out,
        [VersionCallback(repo, "m", run_name="r", every="save")],
        num_train_epochs=3,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="score",
        greater_is_better=True,
    )
    scores = iter((0.9, 0.5, 0.7))
    trainer.compute_metrics = lambda _: {"score": next(scores)}
    trainer.train()
    assert [p.name for p in out.glob("checkpoint-*")] == ["checkpoint-2"], "the naive way: the last is gone"
    versions = list(reversed(repo.versions("m")))
    assert [v.names for v in versions] == [
        ["r/step-2", "r/best"],
        ["r/step-4"],
        ["r/final", "r/step-6"],
    ]
    assert len({logits(v.load()).sum().item() for v in versions}) == 3


def test_trap_10_overwriting_a_saved_file_in_place_changes_no_version(
    repo: Repository, tmp_path: Path
) -> None:
    """torch.save writes into the same inode: a hard link to an older save changes with it."""
    out = tmp_path / "out"
    out.mkdir()
    torch.save({"w": torch.zeros(4)}, out / "state.pt")
    os.link(out / "state.pt", tmp_path / "kept.pt")
    version = repo.save(out, "m")
    checkout = version.checkout(tmp_path / "checkout")
    cached = version.path()
    saved = (out / "state.pt").read_bytes()
    torch.save({"w": torch.ones(4)}, out / "state.pt")
    assert torch.load(tmp_path / "kept.pt")["w"].sum() == 4, "the naive way: the kept one changed"

    assert version.read("state.pt") == saved
    assert (checkout / "state.pt").read_bytes() == saved
    assert (cached / "state.pt").read_bytes() == saved
    # And what is checked out is nobody's link: writing there reaches neither cache nor store.
    torch.save({"w": torch.full((4,), 7.0)}, checkout / "state.pt")
    assert version.read("state.pt") == saved
    assert (version.path() / "state.pt").read_bytes() == saved


def test_trap_11_a_snapshot_does_not_change_with_the_training(
    repo: Repository, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """state_dict() and get_peft_model_state_dict() alias the live parameters, also on a CPU."""
    plain = tiny.gpt2()
    state = plain.state_dict()
    kept = state["transformer.ln_f.bias"].clone()
    moved(plain)
    assert not torch.equal(state["transformer.ln_f.bias"], kept), "the naive way"
    lora = tiny.with_lora(AutoModelForCausalLM.from_pretrained(base))
    aliased = get_peft_model_state_dict(lora)
    name = next(iter(aliased))
    kept = aliased[name].clone()
    moved(lora)
    assert not torch.equal(aliased[name], kept), "the naive way"

    # The write is held back until the weights have moved on.
    gone_on, real = threading.Event(), repo.save

    def late(*a: Any, **k: Any) -> Any:
        assert gone_on.wait(WAIT)
        return real(*a, **k)

    monkeypatch.setattr(repo, "save", late)
    for number, model in enumerate((plain, lora)):
        from stemmata.hf import recorder

        gone_on.clear()
        account = recorder.Account()
        line = recorder.Recorder(repo, "m", f"r{number}", account)
        expected = {k: v.clone() for k, v in model.state_dict().items()}
        said = {"name": "one", "step": 1, "epoch": None, "event": "step", "metrics": {}}
        saved = line.save(model, None, **said)
        moved(model)
        gone_on.set()
        line.finish(model, saved)
        assert saved.version is not None
        stored = repo.get(saved.version).state_dict()
        for key, tensor in stored.items():
            live = key if key in expected else key.replace(".weight", ".default.weight")
            assert torch.equal(tensor, expected[live]), key
    assert "lm_head.weight" not in repo["m@r0/one"].state_dict(), "tied: stored once"


def test_trap_12_a_base_saved_with_an_adapter_around_it_is_not_mistaken_for_a_base(
    repo: Repository, base: Path, tmp_path: Path
) -> None:
    """After get_peft_model(base), base.save_pretrained() writes base_layer and lora_A.default keys."""
    inner = AutoModelForCausalLM.from_pretrained(base)
    expected = logits(inner)
    model = tiny.with_lora(inner)
    moved(model)
    inner.save_pretrained(tmp_path / "wrapped")
    names = load_file(tmp_path / "wrapped/model.safetensors")
    assert any("base_layer" in n for n in names), "the naive way"
    naive = AutoModelForCausalLM.from_pretrained(tmp_path / "wrapped")
    assert not torch.equal(logits(naive), logits(inner)), "and it loads, with weights made anew"

    with pytest.raises(NotLoadable, match="adapter around it"):
        repo.save(tmp_path / "wrapped", "wrapped").load()
    # The callback saves the adapter, and its base is the one on disk.
    fresh = tiny.with_lora(AutoModelForCausalLM.from_pretrained(base))
    tiny.trainer(fresh, tmp_path / "out", [VersionCallback(repo, "m", run_name="r")]).train()
    version = repo["m@r/final"]
    assert all("base_layer" not in n for n in version.state_dict())
    assert torch.equal(logits(version.load().unload()), expected)


def test_trap_14_pickles_of_a_checkpoint_are_kept_or_sanitised_and_never_opened(
    repo: Repository, tmp_path: Path
) -> None:
    """rng_state.pth and training_args.bin are pickles that weights_only=True refuses."""
    trainer = tiny.trainer(tiny.gpt2(), tmp_path / "out", [], save_strategy="epoch", num_train_epochs=1)
    trainer.train()
    checkpoint = tmp_path / "out/checkpoint-2"
    for name in ("rng_state.pth", "training_args.bin"):
        data = (checkpoint / name).read_bytes()
        with pytest.raises(pickle.UnpicklingError):
            torch.load(io.BytesIO(data), weights_only=True)

    version = repo.save(checkpoint, "m")
    paths = {f.path for f in version.files}
    assert "training_args.bin" not in paths
    assert b'"num_train_epochs":1' in version.provenance("training_arguments").replace(b" ", b"")
    assert version.config["learning_rate"] == 1e-2
    assert version.read("rng_state.pth") == (checkpoint / "rng_state.pth").read_bytes()
    assert type(version.load()).__name__ == "GPT2LMHeadModel"
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(checkpoint / "config.json", bare)
    torch.save(trainer.model.state_dict(), bare / "pytorch_model.bin")
    with pytest.raises(PickleRefused):
        repo.save(bare, "m").load()

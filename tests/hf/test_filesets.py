"""A version's files are, byte for byte, what the Trainer's own save writes (training_args.bin aside)."""

from __future__ import annotations

import copy
import errno
import json
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import PyTorchModelHubMixin
from transformers import AutoTokenizer

import model_kinds as kinds
import tiny_models as tiny
from stemmata.errors import (
    InvalidArgument,
    NotLoadable,
    QuotaReached,
    StemmataError,
    StorageFull,
    StorageReadOnly,
    TrainingSetup,
)
from stemmata.hf import VersionCallback, filesets, tokens
from stemmata.repository import Repository


def disturb(model: Any) -> None:
    """What training and evaluation do to a live model after the snapshot."""
    disturb_all(model)
    inner = model.get_base_model() if filesets.is_adapter(model) else model
    inner.config.vocab_size = 7
    if inner.can_generate():
        inner.generation_config.max_new_tokens = 77


def disturb_all(model: Any) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.add_(1.0)
            else:
                parameter.bitwise_xor_(1)


def stored(files: filesets.FileSet, target: Path) -> dict[str, str]:
    """What the version holds that is made of `files`."""
    with Repository.in_memory() as repo:
        return tiny.files_of(repo.save(files.source, "m").checkout(target))


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`")
@pytest.mark.parametrize("make", kinds.ALL)
def test_the_files_are_those_of_the_trainers_own_save(tmp_path: Path, make: Any) -> None:
    model = make(tmp_path)
    trainer = tiny.trainer(model, tmp_path / "out", [])
    trainer.save_model(str(tmp_path / "theirs"))
    with Repository.in_memory() as repo:
        live = repo.save(model, "m", tokenizer=trainer.processing_class).checkout(tmp_path / "live")
    ours = tmp_path / "ours"
    ours.mkdir()
    files = filesets.begin(model, trainer.processing_class, ours)
    disturb(model)
    expected = tiny.files_of(tmp_path / "theirs")
    assert stored(files, tmp_path / "stored") == expected
    assert tiny.files_of(live) == expected
    assert not list(ours.rglob("*.safetensors"))


@pytest.mark.parametrize("make", kinds.LISTED)
def test_what_the_callback_saves_is_what_the_trainer_saves(
    repo: Repository, tmp_path: Path, make: Any
) -> None:
    model = make(tmp_path)
    callback = VersionCallback(repo, "m", run_name="r", every="end")
    trainer = tiny.trainer(model, tmp_path / "out", [callback], max_steps=1)
    trainer.train()
    trainer.save_model(str(tmp_path / "theirs"))
    ours = repo["m@r/final"].checkout(tmp_path / "ours")
    assert tiny.files_of(ours) == tiny.files_of(tmp_path / "theirs")


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """In this process, writing more than `size` bytes to any file fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_no_weight_is_written_but_into_the_repository(tmp_path: Path) -> None:
    """The repository is in memory: no file can grow to the size of the weights, and none has to."""
    model = tiny.gpt2(vocabulary=20_000)
    small = 1 << 20
    with Repository.in_memory() as repo, no_file_above(small):
        with pytest.raises(OSError, match="File too large"):
            (tmp_path / "measure").write_bytes(bytes(2 * small))
        assert filesets.weight_bytes(model) > 2 * small
        callback = VersionCallback(repo, "m", run_name="r", every="end")
        tiny.trainer(model, tmp_path / "out", [callback], max_steps=1).train()
        assert callback.missing == {}
        saved = repo.save(model, "m", name="live")
        assert saved.tree().files == [f for f in repo["m@r/final"].files if "token" not in f.path]
        state = saved.state_dict()
        loaded = saved.load().state_dict()
    live = model.state_dict()
    assert all(torch.equal(tensor, live[name]) for name, tensor in state.items())
    assert all(torch.equal(tensor, live[name]) for name, tensor in loaded.items())


# --- repo.save(model) -----------------------------------------------------------------------------------


def test_a_model_says_where_it_comes_from(repo: Repository, tmp_path: Path) -> None:
    model = tiny.gpt2()
    first = repo.save(model, "m", name="first", config={"lr": 1})
    assert (first.parents, first.kind, first.config["lr"]) == ([], "model", 1)
    assert first.config["model.architecture"] == "GPT2LMHeadModel"
    disturb_all(model)
    second = repo.save(model, "m")
    assert second.parents == [first.id.hex]
    adapter = repo.save(tiny.with_lora(second.load()), "a", tokenizer=tiny.tokenizer())
    assert adapter.base is not None
    assert adapter.base.version == second.id.hex
    assert adapter.load_tokenizer()("a version")["input_ids"]
    assert repo.save(second.load(), "m", parents=[first]).parents == [first.id.hex]
    assert list((repo.session.cache_folder() / "writing").iterdir()) == []


@pytest.mark.parametrize("source", [5, {"w": 1}, None])
def test_what_is_neither_a_path_nor_a_model_is_refused(repo: Repository, source: Any) -> None:
    with pytest.raises(InvalidArgument, match=f"{type(source).__name__} is neither a path nor a model"):
        repo.save(source, "m")


def test_something_with_a_state_that_is_no_model_is_refused(repo: Repository) -> None:
    optimizer = torch.optim.SGD(torch.nn.Linear(2, 2).parameters())
    with pytest.raises(InvalidArgument, match="SGD is neither a path nor a model"):
        repo.save(optimizer, "m")


def test_a_tokenizer_goes_beside_a_model_only(repo: Repository, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="goes beside a model"):
        repo.save(tmp_path, "m", tokenizer=tiny.tokenizer())


def test_a_failed_save_leaves_nothing_behind(repo: Repository, tmp_path: Path) -> None:
    model = tiny.gpt2()
    model.transformer.wpe.weight = torch.nn.Parameter(torch.empty(0))
    model.transformer.wpe.weight.ds_id = 0  # as ZeRO marks its own
    with pytest.raises(TrainingSetup):
        repo.save(model, "m")
    assert repo.models() == []
    assert list((repo.session.cache_folder() / "writing").iterdir()) == []


@pytest.mark.parametrize(
    ("code", "error"),
    [(errno.ENOSPC, StorageFull), (errno.EDQUOT, QuotaReached), (errno.EROFS, StorageReadOnly)],
)
@pytest.mark.parametrize("where", ["lock", "folder", "config"])
def test_a_disk_that_takes_no_small_files_is_a_named_error(
    repo: Repository, monkeypatch: pytest.MonkeyPatch, where: str, code: int, error: type[StemmataError]
) -> None:
    opened, made = os.open, Path.mkdir

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    def no_lock(path: Any, *a: Any, **k: Any) -> int:
        lock = "saving-" in str(path) and str(path).endswith(".lock")
        return refuse() if lock else opened(path, *a, **k)

    def no_folder(path: Path, *a: Any, **k: Any) -> None:
        return refuse() if path.name.startswith("saving-") else made(path, *a, **k)

    model = tiny.gpt2()
    patches: dict[str, tuple[Any, str, Any]] = {
        "lock": (os, "open", no_lock),
        "folder": (Path, "mkdir", no_folder),
        "config": (type(model.config), "save_pretrained", refuse),
    }
    monkeypatch.setattr(*patches[where])
    with pytest.raises(error) as raised:
        repo.save(model, "m")
    assert "writing" in str(raised.value)
    assert repo.models() == []
    assert list((repo.session.cache_folder() / "writing").iterdir()) == []


def test_what_is_missing_elsewhere_is_not_the_disks_fault(repo: Repository, tmp_path: Path) -> None:
    class Tokens:
        def save_pretrained(self, folder: str) -> None:
            (tmp_path / "vocabulary").read_bytes()

    with pytest.raises(FileNotFoundError, match="vocabulary"):
        repo.save(tiny.gpt2(), "m", tokenizer=Tokens())


# --- other models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [kinds.four_bits, kinds.eight_bits])
def test_a_quantised_model_without_an_adapter(tmp_path: Path, make: Any) -> None:
    """The Trainer trains none, but a loop of one's own may save one."""
    model = make(tmp_path)
    model.save_pretrained(tmp_path / "theirs")
    files = filesets.begin(model, None, tmp_path / "ours")
    disturb(model)
    assert stored(files, tmp_path / "stored") == tiny.files_of(tmp_path / "theirs")


def test_a_model_that_is_no_pretrained_one(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    trainer = tiny.trainer(model, tmp_path / "out", [])
    trainer.save_model(str(tmp_path / "theirs"))
    ours = tmp_path / "ours"
    ours.mkdir()
    files = filesets.begin(model, trainer.processing_class, ours)
    with torch.no_grad():
        model[0].weight.zero_()
    assert stored(files, tmp_path / "stored") == tiny.files_of(tmp_path / "theirs")


class Mixed(torch.nn.Module, PyTorchModelHubMixin):
    """Of huggingface_hub's mixin, which notes how it was made."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.one = torch.nn.Linear(width, width)
        self.tied = torch.nn.Linear(width, width)
        self.tied.weight = self.one.weight


class Configured(torch.nn.Module):
    """Writes itself, weights and all, in a format of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.Linear(3, 4)
        self.register_buffer("sparse", torch.eye(3).to_sparse())

    def save_pretrained(self, folder: str) -> None:
        (Path(folder) / "config.json").write_text('{"width": 3}')
        (Path(folder) / "diffusion.bin").write_bytes(self.one.weight.detach().numpy().tobytes())


class Around(torch.nn.Module):
    """Hands out what it wraps, and has a weight of its own."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.head = inner, torch.nn.Linear(4, 1)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)


@pytest.mark.parametrize("make", [Mixed, Configured])
def test_a_model_with_a_save_of_its_own_is_what_that_writes(
    repo: Repository, tmp_path: Path, make: Any
) -> None:
    model = make()
    (tmp_path / "theirs").mkdir()
    model.save_pretrained(str(tmp_path / "theirs"))
    expected = tiny.files_of(tmp_path / "theirs")
    assert "config.json" in expected
    version = repo.save(model, "m")
    assert tiny.files_of(version.checkout(tmp_path / "saved")) == expected
    with repo.run("m", name="r") as run:
        run.save(model, step=1)
        with torch.no_grad():
            model.one.weight.zero_()
    assert tiny.files_of(repo["m@r/step-1"].checkout(tmp_path / "run")) == expected


def test_a_model_of_another_library_is_loaded_by_its_own_class(repo: Repository) -> None:
    model = Mixed(width=5)
    version = repo.save(model, "m")
    with pytest.raises(NotLoadable, match="from_pretrained of its own class"):
        version.load()
    loaded = Mixed.from_pretrained(version.path())
    assert torch.equal(loaded.one.weight, model.one.weight)


def test_the_save_of_what_a_module_wraps_is_not_its_own(repo: Repository) -> None:
    version = repo.save(Around(Mixed()), "m")
    assert {"head.weight", "inner.one.weight"} <= set(version.state_dict())


def test_the_weights_of_a_mixin_are_taken_from_memory(tmp_path: Path) -> None:
    files = filesets.begin(Mixed(), None, tmp_path / "ours")
    assert [file.path.name for file in files.weights] == ["model.safetensors"]
    assert not list((tmp_path / "ours").rglob("*.safetensors"))


def test_a_model_that_is_no_pretrained_one_may_have_tied_and_turned_tensors(tmp_path: Path) -> None:
    """The Trainer cannot write one: safetensors' own `save_model` can, and `load_model` reads it."""
    from safetensors.torch import load_model, save_model

    def made() -> Any:
        torch.manual_seed(0)
        model = torch.nn.ModuleDict({name: torch.nn.Linear(4, 4) for name in "abc"})
        model["b"].weight = model["a"].weight
        model["c"].weight.data = model["c"].weight.data.t()
        return model

    model = made()
    save_model(model, str(tmp_path / "theirs.safetensors"), metadata={"format": "pt"})
    ours = tmp_path / "ours"
    ours.mkdir()
    files = filesets.begin(model, None, ours)
    disturb_all(model)
    stored(files, tmp_path / "stored")
    data, expected = (
        (tmp_path / "stored/model.safetensors").read_bytes(),
        (tmp_path / "theirs.safetensors").read_bytes(),
    )
    assert data[8:].partition(b"}}")[2] == expected[8:].partition(b"}}")[2]
    # Of the header only the order of the metadata may differ, which safetensors leaves to chance.
    back = torch.nn.ModuleDict({name: torch.nn.Linear(4, 4) for name in "abc"})
    back["b"].weight = back["a"].weight
    assert load_model(back, str(tmp_path / "stored/model.safetensors")) == (set(), [])
    assert all(torch.equal(v, made().state_dict()[k]) for k, v in back.state_dict().items())


class Sliced(torch.nn.Module):
    """A module with positions that were computed for more of them than it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(4))
        table = torch.arange(100.0).reshape(50, 2)
        self.register_buffer("first", table[:16])
        self.register_buffer("rest", table[16:40])


def test_a_slice_of_a_larger_storage_is_saved_as_the_trainer_saves_it(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = Sliced()
    save_file(model.state_dict(), str(tmp_path / "theirs.safetensors"), metadata={"format": "pt"})
    ours, tied = tmp_path / "ours", tmp_path / "tied"
    ours.mkdir()
    stored(filesets.begin(model, None, ours), tmp_path / "stored")
    path = tmp_path / "stored/model.safetensors"
    assert path.read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()

    model.register_buffer("again", model.first)
    tied.mkdir()
    stored(filesets.begin(model, None, tied), tmp_path / "stored-tied")
    back = load_file(tmp_path / "stored-tied/model.safetensors")
    assert sorted(back) == ["again", "rest", "weight"], "the first by name of those that are one"
    assert torch.equal(back["again"], model.first)


def test_slices_that_overlap_are_written_each_whole(tmp_path: Path) -> None:
    """safetensors writes no two tensors that share bytes, and neither of these holds the other."""
    from safetensors.torch import load_file

    model = Sliced()
    model.register_buffer("middle", model.first.as_strided((16, 2), (2, 1), 20))
    model.register_buffer("nearly", model.first.as_strided((15, 2), (2, 1), 0))
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    folder = tmp_path / "ours"
    folder.mkdir()
    files = filesets.begin(model, None, folder)
    disturb_all(model)
    stored(files, tmp_path / "stored")
    back = load_file(tmp_path / "stored/model.safetensors")
    assert sorted(back) == ["first", "middle", "nearly", "rest", "weight"]
    assert all(torch.equal(back[name], value) for name, value in expected.items())


def test_a_state_that_is_no_tensor_is_refused_by_a_save_too(tmp_path: Path) -> None:
    class Told(torch.nn.Linear):
        def get_extra_state(self) -> str:
            return "told"

    with pytest.raises(TrainingSetup, match="_extra_state of Told is none"):
        filesets.begin(Told(2, 2), None, tmp_path)


@pytest.mark.parametrize(
    ("buffer", "reason"),
    [
        (lambda: torch.zeros(2, dtype=torch.complex128), "has no complex128, which odd of Linear is"),
        (lambda: torch.eye(2).to_sparse(), "odd of Linear is sparse"),
        (lambda: torch.eye(2).to_sparse_csr(), "odd of Linear is sparse"),
        (lambda: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]), "odd of Linear is nested"),
        (lambda: torch.empty(2, device="meta"), "odd of Linear is on the meta device"),
        (
            torch.nn.UninitializedBuffer,
            "odd of Linear has no shape yet; (.*; )?call the model once on a batch",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:The PyTorch API of nested")
def test_a_tensor_that_safetensors_cannot_keep_is_named(
    tmp_path: Path, buffer: Callable[[], torch.Tensor], reason: str
) -> None:
    model = torch.nn.Linear(2, 2)
    model.register_buffer("odd", buffer())
    with pytest.raises(TrainingSetup, match=reason):
        filesets.hold_savable(model)
    with Repository.in_memory() as repo, pytest.raises(InvalidArgument, match=reason):
        repo.save(model, "m")


def test_a_librarys_model_without_numbers_is_named_too(repo: Repository, tmp_path: Path) -> None:
    lora, model = kinds.lora(tmp_path), tiny.gpt2().to("meta")
    reason = r"transformer\.wte\.weight of GPT2LMHeadModel is on the meta device and has no numbers"
    with pytest.raises(TrainingSetup, match=reason):
        filesets.hold_savable(model)
    with pytest.raises(InvalidArgument, match=f"{reason}; load the model's weights first"):
        repo.save(model, "m")
    filesets.hold_savable(lora)
    with pytest.raises(TrainingSetup, match=r"lora_A.* is on the meta device"):
        filesets.hold_savable(lora.to("meta"))


def test_a_module_whose_state_takes_no_arguments_is_saved() -> None:
    class Own(torch.nn.Linear):
        def state_dict(self) -> dict[str, torch.Tensor]:  # type: ignore[override]
            return {"weight": self.weight.detach()}

    with Repository.in_memory() as repo:
        assert list(repo.save(Own(2, 2), "m").state_dict()) == ["weight"]


def test_saving_leaves_the_live_model_as_it_was(tmp_path: Path) -> None:
    model = kinds.lora(tmp_path)
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    live = (model.get_base_model().config, model.get_base_model().generation_config)
    configs = (*live, model.peft_config["default"])
    before = [copy.deepcopy(vars(config)) for config in configs]
    filesets.begin(model, None, tmp_path / "ours")
    assert json.loads((tmp_path / "ours/adapter_config.json").read_text())["inference_mode"] is True
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
    assert [vars(config) for config in configs] == before
    assert model.base_model.peft_config["default"] is configs[2]


def test_a_save_that_fails_leaves_it_so_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """peft turns `inference_mode` on while it writes, and leaves it so if that fails."""
    from peft import LoraConfig

    model = kinds.lora(tmp_path)

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(LoraConfig, "save_pretrained", full)
    with pytest.raises(OSError, match="no space left"):
        filesets.begin(model, None, tmp_path / "ours")
    assert model.peft_config["default"].inference_mode is False


def test_i10_a_token_that_a_tokenizer_was_loaded_with_is_in_no_version(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "_told", set())  # it is said once in a process
    tiny.tokenizer().save_pretrained(tmp_path / "from")
    given = AutoTokenizer.from_pretrained(tmp_path / "from", use_auth_token="Zk9x81qPqZ")
    given.save_pretrained(tmp_path / "theirs")
    assert "Zk9x81qPqZ" in (tmp_path / "theirs/tokenizer_config.json").read_text()
    with Repository.in_memory() as repo:
        kept = repo.save(tiny.gpt2(), "m", tokenizer=given)
        assert b"Zk9x81qPqZ" not in b"".join(kept.read(file.path) for file in kept.files)
        assert len(AutoTokenizer.from_pretrained(kept.checkout(tmp_path / "kept"))) == len(given)
        assert b"use_auth_token" not in kept.read("tokenizer_config.json")
    assert "tokenizer_config.json: left out 'use_auth_token'" in caplog.text

"""What a library's save would write, taken before it is written: in this thread, and nowhere else."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft.peft_model
import pytest
import safetensors.torch
import torch
import transformers.modeling_utils
from safetensors.torch import load_file, save_file

import tiny_models as tiny
from stemmata.hf import weightfiles
from stemmata.hf.weightfiles import capture, capturing

WAIT = 30


def bindings() -> list[Any]:
    places = (safetensors.torch.save_file, transformers.modeling_utils.safe_save_file)
    return [*places, peft.peft_model.safe_save_file]


@pytest.fixture(autouse=True)
def nothing_stays() -> Any:
    yield
    assert bindings() == [save_file] * 3


def save(tensors: dict[str, Any], path: Path) -> None:
    """As a library that looks for the function when it is called."""
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})


def test_shards_and_their_index(tmp_path: Path) -> None:
    model = tiny.gpt2(tied=False)
    model.save_pretrained(tmp_path / "theirs", max_shard_size="40KB")
    ours = tmp_path / "ours"
    files = capture(lambda: model.save_pretrained(ours, max_shard_size="40KB"))
    assert len(files) > 2
    assert (ours / "model.safetensors.index.json").stat().st_size > 0
    for file in files:
        file.hold()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    for file in files:
        file.write()
    assert tiny.files_of(ours) == tiny.files_of(tmp_path / "theirs")


def test_no_weight_is_copied_by_the_library(tmp_path: Path) -> None:
    """Not even those that it would make contiguous: on a device all of them may not fit a second time."""
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
    model = transformers.ResNetForImageClassification(config).to(memory_format=torch.channels_last)
    live = {value.data_ptr() for value in model.state_dict().values()}
    (file,) = capture(lambda: model.save_pretrained(tmp_path))
    assert any(not tensor.is_contiguous() for tensor in file._tensors)
    assert {tensor.data_ptr() for tensor in file._tensors} <= live
    assert file.path.stat().st_size == 0, "it is there, for whoever looks"
    file.write()
    loaded = load_file(file.path)
    assert all(torch.equal(value, loaded[name]) for name, value in model.state_dict().items())


def in_a_library(source: str) -> Callable[..., Any]:
    """A function as transformers might have it."""
    space: dict[str, Any] = {"__name__": "transformers.modeling_utils"}
    exec(source, space)
    return space["save"]  # type: ignore[no-any-return]


def test_a_library_that_needs_the_contiguous_tensor_itself_gets_it(tmp_path: Path) -> None:
    kept = in_a_library(
        "def save(tensor, path, write):\n    write({'w': tensor.contiguous().view(-1)}, path)\n"
    )
    turned = torch.rand(3, 4).t()
    (file,) = capture(lambda: kept(turned, tmp_path / "w.safetensors", save))
    file.write()
    assert torch.equal(load_file(tmp_path / "w.safetensors")["w"], turned.flatten())


def test_an_error_of_the_library_is_its_own(tmp_path: Path) -> None:
    calls = []

    def broken() -> None:
        calls.append(1)
        raise RuntimeError("the library's")

    with pytest.raises(RuntimeError, match="the library's"):
        capture(broken)
    assert len(calls) == 1


# --- whose calls are noted ------------------------------------------------------------------------------


def test_another_threads_files_are_written_meanwhile(tmp_path: Path) -> None:
    tensors = {"w": torch.rand(3)}
    with capturing() as files:
        other = threading.Thread(target=save, args=(tensors, tmp_path / "other.safetensors"))
        other.start()
        other.join()
        save(tensors, tmp_path / "own.safetensors")
    assert torch.equal(load_file(tmp_path / "other.safetensors")["w"], tensors["w"])
    assert list(files) == [tmp_path / "own.safetensors"]


def test_threads_that_capture_at_once_note_their_own(tmp_path: Path) -> None:
    both, left = threading.Barrier(2, timeout=WAIT), threading.Event()
    found: dict[str, list[str]] = {}

    def run(name: str) -> None:
        with capturing() as files:
            both.wait()
            save({"w": torch.rand(2)}, tmp_path / name)
            both.wait()
            if name == "b":
                assert left.wait(WAIT)
                save({"w": torch.rand(2)}, tmp_path / "later")  # the first has left already
        left.set()
        found[name] = [path.name for path in files]

    threads = [threading.Thread(target=run, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {"a": ["a"], "b": ["b", "later"]}
    assert [(tmp_path / name).stat().st_size for name in ("a", "b", "later")] == [0, 0, 0]


def test_one_within_another(tmp_path: Path) -> None:
    def fails() -> None:
        with capturing():
            save({"w": torch.rand(2)}, tmp_path / "inner")
            raise ValueError("inner")

    with capturing() as files:
        with pytest.raises(ValueError, match="inner"):
            fails()
        save({"w": torch.rand(2)}, tmp_path / "outer")
    assert list(files) == [tmp_path / "outer"]
    save({"w": torch.rand(2)}, tmp_path / "after")
    assert (tmp_path / "after").stat().st_size > 0


def test_what_somebody_else_put_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library patched by another: it writes for itself."""
    patched = []

    def theirs(tensors: Any, path: Any, metadata: Any = None) -> None:
        patched.append(path)
        save_file(tensors, path, metadata=metadata)

    with monkeypatch.context() as patch:
        patch.setattr(transformers.modeling_utils, "safe_save_file", theirs)
        files = capture(lambda: tiny.gpt2().save_pretrained(tmp_path))
        assert transformers.modeling_utils.safe_save_file is theirs
    assert files == []
    assert len(patched) == 1
    assert load_file(tmp_path / "model.safetensors")


# --- what is left to the library ------------------------------------------------------------------------


class Special(torch.Tensor):
    """A tensor that is more than its bytes, as those of quantising libraries are."""


@pytest.mark.parametrize(
    "tensor",
    [
        torch.rand(4).as_subclass(Special),
        torch.zeros(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
    ],
)
def test_tensors_that_are_no_plain_ones(tmp_path: Path, tensor: Any) -> None:
    path, direct = tmp_path / "w.safetensors", tmp_path / "direct.safetensors"
    with capturing() as files:
        save({"w": torch.rand(4)}, path)
        save({"w": tensor}, path)  # once more, and now by the library
    save({"w": tensor}, direct)
    assert files == {}
    assert path.read_bytes() == direct.read_bytes()


@pytest.mark.parametrize(
    ("tensors", "error"),
    [
        ({"a": torch.eye(3).to_sparse()}, ValueError),
        ({"a": 5}, ValueError),
        ({"a": (whole := torch.rand(4)), "b": whole[:2]}, RuntimeError),
        ({"a": whole[2:], "b": whole[:1], "c": whole[1:3]}, RuntimeError),
    ],
)
def test_what_safetensors_refuses_is_refused_the_same_way(
    tmp_path: Path, tensors: dict[str, Any], error: type[Exception]
) -> None:
    """Callers go by it: sentence-transformers falls back to another format."""
    with pytest.raises(error):
        save(tensors, tmp_path / "w.safetensors")
    with pytest.raises(error), capturing():
        save(tensors, tmp_path / "w.safetensors")


def test_parts_of_one_storage_that_do_not_overlap(tmp_path: Path) -> None:
    whole = torch.rand(6)
    tensors = {"b": whole[:2], "a": whole[2:], "none": torch.empty(0)}
    save(tensors, tmp_path / "theirs")
    (file,) = capture(lambda: save(tensors, tmp_path / "ours"))
    file.write()
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


@pytest.mark.parametrize("held", [True, False])
def test_values_that_torch_has_not_yet_computed_are_written_as_they_are(tmp_path: Path, held: bool) -> None:
    """Of a conjugate view safetensors writes the bytes below it, without a word."""
    numbers = torch.tensor([1 + 2j, 3 - 4j])
    tensors = {"conjugate": numbers.conj(), "minus": torch.tensor([5 + 6j, 7 - 8j]).conj().imag}
    (file,) = capture(lambda: save(tensors, tmp_path / "w.safetensors"))
    if held:
        file.hold()
    file.write()
    found = load_file(tmp_path / "w.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


# --- writing --------------------------------------------------------------------------------------------


class Broken:
    """A disk that is full after `good` writes; each takes three bytes at most."""

    def __init__(self, real: Callable[..., Any], good: int) -> None:
        self.real, self.good = real, good

    def __call__(self, file: Any, data: memoryview) -> None:
        if self.good == 0:
            raise OSError("no space left")
        self.good -= 1
        self.real(file, data)


def test_a_second_try_writes_the_file_anew_from_the_same_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stemmata.hf.snapshot.SLAB", 8)
    live = {"w": torch.rand(9), "b": torch.rand(2)}
    save(live, tmp_path / "theirs")
    (file,) = capture(lambda: save(live, tmp_path / "ours"))
    file.hold()
    live["w"].zero_()
    with monkeypatch.context() as patch:
        patch.setattr(weightfiles, "_write_all", Broken(weightfiles._write_all, 3))
        with pytest.raises(OSError, match="no space left"):
            file.write()
    assert 0 < file.missing < len((tmp_path / "theirs").read_bytes())
    file.write()
    assert file.missing == 0
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    file.write()
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_a_disk_that_takes_little_at_a_time() -> None:
    class Slow:
        def __init__(self) -> None:
            self.taken = b""

        def write(self, data: memoryview) -> int:
            self.taken += bytes(data[:3])
            return min(3, len(data))

    slow = Slow()
    weightfiles._write_all(slow, memoryview(bytes(range(20))))
    assert slow.taken == bytes(range(20))


def test_a_file_that_was_whole_and_is_gone_is_not_passed_over(tmp_path: Path) -> None:
    """Its copy is let go of: a version without it must not come about."""
    (file,) = capture(lambda: save({"w": torch.rand(3)}, tmp_path / "w"))
    file.hold()
    file.write()
    (tmp_path / "w").unlink()
    with pytest.raises(FileNotFoundError, match="removed or changed"):
        file.write()


def test_names_that_wrappers_left_are_clean(tmp_path: Path) -> None:
    tensors = {"h.0._orig_mod.weight": torch.rand(2), "_fsdp_wrapped_module.b": torch.rand(3)}
    (file,) = capture(lambda: save(tensors, tmp_path / "w"))
    file.write()
    header = (tmp_path / "w").read_bytes()
    length = int.from_bytes(header[:8], "little")
    assert set(json.loads(header[8 : 8 + length])) == {"__metadata__", "h.0.weight", "b"}

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
from stemmata.hf.snapshot import LiveBytes
from stemmata.hf.weightfiles import WeightFile, capture, capturing

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


def content(file: WeightFile, step: int = 1 << 30) -> bytes:
    found = bytearray(file.size)
    for at in range(0, file.size, step):
        file.read_into(at, memoryview(found)[at : at + step])
    return bytes(found)


def write(file: WeightFile) -> None:
    file.path.write_bytes(content(file))


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
        write(file)
    assert tiny.files_of(ours) == tiny.files_of(tmp_path / "theirs")


def test_no_weight_is_copied_by_the_library(tmp_path: Path) -> None:
    """Not even those that it would make contiguous: on a device all of them may not fit a second time."""
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
    model = transformers.ResNetForImageClassification(config).to(memory_format=torch.channels_last)
    live = {value.data_ptr() for value in model.state_dict().values()}
    (file,) = capture(lambda: model.save_pretrained(tmp_path))
    assert isinstance(file._content, LiveBytes)
    tensors = file._content.tensors
    assert any(not tensor.is_contiguous() for tensor in tensors)
    assert {tensor.data_ptr() for tensor in tensors} <= live
    assert not file.path.exists()
    write(file)
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
    write(file)
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
    write(file)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


@pytest.mark.parametrize("held", [True, False])
def test_values_that_torch_has_not_yet_computed_are_written_as_they_are(tmp_path: Path, held: bool) -> None:
    """Of a conjugate view safetensors writes the bytes below it, without a word."""
    numbers = torch.tensor([1 + 2j, 3 - 4j])
    tensors = {"conjugate": numbers.conj(), "minus": torch.tensor([5 + 6j, 7 - 8j]).conj().imag}
    (file,) = capture(lambda: save(tensors, tmp_path / "w.safetensors"))
    if held:
        file.hold()
    write(file)
    found = load_file(tmp_path / "w.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


# --- reading --------------------------------------------------------------------------------------------


def test_a_second_try_reads_the_same_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stemmata.hf.snapshot.SLAB", 8)
    live = {"w": torch.rand(9), "b": torch.rand(2)}
    save(live, tmp_path / "theirs")
    (file,) = capture(lambda: save(live, tmp_path / "ours"))
    file.hold()
    live["w"].zero_()
    expected = (tmp_path / "theirs").read_bytes()
    for _ in range(2):
        for step in (3, 8, 50, file.size):
            assert content(file, step) == expected
    assert file.view(0, 8) is None, "of the header"
    assert file.view(file.size - 4, 4) == expected[-4:]


def test_a_file_that_was_let_go_of_is_not_read_any_more(tmp_path: Path) -> None:
    """Live weights have moved on by then: a version of half of them must not come about."""
    (file,) = capture(lambda: save({"w": torch.rand(3)}, tmp_path / "w"))
    write(file)
    file.drop()
    with pytest.raises(RuntimeError, match="no longer those that were to be saved"):
        write(file)
    with pytest.raises(RuntimeError, match="no longer those that were to be saved"):
        file.view(file.size - 4, 4)


def test_names_that_wrappers_left_are_clean(tmp_path: Path) -> None:
    tensors = {"h.0._orig_mod.weight": torch.rand(2), "_fsdp_wrapped_module.b": torch.rand(3)}
    (file,) = capture(lambda: save(tensors, tmp_path / "w"))
    write(file)
    header = (tmp_path / "w").read_bytes()
    length = int.from_bytes(header[:8], "little")
    assert set(json.loads(header[8 : 8 + length])) == {"__metadata__", "h.0.weight", "b"}

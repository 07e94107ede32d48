"""Weight files: what a library's `save_pretrained` would write, taken before it is written.

The library renames, drops ties, shards and picks adapters itself, on the live model; its configs and
indexes are written as it writes them. Only where it hands tensors to safetensors, and only in this
thread, they are noted instead: whoever stores the file reads it from memory. What does not come that
way (other formats, tensors that are no plain ones) is written by the library, as ever.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch.overrides import TorchFunctionMode

from stemmata.containers.safetensors_writing import TensorEntry, header_of
from stemmata.hf.snapshot import HeldBytes, LiveBytes, hold, size_of
from stemmata.hf.wrappers import clean_state

_BINDINGS = (
    ("safetensors.torch", "save_file"),
    ("transformers.modeling_utils", "safe_save_file"),
    ("peft.peft_model", "safe_save_file"),
    ("sentence_transformers.sentence_transformer.modules.static_embedding", "save_safetensors_file"),
)
"""Where the libraries look for safetensors' `save_file`. One that looks elsewhere writes for itself."""
_LATER = {
    "transformers.modeling_utils",
    "transformers.core_model_loading",
    "peft.peft_model",
    "safetensors.torch",
    "stemmata.hf.plainmodules",
}
"""Modules that make tensors contiguous for a file and change nothing in them afterwards (read)."""
WORDS = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
    "complex64": "C64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2": "F8_E5M2",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "float8_e8m0fnu": "F8_E8M0",
}
"""torch's element types in safetensors' words."""


class WeightFile:
    """One safetensors file to be, whole in memory: of live tensors first, then of copies of their bytes."""

    def __init__(self, path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str] | None) -> None:
        clean = clean_state(tensors)
        entries = {name: _entry(tensor) for name, tensor in clean.items()}
        self.path = path
        self._header, order = header_of(entries, metadata)
        self._content: LiveBytes | HeldBytes | None = LiveBytes([clean[name] for name in order])
        self.weights = self._content.size
        """Bytes of the tensors."""
        self.size = len(self._header) + self.weights

    def hold(self) -> None:
        """Copy the live tensors' bytes: they may change afterwards."""
        if isinstance(self._content, LiveBytes):
            self._content = HeldBytes(hold(self._content.tensors))

    def drop(self) -> None:
        """Let go of all bytes: whoever asks for them from now on gets an error."""
        self._content = None

    def view(self, offset: int, length: int) -> memoryview | None:
        """See `sources.memory.Content`. Raises RuntimeError after `drop`."""
        begin = offset - len(self._header)
        return self._held().view(begin, length) if begin >= 0 else None

    def read_into(self, offset: int, into: memoryview) -> None:
        """See `sources.memory.Content`. Raises RuntimeError after `drop`."""
        head = self._header[offset : offset + len(into)]
        into[: len(head)] = head
        if len(into) > len(head):
            self._held().read_into(offset + len(head) - len(self._header), into[len(head) :])

    def _held(self) -> LiveBytes | HeldBytes:
        content = self._content
        if content is None:
            raise RuntimeError(f"the weights of {self.path.name} are no longer those that were to be saved")
        return content


def _entry(tensor: Any) -> TensorEntry:
    return TensorEntry(WORDS[_dtype(tensor)], tuple(tensor.shape), size_of([tensor]))


def _dtype(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


# --- what the library would write -----------------------------------------------------------------------


def capture(save: Callable[[], None]) -> list[WeightFile]:
    """Run a library's save; the weight files that it would have written, in its order."""
    with _Later() as later:
        try:
            return _capture(save)
        except RuntimeError:
            if not later.used:
                raise
    # Something asked for more of a contiguous tensor than that it be written so.
    return _capture(save)


def _capture(save: Callable[[], None]) -> list[WeightFile]:
    with capturing() as files:
        save()
    for path in files:
        path.unlink(missing_ok=True)
    return list(files.values())


@contextmanager
def capturing() -> Iterator[dict[Path, WeightFile]]:
    """In this thread, note what is handed to safetensors' `save_file` and leave an empty file there."""
    files: dict[Path, WeightFile] = {}
    before = getattr(_this_thread, "files", None)
    _install()
    _this_thread.files = files
    try:
        yield files
    finally:
        _this_thread.files = before
        _uninstall()


class _Later(TorchFunctionMode):
    """Leaves tensors that a library makes contiguous for its file as they are, in this thread.

    Their bytes are put in order when they are copied, one tensor at a time: all at once may be a second
    model on the device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.used = False

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        asked = func is torch.Tensor.contiguous and len(args) == 1 and not kwargs
        if asked and type(args[0]) in _PLAIN and sys._getframe(1).f_globals.get("__name__") in _LATER:
            self.used = self.used or not args[0].is_contiguous()
            return args[0]
        return func(*args, **(kwargs or {}))


_PLAIN = (torch.Tensor, torch.nn.Parameter)
_real = safetensors.torch.save_file
_this_thread = threading.local()
_lock = threading.Lock()
_captures = 0


def _install() -> None:
    global _captures
    with _lock:
        _captures += 1
        _swap(_real, _save_file)


def _uninstall() -> None:
    global _captures
    with _lock:
        _captures -= 1
        if _captures == 0:
            _swap(_save_file, _real)


def _swap(old: Any, new: Any) -> None:
    """Put `new` where the libraries have `old`; what somebody else put there stays."""
    for name, attribute in _BINDINGS:
        module = sys.modules.get(name)
        if module is not None and getattr(module, attribute, None) is old:
            setattr(module, attribute, new)


def _save_file(
    tensors: dict[str, Any], filename: str | os.PathLike[str], metadata: dict[str, str] | None = None
) -> None:
    """Stands for safetensors' function while anybody captures."""
    files: dict[Path, WeightFile] | None = getattr(_this_thread, "files", None)
    path = Path(filename)
    if files is None or not _is_plain(tensors, metadata):
        if files is not None:
            files.pop(path, None)
        _real(tensors, filename, metadata=metadata)
        return
    _refuse_shared(tensors)
    files[path] = WeightFile(path, tensors, metadata)
    path.write_bytes(b"")  # for whoever looks whether it is there


def _is_plain(tensors: Any, metadata: Any) -> bool:
    """Whether these are tensors whose bytes are all that there is to them."""
    return (
        sys.byteorder == "little"
        and isinstance(tensors, dict)
        and all(isinstance(text, str) for row in (metadata or {}).items() for text in row)
        and all(
            type(tensor) in _PLAIN
            and tensor.device.type != "meta"
            and tensor.layout == torch.strided
            and _dtype(tensor) in WORDS
            for tensor in tensors.values()
        )
    )


def _refuse_shared(tensors: Mapping[str, Any]) -> None:
    """Raise, as safetensors does, if two tensors share bytes."""
    places = [
        (str(t.device), t.data_ptr(), t.data_ptr() + size_of([t]), name)
        for name, t in tensors.items()
        # Others are written from a copy of their own.
        if t.numel() and t.is_contiguous()
    ]
    last = ("", 0, "")
    for device, begin, end, name in sorted(places):
        if device == last[0] and begin < last[1]:
            raise RuntimeError(f"Some tensors share memory: {last[2]} and {name}")
        last = max((device, end, name), last) if device == last[0] else (device, end, name)

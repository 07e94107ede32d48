"""Tensors: a version's weights decoded straight into torch tensors. Owns what a stored element type is there.

No file is written, and no file's bytes are in memory but as its tensors.
"""

from __future__ import annotations

import difflib
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from stemmata.codecs.pages import fresh_array
from stemmata.containers.safetensors import Extent
from stemmata.containers.tensors import MAX_NAME, fills
from stemmata.errors import NotLoadable, TensorNotInVersion
from stemmata.hf.weightfiles import WORDS
from stemmata.hf.wrappers import clean_state
from stemmata.version import Version

_DTYPES = {word: getattr(torch, name) for name, word in WORDS.items() if hasattr(torch, name)}
_CLOSE = 3
_LINE = 64
"""Bytes of a cache line."""
_BY_HAND = "take it with checkout(), and open it yourself if you trust whoever wrote it"
_OTHERS = "take the other tensors by their names with tensor(), or the file with checkout()"
_Held = TypeVar("_Held")


def read_tensors(
    version: Version, files: Sequence[str], prefixes: Mapping[str, str], only: Collection[str] | None = None
) -> dict[str, Any]:
    """The tensors of these weight files, each in memory of its own; `only` those of that name.

    A name is that in the file without what wrappers left in it, behind its file's prefix. Of a pickle
    the tensors alone are read, and nothing in it is run; in nested dictionaries dots join the keys to a name.

    Raises TensorNotInVersion, NotLoadable if two files hold one of these names or a pickle is none of named
    tensors, Damage.
    """
    found: dict[str, Any] = {}
    known: dict[str, str] = {}

    def wanted(path: str, held: Mapping[str, _Held]) -> dict[str, _Held]:
        prefix = prefixes.get(path, "")
        named = {f"{prefix}{name}": value for name, value in clean_state(held).items()}
        chosen = {name: value for name, value in named.items() if only is None or name in only}
        for name in chosen.keys() & known.keys():
            raise _in_two(version, name, known[name], path)
        known.update(dict.fromkeys(named, path))
        return chosen

    for path in files:
        opened = version.tensor_file(path) if path.endswith(".safetensors") else None
        if opened is None:
            found |= wanted(path, _loaded(version, path))
            continue
        extents = wanted(path, {extent.name: extent for extent in opened.extents})
        made = {name: _room_for(version, path, extent) for name, extent in extents.items()}
        if made or only is None:
            opened.fill({extent.name: _bytes_of(made[name]) for name, extent in extents.items()})
        found |= made
    if not known and not all(path.endswith(".safetensors") for path in files):
        reason = f"no tensor in {', '.join(files)} has a name"
        raise NotLoadable(version=version.short, reason=reason, hint=_BY_HAND)
    for name in only or ():
        if name not in found:
            raise TensorNotInVersion(version=version.short, name=name, hint=_hint(version, name, list(known)))
    return found


def _in_two(version: Version, name: str, first: str, second: str) -> NotLoadable:
    reason = f"{first} and {second} both hold a tensor {name}"
    hint = "one may be left from an earlier save: save again from an empty folder, or take a checkout()"
    return NotLoadable(version=version.short, reason=reason, hint=hint)


def _room_for(version: Version, path: str, extent: Extent) -> Any:
    """A tensor to be filled, in memory of its own. Raises NotLoadable where torch has none like it."""
    size, dtype = extent.end - extent.begin, _DTYPES.get(extent.dtype)
    if dtype is None:
        reason = f"the tensor {extent.name} in {path} has a type that torch does not have: {extent.dtype:.32}"
        raise NotLoadable(version=version.short, reason=reason, hint=_OTHERS)
    try:
        # An empty one's other dimensions may be any, and torch's are of 63 bits.
        if not fills(extent.shape, dtype.itemsize, size) or max(extent.shape, default=0) >= 1 << 63:
            raise ValueError("its shape does not fill its place")
        return _memory_of(extent, size, dtype)
    except (RuntimeError, ValueError, TypeError) as error:
        reason = f"the tensor {extent.name} in {path} has a shape that it cannot have"
        raise NotLoadable(version=version.short, reason=reason, hint=_OTHERS) from error


def _memory_of(extent: Extent, size: int, dtype: Any) -> Any:
    # As far from a cache line's begin as in its file, which is where libraries map it: some kernels add
    # in another order elsewhere, and a model's outputs would differ in their last bit.
    place = extent.begin if extent.begin % dtype.itemsize == 0 else 0
    memory = fresh_array(size + _LINE)
    skipped = (place - memory.ctypes.data) % _LINE
    return torch.from_numpy(memory[skipped : skipped + size]).view(dtype).reshape(extent.shape)


def _bytes_of(tensor: Any) -> memoryview:
    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy())


def _loaded(version: Version, path: str) -> dict[str, Any]:
    """A file read whole, verified, by the library whose format it is."""
    data = version.read(path)
    if path.endswith(".safetensors"):
        return _loaded_whole(version, path, data)
    try:
        # weights_only: allow_pickle opens the file, it does not run what else may be in it.
        read = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    # Of a file that is no pickle, or a broken one, torch says so with whatever error its bytes lead to.
    except Exception as error:
        reason = f"{path} is no file of tensors, or holds what weights_only does not let in"
        raise NotLoadable(version=version.short, reason=reason, hint=_BY_HAND) from error
    if not isinstance(read, dict):
        reason = f"{path} holds a {type(read).__name__}, and no tensors by name"
        raise NotLoadable(version=version.short, reason=reason, hint=_BY_HAND)
    found: dict[str, Any] = {}
    for name, tensor in _named(read):
        if name in found:
            reason = f"{path} holds two tensors that are called {name}"
            raise NotLoadable(version=version.short, reason=reason, hint=_BY_HAND)
        found[name] = tensor
    return found


def _loaded_whole(version: Version, path: str, data: bytes) -> dict[str, Any]:
    try:
        state: dict[str, Any] = load(data)
    # Of a type that torch does not have it says so with a KeyError, of a shape with whatever torch says.
    except (SafetensorError, KeyError, TypeError, RuntimeError, ValueError, AssertionError) as error:
        said = f"{error}".partition("\n")[0]
        reason = f"safetensors cannot read {path} ({type(error).__name__}: {said:.200})"
        raise NotLoadable(version=version.short, reason=reason, hint=_BY_HAND) from error
    return state


def _named(read: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Tensors and the keys that lead to them, joined with dots as a tree joins them; numbers lead to some
    too. Each dictionary is entered once, by the first way to it: it may hold itself."""
    entered = {id(read)}
    levels = [("", iter(read.items()))]
    while levels:
        prefix, items = levels[-1]
        for key, value in items:
            if not isinstance(key, str | int) or len(prefix) + len(str(key)) > MAX_NAME:
                continue
            if isinstance(value, torch.Tensor):
                yield f"{prefix}{key}", value
            elif isinstance(value, dict) and id(value) not in entered:
                entered.add(id(value))
                levels.append((f"{prefix}{key}.", iter(value.items())))
                break
        else:
            levels.pop()


def _hint(version: Version, name: str, known: Sequence[str]) -> str:
    ends = [other for other in known if other.endswith(f".{name}")]
    close = list(dict.fromkeys([*ends, *difflib.get_close_matches(name, known, _CLOSE)]))[:_CLOSE]
    listed = f"list its tensors with: stemmata show {version.short} --tensors"
    return f"did you mean {' or '.join(close)}? Else {listed}" if close else listed

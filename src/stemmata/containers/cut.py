"""Cut: which container a file is. Owns the fall back to chunks wherever there is a doubt."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from stemmata.containers.base import (
    GGUF_MAGIC,
    NPY_MAGIC,
    ZIP_MAGIC,
    CutPlan,
    NotThisContainer,
    RandomReader,
)
from stemmata.containers.cdc import plan_content
from stemmata.containers.safetensors import NotSafetensors, plan_safetensors
from stemmata.deferred import deferred
from stemmata.errors import BrokenContainer

if TYPE_CHECKING:
    from stemmata.containers import gguf, npz, torchzip, zipped
else:
    gguf = deferred("stemmata.containers.gguf")
    npz = deferred("stemmata.containers.npz")
    torchzip = deferred("stemmata.containers.torchzip")
    zipped = deferred("stemmata.containers.zipped")


def plan(reader: RandomReader, size: int, path: str, allow_broken: bool = False) -> CutPlan:
    """Where to cut the file `path` of `size` bytes.

    Of a container no more than its headers is read; of any other file over 64 KiB everything, once, with
    less than a MiB in memory. Raises BrokenContainer if the name promises safetensors and the bytes are
    none, unless `allow_broken`: then they are cut like any others. The other containers are told by how
    they begin, and promise nothing.
    """
    if path.casefold().endswith(".safetensors"):
        try:
            return plan_safetensors(reader, size)
        except NotSafetensors as problem:
            if not allow_broken:
                raise BrokenContainer(path=path, container="safetensors", reason=str(problem)) from None
    begin = reader.read_at(0, min(size, _LONGEST))
    for magic, plan_container in _BY_MAGIC.items():
        if begin.startswith(magic):
            try:
                return plan_container(reader, size)
            except NotThisContainer:
                break
    return plan_content(reader, size)


def _plan_zip(reader: RandomReader, size: int) -> CutPlan:
    members = zipped.read_members(reader, size)
    if torchzip.is_torch(members):
        return torchzip.plan_torch(reader, size, members)
    if npz.is_npz(members):
        return npz.plan_npz(reader, size, members)
    raise NotThisContainer("it is a zip of something else")


_BY_MAGIC: dict[bytes, Callable[[RandomReader, int], CutPlan]] = {
    ZIP_MAGIC: _plan_zip,
    GGUF_MAGIC: lambda reader, size: gguf.plan_gguf(reader, size),
    NPY_MAGIC: lambda reader, size: npz.plan_npy(reader, size),
}
_LONGEST = max(map(len, _BY_MAGIC))

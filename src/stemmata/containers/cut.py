"""Cut: which container a file is, by its name. Owns the fall back to chunks."""

from __future__ import annotations

from stemmata.containers.base import CutPlan, RandomReader
from stemmata.containers.chunks import plan_chunks
from stemmata.containers.safetensors import NotSafetensors, plan_safetensors
from stemmata.errors import BrokenContainer


def plan(reader: RandomReader, size: int, path: str, allow_broken: bool = False) -> CutPlan:
    """Where to cut the file `path` of `size` bytes; reads no more than its header.

    Raises BrokenContainer if the name promises a container that the bytes are not, unless
    `allow_broken`: then its bytes are cut like any others.
    """
    if not path.casefold().endswith(".safetensors"):
        return plan_chunks(size)
    try:
        return plan_safetensors(reader, size)
    except NotSafetensors as problem:
        if allow_broken:
            return plan_chunks(size)
        raise BrokenContainer(path=path, container="safetensors", reason=str(problem)) from None

"""torch's zip files: .pt, .pth, .bin, .ckpt. Owns how their storages become tensors.

Every storage is a stored member of its own. What it holds is told by the pickle beside them, which is
read as text (`torchpickle`); a storage of which that tells nothing is cut as bytes.
"""

from __future__ import annotations

from collections import defaultdict
from math import prod

from stemmata.codecs.dtypes import BYTES, dtype_of
from stemmata.containers.base import CutPlan, NotThisContainer, RandomReader
from stemmata.containers.tensors import Run, tile
from stemmata.containers.torchpickle import MAX_PICKLE, Told, View, read_pickle
from stemmata.containers.zipped import Member

_PICKLE = "data.pkl"


def is_torch(members: list[Member]) -> bool:
    return _folder(members) is not None


def plan_torch(reader: RandomReader, size: int, members: list[Member]) -> CutPlan:
    """Cut at the storages and the pickle. Raises NotThisContainer if there is no storage."""
    folder = _folder(members)
    by_name = {member.name: member for member in members}
    storages = {
        m.name.removeprefix(f"{folder}data/"): m for m in members if m.name.startswith(f"{folder}data/")
    }
    if not any(member.size for member in storages.values()):
        raise NotThisContainer("it holds no storages")
    pickle = by_name[f"{folder}{_PICKLE}"]
    told = Told()
    if _is_little(reader, by_name.get(f"{folder}byteorder")) and pickle.size <= MAX_PICKLE:
        try:
            told = read_pickle(reader.read_at(pickle.offset, pickle.size))
        except NotThisContainer:
            pass  # where the members lie is known all the same
    runs = [Run(pickle.offset, pickle.size)]
    for key, views in _by_key(told, storages).items():
        runs += _runs(storages[key], *views)
    return CutPlan("torch", tile(size, runs))


def _folder(members: list[Member]) -> str | None:
    """The one folder that all of the archive lies in, with its slash."""
    found = [m.name.removesuffix(_PICKLE) for m in members if m.name.endswith(f"/{_PICKLE}")]
    folders = [folder for folder in found if folder.count("/") == 1]
    return folders[0] if len(folders) == 1 and len(folders[0]) > 1 else None


def _is_little(reader: RandomReader, member: Member | None) -> bool:
    return member is None or (member.size == 6 and reader.read_at(member.offset, 6) == b"little")


def _by_key(told: Told, storages: dict[str, Member]) -> dict[str, tuple[str, list[View]]]:
    """For each storage's member the type of its elements, '' if in doubt, and the tensors on it."""
    words: dict[str, set[str]] = defaultdict(set)
    views: dict[str, list[View]] = defaultdict(list)
    for storage in told.storages:
        member = storages.get(storage.key)
        if member is not None:
            itemsize = 1 if storage.word is None else dtype_of(storage.word).itemsize
            if storage.count * itemsize != member.size:
                words[storage.key].add("")
            elif storage.word is not None:
                words[storage.key].add(storage.word)
    for view in told.views:
        if view.word:
            words[view.storage.key].add(view.word)
        views[view.storage.key].append(view)
    single = {key: next(iter(found)) for key, found in words.items() if len(found) == 1}
    return {key: (single.get(key, ""), views[key]) for key in storages}


def _runs(member: Member, word: str, views: list[View]) -> list[Run]:
    """A storage at its tensors, if each has its own part of it; else in one."""
    dtype = dtype_of(word)
    if dtype is BYTES or member.size % dtype.itemsize:
        return [Run(member.offset, member.size)]
    whole = [Run(member.offset, member.size, word, (member.size // dtype.itemsize,))]
    if not all(view.contiguous for view in views):
        return whole
    parts: dict[tuple[int, tuple[int, ...]], str | None] = {}
    for view in views:
        # Tied weights are two tensors of one shape at one place; they are kept under the first's name.
        key = (view.offset, view.shape)
        parts[key] = parts.get(key) or view.name
    runs: list[Run] = []
    at = 0
    for (offset, shape), name in sorted(parts.items(), key=lambda part: (part[0][0], prod(part[0][1]))):
        begin, length = offset * dtype.itemsize, prod(shape) * dtype.itemsize
        if begin < at or begin + length > member.size:
            return whole
        if begin > at:
            runs.append(Run(member.offset + at, begin - at, word, ((begin - at) // dtype.itemsize,)))
        runs.append(Run(member.offset + begin, length, word, shape, name))
        at = begin + length
    if at < member.size:
        runs.append(Run(member.offset + at, member.size - at, word, ((member.size - at) // dtype.itemsize,)))
    return runs

"""Resuming: the states from which trainings go on. Owns what a complete state is, under which model
states lie and which of them a run goes on from.

A state is a version of kind "checkpoint" of a model of its own, `<model>.resume`: the files of the
Trainer's own checkpoint. The versions of the model itself hold what they always held.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Protocol
from weakref import WeakSet

from stemmata import checkouts
from stemmata.catalog import queries, selecting
from stemmata.catalog.queries import VersionRow
from stemmata.errors import IncompleteState
from stemmata.names import clean_name, exact_slug, name_key
from stemmata.records import load_value
from stemmata.session import Session

SUFFIX = ".resume"
ASKED = "resume.asked"
"""Config key: the run name that the script asked for, as its `exact_slug` (by earlier releases: as its slug);
the run may be called `…-2`."""
PROCESSES = "resume.processes"
"""Config key: how many processes trained."""
COMMAND = "resume.command"
"""Config key, of `stemmata run` alone: which training of which command line it is."""
TRAINER_STATE = "trainer_state.json"
_OPTIMIZERS = ("optimizer.pt", "optimizer.bin")
_WEIGHTS = re.compile(r"(model|pytorch_model|adapter_model|pytorch_model_fsdp)\.(safetensors|bin)")
_INDEX = re.compile(r"[^/]*\.(safetensors|bin)\.index\.json")
_PIECE = re.compile(rb"__\d+_\d+\.distcp")
_RANK = re.compile(r"rng_state_(\d+)\.pth")
_MOST = 64 << 20
"""Bytes of an index that is read."""
_NAMED = 100


class Writing(Protocol):
    """What writes versions beside a training."""

    def settle(self) -> None:
        """Return when everything that was asked for so far is written, or failed."""


writing: WeakSet[Writing] = WeakSet()
"""What this process still writes with: a training that raised may have its newest state in memory yet."""


def states_of(model: str) -> str:
    """The name under which a model's states line up."""
    return clean_name(model + SUFFIX)


def missing_parts(
    sizes: Mapping[str, int], read: Callable[[str], bytes], *, processes: int | None = None
) -> list[str]:
    """What a checkpoint lacks to be resumed from bit for bit: names of files; empty if it is complete.

    `sizes` maps each file's relative path to its bytes: a file of none counts as missing, an index as well
    that is none or too long to be read. `processes`: how many trained (default: what the names of the random
    states tell); of their states that are missing the first ones are named.
    """
    there = {path for path, size in sizes.items() if size > 0}
    folders = {path.split("/")[0] for path in there if "/" in path}
    deepspeed = [f for f in folders if f.startswith("global_step")]
    # DeepSpeed keeps a scheduler that its own settings name with the optimizer's states.
    kept_there = any(p.split("/")[0] in deepspeed and "optim_states" in p for p in there)
    parts = (TRAINER_STATE,) if kept_there else (TRAINER_STATE, "scheduler.pt")
    missing = [part for part in parts if part not in there]
    optimizer = bool(there.intersection(_OPTIMIZERS)) or any(f.startswith("optimizer_") for f in folders)
    if not optimizer and not kept_there:
        missing.append("optimizer.pt")
    missing += _missing_weights(there, folders, deepspeed, sizes, read)
    ranks = [int(found[1]) for path in there if (found := _RANK.fullmatch(path))]
    count = processes or (max(ranks) + 1 if ranks else 1)
    # Whatever a name or a record says of how many there are: no more are counted than lie there, and a few.
    wanted: Iterable[str] = (
        ["rng_state.pth"] if count == 1 else (f"rng_state_{rank}.pth" for rank in range(count))
    )
    return missing + list(islice((name for name in wanted if name not in there), _NAMED))


def _missing_weights(
    there: set[str],
    folders: set[str],
    deepspeed: list[str],
    sizes: Mapping[str, int],
    read: Callable[[str], bytes],
) -> list[str]:
    missing: list[str] = []
    sharded = [f for f in folders if f.startswith(("pytorch_model_fsdp_", "optimizer_"))]
    for folder in sorted(sharded):
        # What torch writes there is a pickle: it is searched for names, never opened.
        index = f"{folder}/.metadata"
        if index not in there:
            missing.append(index)
            continue
        pieces = sorted({piece.decode() for piece in _PIECE.findall(read(index))})
        missing += [f"{folder}/{p}" for p in pieces if f"{folder}/{p}" not in there]
    indexes = [path for path in there if _INDEX.fullmatch(path)]
    for index in indexes:
        shards = _shards(read(index)) if sizes[index] <= _MOST else None
        missing += [index] if shards is None else [shard for shard in shards if shard not in there]
    whole = any(_WEIGHTS.fullmatch(path.rpartition("/")[2]) and path.count("/") <= 1 for path in there)
    if not (whole or indexes or deepspeed or any(f.startswith("pytorch_model_fsdp_") for f in sharded)):
        missing.append("model.safetensors")
    return missing


def _shards(index: bytes) -> list[str] | None:
    """The files that an index names; None if it is no index."""
    try:
        shards = sorted(set(json.loads(index)["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return shards if all(isinstance(shard, str) for shard in shards) else None


def find_state(session: Session, model: str, run: str | None, step: int | None = None) -> VersionRow | None:
    """The newest state of a run: of one that asked for this name, whatever it got; see `find_states`."""
    found = find_states(session, model, run, step, limit=1)
    return found[0] if found else None


def find_states(
    session: Session,
    model: str,
    run: str | None,
    step: int | None = None,
    *,
    command: str | None = None,
    limit: int | None = None,
) -> list[VersionRow]:
    """The states of a run, newest first: of one that asked for this name, whatever it got.

    One that has the name and asked for another is another experiment: a second `exp` may be called what the
    first `exp-2` asks for. The name decides for states alone that do not say what was asked for. Names that
    only make the same slug are of other experiments too: what an earlier release noted as a slug, or not at
    all, is found by a name that is its own slug.

    `command`: only of a run that asked for the name in this training of this command line.
    """
    session.refresh()
    conditions: list[str] = [] if step is None else [f"step == {int(step)}"]
    if run is not None:
        name = json.dumps(exact_slug(run), ensure_ascii=False)
        asked = f"{ASKED} == {name}"
        untold = f"(run == {name} and {ASKED} is none)"
        conditions.append(f"({asked} or {untold})" if command is None else asked)
    if command is not None:
        conditions.append(f"{COMMAND} == {json.dumps(command)}")
    key = name_key(states_of(model))
    return selecting.versions(session.catalog.connection, key, expressions=conditions, limit=limit)


def resume(session: Session, model: str, run: str | None = None, step: int | None = None) -> Path | None:
    """A folder to resume from, verified byte by byte; None if the run has no state yet. What this process is
    writing is waited for.

    Raises IncompleteState, Damage.
    """
    for writer in list(writing):
        writer.settle()
    row = find_state(session, model, run, step)
    return None if row is None else folder_of(session, row)


def folder_of(session: Session, row: VersionRow) -> Path:
    """A state as a folder, verified byte by byte. Raises IncompleteState, Damage."""
    missing = lacks(session, row)
    if missing:
        name = queries.model_name(session.catalog.connection, row.model)
        raise IncompleteState(state=f"{name}@{row.name}", parts=", ".join(missing))
    read = session.object_reader(row)
    return checkouts.hand_out(session.cache_folders(), row.id, session.tree(row), read)


def lacks(session: Session, row: VersionRow) -> list[str]:
    """The parts that a state lacks: see `missing_parts`. Reads no weights. Raises Damage."""
    read = session.object_reader(row)
    files = {file.path: file for file in session.tree(row).files}
    processes = load_value(session.record(row).config.get(PROCESSES))
    return missing_parts(
        {path: file.size for path, file in files.items()},
        lambda path: checkouts.read_file(files[path], read),
        processes=processes if isinstance(processes, int) else None,
    )

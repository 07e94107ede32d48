"""Distributed: several processes in one training. Owns how they wait for each other at a save.

Rank 0 writes; the others wait for it here, through the group's store on the CPU and with a time-out of
its own. Never in a collective: NCCL's time-out would end the training of whoever waits there.
"""

from __future__ import annotations

import functools
import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch.distributed

from stemmata.errors import TrainingSetup

WAIT = timedelta(hours=2)
_POLL = 0.02
_KEPT = 64
_ZERO_MARKS = ("ds_id", "ds_status", "ds_shape")
_ABANDONED = "abandoned"
_log = logging.getLogger("stemmata")
_trainings = itertools.count()


def is_part(tensor: Any) -> bool:
    """Whether this process may hold a part only of a parameter: a DTensor's shard, or nothing of it."""
    sharded = any(not placement.is_replicate() for placement in getattr(tensor, "placements", ()))
    return sharded or tensor.numel() == 0


def held_in_part(model: Any) -> str | None:
    """Why this process holds a part only of `model` (FSDP, ZeRO-3, tensor parallel); None if it is whole."""
    if any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules()):
        return "FSDP shards the model"
    for name, parameter in model.named_parameters():
        if parameter.numel() == 0:
            if _may_be_emptied(parameter):
                return f"{name} has no elements in this process, as ZeRO leaves it"
        elif is_part(parameter):
            return f"{name} is sharded over processes"
    return None


def _may_be_emptied(parameter: Any) -> bool:
    """Whether a parameter without elements may have some elsewhere, as ZeRO and FSDP leave it."""
    # The marks are lost in a deep copy. Without a process group, which both need, it is empty and no more.
    grouped = torch.distributed.is_available() and torch.distributed.is_initialized()
    return grouped or any(hasattr(parameter, mark) for mark in _ZERO_MARKS)


def hold_whole(model: Any) -> None:
    """Refuse a model of which this process holds a part only: rank 0 alone can neither read nor gather it.

    Raises TrainingSetup.
    """
    reason = held_in_part(model)
    if reason is not None:
        raise TrainingSetup(
            reason=f"{reason}, and a save of a model takes it whole",
            hint="gather it on every process, write it on one (save_pretrained with state_dict=) and give "
            "that folder to run.save; with a Trainer, VersionCallback takes in the whole checkpoints"
            " that it writes",
        )


class Meeting:
    """Where the processes of one training meet, each time in the same order."""

    def __init__(self, arguments: Any) -> None:
        self.rank = int(arguments.process_index)
        self.size = int(arguments.world_size)
        self._count = 0
        self._store: Any = None
        self._gone = False
        """Whether the store has ended with the process that held it: at the end rank 0 may leave first."""
        if self.size > 1 and torch.distributed.is_initialized():
            # Every process counts the same trainings: its number keeps theirs apart.
            store = torch.distributed.distributed_c10d._get_default_store()
            self._store = torch.distributed.PrefixStore(f"stemmata/{next(_trainings)}", store)

    def arrive(self) -> None:
        """Say that this process has done its part of what led here."""
        self._count += 1
        self._tell(f"{self._count}/here/{self.rank}")

    def all_here(self) -> list[int]:
        """On rank 0: wait for the others' parts; the ranks that did not come in time."""
        return [rank for rank in range(self.size) if not self._see(f"{self._count}/here/{rank}")]

    def leave(self) -> None:
        """Rank 0: let the others go. The others: wait until they may."""
        if self.rank == 0:
            old = self._count - _KEPT
            past = (f"{old}/done", *(f"{old}/here/{rank}" for rank in range(self.size)))
            self._tell(f"{self._count}/done", past if old > 0 else ())
        elif not self._see(f"{self._count}/done") and not self._gone:
            _log.warning("rank %d waited %s for the save of rank 0 and goes on without it", self.rank, WAIT)

    def abandon(self) -> None:
        """Rank 0: come to no meeting any more; the others need not wait."""
        if self.rank == 0:
            self._tell(_ABANDONED)

    def word(self, decide: Callable[[], str]) -> str:
        """What rank 0 decides, which is the same in every process; empty if it did not come.

        `decide` is called on rank 0 alone and raises nothing.
        """
        if self._store is None:
            return decide()
        if self.rank == 0:
            said = decide()
            self._store.set("word", f"={said}".encode())
            return said
        return bytes(self._store.get("word")).decode()[1:] if self._see("word") else ""

    def _tell(self, key: str, past: Sequence[str] = ()) -> None:
        """Write `key`, and take away what nobody asks for any more."""
        if self._store is None or self._gone:
            return
        try:
            self._store.set(key, b"1")
            for old in past:
                self._store.delete_key(old)
        except RuntimeError:
            self._gone = True

    def _see(self, key: str) -> bool:
        if self._store is None or self._gone:
            return self._store is None
        end = time.monotonic() + WAIT.total_seconds()
        pause = threading.Event()
        try:
            # Asked again and again rather than waited for: a wait would hold the group's own connection.
            while not self._store.check([key]) and not self._store.check([_ABANDONED]):
                if time.monotonic() > end:
                    return False
                pause.wait(_POLL)
        except RuntimeError:
            self._gone = True
            return False
        return True


def together(event: Callable[..., None]) -> Callable[..., None]:
    """An event of a callback that all processes leave when rank 0 has done its work."""

    @functools.wraps(event)
    def met(self: Any, *positional: Any, **named: Any) -> None:
        meeting: Meeting | None = self.meeting
        if meeting is None:
            event(self, *positional, **named)
            return
        meeting.arrive()
        try:
            event(self, *positional, **named)
        finally:
            meeting.leave()

    return met

"""State: what trainer_state.json and the tutorial's metadata say. Owns telling broken from absent."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import eq, lt
from pathlib import Path
from typing import TypeGuard

from stemmata.arguments import is_key

FILE_NAME = "trainer_state.json"
_MAX_BYTES = 64 << 20
_HEAD, _TAIL = 64 << 10, 4 << 10
"""Bytes that are read of a longer state: the Trainer sorts its keys, so what counts stands before the log."""
_IN_HEAD = ("best_global_step", "best_metric", "best_model_checkpoint", "epoch", "global_step")
_METRIC_KEYS = ("metrics", "eval_metrics", "evaluation", "results")
_NUMBERED = re.compile(r"-(\d{1,18})$")
_METRIC_WORDS = ("loss", "accuracy", "f1", "perplexity", "bleu", "rouge")


class Broken(Exception):
    """The file is there and says nothing that can be used; the text says why."""


class TooLong(Broken):
    """A file has more bytes than are read of any."""


@dataclass(frozen=True, slots=True)
class State:
    """Where a training stood. `metrics` are those logged at `step` itself."""

    step: int | None = None
    epoch: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    content: bytes = b""
    unnamed: tuple[str, ...] = ()
    """Metrics of that step whose names no version can have."""
    without_log: str = ""
    """Why the log of the training, and with it the metrics, was not read."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a metadata_*.json says of a version."""

    created_at: datetime | None = None
    config: dict[str, object] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


def read_state(path: Path) -> State | None:
    """The state in `path`; None if there is no such file. Raises Broken.

    Of one that is too long to be read, what stands before its log: it may tell no step.
    """
    try:
        found = _document(path)
    except TooLong as problem:
        return _state_without_log(path, str(problem))
    if found is None:
        return None
    content, document = found
    step = document.get("global_step")
    if not _is_step(step):
        raise Broken("it names no global_step")
    return _state_at(document, step, document.get("epoch"), content)


def _state_without_log(path: Path, why: str) -> State:
    """Raises Broken."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            file.seek(-_TAIL, os.SEEK_END)
            tail = file.read(_TAIL).rstrip()
    except OSError as error:
        raise Broken(f"it cannot be read: {error.strerror}") from None
    # Indented, the last brace stands alone: one behind blanks ends a row of the log.
    if not tail.endswith(b"\n}" if head[:2] in (b"{\n", b"{\r") else b"}"):
        raise Broken("it is no whole JSON; it may have been cut off")
    before, has_log, _ = head.partition(b'"log_history"')
    document = _decoded(before.rstrip().rstrip(b",") + b"}") if has_log else {}
    document = {key: document[key] for key in _IN_HEAD if key in document}
    step = document.get("global_step")
    if not _is_step(step):
        return State(without_log=why)
    content = json.dumps(document).encode()
    return State(step, _finite(document.get("epoch")), content=content, without_log=why)


def best_of(state: State) -> State | None:
    """The state of the best step, as the one of a later step tells it; None if it tells none."""
    document = _decoded(state.content)
    step, found = (
        document.get("best_global_step"),
        _NUMBERED.search(str(document.get("best_model_checkpoint"))),
    )
    if found is not None:
        step = int(found[1])
    if not _is_step(step):
        return None
    history = document.get("log_history")
    rows = [row for row in history if isinstance(row, dict)] if isinstance(history, list) else []
    epochs = [row["epoch"] for row in rows if row.get("step") == step and "epoch" in row]
    return _state_at(document, step, epochs[-1] if epochs else None, state.content)


def one_training(one: bytes, other: bytes) -> bool | None:
    """Whether two states are of one training: whether before the earlier one's step their logs are the same,
    and at that step the one has what the other has.

    None where they have nothing in common that was logged by then. At that step either may have more: a
    training's end is logged, and evaluated, after the save that it is resumed from.
    """
    logs = [_log_of(content) for content in (one, other)]
    if not all(logs):
        return None
    at = min(log[0] for log in logs if log)
    before, last = ([[row for row in log[1] if fits(row[0], at)] for log in logs if log] for fits in (lt, eq))
    fewer, more = sorted(map(set, last), key=len)
    if before[0] != before[1] or not fewer <= more:
        return False
    return True if before[0] or fewer else None


def is_silent(content: bytes, until: int) -> bool:
    """Whether a state's training had logged nothing before a step."""
    log = _log_of(content)
    return log is None or all(step >= until for step, _ in log[1])


def _log_of(content: bytes) -> tuple[int, list[tuple[int, str]]] | None:
    """The step of a state, and the step and the text of each row of its log."""
    document = _decoded(content)
    at, history = document.get("global_step"), document.get("log_history")
    if not _is_step(at) or not isinstance(history, list):
        return None
    # As text, for a NaN equals no NaN.
    return at, [
        (row["step"], json.dumps(row, sort_keys=True))
        for row in history
        if isinstance(row, dict) and _is_step(row.get("step"))
    ]


def same_numbers(content: bytes, rows: Sequence[Mapping[str, object]]) -> bool | None:
    """Whether a state's log says what `rows` say, each of a step, wherever both say something; None if
    nowhere."""
    document = _decoded(content)
    told = {step: row for row in rows if _is_step(step := row.get("step"))}
    seen = False
    for step in told:
        logged = _metrics_at(document, step)
        for key, number in _numbers({k: v for k, v in told[step].items() if k in logged}).items():
            seen = True
            if number != logged[key] and not (math.isnan(number) and math.isnan(logged[key])):
                return False
    return True if seen else None


def _decoded(content: bytes) -> dict[str, object]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _is_step(step: object) -> TypeGuard[int]:
    return isinstance(step, int) and not isinstance(step, bool) and 0 <= step < 1 << 63


def _state_at(document: Mapping[str, object], step: int, epoch: object, content: bytes) -> State:
    metrics = _metrics_at(document, step)
    unnamed = tuple(repr(key)[:80] for key in metrics if not is_key(key))
    kept = {key: value for key, value in metrics.items() if is_key(key)}
    return State(step, _finite(epoch), kept, content, unnamed)


def _metrics_at(document: Mapping[str, object], step: int) -> dict[str, float]:
    metrics: dict[str, float] = {}
    history = document.get("log_history")
    for row in history if isinstance(history, list) else ():
        if isinstance(row, dict) and row.get("step") == step:
            metrics |= _numbers({k: v for k, v in row.items() if k not in ("step", "epoch")})
    return metrics


def read_metadata(path: Path) -> Metadata | None:
    """The tutorial's JSON beside a `v_*` folder; None if there is none. Raises Broken."""
    found = _document(path)
    if found is None:
        return None
    config: dict[str, object] = {}
    metrics: dict[str, float] = {}
    for key, value in found[1].items():
        if key in _METRIC_KEYS and isinstance(value, dict):
            metrics |= _numbers(value)
        elif isinstance(value, int | float) and any(word in key for word in _METRIC_WORDS):
            metrics |= _numbers({key: value})
        elif key not in ("timestamp", "version_id"):
            # The names that stemmata gives these facts, so that both kinds are found by one question.
            config["lora" if key == "lora_config" else key] = value
    return Metadata(_moment(found[1]), config, {k: v for k, v in metrics.items() if is_key(k)})


def moment_of(version: object) -> datetime | None:
    """The time in the tutorial's name of a version, `20250101_120000`."""
    with contextlib.suppress(TypeError, ValueError, OverflowError, OSError):
        return datetime.strptime(str(version), "%Y%m%d_%H%M%S").astimezone()
    return None


def _moment(document: Mapping[str, object]) -> datetime | None:
    stamp, version = document.get("timestamp"), document.get("version_id")
    with contextlib.suppress(TypeError, ValueError, OverflowError, OSError):
        return datetime.fromisoformat(str(stamp)).astimezone()
    return moment_of(version)


def _numbers(row: Mapping[object, object]) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for key, value in row.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            with contextlib.suppress(OverflowError):
                numbers[str(key)] = float(value)
    return numbers


def _finite(value: object) -> float | None:
    try:
        number = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _document(path: Path) -> tuple[bytes, dict[str, object]] | None:
    try:
        if not path.is_dir() and path.exists() and not path.is_file():
            raise Broken("it is no ordinary file")  # a pipe would never end
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Broken(f"it cannot be read: {error.strerror}") from None
    if len(data) > _MAX_BYTES:
        raise TooLong(f"it has more than {_MAX_BYTES >> 20} MiB")
    try:
        # Not msgspec: the Trainer writes NaN and Infinity, which JSON proper does not have.
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise Broken("it is no whole JSON; it may have been cut off") from None
    if not isinstance(document, dict):
        raise Broken("it is no JSON object")
    return data, document

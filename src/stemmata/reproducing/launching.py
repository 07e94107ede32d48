"""Launching: the command of a plan, run in its work folder. Owns its environment, and what is said of it.

Whatever repository the command opens, its versions go where `Target` says. The command has no terminal; what
it prints goes to `output.log` in the work folder, and to whoever listens.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stemmata.attach import guard
from stemmata.attach.settings import BOOTSTRAP, PATH_VARIABLE, Settings, encode, read_report
from stemmata.capture import GIVEN
from stemmata.capturing.environment import KEPT
from stemmata.histories import running
from stemmata.redirecting import VARIABLE
from stemmata.reproducing import inputs
from stemmata.reproducing.places import is_wide
from stemmata.reproducing.planning import Plan

LOG = "output.log"
_REPORT = "report.jsonl"
_STORE, _OTHERS = "store", "others"
_TAIL = 4096
_CACHES = [
    "HF_HOME",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "HF_DATASETS_CACHE",
    "XDG_CACHE_HOME",
    "TORCH_HOME",
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
    "MPLCONFIGDIR",
    "STEMMATA_CACHE",
    "NUMBA_CACHE_DIR",
]
Told = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Target:
    """Where versions go: to a scratch repository in the work folder, which goes on from entry `upto`; or,
    with no `scratch`, to `source` itself. `labels` are given to each."""

    source: Path
    upto: int
    scratch: bool
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of the command. `status` None: it took too long and was ended."""

    status: int | None
    seconds: float
    report: Sequence[tuple[str, str]]
    tail: str
    """The end of what it printed."""

    def told(self, kind: str) -> list[str]:
        """What its processes reported of that kind, each once."""
        return list(dict.fromkeys(text for what, text in self.report if what == kind))


def store_in(work: Path) -> Path:
    """Where the scratch repository lies in a work folder."""
    return work / _STORE


def was_started(work: Path) -> bool:
    """Whether a command has begun in a work folder."""
    try:
        return (work / _REPORT).stat().st_size > 0
    except OSError:
        return False


def run(plan: Plan, target: Target, *, timeout: float | None, told: Told | None = None) -> Ran:
    """Raises CommandNotStarted, OSError."""
    work = plan.places.work
    report = work / _REPORT
    report.touch(0o600)
    (work / _OTHERS).mkdir(exist_ok=True)
    with _log(work / LOG, told) as output:
        outcome = running.run(
            plan.argv,
            environment(plan, target, report),
            timeout=timeout,
            folder=plan.places.folder,
            output=output,
        )
    return Ran(outcome.status, outcome.seconds, list(read_report(report)), _end_of(work / LOG))


def environment(plan: Plan, target: Target, report: Path) -> dict[str, str]:
    """This process's variables, but for those that the capture keeps: they are what they were."""
    found = {k: v for k, v in os.environ.items() if k not in KEPT and k != "STEMMATA_REPO"}
    found |= plan.variables
    found |= {
        PATH_VARIABLE: os.pathsep.join([str(BOOTSTRAP), *plan.python_path]),
        # For a Trainer that was told `report_to="stemmata"`.
        "STEMMATA_MODEL": plan.version.model,
        VARIABLE: json.dumps({"store": _store(plan, target), "training": _training(plan, target, report)}),
    }
    # By these the command's own capture knows what it must mask.
    found |= {f"{GIVEN}SECRET_{number}": value for number, value in enumerate(plan.secrets)}
    if target.scratch:
        # A service would show a second run, or go on with the first one where its id is in a variable.
        found = {"WANDB_MODE": "offline", **found}
    found.pop("STEMMATA_RUN", None)
    attached = plan.attached
    if attached is not None:
        settings = Settings(
            str(target.source), attached.model, attached.every, attached.run_name, report=str(report)
        )
        found = encode(settings, found)
    return found


def _store(plan: Plan, target: Target) -> dict[str, object]:
    work = plan.places.work
    return {
        "source": str(target.source),
        "scratch": str(store_in(work)) if target.scratch else None,
        "upto": target.upto,
        "others": str(work / _OTHERS),
        "places": [[str(there), str(here)] for there, here in _places(plan)],
        "labels": dict(target.labels),
    }


def _places(plan: Plan) -> list[tuple[str, str]]:
    """Where everything was, and is here."""
    found = [(str(there), str(here)) for there, here in plan.places.pairs]
    found.append(("", str(plan.places.outside("/"))))
    if plan.base.named and plan.base.target is not None:
        found.append((plan.base.named, str(plan.base.target)))
    return found


def _training(plan: Plan, target: Target, report: Path) -> dict[str, object]:
    kept = [there for there, _ in plan.places.pairs if not is_wide(there)]
    # A link may lead to another place of the run's folders: that one is in the work folder now.
    kept += [folder for folder in plan.outputs if not is_wide(folder) and not plan.places.holds(folder)]
    free = [Path(place) for place in [*guard.caches(), *filter(None, map(os.environ.get, _CACHES))]]
    if target.scratch:
        kept.append(target.source)
    else:
        free.append(target.source)
    return {
        "report": str(report),
        "work": os.path.realpath(plan.places.work),
        "guarded": [os.path.realpath(folder) for folder in kept],
        "free": [os.path.realpath(folder) for folder in free],
        "since": time.time(),
        "steps": plan.steps,
        "changes": dict(plan.changed.arguments) if plan.changed is not None else {},
        "data": inputs.here(plan.rows, plan.places),
    }


@contextmanager
def _log(path: Path, told: Told | None) -> Iterator[int]:
    """A descriptor for what the command prints."""
    reader, writer = os.pipe()

    def keep(data: bytes) -> None:
        with open(path, "ab", buffering=0) as file:
            file.write(data)

    def pump() -> None:
        listeners = [keep, *([told] if told is not None else [])]
        while data := os.read(reader, 1 << 16):
            for each in [*listeners]:
                try:
                    each(data)
                except Exception:  # noqa: BLE001
                    # A disk that is full, a terminal that was closed: the command would wait for ever for
                    # somebody who reads what it prints.
                    listeners.remove(each)

    thread = threading.Thread(target=pump, name="stemmata-output", daemon=True)
    thread.start()
    try:
        yield writer
    finally:
        os.close(writer)
        thread.join(5)  # somebody whom the command left behind may hold the other end
        if not thread.is_alive():
            os.close(reader)


def _end_of(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            return file.read(_TAIL).decode("utf-8", "replace")
    except OSError:
        return ""

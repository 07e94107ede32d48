"""Runs: a training loop of one's own, saved as the callback saves: in the background, in one line.

with repo.run("sentiment") as run:
    for epoch in range(3):
        ...
        run.save(model, epoch=epoch + 1, metrics={"eval_loss": loss})
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from stemmata.arguments import finite_of, labels_ahead, metrics_of, whole_of
from stemmata.capturing import Capturing
from stemmata.errors import InvalidArgument
from stemmata.hf import facts, filesets
from stemmata.hf.failures import ON_ERROR, OnError
from stemmata.hf.interruption import Patience
from stemmata.hf.keeping import Keep
from stemmata.hf.recorder import Account, Recorder, Saved
from stemmata.hf.runnames import run_name
from stemmata.ids import VersionId
from stemmata.names import clean_name, name_key
from stemmata.repository import Repository


class TrainingRun:
    """One run of one model. Made by `Repository.run`; of one thread at a time."""

    def __init__(
        self,
        repository: Repository,
        model: str,
        name: str | None,
        *,
        message: str,
        config: Mapping[str, object],
        labels: Mapping[str, str],
        parents: Sequence[VersionId] | None,
        keep: str | int,
        on_error: OnError,
    ) -> None:
        if on_error not in ON_ERROR:
            raise InvalidArgument(argument="on_error", reason=f"{on_error!r} is none of {ON_ERROR}")
        account = Account(message, dict(config), {}, labels_ahead(labels), Capturing.begin(), parents)
        self._recorder = Recorder(
            repository,
            clean_name(model),
            run_name(None, name),
            account,
            on_error=on_error,
            keep=Keep.parse(keep),
        )
        self._patience = Patience(self._recorder.busy, self._recorder.settle, self, training=False)
        self._patience.begin()
        self._given = dict(config)
        self._count = 0
        self._names: set[str] = set()
        """Of its saves, as they are compared."""
        self._last: tuple[Any, Saved] | None = None
        self._at: int | None = None
        """The step that was logged last."""
        self._logged: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """The run's name; one that an earlier run has got -2, -3."""
        return self._recorder.run.name

    @property
    def missing(self) -> dict[str, str]:
        """Names of what could not be written, and why. Complete at the end."""
        return dict(self._recorder.failures.missing)

    def save(
        self,
        source: Any,
        *,
        metrics: Mapping[str, float] | None = None,
        name: str | None = None,
        step: int | None = None,
        epoch: float | None = None,
        tokenizer: Any = None,
    ) -> None:
        """Make a version of a model as it is now, or of a folder.

        A model is cloned to host memory and written in the background: it may be trained on at
        once. A folder is written before this returns. `name`, behind the run's and a slash, defaults to
        `epoch-N`, to `step-N` where there is no whole epoch or a save before has that name, or a count; one
        that a save before has gets -2, -3. `tokenizer` (or a processor) is saved beside the weights. What was
        logged at `step` last is among its metrics.

        Raises InvalidArgument for a step, an epoch or a metric that is no number, InvalidName,
        TrainingSaveFailed with `on_error="raise"` only.
        """
        step, epoch = whole_of("step", step), finite_of("epoch", epoch)
        logged = self._logged if step is not None and step == self._at else {}
        folder = isinstance(source, str | os.PathLike)
        if not folder and not isinstance(source, torch.nn.Module) and not hasattr(source, "save_pretrained"):
            reason = (
                f"{type(source).__name__} is neither a model nor a folder; of a state dict give the model"
            )
            raise InvalidArgument(argument="source", reason=reason)
        said: dict[str, Any] = {
            "name": self._name(step, epoch, name),
            "step": step,
            "epoch": epoch,
            "metrics": {**logged, **_numbers(metrics or {})},
        }
        if folder:
            saved = self._recorder.take_in(Path(source), **said)
        else:
            inner = filesets.unwrap(source)
            self._recorder.account.config = {**facts.model_config(inner), **self._given}
            saved = self._recorder.save(source, tokenizer, event="manual", **said)
        self._last = (None if folder else source, saved)
        self._count += 1
        self._names.add(name_key(saved.name))

    def log(
        self, metrics: Mapping[str, float], *, step: int | None = None, epoch: float | None = None
    ) -> None:
        """What the loop measured. With a `step`: a row of the run's log, which the next version keeps; that
        costs an append. It is metrics of the version of that step, too, if there is one. Without a step:
        metrics of the version that was saved last, durably.

        Raises InvalidArgument for metrics without a step before the first version, for a step below 0, and
        for what is no number.
        """
        if step is not None:
            self._log_at(whole_of("step", step) or 0, finite_of("epoch", epoch), metrics)
            return
        if self._last is None:
            reason = "this run has no version yet; give the step too, and the next version keeps it"
            raise InvalidArgument(argument="log", reason=reason)
        self._recorder.annotate(self._last[1], _numbers(metrics), "log")

    def _log_at(self, step: int, epoch: float | None, metrics: Mapping[str, Any]) -> None:
        if step < 0:
            raise InvalidArgument(argument="step", reason="it is below 0")
        values = _numbers(metrics)
        self._recorder.log(step, epoch, values)
        self._logged = {**(self._logged if step == self._at else {}), **values}
        self._at = step
        version = self._recorder.at_step(step)
        if version is not None:
            self._recorder.annotate(version, values, "log")

    def close(self) -> None:
        """Wait for the last write; list what is missing."""
        live, saved = self._last if self._last is not None else (None, None)
        try:
            self._recorder.finish(live, saved if live is not None else None)
        finally:
            self._patience.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._recorder.keep_last_rows()  # the loop's own error is the one to tell

    def _name(self, step: int | None, epoch: float | None, given: str | None) -> str:
        """The given name, or the first of the usual ones that no save of this run has, else the last of them
        with a number. Raises InvalidName."""
        usual = [f"epoch-{int(epoch)}"] if epoch is not None and epoch.is_integer() else []
        usual += [f"step-{step}"] if step is not None else []
        usual = usual or [f"save-{self._count + 1}"]
        if given is not None:
            # Only the whole is a name: "1000" alone reads as an id, "best" as a selector.
            usual = [clean_name(f"{self.name}/{given}").removeprefix(f"{self.name}/")]
        numbered = (f"{usual[-1]}-{number}" for number in itertools.count(2))
        return next(name for name in itertools.chain(usual, numbered) if name_key(name) not in self._names)


def _numbers(metrics: Mapping[str, Any]) -> dict[str, int | float]:
    """Metrics as they are now: what is written later is not to follow a tensor that is set to zero, or a dict
    that is filled anew. An integer stays one. Raises InvalidArgument for what is no number."""
    metrics_of(metrics)
    return {str(k): v if isinstance(v, int | float) else float(v) for k, v in metrics.items()}

"""The callback for Lightning's Trainer: every epoch (or N steps) becomes a version.

    trainer = Trainer(..., callbacks=[VersionCallback(repo, "sentiment")])

Owns which hook makes which version. Lightning validates inside an epoch, before that ends: the epoch's
version has the validation's metrics from the start; what is logged after it attaches to it.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

from torch.nn.parameter import is_lazy

from stemmata.arguments import labels_ahead
from stemmata.errors import InvalidArgument, TrainingSaveFailed, TrainingSetup
from stemmata.hf.distributed import Meeting, together
from stemmata.hf.facts import model_config
from stemmata.hf.failures import ON_ERROR, OnError
from stemmata.hf.filesets import unwrap, weight_bytes
from stemmata.hf.interruption import Patience, take_left_away
from stemmata.hf.keeping import Keep
from stemmata.hf.origin import ids_of
from stemmata.hf.recorder import Account, Recorder, Saved
from stemmata.hf.resume import Mark, go_on, goes_on, mark_from, version_at, warn_of_other_size
from stemmata.hf.runnames import run_name as name_of_run
from stemmata.hf.serving import NotTransformers
from stemmata.lightning import facts
from stemmata.lightning.chosen import Choice, chosen, tokenizer_of
from stemmata.lightning.logged import Logged, news
from stemmata.names import clean_name, slug
from stemmata.repository import Repository
from stemmata.repository import open as open_repository
from stemmata.storage.local import LocalStorage
from stemmata.version import Version

Every = Literal["epoch", "end"] | int
EVERY = ("epoch", "end")


def _bases() -> tuple[Any, ...]:
    """Lightning has two names, each with classes of its own: a Trainer takes callbacks of its own name."""
    names = [name for name in ("lightning", "pytorch_lightning") if find_spec(name) is not None]
    modules = [import_module(f"{name}.pytorch" if name == "lightning" else name) for name in names]
    if not modules:
        import_module("lightning")  # raises what says that it is not there
    return tuple(module.Callback for module in modules)


_Callback: Any = type("_Callback", _bases(), {})


class VersionCallback(NotTransformers, _Callback):
    """Saves versions of the model in training; for the Trainer of `lightning` and `pytorch_lightning`.

    `repository`: an opened one, or a folder (made if absent). `model`: the name under which
    versions line up. `every`: "epoch", "end", or a number of optimizer steps. `module`: what is saved, an
    attribute's name or a function of the LightningModule; by default the only model of transformers
    or peft in it if nothing else is trained, else all of it. `tokenizer`: what is saved beside it (default:
    an attribute `tokenizer`, `processor` or `processing_class`). `run_name`: default the time and four
    letters; a name that an earlier run has gets -2, -3. `message`, `config`, `labels` go into every version;
    `parents` are those of the first one (default: what the model was loaded from, if known). `keep` and
    `on_error`: as in `stemmata.hf.VersionCallback`.

    Names: `<run>/epoch-3`, `<run>/step-500`, and `<run>/final` for the last trained state. A training that
    goes on from a checkpoint of Lightning's own (`ckpt_path`) goes on with the run that it was of.
    """

    def __init__(
        self,
        repository: Repository | str | os.PathLike[str],
        model: str,
        *,
        every: Every = "epoch",
        module: Choice = None,
        tokenizer: Any = None,
        run_name: str | None = None,
        message: str = "",
        config: Mapping[str, object] | None = None,
        labels: Mapping[str, str] | None = None,
        parents: Sequence[Version] | None = None,
        keep: str | int = "all",
        on_error: OnError = "warn",
    ) -> None:
        steps = isinstance(every, int) and not isinstance(every, bool) and every > 0
        if every not in EVERY and not steps:
            raise InvalidArgument(
                argument="every", reason=f"{every!r} is none of {EVERY} nor a number above 0"
            )
        if on_error not in ON_ERROR:
            raise InvalidArgument(argument="on_error", reason=f"{on_error!r} is none of {ON_ERROR}")
        self.every: Every = every
        self.on_error: OnError = on_error
        self.keep = Keep.parse(keep)
        self.model = clean_name(model)
        self.meeting: Meeting | None = None
        self._repository = repository
        self._module, self._tokenizer = module, tokenizer
        self._run_name = run_name
        self._message, self._config, self._labels = message, dict(config or {}), labels_ahead(labels)
        self._parents = ids_of(parents)
        self._recorder: Recorder | None = None
        self._patience: Patience | None = None
        self._trainer: Any = None
        """The one whose training is under way."""
        self._thread: threading.Thread | None = None
        self._live: Any = None
        self._asked = ""
        self._loaded: Mapping[str, Any] = {}
        self._processes = 1
        self._logged = Logged()
        self._settings: dict[str, object] = {}
        self._step = 0
        self._epoch: float | None = None
        self._last: dict[str, float] = {}
        self._sample: list[Any] = []
        self._others = False
        self._validated: list[Any] = []
        """Whether this validation is of other weights than those that are trained."""
        self._averaged: tuple[int, dict[str, float], list[Any]] = (-1, {}, [])
        """What a validation of averaged weights found, and at which step."""

    @property
    def repository(self) -> Repository:
        """The repository that versions go to; opened when first needed."""
        if not isinstance(self._repository, Repository):
            self._repository = open_repository(self._repository, create=True)
        return self._repository

    @property
    def run_name(self) -> str | None:
        """The current or last run's name; None before any training, and in processes that do not write."""
        return self._recorder.run.name if self._recorder is not None else None

    @property
    def missing(self) -> dict[str, str]:
        """Of the current or last run: names of what could not be written, and why. Complete at the end."""
        return dict(self._recorder.failures.missing) if self._recorder is not None else {}

    def __getstate__(self) -> dict[str, Any]:
        """For another process (`ddp_spawn`): the repository by its folder, and nothing of trainings here."""
        repository = self._repository
        if isinstance(repository, Repository) and isinstance(repository.session.storage, LocalStorage):
            repository = repository.where
        here = ("_recorder", "_patience", "_trainer", "_thread", "_live", "meeting")
        return {**vars(self), "_repository": repository, **dict.fromkeys(here)}

    def wait(self) -> None:
        """Wait until everything so far is written."""
        if self._recorder is not None:
            self._recorder.leave()

    # --- a run begins -----------------------------------------------------------------------

    def setup(self, trainer: Any, _module: Any, stage: str) -> None:
        if stage != "fit":
            return
        facts.hold_strategy(trainer)
        take_left_away(trainer)  # before Lightning asks who has the signal
        if self._trainer is not None and self._trainer is not trainer and not self._is_over():
            raise TrainingSetup(
                reason="its VersionCallback is in use by another Trainer's training",
                hint="make one VersionCallback for each Trainer; they may share the repository",
            )
        self._loaded = {}
        # Tried on a single batch, nothing is to be kept of it.
        self._trainer = None if trainer.fast_dev_run else trainer
        self._thread = threading.current_thread()
        self.meeting = None

    def on_train_start(self, trainer: Any, module: Any) -> None:
        if not self._ours(trainer):
            return
        place = facts.Place(trainer.global_rank, trainer.world_size)
        self.meeting = Meeting(place)
        self._logged, self._last, self._averaged = Logged(), {}, (-1, {}, [])
        self._step, self._epoch = trainer.global_step, None
        self._live = chosen(module, self._module)
        self._processes = place.world_size
        if not trainer.is_global_zero:
            return
        if self._recorder is not None:
            self._recorder.leave()  # of a training that ended otherwise than by itself
        mark = self._mark()
        wanted = mark.asked if mark is not None and self._run_name is None else self._run_name
        continued = mark is not None and goes_on(mark, self._run_name)
        settings = {**facts.config(trainer, module), **self._config}
        account = Account(
            self._message,
            settings,
            {},
            dict(self._labels),
            facts.capture_run(settings, trainer, module),
            self._parents,
        )
        if mark is not None:
            warn_of_other_size(mark, place)
        if mark is not None and not continued and account.parents is None:
            source = version_at(self.repository, self.model, mark, trainer.global_step)
            account.parents = [source.id] if source is not None else None
        self._recorder = recorder = Recorder(
            self.repository,
            self.model,
            name_of_run(None, wanted),
            account,
            on_error=self.on_error,
            keep=self.keep,
            metric=facts.monitored(trainer),
        )
        if not any(is_lazy(parameter) for parameter in self._live.parameters()):
            recorder.hold_space(weight_bytes(unwrap(self._live)))
        if mark is not None and continued:
            go_on(recorder, mark, trainer.global_step)
        self._asked = slug(wanted or recorder.run.name)
        self._settings = settings
        self._be_patient(recorder)

    def state_dict(self) -> dict[str, Any]:
        """Into each checkpoint of Lightning's own: which run it is of."""
        recorder = self._recorder
        if recorder is None or self.meeting is None:
            return {}
        return {
            "repository": recorder.repository.id,
            "id": recorder.run.id,
            "run": recorder.run.name,
            "asked": self._asked,
            "processes": self._processes,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict

    @property
    def state_key(self) -> str:
        return f"stemmata.VersionCallback:{self.model}"

    # --- events -----------------------------------------------------------------------------

    def on_train_epoch_start(self, trainer: Any, _module: Any) -> None:
        if self._ours(trainer):
            self._tell_late(trainer)
            self._logged.begin(trainer.callback_metrics)

    def on_train_batch_end(self, trainer: Any, module: Any, *_batch: Any) -> None:
        if not self._ours(trainer):
            return
        # An optimizer step takes several batches, and several optimizers step at one.
        before, self._step = self._step, trainer.global_step
        often = trainer.log_every_n_steps
        if often and self._step // often > before // often:
            self._log(trainer, _epochs(trainer))
        if isinstance(self.every, int) and self._step // self.every > before // self.every:
            self._save_step(trainer, module)

    def on_validation_start(self, trainer: Any, _module: Any) -> None:
        if self._validates(trainer):
            self._others, self._validated = False, []
            self._sample = facts.sample(trainer.lightning_module)
            self._logged.begin_validation(trainer.callback_metrics)

    def on_validation_batch_start(self, trainer: Any, module: Any, _batch: Any, index: int, *_: Any) -> None:
        if index == 0 and self._validates(trainer) and self._sample:
            self._validated = facts.sample(module)
            self._others = facts.differ(self._sample, self._validated)

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        if not self._validates(trainer):
            return
        step = trainer.global_step
        # Who stands before this one puts them in before it looks, and has taken them out by now.
        if self._others or (self._validated and facts.differ(self._validated, facts.sample(module))):
            # Averaged weights were put in for it and taken out again: only the last version may be of those.
            found = self._logged.leave_validation(trainer.callback_metrics)
            self._averaged = (step, found, self._validated)
            self._log(trainer, _epochs(trainer))
            return
        self._logged.end_validation(step, trainer.callback_metrics)
        self._log(trainer, _epochs(trainer))
        self._tell(step, self._logged.validated(step), "evaluation")

    @together
    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        if not self._ours(trainer):
            return
        metrics = self._logged.at(trainer.global_step, trainer.callback_metrics)
        number, whole = trainer.current_epoch + 1, trainer.is_last_batch
        self._epoch = float(number) if whole else _epochs(trainer)
        self._log(trainer, self._epoch)
        if self.every == "epoch" and trainer.global_step > 0:
            name, event = (f"epoch-{number}", "epoch") if whole else (f"step-{trainer.global_step}", "end")
            self._save(trainer, module, name, event, metrics)

    def on_train_end(self, trainer: Any, _module: Any) -> None:
        if self._ours(trainer):
            self._tell_late(trainer)
            self._last = self._logged.at(trainer.global_step, trainer.callback_metrics)

    @together
    def on_fit_end(self, trainer: Any, module: Any) -> None:
        # Not at the training's end: averaged weights are put in place there, by callbacks after this one.
        recorder, began = self._recorder, self.meeting is not None
        if not self._ours(trainer):
            return
        try:
            if began and recorder is not None and trainer.global_step > 0:
                self._be_patient(recorder)  # again: Lightning gave the signals back to who had them
                again = recorder.at_step(trainer.global_step) is not None
                at, averaged, weights = self._averaged
                if at != trainer.global_step or facts.differ(weights, facts.sample(module)):
                    averaged = {}
                found = {**self._last_measured(trainer, module), **averaged}
                held = self._save(trainer, module, "final", "end", found, again=again)
                recorder.finish(self._live, held)
        finally:
            self._end()

    def teardown(self, trainer: Any, _module: Any, stage: str) -> None:
        if stage == "fit" and self._ours(trainer):
            self._end()  # a tuner's trial, which has no other end

    def on_exception(self, trainer: Any, _module: Any, _exception: BaseException) -> None:
        if not self._ours(trainer):
            return
        self._end()
        if self._recorder is not None and self.meeting is not None:
            try:
                self._recorder.leave()
            except TrainingSaveFailed:
                pass  # it is logged; the training's own error is the one to tell

    # --- what they do -----------------------------------------------------------------------

    @together
    def _save_step(self, trainer: Any, module: Any) -> None:
        metrics = self._logged.at(trainer.global_step, trainer.callback_metrics)
        self._epoch = _epochs(trainer)
        self._save(trainer, module, f"step-{trainer.global_step}", "step", metrics)

    def _save(
        self,
        trainer: Any,
        module: Any,
        name: str,
        event: str,
        metrics: Mapping[str, float],
        *,
        again: bool = False,
    ) -> Saved | None:
        """A version of the model as it is now, unless this step has one (`again`: name that one, if
        the bytes are the same)."""
        recorder, step = self._recorder, trainer.global_step
        if recorder is None or not trainer.is_global_zero:
            return None
        if not again and recorder.at_step(step) is not None:
            return None
        account = recorder.account
        account.config = {**model_config(unwrap(self._live)), **self._settings}
        account.data.update(facts.data(trainer))
        tokenizer = self._tokenizer or tokenizer_of(module, trainer.datamodule)
        saved = recorder.save(
            self._live,
            tokenizer,
            name=name,
            step=step,
            epoch=self._epoch,
            event=event,
            metrics=metrics,
            same_as_existing=again,
        )
        saved.told.update(metrics)
        return saved

    def _tell(self, step: int, metrics: Mapping[str, float], event: str) -> None:
        recorder = self._recorder
        version = recorder.at_step(step) if recorder is not None else None
        if recorder is not None and version is not None:
            recorder.annotate(version, news(version, metrics), event)

    def _tell_late(self, trainer: Any) -> None:
        """What was logged after the epoch's version was made: by the LightningModule, at the epoch's end."""
        step = trainer.global_step
        self._tell(step, self._logged.at(step, trainer.callback_metrics), "log")
        self._log(trainer, self._epoch)

    def _log(self, trainer: Any, epoch: float | None) -> None:
        """A row of the log: when Lightning's loggers get one, after a validation, at an epoch's end."""
        fresh = self._logged.news(trainer.callback_metrics)  # in every process: see Logged
        if self._recorder is not None:
            self._recorder.log(trainer.global_step, epoch, fresh)

    def _validates(self, trainer: Any) -> bool:
        """Whether a validation is one of this training: no trial before it, no call of `validate`."""
        return trainer.state.fn == "fit" and not trainer.sanity_checking and self._ours(trainer)

    def _mark(self) -> Mark | None:
        """Which run of this repository the training goes on with; None at a first start."""
        if self._loaded.get("repository") != self.repository.id:
            return None
        return mark_from(self._loaded, self.repository, self.model)

    def _last_measured(self, trainer: Any, module: Any) -> dict[str, float]:
        """What the version of the end gets: nothing that a validation found of other weights, as where an
        average was put in place after it."""
        validated = self._logged.validated(trainer.global_step)
        if validated and facts.differ(self._sample, facts.sample(module)):
            return {name: value for name, value in self._last.items() if name not in validated}
        return self._last

    def _ours(self, trainer: Any) -> bool:
        return trainer is self._trainer

    def _is_over(self) -> bool:
        """Whether the training that had the callback last can no longer go on: its thread ended."""
        return self._thread is None or not self._thread.is_alive()

    def _be_patient(self, recorder: Recorder) -> None:
        if self._patience is not None:
            self._patience.end()  # an interrupted training left it
        self._patience = Patience(recorder.busy, recorder.settle, self._trainer)
        self._patience.begin()

    def _end(self) -> None:
        self._trainer = None
        if self._patience is not None:
            self._patience.end()


def _epochs(trainer: Any) -> float | None:
    """Epochs trained so far, as far as the data tell how many batches one has."""
    batches = float(trainer.num_training_batches)
    if not 0 < batches < math.inf:
        return None
    return int(trainer.current_epoch) + (int(trainer.fit_loop.batch_idx) + 1) / batches

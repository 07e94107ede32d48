"""The Trainer callback: every epoch (or save, evaluation, N steps) becomes a version.

    trainer = SFTTrainer(..., callbacks=[VersionCallback(repo, "sentiment")])

Owns which event makes which version. A version never waits for an evaluation: it is committed when
the epoch ends, and metrics that come later attach to it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from transformers.trainer_callback import TrainerCallback

from stemmata.arguments import labels_ahead
from stemmata.attach.settings import EVERY
from stemmata.errors import (
    EmptyDataset,
    IncompleteCheckpoint,
    InvalidArgument,
    TrainingSaveFailed,
    TrainingSetup,
)
from stemmata.hf import captured, checkpoints, datastore, facts, filesets
from stemmata.hf.distributed import Meeting, together
from stemmata.hf.failures import ON_ERROR, OnError
from stemmata.hf.interruption import Patience
from stemmata.hf.keeping import Keep
from stemmata.hf.measured import Measured, best_step, came_to_its_end, is_pruned, logged_at
from stemmata.hf.origin import ids_of
from stemmata.hf.recorder import Account, Recorder, Saved, start
from stemmata.hf.resume import (
    States,
    go_on,
    goes_on,
    hold_settings,
    mark_of,
    recall_rows,
    source_of,
    warn_of_other_size,
)
from stemmata.hf.runnames import asked_name, trial_name
from stemmata.hf.serving import NotLightnings, Serving
from stemmata.hf.sharded import Sharding, sharding_of
from stemmata.names import clean_name
from stemmata.repository import Repository
from stemmata.repository import open as open_repository
from stemmata.storage.local import LocalStorage
from stemmata.version import Version

_log = logging.getLogger("stemmata")
Every = Literal["epoch", "save", "eval", "end"] | int


class VersionCallback(NotLightnings, TrainerCallback):
    """Saves versions of the model in training; for Trainer and every trainer of trl, one process or several.

    Of a model that is sharded over processes the whole checkpoints that the Trainer writes become versions;
    settings under which there are none raise TrainingSetup when the training begins.

    `repository`: an opened one, or a folder (made if absent). `model`: the name under which
    versions line up. `every`: "epoch", "save" (whenever the Trainer saves), "eval", "end", or a
    number of steps. `run_name`: default `args.run_name`, else the time and four letters; a
    name that an earlier run has gets -2, -3. `resume`: keep the Trainer's checkpoints as states too, to
    go on from with `repository.resume(model, run=...)`. `message`, `config`, `labels` go into every version;
    `parents` are those of the first one (default: what the model was loaded from, if known).

    `keep`: "all", a number (the newest ones) or "best:N"; the other versions of the run, never the best,
    named or aliased ones, get the label `deletable`. Nothing is deleted.

    Each version keeps what was logged since the one before: `v.logged()`.

    `data`: of the datasets a digest over their rows is kept ("digest"), or the rows too ("store"), as a
    version of the model `<model>.data` that `v.captured().data.stored` names.

    Names: `<run>/epoch-3`, `<run>/step-500`, `<run>/final` for the last trained state, and
    `<run>/best` for the weights that `load_best_model_at_end` brings back.

    `on_error`: a write that fails in the background is logged, tried once more at the next save, and
    listed at the end and in `missing` ("warn"); with "raise", the next save or the end of training
    raises TrainingSaveFailed.
    """

    def __init__(
        self,
        repository: Repository | str | os.PathLike[str],
        model: str,
        *,
        every: Every = "epoch",
        run_name: str | None = None,
        message: str = "",
        config: Mapping[str, object] | None = None,
        labels: Mapping[str, str] | None = None,
        parents: Sequence[Version] | None = None,
        resume: bool = False,
        keep: str | int = "all",
        on_error: OnError = "warn",
        data: Literal["digest", "store"] = "digest",
    ) -> None:
        steps = isinstance(every, int) and not isinstance(every, bool) and every > 0
        if every not in EVERY and not steps:
            reason = f"{every!r} is none of {EVERY} nor a number above 0"
            raise InvalidArgument(argument="every", reason=reason)
        if on_error not in ON_ERROR:
            raise InvalidArgument(argument="on_error", reason=f"{on_error!r} is none of {ON_ERROR}")
        if data not in ("digest", "store"):
            raise InvalidArgument(argument="data", reason=f"{data!r} is neither 'digest' nor 'store'")
        self._stores_data = data == "store"
        self.every: Every = every
        self.on_error: OnError = on_error
        self.keep = Keep.parse(keep)
        self.model = clean_name(model)
        if not isinstance(repository, Repository):
            repository = Path(repository).absolute()  # the script may change its folder before it trains
        self._repository: Repository | Path = repository
        self._run_name = run_name
        self._account = Account(
            message=message,
            config=dict(config or {}),
            labels=labels_ahead(labels),
            parents=ids_of(parents),
        )
        self.command: str | None = None
        """Which training of which command line it is, where states are to be found by that."""
        self._resume = resume
        self._states: States | None = None
        self.meeting: Meeting | None = None
        self._sharding: Sharding | None = None
        self._patience: Patience | None = None
        self._recorder: Recorder | None = None
        self._serving = Serving()
        self._trials = 0
        self._held: Saved | None = None
        self._untouched: list[tuple[int, int]] = []
        self._last: list[tuple[int, int]] = []
        self._at_end: list[int] = []
        """Which parameters the last version was made of."""
        self._begun = 0
        """The step that this training went on from."""
        self._measured = Measured()

    @property
    def repository(self) -> Repository:
        """The repository that versions go to; opened when first needed."""
        if not isinstance(self._repository, Repository):
            self._repository = open_repository(self._repository, create=True)
        return self._repository

    @property
    def run_name(self) -> str | None:
        """The current or last run's name; None before any training."""
        return self._recorder.run.name if self._recorder is not None else None

    @property
    def missing(self) -> dict[str, str]:
        """Of the current or last run: names of what could not be written, and why. Complete at the end."""
        return dict(self._recorder.failures.missing) if self._recorder is not None else {}

    # --- events -----------------------------------------------------------------------------

    def on_train_begin(self, args: Any, state: Any, _control: Any, **live: Any) -> None:
        self._sharding = sharding_of(live["model"], args, state, self.every)
        if self._sharding is None:
            filesets.hold_savable(live["model"])
        states = self._resume and self._makes_states(args)
        self.meeting = Meeting(args)
        if not state.is_world_process_zero:
            return
        dataset = getattr(live.get("train_dataloader"), "dataset", None)
        if dataset is not None and facts.row_count(dataset) == 0:
            raise EmptyDataset(model=self.model, reason="the training dataset has no rows")
        self._serving.hold_alone()
        if self._recorder is not None:
            self._recorder.leave()  # a training that was pruned or interrupted
        config = {**self._account.config, **facts.trial_config(state)}
        account = replace(self._account, config=config, data={}, captured=None)
        chosen = trial_name(state, args, self._run_name, self._trials)
        self._trials += bool(state.is_hyper_param_search)
        mark = mark_of(state, self.repository, self.model) if self._resume else None
        wanted = asked_name(args, chosen)
        if mark is not None:
            warn_of_other_size(mark, args)
        continued = mark is not None and goes_on(mark, wanted)
        if account.parents is None and state.global_step > 0 and not continued:
            account.parents = source_of(self.repository, self.model, mark, args, state.global_step)
        weights = self._sharding.weights if self._sharding is not None else None
        what = self.repository, self.model, chosen, args, live["model"], account
        recorder = start(*what, self.on_error, self.keep, weights, live)
        if mark is not None and continued:
            go_on(recorder, mark, state.global_step)
        self._recorder = recorder
        if self._stores_data:
            datastore.keep(recorder, captured.datasets_of(live))
        asked = wanted or (mark.asked if mark is not None and continued else recorder.run.name)
        self._states = States(recorder, args, state, asked, self.command) if states else None
        if self._patience is not None:
            self._patience.end()  # an interrupted training left it
            self._patience = None
        self._be_patient(recorder, state)
        self._serving.begin(state)
        self._held = None
        self._measured, self._begun = Measured(), int(state.global_step)
        if mark is not None and continued:
            self._measured.recall(state)
            recall_rows(recorder, state)
            self._make_up(state, live)

    def on_step_end(self, _args: Any, state: Any, _control: Any, **live: Any) -> None:
        if isinstance(self.every, int) and state.global_step % self.every == 0:
            self._save_step(state, live)

    @together
    def on_epoch_end(self, args: Any, state: Any, control: Any, **live: Any) -> None:
        if self.every == "epoch" and state.global_step > 0:
            name = checkpoints.epoch_name(state)
            if name is not None:
                self._save(state, live, name, "epoch")
            else:
                self._save(state, live, f"step-{state.global_step}", "end")
        self._keep_last(args, state, control, live)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **live: Any) -> None:
        self._keep_late(args, state, control, live)
        recorder = self._recorder
        if recorder is None or self._serving.ended or not self._ours(state):
            return
        recorder.log(state.global_step, state.epoch, logs)
        found = self._measured.log(state.global_step, logs if self._begun == 0 else _without_sum(logs))
        version = recorder.at_step(state.global_step)
        if version is not None:
            recorder.annotate(version, found, "log")
            # Of several sets of data the later ones are logged before their own events.
            data = facts.data(None, live.get("eval_dataloader"))
            recorder.annotate(version, self._measured.late(version), "log", data)

    @together
    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **live: Any) -> None:
        self._watch(args, state, control, live)
        recorder = self._recorder
        if recorder is None or not self._ours(state):
            return
        facts.warn_of_empty(live.get("eval_dataloader"))
        step = state.global_step
        fresh, data = facts.metrics(metrics), facts.data(None, live.get("eval_dataloader"))
        if self._serving.ended:
            # The weights that are evaluated now need not be those of the last step.
            if self._held is not None and self._is_held(live["model"]):
                with self._patiently(recorder, state):
                    recorder.annotate(self._held, recorder.unmeasured(self._held, fresh), "evaluation", data)
                    recorder.drain()
            return
        self._measured.evaluate(step, fresh)
        version = recorder.at_step(step)
        if version is not None:
            news = self._measured.news(version, fresh)
            recorder.annotate(version, news, "evaluation", data)
        elif self.every == "eval":
            self._save(state, live, f"step-{step}", "eval")
        self._measured.end_evaluation(step)
        self._keep_last(args, state, control, live)

    def _is_held(self, model: Any) -> bool:
        """Whether these are the weights that the last version has: no other model, no adapter put aside."""
        inner = filesets.unwrap(model)
        aside = any(getattr(part, "disable_adapters", False) is True for part in inner.modules())
        return not aside and self._at_end == [which for which, _ in _marks(inner)]

    @together
    def on_save(self, args: Any, state: Any, control: Any, **live: Any) -> None:
        if self._sharding is not None:
            self._take_in(args, state, control, live)
        elif self.every == "save":
            self._save(state, live, f"step-{state.global_step}", "save")
        if self._sharding is None and self._recorder is not None and self._ours(state):
            checkpoints.note_twins(self._recorder, args, state)
        self._keep_last(args, state, control, live)
        if self._states is not None and self._ours(state):
            self._states.take(args, state, self.meeting)

    @together
    def on_train_end(self, args: Any, state: Any, _control: Any, **live: Any) -> None:
        recorder = self._recorder
        if recorder is None or self._serving.ended or not self._ours(state):
            return
        self._serving.end()
        # What is written now is waited for longest, and a job's time is over just then.
        with self._patiently(recorder, state):
            self._end(recorder, args, state, live)

    def _end(self, recorder: Recorder, args: Any, state: Any, live: Mapping[str, Any]) -> None:
        if self._states is not None:
            self._states.take_last(args, state)
        if state.global_step == 0:
            recorder.finish(live["model"], None)
            if state.max_steps > 0:
                raise EmptyDataset(model=self.model, reason="the training data gave no batch")
            _log.warning("run %s of %s has no version: no step was asked for", self.run_name, self.model)
            return
        if self._sharding is not None:
            self._held = self._name_last(recorder, args, state, live)
        else:
            self._held = self._save_last(recorder, args, state, live)
        self._at_end = [which for which, _ in _marks(filesets.unwrap(live["model"]))]
        recorder.finish(live["model"], self._held)

    @together
    def _save_step(self, state: Any, live: Mapping[str, Any]) -> None:
        self._save(state, live, f"step-{state.global_step}", "step")

    def __getstate__(self) -> dict[str, Any]:
        """For another process, or a copy for a trial of a search: the repository by its folder, and nothing
        of trainings here. Raises TrainingSetup for a repository that is in no folder."""
        repository = self._repository
        if isinstance(repository, Repository):
            if not isinstance(repository.session.storage, LocalStorage):
                raise TrainingSetup(
                    reason=f"a VersionCallback with {repository.where} cannot be copied: that is no folder",
                    hint="give the VersionCallback a folder",
                )
            repository = Path(repository.where)
        begun = {"_serving": Serving(), "_measured": Measured(), "_untouched": [], "_last": [], "_at_end": []}
        live = ("meeting", "_recorder", "_patience", "_states", "_sharding", "_held")
        return {**vars(self), "_repository": repository, **begun, **dict.fromkeys(live)}

    def _be_patient(self, recorder: Recorder, state: Any) -> None:
        """Have SIGTERM wait for what is written, unless it does: others may have given it back to whom it was
        before this training."""
        if self._patience is None or not self._patience.holds:
            self._patience = Patience(recorder.busy, recorder.settle, state)
            self._patience.begin()

    @contextmanager
    def _patiently(self, recorder: Recorder, state: Any) -> Iterator[None]:
        self._be_patient(recorder, state)
        try:
            yield
        finally:
            if self._patience is not None:
                self._patience.end()
                self._patience = None

    def wait(self) -> None:
        """Wait until everything so far is written: after a training that was cut off or pruned."""
        if self._recorder is not None:
            self._recorder.leave()

    # --- what they do -----------------------------------------------------------------------

    def _save(
        self,
        state: Any,
        live: Mapping[str, Any],
        name: str,
        event: str,
        *,
        again: bool = False,
        checkpoint: Path | None = None,
    ) -> Saved | None:
        """A version of the model as it is now, unless this step has one (`again`: name that one,
        if the bytes are the same). Of a sharded model only a `checkpoint` makes one."""
        recorder = self._recorder
        step = state.global_step
        if recorder is None or not self._ours(state):
            return None
        there = None if again else recorder.at_step(step)
        if there is not None:
            if there.name == "final" and there.name != name:
                recorder.also_name(there, name)  # it was kept before the best weights replace it
            return None
        if self._sharding is not None and checkpoint is None:
            return None
        recorder.account.data.update(facts.data(live.get("train_dataloader"), live.get("eval_dataloader")))
        evaluated = self._measured.evaluated(step)
        before = recorder.saved[-1].step if recorder.saved and recorder.saved[-1].step < step else -1
        saved = self._record(
            recorder,
            live,
            checkpoint,
            name=name,
            step=step,
            epoch=state.epoch,
            event=event,
            metrics={**self._measured.logged_since(before), **evaluated},
            same_as_existing=again,
        )
        saved.told.update(evaluated)
        return saved

    def _makes_states(self, args: Any) -> bool:
        """Whether there will be states to keep. Raises TrainingSetup for settings that make none."""
        hold_settings(args)
        return True

    def _ours(self, state: Any) -> bool:
        return self._serving.serves(state, self.run_name, self.model)

    def _make_up(self, state: Any, live: Mapping[str, Any]) -> None:
        """Save the epoch whose state this training goes on from, if only its version is missing: a state
        of the epoch's last step may be written before it, and the process be killed between the two."""
        name = checkpoints.epoch_name(state)
        if self.every == "epoch" and name is not None:
            self._save(state, live, name, "epoch")

    def _keep_last(self, args: Any, state: Any, control: Any, live: Mapping[str, Any]) -> None:
        """Where the best weights will replace the last ones, save those while they are here."""
        if self._watch(args, state, control, live):
            self._save(state, live, "final", "end")

    def _watch(self, args: Any, state: Any, control: Any, live: Mapping[str, Any]) -> bool:
        """Whether the best weights are about to replace the last ones; else these are marked. On every
        process at the same events: `_keep_late`, where they meet, goes by the marks."""
        if not args.load_best_model_at_end or state.global_step == 0 or self._serving.ended:
            return False
        over = bool(control.should_training_stop or state.global_step >= state.max_steps > 0)
        marks = _marks(live["model"])
        if came_to_its_end(state) and self._last != marks:
            return False  # somebody evaluates in `on_train_end`: the best weights are here already
        self._last = marks
        self._untouched = [] if over else self._last
        return over

    def _keep_late(self, args: Any, state: Any, control: Any, live: Mapping[str, Any]) -> None:
        """As `_keep_last`, where a callback after this one ended the training at the event that this one saw
        last: the Trainer logs once more, before or after it loads the best weights."""
        stops = args.load_best_model_at_end and control.should_training_stop
        if stops and self._untouched and self._untouched == _marks(live["model"]):
            self._untouched = []
            self._keep_together(args, state, control, live)

    @together
    def _keep_together(self, args: Any, state: Any, control: Any, live: Mapping[str, Any]) -> None:
        self._keep_last(args, state, control, live)

    def _save_last(self, recorder: Recorder, args: Any, state: Any, live: Mapping[str, Any]) -> Saved | None:
        """`final` and `best` at the end; the version that the live model holds now."""
        last = recorder.at_step(state.global_step)
        if args.load_best_model_at_end and not (
            state.best_model_checkpoint is state.best_global_step is None
        ):
            folder = Path(state.best_model_checkpoint or os.devnull)
            loaded = self._last != _marks(live["model"])
            if folder.is_dir() and not is_pruned(state) and loaded:
                best = self._save_best(recorder, state, live)
                if last is not None and last.name != "final":
                    recorder.also_name(last, "final")
                elif last is None and f"{recorder.run.name}/final" not in self.missing:
                    recorder.miss_last("final", _replaced(recorder, state))
                return best
            # Removed meanwhile, or never loaded, as an adapter that is not called "default" or files of a
            # Trainer's own: the model holds the last weights, which are not the best.
            measured = recorder.at_step(best_step(state))
            if measured is not None:
                recorder.also_name(measured, "best")
            elif state.best_model_checkpoint is None:
                words = (
                    "run %s of %s has no best: its best step was %d, whose checkpoint is not here any more"
                )
                _log.warning(words, recorder.run.name, self.model, best_step(state))
        if last is not None and last.name == "final":
            return last
        return self._save(state, live, "final", "end", again=last is not None)

    def _record(
        self, recorder: Recorder, live: Mapping[str, Any], checkpoint: Path | None, **said: Any
    ) -> Saved:
        """A version of the live model; of a sharded one, of the checkpoint."""
        sharding = self._sharding
        if sharding is None or checkpoint is None:
            return recorder.save(live["model"], facts.processing_class(live), **said)

        def begin(folder: Path) -> filesets.FileSet:
            return checkpoints.copy_whole(sharding, checkpoint, folder, recorder.room)

        return recorder.record(begin, filesets.unwrap(live["model"]), **said)

    def _take_in(self, args: Any, state: Any, control: Any, live: Mapping[str, Any]) -> None:
        """A version of the checkpoint that the Trainer has just finished, if one is wanted of it."""
        if self._recorder is None or self.meeting is None or not self._ours(state):
            return
        self.meeting.all_here()  # nobody is writing there any more
        last = control.should_training_stop or state.global_step >= state.max_steps > 0
        evaluated = bool(self._measured.evaluated(state.global_step))
        found = checkpoints.wanted(self.every, state, last=last, evaluated=evaluated)
        if found is not None:
            folder = checkpoints.folder_of(args, state)
            self._save(state, live, *found, checkpoint=folder)

    def _name_last(self, recorder: Recorder, args: Any, state: Any, live: Mapping[str, Any]) -> Saved | None:
        """As `_save_last`, of a sharded model: the names of the checkpoints that were taken in."""
        folder = checkpoints.folder_of(args, state)
        last = recorder.at_step(state.global_step)
        if last is None and folder.is_dir():
            # Written without its event: the Trainer's own upon SIGTERM; or a second look at one that failed.
            last = self._save(state, live, "final", "end", checkpoint=folder)
        elif last is None:
            reason = f"the Trainer wrote none at its last step, {state.global_step}"
            recorder.miss_last("final", IncompleteCheckpoint(checkpoint=str(folder), reason=reason))
        elif last.name != "final":
            recorder.also_name(last, "final")
        if not args.load_best_model_at_end or state.best_model_checkpoint is None:
            return last
        best = recorder.at_step(best_step(state))
        if best is not None:
            recorder.also_name(best, "best")
            return best
        return self._save_best(recorder, state, live)

    def _save_best(self, recorder: Recorder, state: Any, live: Mapping[str, Any]) -> Saved:
        """The restored weights under their own step and metrics, never the last step's."""
        step = best_step(state)
        metrics, epoch = logged_at(state, step)
        known = [s for s in recorder.saved if s.step <= step]
        said = {"name": "best", "step": step, "epoch": epoch, "event": "best", "metrics": metrics}
        place = {"after": known[-1] if known else None, "follows": False}
        checkpoint = Path(state.best_model_checkpoint)
        return self._record(recorder, live, checkpoint, **said, **place, same_as_existing=True)


def _without_sum(logs: Any) -> Any:
    """Without what a training that goes on reckons wrongly: the mean loss of all its steps from the loss of
    those that it made itself."""
    return {k: v for k, v in logs.items() if k != "train_loss"} if isinstance(logs, dict) else logs


def _marks(model: Any) -> list[tuple[int, int]]:
    """What changes when anybody writes to a model's weights: torch counts the writes to each tensor."""
    return [(id(each), int(each._version)) for each in model.parameters()]


def _replaced(recorder: Recorder, state: Any) -> TrainingSaveFailed:
    return TrainingSaveFailed(
        name=f"{recorder.run.name}/final",
        model=recorder.model,
        reason=f"the best weights replaced those of step {state.global_step} before they could be saved; "
        "in callbacks=[...] the VersionCallback belongs behind what ends the training",
        hint="give the VersionCallback last and, for those weights, train again",
    )

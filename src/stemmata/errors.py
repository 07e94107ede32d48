"""Errors: one tree. Owns what every failure says; refuses to carry secrets or bytes of weights.

Each class states what happened, what was left untouched and what to do next, as templates filled
from the data that the error carries. `kind` is stable: scripts and `--json` may rely on it.
"""

from __future__ import annotations

from stemmata.failure import StemmataError as StemmataError

# --- usage (exit code 2) ------------------------------------------------------------------------


class UsageProblem(StemmataError):
    """The request itself cannot be understood."""

    kind = "usage"
    exit_code = 2


class InvalidName(UsageProblem):
    kind = "invalid-name"
    what = "{name!r} cannot be a name: {reason}"
    untouched = "nothing was written"
    next_step = "use letters, digits, '-', '_', '.', '+', '=' and '/' between parts"


class InvalidReference(UsageProblem):
    kind = "invalid-reference"
    what = "{reference!r} is not a reference: {reason}"
    next_step = (
        "write model, model@alias, model@run/epoch-3, model@latest~1, "
        "model@production@{{3 weeks ago}} or an id"
    )


class InvalidTime(UsageProblem):
    kind = "invalid-time"
    what = "{text!r} is not a point in time: {reason}"
    next_step = "write a date (2026-03-01), a time (2026-03-01T12:00) or a phrase ('3 weeks ago')"


class InvalidExpression(UsageProblem):
    kind = "invalid-expression"
    what = "the expression {text!r} cannot be read at character {position}: {reason}"
    next_step = "write comparisons joined by and/or/not, such as: eval_loss < 0.5 and lora.r == 8"


class InvalidArgument(UsageProblem):
    kind = "invalid-argument"
    what = "{argument}: {reason}"
    untouched = "nothing was done"


class InvalidExamples(UsageProblem):
    kind = "invalid-examples"
    what = "{path} is no list of examples: {reason}"
    untouched = "nothing was added"
    next_step = "write one JSON object on each line"


class CommandNotStarted(UsageProblem):
    kind = "command-not-started"
    what = "{command!r} cannot be run: {reason}"
    untouched = "nothing was started"
    next_step = "write it after -- as you run it without stemmata: -- python train.py"


# --- not found (exit code 3) --------------------------------------------------------------------


class NotFound(StemmataError):
    """What was asked for is not there."""

    kind = "not-found"
    exit_code = 3


class RepositoryNotFound(NotFound):
    kind = "repository-not-found"
    what = "no stemmata repository at {where}"
    next_step = "make one with: stemmata init {where}; or name another with --repo or $STEMMATA_REPO"


class ModelNotFound(NotFound):
    kind = "model-not-found"
    what = "no model named {model!r} in this repository"
    next_step = "{hint}"


class VersionNotFound(NotFound):
    kind = "version-not-found"
    what = "{reference!r} names no version: {reason}"
    next_step = "{hint}"


class AmbiguousReference(NotFound):
    kind = "ambiguous-reference"
    what = "{reference!r} may mean any of: {candidates}"
    untouched = "nothing was chosen"
    next_step = "write more digits, or the full name"


class FileNotInVersion(NotFound):
    kind = "file-not-in-version"
    what = "version {version} has no file {path!r}"
    next_step = "list its files with: stemmata show {version}"


class TensorNotInVersion(NotFound):
    kind = "tensor-not-in-version"
    what = "version {version} has no tensor {name!r}"
    next_step = "{hint}"


class EvalNotFound(NotFound):
    kind = "eval-not-found"
    what = "version {version} has no examples of an eval {name!r}; it has those of: {has}"
    next_step = "add them with: stemmata annotate {version} --eval {name} --examples FILE.jsonl"


class SourceMissing(NotFound):
    kind = "source-missing"
    what = "{path} does not exist"
    untouched = "nothing was saved"
    next_step = "name the folder or file that the training wrote"


class RepairSourceMissing(NotFound):
    kind = "repair-source-missing"
    what = "nothing can be taken from {path}: {reason}"
    untouched = "nothing was repaired"
    next_step = "name a repository, or a folder or file with the models that were saved"


# --- conflict (exit code 4) ---------------------------------------------------------------------


class Conflict(StemmataError):
    """The repository moved on, or a write-once thing is already there."""

    kind = "conflict"
    exit_code = 4


class RepositoryExists(Conflict):
    kind = "repository-exists"
    what = "{where} already holds something: {reason}"
    untouched = "nothing was written"
    next_step = "open it as it is, or name an empty folder"


class NameTaken(Conflict):
    kind = "name-taken"
    what = "{model!r} already has the name {name!r} ({holder})"
    untouched = "nothing was written"
    next_step = "choose another name; tags and version names never move, aliases do"


class AliasMoved(Conflict):
    kind = "alias-moved"
    what = "{model}@{name} is at {found}, not at {expected} as assumed"
    untouched = "it was not moved"
    next_step = "look at stemmata history {model} {name}, then decide again"


class NothingToRollBack(Conflict):
    kind = "nothing-to-roll-back"
    what = "{model}@{name} has no earlier value to go back to"
    untouched = "it was not moved"
    next_step = "name a version with --to"


class VersionInUse(Conflict):
    kind = "version-in-use"
    what = "{version} cannot be deleted: {holders}"
    untouched = "nothing was deleted"
    next_step = "{hint}"


class AlreadyDeleted(Conflict):
    kind = "already-deleted"
    what = "{version} was deleted before: {how}"
    untouched = "nothing was deleted"
    next_step = "leave it out"


class NotDeleted(Conflict):
    kind = "not-deleted"
    what = "{version} is not deleted"
    untouched = "nothing was restored"
    next_step = "stemmata log --deleted lists what can be restored"


class UndoOver(Conflict):
    kind = "undo-over"
    what = "{version} cannot be restored: its time to be undone was over, and it was given up on {at}"
    untouched = "nothing was restored"
    next_step = "stemmata log --deleted lists what can still be restored"


class Refused(Conflict):
    kind = "refused"
    what = "the repository refuses this change: {reason}"
    untouched = "nothing was written"
    next_step = "{hint}"


class CommitContention(Conflict):
    kind = "commit-contention"
    what = "other writers won {attempts} times in a row"
    untouched = "nothing became visible"
    next_step = "try again"


class CommitUnknown(Conflict):
    kind = "commit-unknown"
    what = "the storage did not say whether transaction {txn} was written as entry {entry}"
    untouched = "nothing was deleted"
    next_step = "when the storage answers again, stemmata log shows whether it is there; saving again is safe"


# --- damage (exit code 5) -----------------------------------------------------------------------


class Damage(StemmataError):
    """Stored bytes are not what was stored. They are never handed out."""

    kind = "damage"
    exit_code = 5


class DamagedObject(Damage):
    kind = "damaged-object"
    what = "object {digest} in pack {pack} is damaged: {reason}"
    untouched = "its bytes were not handed out"
    next_step = "run stemmata check to see what else is affected"


class DamagedFile(Damage):
    kind = "damaged-file"
    what = "the file {path!r} is damaged: {reason}"
    untouched = "its bytes were not handed out"
    next_step = "run stemmata check to see what else is affected"


class DamagedPack(Damage):
    kind = "damaged-pack"
    what = "pack {pack} is damaged: {reason}"
    untouched = "its bytes were not handed out"
    next_step = "run stemmata check to see which versions are affected"


class MissingPack(Damage):
    kind = "missing-pack"
    what = "pack {pack} is not in the repository"
    next_step = "run stemmata check to see which versions are affected"


class MissingObject(Damage):
    kind = "missing-object"
    what = "object {digest} is in none of the packs that its version names"
    next_step = "run stemmata check to see which versions are affected"


class DamagedLog(Damage):
    kind = "damaged-log"
    what = "log entry {entry} is damaged: {reason}"
    untouched = "nothing after it was read"
    next_step = (
        "run stemmata check --repair; if it does not find what was there, add --from with another copy of "
        "the repository; stemmata --up-to-damage reads what came before"
    )


class DamagedBundle(Damage):
    kind = "damaged-bundle"
    what = "log bundle {key} is damaged: {reason}"
    untouched = "it was not used; the log entries themselves are read instead"
    next_step = "stemmata check --repair makes it anew"


class DamagedCheckpoint(Damage):
    kind = "damaged-checkpoint"
    what = "checkpoint {key} of the log is damaged: {reason}"
    untouched = "it was not used; the log itself is read instead"
    next_step = "stemmata check --repair makes it anew"


class DamagedTree(Damage):
    kind = "damaged-tree"
    what = "the file list of version {version} is damaged: {reason}"
    untouched = "none of its files were handed out"
    next_step = "run stemmata check"


class DamagedRepository(Damage):
    kind = "damaged-repository"
    what = "{where} is not a sound stemmata repository: {reason}"
    untouched = "nothing was changed"
    next_step = (
        "run stemmata check --repair, with --from and another copy of the repository if there is one; or "
        "restore stemmata.json from a backup"
    )


class DamagedRecord(Damage):
    kind = "damaged-record"
    what = "the record of version {version} is damaged: {reason}"
    next_step = "delete the cache folder of the repository and run stemmata check"


class UnsafePath(Damage):
    kind = "unsafe-path"
    what = "the path {path!r} may not be written: {reason}"
    untouched = "nothing was written outside the target folder"
    next_step = "do not trust this repository; it was not made by stemmata"


class HostileData(Damage):
    kind = "hostile-data"
    what = "{where} asks for more than any sound repository does: {reason}"
    untouched = "it was not decoded"
    next_step = "do not trust this repository; it was not made by stemmata"


# --- storage (exit code 6) ----------------------------------------------------------------------


class StorageProblem(StemmataError):
    """The place where the repository lives failed or refuses."""

    kind = "storage"
    exit_code = 6


class KeyMissing(StorageProblem):
    kind = "key-missing"
    what = "{key} is not in the repository"


class KeyExists(StorageProblem):
    kind = "key-exists"
    what = "{key} is already in the repository"
    untouched = "it was not overwritten"


class StorageFull(StorageProblem):
    kind = "storage-full"
    what = "no space left in {where}"
    untouched = "nothing became visible; earlier versions are untouched"
    next_step = "free some space, as of the cached checkouts in cache/checkouts, and try again"


class QuotaReached(StorageFull):
    kind = "quota-reached"
    what = "the share of {where} that is allowed to this user or group is used up (disk quota exceeded)"
    next_step = "free some space of yours there, or ask for more; df does not show it, but quota -s may"


class SpaceShort(StorageProblem):
    kind = "space-short"
    what = "{where} has {free} free, and a version of {model} needs {needed}"
    untouched = "nothing was written"
    next_step = "free some space, or keep the repository on another disk"


class StorageReadOnly(StorageProblem):
    kind = "storage-read-only"
    what = "{where} cannot be written: {reason}"
    untouched = "nothing was changed"
    next_step = "ask for write permission, or work on a copy of the repository"


class StorageFailed(StorageProblem):
    kind = "storage-failed"
    what = "{where} failed: {reason}"
    untouched = "nothing became visible; earlier versions are untouched"
    next_step = "look at the disk or the network, then try again"


class OutcomeUnknown(StorageProblem):
    kind = "outcome-unknown"
    what = "it is not known whether {key} was written: {reason}"


class PutIfAbsentUnsupported(StorageProblem):
    kind = "put-if-absent-unsupported"
    what = "{where} has neither hard links nor a rename that refuses to replace"
    untouched = "nothing was written"
    next_step = "put the repository on another file system; reading it from here works"


# --- formats (exit code 7) ----------------------------------------------------------------------


class NewerFormat(StemmataError):
    kind = "newer-format"
    exit_code = 7
    what = "{where} was written by a newer release: {reason}"
    untouched = "nothing was read past it and nothing was changed"
    next_step = "upgrade with: pip install --upgrade stemmata"


# --- refused for safety (exit code 8) -----------------------------------------------------------


class SafetyRefusal(StemmataError):
    """Going on might lose or misread something."""

    kind = "safety"
    exit_code = 8


class OlderCopy(SafetyRefusal):
    kind = "older-copy"
    what = (
        "{where} is not what was written there last: its log ends at entry {found}, "
        "entry {seen} was seen, and {reason}"
    )
    untouched = "nothing was written; reading works"
    next_step = "bring the newer files back, or go on from this copy with: stemmata check --accept-older"


class SourceChanged(SafetyRefusal):
    kind = "source-changed"
    what = "{path} changed while it was being saved"
    untouched = "no version was made"
    next_step = "save again when the training has finished writing"


class BrokenContainer(SafetyRefusal):
    kind = "broken-container"
    what = "{path} is not a readable {container} file: {reason}"
    untouched = "nothing was saved"
    next_step = "write the file again, or save its bytes as they are with --allow-broken"


class LinkEscapes(SafetyRefusal):
    kind = "link-escapes"
    what = "{path} is a link that leaves the folder ({target})"
    untouched = "nothing was saved"
    next_step = "copy the file into the folder, or leave it out with --exclude"


class UnsupportedFile(SafetyRefusal):
    kind = "unsupported-file"
    what = "{path} cannot be stored: {reason}"
    untouched = "nothing was saved"
    next_step = "leave it out with --exclude, or rename it"


class EmptySource(SafetyRefusal):
    kind = "empty-source"
    what = "{path} holds nothing to save"
    untouched = "no version was made"
    next_step = "name the folder that the training wrote"


class TargetNotEmpty(SafetyRefusal):
    kind = "target-not-empty"
    what = "{path} is not empty"
    untouched = "nothing in it was touched"
    next_step = "name a new folder, or replace files of the same names with --force"


class NamesCollide(SafetyRefusal):
    kind = "names-collide"
    what = "another name of the version is the same as {path!r} on this file system"
    untouched = "nothing was written"
    next_step = "check out into another file system, or only a part of the version"


class BaseMismatch(SafetyRefusal):
    kind = "base-mismatch"
    what = (
        "the base model at {where} is not the one that {version} was trained on "
        "(expected {expected}, found {found})"
    )
    untouched = "nothing was loaded"
    next_step = "pass base=... with the folder of the right base, or save that base into the repository"


class BaseMissing(SafetyRefusal):
    kind = "base-missing"
    what = "the base model of {version} is not in the repository and not at {where}"
    untouched = "nothing was loaded"
    next_step = "pass base=... with the folder of the base, or save the base into the repository"


class PickleRefused(SafetyRefusal):
    kind = "pickle-refused"
    what = "{path} of {version} is a pickle, which can run any code when it is read"
    untouched = "it was not opened"
    next_step = "pass allow_pickle=True if you trust whoever wrote it"


class NotLoadable(SafetyRefusal):
    kind = "not-loadable"
    what = "version {version} cannot be loaded as a model: {reason}"
    untouched = "nothing was loaded"
    next_step = "{hint}"


class SurprisingSave(SafetyRefusal):
    kind = "surprising-save"
    what = "this version of {model} is not what one would expect: {surprises}"
    untouched = "nothing was saved"
    next_step = "look at it, and save it without strict if it is meant"


class GateFailed(SafetyRefusal):
    """`evidence` is the whole gate as judged: see `gating.Verdict.to_dict`."""

    kind = "gate-failed"
    what = "{version} does not pass the gate of {model}@{name}: {reasons}"
    untouched = "{name} stays at {current}"
    next_step = "measure what is missing, or promote another version; --dry-run judges and moves nothing"
    unsaid = frozenset({"evidence"})


class AliasProtected(SafetyRefusal):
    kind = "alias-protected"
    what = "{model}@{name} is protected: {reason}"
    untouched = "it stays as it is"
    next_step = "{hint}"


class OnlyAdds(SafetyRefusal):
    kind = "only-adds"
    what = "a run that is repeated adds versions and nothing else: {op} is not for it"
    untouched = "nothing was changed; versions that were saved before stay"
    next_step = "do it yourself, when you have looked at what came of the run"


class NothingKept(SafetyRefusal):
    kind = "nothing-kept"
    what = "the policy ({policy}) would keep none of the {count} versions of {model}: {reason}"
    untouched = "nothing was deleted and the policy was not set"
    next_step = "widen it, or name what is to go with: stemmata delete"


class Redacted(SafetyRefusal):
    kind = "redacted"
    what = "{item} of version {version} was redacted on {at} by {by}{why}"
    untouched = "it is not handed out"
    next_step = "it cannot be brought back; stemmata gc erases its bytes"


class TrainingSaveFailed(StemmataError):
    kind = "training-save-failed"
    what = "saving {name} of {model} failed: {reason}"
    untouched = "all earlier versions are untouched"
    next_step = "{hint}"


class EmptyDataset(StemmataError):
    kind = "empty-dataset"
    what = "the training of {model} made no step: {reason}"
    untouched = "no version was made of weights that did not change"
    next_step = "look at what filters or splits the training data, then train again"


class TrainingSetup(StemmataError):
    kind = "training-setup"
    what = "this training cannot be kept as asked: {reason}"
    untouched = "it was stopped before its first step"
    next_step = "{hint}"


class IncompleteState(SafetyRefusal):
    kind = "incomplete-state"
    what = "the training state {state} lacks {parts}: a training resumed from it would end with other weights"
    untouched = "nothing was resumed"
    next_step = "resume from an earlier state, or start anew"


class IncompleteCheckpoint(SafetyRefusal):
    kind = "incomplete-checkpoint"
    what = "{checkpoint} does not hold the whole model: {reason}"
    untouched = "no version was made of it"
    next_step = "look at what the training logged while it wrote that folder; its next one is tried anew"


class ClockDoubted(SafetyRefusal):
    kind = "clock-doubted"
    what = "by the times of the store {what} ({moment}) is {how} what came before ({other})"
    untouched = "nothing was deleted, for it cannot be told how long ago anything was"
    next_step = (
        "set the clock right and write one more entry; or say yourself that the time is over, with "
        "--undo-window 0 and --grace 0, or that these times are right, with --trust-clock"
    )


class MissingExtra(StemmataError):
    kind = "missing-extra"
    what = "{feature} needs {package}, which is not installed"
    next_step = "install it with: pip install 'stemmata[{extra}]'"

"""Capturing: what a run's capture takes from the training: when it begins, and at each step.

    python bench/capturing.py [--write NAME]

The quickstart's training (SFTTrainer, LoRA, its data and its tiny base), each in a process of its own, as a
run is: the first capture of a process is what it costs. In a git repository with a changed file, an untracked
one and ignored outputs, as a script lies in one. Steps are timed with and without a capture, in turn.
A log event is not a step: it comes as often as `logging_steps` says, and what is kept of it is timed apart.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from measuring import keep, machine

TARGET = 0.3
"""Seconds of the training thread at train begin."""
HERE = Path(__file__).resolve().parent


def main() -> int:
    options = parse_options()
    if options.once is not None:
        print(json.dumps(once(Path(options.once), capture=not options.without)))
        return 0
    work = Path(options.work).absolute()
    project(work)
    rounds: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for number in range(options.repeat + 1):
        for capture in (True, False):
            found = child(work, capture=capture)
            if number:  # The first round fills the page cache.
                rounds[capture].append(found)
    with_it, without = rounds[True], rounds[False]
    taken = [each["begin"] for each in with_it]
    begin, most = 1000 * median(taken), 1000 * max(taken)
    beside = 1000 * median([each["beside"] for each in with_it])
    when = f"{datetime.now(UTC):%Y-%m-%d}"
    calls = int(max(each["calls"] for each in with_it))
    row = median([each["row"] for each in with_it])
    step, bare = (median([each["step"] for each in found]) for found in (with_it, without))
    text = "\n".join(
        [
            "# What a run's capture takes from the training",
            "",
            f"{when}, {machine()} {options.repeat} rounds of the quickstart's training.",
            "",
            "| what | measured | target |",
            "| --- | --- | --- |",
            f"| at train begin, the training thread | {begin:.0f} ms, at most {most:.0f} | < 300 ms |",
            f"| beside it, on a thread of its own | {beside:.0f} ms | |",
            f"| calls into the capture and the rows in the steps, of the training thread | {calls} | 0 |",
            f"| a log event: its row, appended to a list | {1e6 * row:.0f} µs | |",
            f"| a step, with a capture and without | {1000 * step:.1f} ms, {1000 * bare:.1f} ms | |",
            f"| its objects, once per run | {with_it[-1]['bytes'] / 1000:.0f} kB | |",
            "",
        ]
    )
    print(text)
    if options.write:
        keep(options.write, text)
    return 0 if most < 1000 * TARGET and not calls else 1


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What a capture takes from a training.")
    parser.add_argument(
        "--work", default="bench-work/capturing", help="folder for everything that is written"
    )
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--write", help="keep the page as bench/results/NAME.md")
    parser.add_argument("--once", help=argparse.SUPPRESS)
    parser.add_argument("--without", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def project(work: Path) -> None:
    """A repository as people train in: a commit, a change, a file that git does not know."""
    work.mkdir(parents=True, exist_ok=True)
    if (work / ".git").exists():
        return
    identity = ("-c", "user.name=bench", "-c", "user.email=bench@example.org", "-c", "commit.gpgsign=false")

    def git(*words: str) -> None:
        subprocess.run(["git", *identity, "-C", str(work), *words], check=True, capture_output=True)

    git("init", "-q")
    (work / ".gitignore").write_text("models*/\ntrainer/\n")
    script = (HERE.parent / "examples/quickstart.py").read_text()
    (work / "train.py").write_text(script)
    git("add", ".")
    git("commit", "-q", "-m", "Begin")
    (work / "train.py").write_text(script + "# changed\n")
    (work / "helper.py").write_text("x = 1\n")


def child(work: Path, *, capture: bool) -> dict[str, Any]:
    words = [sys.executable, str(Path(__file__).resolve()), "--once", str(work)]
    path = os.pathsep.join([str(HERE.parent / "examples"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        words if capture else [*words, "--without"],
        cwd=work,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def once(work: Path, *, capture: bool) -> dict[str, Any]:
    """One training in this process."""
    from transformers import TrainerCallback

    import quickstart
    import stemmata
    from stemmata import logrows
    from stemmata.capturing import Capturing
    from stemmata.hf import captured
    from stemmata.hf.recorder import Recorder

    quickstart.quiet()
    sys.modules["__main__"].__file__ = str(work / "train.py")  # what runs is the script, not the measuring
    taken = {"begin": 0.0, "beside": 0.0, "calls": 0.0}
    begin, beside, log = captured.of_trainer, Capturing._run, Recorder.log
    events: list[float] = []

    def timed_begin(*what: Any) -> Capturing:
        started = time.perf_counter()
        found = begin(*what) if capture else Capturing({}, {})
        taken["begin"] += time.perf_counter() - started
        return found

    def timed_beside(self: Capturing) -> None:
        started = time.perf_counter()
        beside(self)
        taken["beside"] += time.perf_counter() - started

    def timed_log(self: Recorder, *what: Any) -> None:
        started = time.perf_counter()
        log(self, *what)
        events.append(time.perf_counter() - started)

    class Steps(TrainerCallback):
        """When steps began; and from then on no capture is asked for anything by this thread."""

        def __init__(self) -> None:
            self.seconds: list[float] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.started = time.perf_counter()
            sys.setprofile(self.count)

        def on_step_end(self, *_: Any, **__: Any) -> None:
            sys.setprofile(None)
            self.seconds.append(time.perf_counter() - self.started)

        @staticmethod
        def count(frame: Any, event: str, _argument: Any) -> None:
            path = frame.f_code.co_filename
            if event == "call" and (f"{os.sep}capturing{os.sep}" in path or path.endswith("logrows.py")):
                taken["calls"] += 1

    captured.of_trainer, Capturing._run, Recorder.log = timed_begin, timed_beside, timed_log
    steps = Steps()
    train, evaluation = quickstart.data()
    base = quickstart.tiny_gpt2(work / "models-base", train["text"])
    callback, made = quickstart.VersionCallback, []

    def versions(repo: Any, model: str) -> Any:
        made.append(callback(repo, model))
        return made[0]

    quickstart.VersionCallback = versions
    sft = quickstart.SFTTrainer
    quickstart.SFTTrainer = lambda **settings: sft(
        **{**settings, "callbacks": [*settings["callbacks"], steps]}
    )
    quickstart.console.quiet = True
    with stemmata.open(work / "models", create=True) as repo:
        quickstart.fine_tune(repo, base, 4, 1, train, evaluation, work)
        newest = repo.versions(quickstart.MODEL)[0]
        kinds = newest.record.provenance.keys() - {logrows.KIND}  # the rows are each version's own
        size = sum(len(newest.provenance(kind)) for kind in kinds)
    return {**taken, "row": median(events), "step": median(steps.seconds[1:]), "bytes": size}


if __name__ == "__main__":
    sys.exit(main())

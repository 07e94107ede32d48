"""Commands: a recorded command line, made fit to run in the work folder. Owns which arguments become others.

Python is the one that runs here. Paths of the run's folders become those of the work folder, arguments that
were masked are asked for; `options` changes what a repetition wants to be other.
"""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stemmata.capture import GIVEN, MASK, mask_known
from stemmata.capturing import Missing
from stemmata.capturing.reading import Captured, EntryPoint

_WITH_VALUE = "cmWX"
"""Flags of Python with a word behind them."""
_DEAF = "IES"
"""Flags with which Python hears neither of PYTHONPATH nor of a sitecustomize."""
_LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "NODE_RANK")
_LEAST = 4
"""Characters of a secret that is looked for within words too."""
_KEY = re.compile(r"[+~]{0,2}[A-Za-z_][\w./@-]*")
_OF_A_JOB = re.compile(r"SLURM_\w+")


@dataclass(frozen=True, slots=True)
class Line:
    """A command line of Python, whose own flags end at `script`: the place of the script, `-c` or `-m`."""

    argv: tuple[str, ...]
    script: int

    @classmethod
    def parse(cls, argv: Sequence[str]) -> Line:
        place = 1
        while place < len(argv) and argv[place].startswith("-") and argv[place] != "-":
            word = argv[place]
            flags = "" if word.startswith("--") else word[1:]
            valued = next((i for i, flag in enumerate(flags) if flag in _WITH_VALUE), None)
            if valued is not None:
                if flags[valued] in "cm":
                    break
                place += valued == len(flags) - 1  # its value is the next word
            place += 1
        return cls(tuple(argv), place)

    @property
    def deaf(self) -> str | None:
        """A flag of Python that keeps everybody from changing where the command writes."""
        for word in self.argv[1 : self.script + 1]:
            if word.startswith("-") and not word.startswith("--"):
                flags = re.split(f"[{_WITH_VALUE}]", word[1:])[0]
                found = next((flag for flag in flags if flag in _DEAF), None)
                if found is not None:
                    return f"-{found}"
        return None

    def options(self) -> dict[str, list[int]]:
        """The places of the command's own options, by name: `learning_rate` of `--learning-rate 1e-4`."""
        found: dict[str, list[int]] = {}
        for place in range(self.script + 1, len(self.argv)):
            word = self.argv[place]
            if word.startswith("-") and word.strip("-") and not is_number(word):
                name = word.lstrip("-").partition("=")[0].replace("-", "_")
                found.setdefault(name, []).append(place)
        return found


def with_given(
    argv: Sequence[str], given: Mapping[str, str], changed: Collection[str] = ()
) -> tuple[list[str], list[Missing]]:
    """A command line whose masked arguments are given: by the option's name or by the argument's number, in
    `given` or in a variable of the environment. And those that are not; options that will be `changed` need
    not be."""
    words, missing = list(argv), []
    for place, word in enumerate(argv):
        if MASK not in word:
            continue
        names = _names(argv, place)
        value = _given(names, given)
        if value is None and any(name.replace("-", "_") in changed for name in names):
            continue
        if value is None:
            how = f"--arg {names[-1]}=VALUE, or {_variable(names[-1])} in the environment, gives it again"
            what = f"argument {place}" + (f" ({names[-1]})" if len(names) > 1 else "")
            missing.append(Missing(what, f"it was masked when it was captured: {how}"))
        else:
            head = _head(word)
            words[place] = head + value.removeprefix(head)
    return words, missing


def given_again(argv: Sequence[str], words: Sequence[str]) -> list[str]:
    """The values that stand in `words` where `argv` is masked."""
    found = []
    for before, now in zip(argv, words, strict=True):
        if before != now:
            found.append(now.removeprefix(_head(before)))
    return [value for value in found if value]


def shown(argv: Sequence[str], secrets: Sequence[str]) -> list[str]:
    """A command line for people and records: without what was given for a mask."""
    words = []
    for word in argv:
        head, equals, value = word.partition("=")
        if word in secrets:
            words.append(MASK)
        elif equals and value in secrets:
            words.append(f"{head}={MASK}")
        else:
            words.append(mask_known(word, [s for s in secrets if len(s) >= _LEAST]))
    return words


def names_of_masked(argv: Sequence[str]) -> set[str]:
    """By which names masked arguments can be given."""
    return {name for place, word in enumerate(argv) if MASK in word for name in _names(argv, place)}


def _names(argv: Sequence[str], place: int) -> list[str]:
    """The number of an argument, the option that it is the value of, and the key before its own value."""
    head = _head(argv[place])
    if head.startswith("-"):
        return [str(place), head[:-1].lstrip("-")]
    key = [head[:-1].lstrip("+~")] if head else []
    before = argv[place - 1] if place else ""
    if before.startswith("-") and "=" not in before and before not in ("-c", "-m"):
        return [str(place), before.lstrip("-"), *key]
    return [str(place), *key]


def _head(word: str) -> str:
    """What stands before a value in its word: `--token=`, or `hub.token=` as Hydra has it. Nothing before a
    word that is a value as a whole: an address may hold such a sign too."""
    head, equals, _ = word.partition("=")
    named = head.startswith("-") or _KEY.fullmatch(head) is not None
    return head + equals if equals and named and MASK not in head else ""


def _given(names: Sequence[str], given: Mapping[str, str]) -> str | None:
    for name in reversed(names):
        found = given.get(name, os.environ.get(_variable(name)))
        if found is not None:
            return found
    return None


def _variable(name: str) -> str:
    return GIVEN + re.sub(r"\W", "_", name).upper()


def here(line: Line, moved: Callable[[str], str | None]) -> tuple[list[str], list[Missing]]:
    """The command line as it runs here: this Python, and paths, whole ones and those that lead out of the
    working folder, as `moved` has them. And what is not here."""
    words, missing = [sys.executable, *line.argv[1 : line.script]], []
    for place, word in enumerate(line.argv[line.script :], start=line.script):
        head, equals, value = word.partition("=")
        if os.path.isabs(word):  # noqa: PTH117  (an argument is no path)
            found = moved(word)
            if found is None and place == line.script and not Path(word).exists():
                found = _installed(Path(word).name)
                if found is None:
                    missing.append(Missing(f"program {Path(word).name}", f"{word} is not there any more"))
            words.append(found or word)
        elif equals and (os.path.isabs(value) or _climbs(value)):  # noqa: PTH117
            words.append(f"{head}={moved(value) or value}")
        else:
            words.append((moved(word) if _climbs(word) else None) or word)
    return words, missing


def _climbs(word: str) -> bool:
    """Whether it is a path out of the working folder."""
    return word.split("/")[0] == ".."


def _installed(name: str) -> str | None:
    """A program of that name beside this Python."""
    path = Path(sysconfig.get_path("scripts")) / name
    return str(path) if path.is_file() else None


def why_not(captured: Captured) -> list[Missing]:
    """Why this command can be run by nobody, however much is restored."""
    command, entry = captured.command, captured.code.entry if captured.code is not None else EntryPoint()
    if command is None or not command.argv:
        said = next((m.why for m in captured.missing if m.what == "command"), "it was not captured")
        return [Missing("command", said)]
    found = []
    if entry.kind == "prompt":
        found.append(Missing("entry", "it was typed at a prompt or came from stdin, and was not kept"))
    elif entry.kind == "program" and _is_ours(entry):
        why = "a stemmata command saved this version; what trained it was not captured"
        found.append(Missing("training", why))
    deaf = Line.parse(command.argv).deaf
    if deaf is not None:
        why = f"Python was started with {deaf}: what it writes cannot be led elsewhere"
        found.append(Missing("command", why))
    told = captured.environment.variables if captured.environment is not None else {}
    if told.get("WORLD_SIZE", "1") not in ("", "1"):
        why = f"this was one of {told['WORLD_SIZE']} processes of a launcher, whose command was not captured"
        found.append(Missing("launcher", why))
    return found


def _is_ours(entry: EntryPoint) -> bool:
    return (entry.module or "").partition(".")[0] == "stemmata" or Path(entry.path or "").stem == "stemmata"


def variables(captured: Captured) -> tuple[dict[str, str], list[Missing]]:
    """The recorded variables, but for those that a launcher sets; and those that were masked."""
    said = captured.environment.variables if captured.environment is not None else {}
    wanted = {k: v for k, v in said.items() if k not in _LAUNCHED and not _OF_A_JOB.fullmatch(k)}
    missing = [Missing(f"variable {k}", "its value was masked") for k, v in wanted.items() if MASK in v]
    return {k: v for k, v in wanted.items() if MASK not in v}, missing


def is_number(word: str) -> bool:
    """Whether a word is a number rather than an option: -1."""
    try:
        float(word)
    except ValueError:
        return False
    return True

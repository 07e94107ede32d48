"""Programs: what the usual ones for files would change, told from a command line. Owns which words those are;
knows no other program, and runs none.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import PurePath

_CHANGE_ALL = frozenset(
    ("rm", "rmdir", "unlink", "mv", "shred", "truncate", "chmod", "chown", "chgrp", "touch", "tee")
)
_CHANGE_LAST = frozenset(("cp", "rsync", "ln", "install"))
_BEFORE_OTHERS = frozenset(("sudo", "env", "nohup", "nice", "time", "command", "exec"))
_SHELLS = frozenset(("sh", "bash", "dash", "zsh"))


def changed(command: object) -> Iterator[str]:
    """Paths that a command line would change: a text is a shell's, a sequence has its words."""
    if isinstance(command, str | bytes | os.PathLike):
        yield from _of_shell(os.fsdecode(command))
    elif isinstance(command, list | tuple):
        yield from _of_words([os.fsdecode(w) for w in command if isinstance(w, str | bytes | os.PathLike)])


def _of_shell(text: str) -> Iterator[str]:
    words: list[str] = []
    try:
        for line in text.splitlines():
            words += [*shlex.shlex(line, posix=True, punctuation_chars=True), ";"]
    except ValueError:
        return  # a shell may understand it, we do not
    command: list[str] = []
    redirected = ""
    for word in words:
        if redirected:
            if not redirected.endswith(">&"):
                yield word
            redirected = ""
        elif word.startswith((">", "&>")):
            redirected = word
            if command and command[-1].isdigit():
                command.pop()  # a descriptor: 2>
        elif set(word) <= set(";&|()"):
            yield from _of_words(command)
            command = []
        else:
            command.append(word)


def _of_words(words: Sequence[str]) -> Iterator[str]:
    while words and (PurePath(words[0]).name in _BEFORE_OTHERS or "=" in words[0]):
        words = words[1:]
    if not words:
        return
    program, rest = PurePath(words[0]).name, words[1:]
    paths = [_as_a_shell(word) for word in rest if not word.startswith("-")]
    if program in _SHELLS and "-c" in rest[:-1]:
        yield from _of_shell(rest[rest.index("-c") + 1])
    elif program in _CHANGE_ALL:
        yield from paths
    elif program in _CHANGE_LAST and len(paths) > 1:
        yield paths[-1]


def _as_a_shell(word: str) -> str:
    return os.path.expandvars(os.path.expanduser(word))  # noqa: PTH111  (`Path` raises where there is no home)

"""Programs: what the usual ones for files would change, told from a command line. Owns which words those are;
knows no other program, and runs none.

Of a shell it knows lists, pipes, `cd`, loops over words, variables that were set to words, and patterns. It
takes quoted words for bare ones, and both ways of a condition for gone: rather too much is named than too
little. What a shell reads elsewhere, a script or the lines of a file, it does not see.
"""

from __future__ import annotations

import glob
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import PurePath

_CHANGE_ALL = frozenset(
    ("rm", "rmdir", "unlink", "mv", "shred", "truncate", "chmod", "chown", "chgrp", "touch", "tee")
)
_CHANGE_LAST = frozenset(("cp", "rsync", "ln", "install"))
_BEFORE_OTHERS = {
    "sudo": "-u -g -h -p -C -D",
    "env": "-u -C",
    "nice": "-n",
    "ionice": "-c -n",
    "timeout": "-k -s",
    "xargs": "-a -d -E -I -L -n -P -s",
    **dict.fromkeys(("nohup", "time", "command", "exec", "setsid", "builtin"), ""),
}
"""Programs that start another one, and their options with a word behind them."""
_SHELLS = frozenset(("sh", "bash", "dash", "zsh"))
_KEYWORDS = frozenset("if then else elif fi while until do done esac ! { } time".split())  # noqa: SIM905
_LISTING = frozenset(("find", "echo", "printf", "ls"))
"""What they print to `xargs` are paths among their own words, or below them."""
_FIND_RUNS = frozenset(("-exec", "-execdir", "-ok", "-okdir"))
_SIGNS = re.compile(r"&>>?|>[>&|]?|<<<|<[<>&]?|&&|\|[|&]?|[;()&\n]")
_HERE = re.compile(r"<<-?\s*(['\"]?)(\w+)\1([^\n]*)\n(.*?)^\s*\2\s*$", re.DOTALL | re.MULTILINE)
_BRACES = re.compile(r"(.*?)\{([^{}]*,[^{}]*)\}(.*)", re.DOTALL)
_ASSIGNED = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_MOST = 5000
"""Paths that one word can stand for."""
_DEEPEST, _DOCUMENTS = 20, 100
"""Braces in a word, and documents in a text, that are looked into."""


def changed(command: object, folder: str = "") -> Iterator[str]:
    """Paths that a command line would change in `folder`: a text is a shell's, a sequence has its words."""
    if isinstance(command, str | bytes | os.PathLike):
        yield from _Shell(folder).changed(os.fsdecode(command))
    elif isinstance(command, list | tuple):
        words = [os.fsdecode(w) for w in command if isinstance(w, str | bytes | os.PathLike)]
        yield from _of_words(words, folder)


class _Shell:
    """One shell on its way through a text: where it is, and which words its variables hold."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._around: list[str] = []
        self._variables: dict[str, list[str]] = {}

    def changed(self, text: str) -> Iterator[str]:
        command: list[str] = []
        piped: list[str] = []
        sign = ""
        for word, is_sign in _tokens(_without_documents(text)):
            if not is_sign:
                if sign in ("", "<<<"):
                    # A string that is given to `xargs` is as good as an argument.
                    command.append(word)
                elif sign.startswith((">", "&>")) and sign != ">&":
                    yield from self._places([word])
                sign = ""
            elif word.startswith(("<", ">", "&>")):
                sign = word
                if command and command[-1].isdigit() and word[0] == ">":
                    command.pop()  # a descriptor: 2>
            else:
                sign = ""
                yield from self._command(command, piped)
                piped = command if word in ("|", "|&") else []
                command = []
                if word == "(":
                    self._around.append(self._folder)
                elif word == ")" and self._around:
                    self._folder = self._around.pop()
        yield from self._command(command, piped)

    def _command(self, words: Sequence[str], piped: Sequence[str]) -> Iterator[str]:
        while words and words[0] in _KEYWORDS:
            words = words[1:]
        if len(words) > 3 and words[0] == "for" and words[2] == "in":
            self._variables[words[1]] = self._expanded(words[3:])
            return
        program = PurePath(words[0]).name if words else ""
        if all(_ASSIGNED.fullmatch(w) for w in words[program in ("export", "declare", "local") :]):
            for found in filter(None, map(_ASSIGNED.fullmatch, words)):
                self._variables[found[1]] = self._expanded([found[2]])
            return
        words = self._expanded(words)
        if program in ("cd", "pushd"):
            target = next((w for w in words[1:] if not w.startswith("-")), os.path.expanduser("~"))  # noqa: PTH111
            self._folder = os.path.join(self._folder, target)  # noqa: PTH118
        elif program == "eval":
            yield from self.changed(" ".join(words[1:]))
        else:
            more = self._expanded(piped) if piped and PurePath(piped[0]).name in _LISTING else []
            yield from _of_words(words, self._folder, more[1:])

    def _places(self, words: Sequence[str]) -> Iterator[str]:
        return (os.path.join(self._folder, word) for word in self._expanded(words))  # noqa: PTH118

    def _expanded(self, words: Sequence[str]) -> list[str]:
        return [found for word in words for found in islice(self._of_word(word), _MOST)]

    def _of_word(self, word: str) -> Iterator[str]:
        """What a shell makes of one word: braces, variables, patterns."""
        braces = _BRACES.fullmatch(word)
        if braces is not None and not braces[1].endswith("$") and word.count("{") <= _DEEPEST:
            for part in braces[2].split(","):
                yield from self._of_word(f"{braces[1]}{part}{braces[3]}")
            return
        for name, values in self._variables.items():
            held = re.compile(rf"\$(?:{re.escape(name)}\b|\{{{re.escape(name)}\}})")
            if held.search(word):
                for value in values:
                    yield from self._of_word(held.sub(lambda _, value=value: value.replace("$", ""), word))  # type: ignore[misc]
                return
        word = os.path.expandvars(os.path.expanduser(word))  # noqa: PTH111  (`Path` raises where there is no home)
        found = glob.iglob(os.path.join(self._folder, word)) if glob.has_magic(word) else iter(())  # noqa: PTH118, PTH207
        first = next(found, None)
        yield word if first is None else first
        yield from found


def _tokens(text: str) -> Iterator[tuple[str, bool]]:
    """Words, and the signs between them; up to where the text is none that we understand."""
    lexer = shlex.shlex(text.replace("\\\n", " "), posix=True, punctuation_chars=";()<>|&\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t\r", True, ""
    comment = False
    while True:
        try:
            word = lexer.get_token()
        except ValueError:
            return  # a shell may understand it, we do not
        if word is None:
            return
        signs = _SIGNS.findall(word) if word and set(word) <= set(";()<>|&\n") else []
        comment = (comment or word.startswith("#")) and "\n" not in word
        if not comment:
            yield from ((sign, True) for sign in signs)
            if not signs:
                yield word, False


def _without_documents(text: str) -> str:
    return _HERE.sub(_without_body, text) if text.count("<<") <= _DOCUMENTS else text


def _without_body(found: re.Match[str]) -> str:
    """A document within the text is data, but where a shell gets it."""
    line = found.string[found.string.rfind("\n", 0, found.start()) + 1 : found.start()]
    body = found[4] if any(PurePath(word).name in _SHELLS for word in line.split()) else ""
    return f"{found[3]}\n{body}"


def _of_words(words: Sequence[str], folder: str, piped: Sequence[str] = ()) -> Iterator[str]:
    """Of one program; `piped` are paths that `xargs` would be given."""
    words, more = _started(words)
    if not words:
        return
    program, rest = PurePath(words[0]).name, [*words[1:], *(piped if more else ())]
    paths = [word for word in rest if not word.startswith("-")]
    if program in _SHELLS:
        place = next((n for n, w in enumerate(rest) if re.fullmatch(r"-\w*c", w)), len(rest))
        script = next((w for w in rest[place + 1 :] if not w.startswith("-")), "")
        yield from _Shell(folder).changed(script)
        return
    if program == "find":
        paths = _changed_by_find(rest)
    elif program in _CHANGE_LAST:
        paths = paths[-1:] if len(paths) > 1 else []
    elif program not in _CHANGE_ALL:
        return
    yield from (os.path.join(folder, path) for path in paths)  # noqa: PTH118


def _started(words: Sequence[str]) -> tuple[Sequence[str], bool]:
    """The program that is started at last, and whether `xargs` gives it more words."""
    more = False
    while words:
        program = PurePath(words[0]).name
        if "=" in words[0]:
            words = words[1:]
            continue
        if program not in _BEFORE_OTHERS:
            break
        valued, more = _BEFORE_OTHERS[program].split(), more or program == "xargs"
        words = words[1:]
        while words and words[0].startswith("-"):
            words = words[2 if words[0] in valued else 1 :]
        if program == "timeout":
            words = words[1:]
    return words, more


def _changed_by_find(words: Sequence[str]) -> list[str]:
    """Where it looks, if it removes or changes what it finds."""
    begin = next((n for n, w in enumerate(words) if w.startswith(("-", "(", "!"))), len(words))
    runs = [PurePath(words[n + 1]).name for n, w in enumerate(words[:-1]) if w in _FIND_RUNS]
    if "-delete" in words or any(r in _CHANGE_ALL or r in _CHANGE_LAST or r in _SHELLS for r in runs):
        return list(words[:begin]) or ["."]
    return []

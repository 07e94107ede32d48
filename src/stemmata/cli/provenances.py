"""How two versions came about, for people: environment, code and tokenizer. Owns what of them is folded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from stemmata.cli import text
from stemmata.cli.changes import came, changed_rows, counted, counted_setting, move, unified, went
from stemmata.cli.styled import Text
from stemmata.cli.tables import pairs

if TYPE_CHECKING:
    from stemmata.compare.environment import EnvironmentChange, EnvironmentDiff
    from stemmata.compare.source import CodeDiff, CommandChange
    from stemmata.compare.texts import TextChange
    from stemmata.compare.tokenizers import Token, TokenizerDiff
    from stemmata.records import Value

_Row = tuple[str, Text]
_FEW_NAMES = 6
_FEW_TOKENS = 8
_FEW_LINES = 24
_LONGEST_TOKEN = 40
_COMMIT = 12
_WORDS_AROUND = 2


# --- environment ----------------------------------------------------------------------------------


def environment_lines(found: EnvironmentDiff, width: int, *, full: bool) -> list[Text]:
    """What matters, a row each; the rest in one, unless it is all that there is, or `full`."""
    folded = [c for c in found.changes if c.folded]
    shown = list(found.changes) if full or len(folded) < 2 else [c for c in found.changes if not c.folded]
    rows = [(text.plain(c.item.name), _from_to(c.a, c.b)) for c in shown]
    if len(shown) < len(found.changes):
        rows.append(("others" if shown else "packages", _others(folded)))
    rows += _unknown(found.unknown)
    return [pairs(rows, width)] if rows else []


def _from_to(a: Value, b: Value) -> Text:
    if a is None or b is None:
        return came(counted_setting(b)) if a is None else went(counted_setting(a))
    return move(counted_setting(a), counted_setting(b))


def _others(changes: Sequence[EnvironmentChange]) -> Text:
    """`14 packages: 11 other releases, 2 new, 1 gone`, and the first names."""
    new = sum(c.a is None for c in changes)
    gone = sum(c.b is None for c in changes)
    other = len(changes) - new - gone
    parts = [text.count(other, "other release")] * bool(other) + [f"{new:,} new"] * bool(new)
    parts += [f"{gone:,} gone"] * bool(gone)
    packages = all(c.item.kind == "package" for c in changes)
    line = Text(f"{text.count(len(changes), 'package' if packages else 'item')}: {', '.join(parts)}")
    names = [text.plain(c.item.name) for c in changes]
    more = len(names) - _FEW_NAMES
    listed = ", ".join(names[:_FEW_NAMES]) + (f" and {more:,} others" if more > 0 else "")
    return line.append(f"  {listed}", "dim")


def _unknown(unknown: Mapping[str, str]) -> list[_Row]:
    return [(text.plain(kind), Text(text.plain(why), "yellow")) for kind, why in unknown.items()]


# --- code -----------------------------------------------------------------------------------------


def code_lines(found: CodeDiff, width: int, *, full: bool) -> list[Text]:
    """Commit, command, and texts line by line."""
    rows: list[_Row] = []
    git = found.git
    told = {c.key: (c.a, c.b) for c in git.changed}
    told |= {key: (value, None) for key, value in git.removed.items()}
    told |= {key: (None, value) for key, value in git.added.items()}
    for key in ("commit", "branch", "dirty", "remote", *sorted(told.keys() - _FACTS)):
        if key in told:
            title = "uncommitted" if key == "dirty" else key
            rows.append((text.plain(title), _from_to(*(_fact(key, v) for v in told[key]))))
    if found.command is not None:
        rows.append(("command", _command(found.command, full=full)))
    if found.folder is not None:
        rows.append(("folder", move(*(text.plain(f) or "none" for f in found.folder))))
    rows += [(text.plain(t.name), counted(t)) for t in found.texts if not t.lines]
    rows += _unknown(found.unknown)
    lines = [pairs(rows, width)] if rows else []
    for each in found.texts:
        if each.lines:
            lines.append(Text(f"  {text.plain(each.name)}  ", "dim").append_text(counted(each)))
            lines += unified(each, width, limit=None if full else _FEW_LINES)
    return lines


_FACTS = {"commit", "branch", "dirty", "remote"}


def _fact(key: str, value: Value) -> Value:
    if key == "commit" and isinstance(value, str):
        return value[:_COMMIT]
    if key == "dirty" and value is not None:
        return "changes that no commit has" if value else "no changes"
    return value


def _command(change: CommandChange, *, full: bool) -> Text:
    """The words of b, after those of a that they stand for. Long runs that are the same are left out."""
    line = Text()
    runs = change.words()
    for place, (what, before, after) in enumerate(runs):
        line.append(" " if line else "")
        if what == "equal":
            line.append(_run(after, first=place == 0, last=place == len(runs) - 1, full=full), "dim")
            continue
        line.append(text.plain(" ".join(before)), "red")
        line.append(" → " if before and after else " " if before else "", "dim")
        line.append(text.plain(" ".join(after)), "green")
    return line


def _run(words: tuple[str, ...], *, first: bool, last: bool, full: bool) -> str:
    head, tail = (0 if first else _WORDS_AROUND), (0 if last else _WORDS_AROUND)
    if full or len(words) <= head + tail + 1:
        return text.plain(" ".join(words))
    return text.plain(" ".join([*words[:head], "…", *words[len(words) - tail :]]))


# --- tokenizer ------------------------------------------------------------------------------------


def tokenizer_lines(found: TokenizerDiff, width: int, *, full: bool) -> list[Text]:
    """Vocabulary, special tokens, pipeline, templates."""
    if not found:
        return []
    rows: list[_Row] = []
    if found.sizes is not None:
        before, after = (f"{size:,}" for size in found.sizes)
        size = move(before, after) if before != after else Text(f"{after} tokens on both sides", "dim")
        rows.append(("vocabulary", size))
        rows += _tokens(found, full=full)
    for changes, prefix in ((found.special, ""), (found.pipeline, ""), (found.settings, "")):
        rows += [(prefix + key, value) for key, value in changed_rows(changes)]
    for template in found.templates:
        title = "chat template" if template.name == "default" else f"chat template {template.name}"
        if not template.lines:
            rows.append((text.plain(title), counted(template)))
    rows += [("note", Text(text.plain(note), "yellow")) for note in found.notes]
    if not rows and not found.templates:
        files = ", ".join(map(text.plain, found.files))
        rows.append(("files", Text(f"{files}: written differently, with the same meaning", "dim")))
    return [*([pairs(rows, width)] if rows else []), *_templates(found.templates, width, full=full)]


def _tokens(found: TokenizerDiff, *, full: bool) -> list[_Row]:
    rows = []
    added, removed, renumbered = found.counts
    for mark, style, tokens, count in (
        ("+", "green", found.added, added),
        ("-", "red", found.removed, removed),
    ):
        if count:
            shown = _listed(tokens, count, full=full)
            rows.append(("added" if mark == "+" else "removed", Text(f"{mark} {shown}", style)))
    if renumbered:
        few = found.renumbered if full else found.renumbered[:_FEW_TOKENS]
        shown = ", ".join(f"{quoted(token.text)} {token.id} → {now}" for token, now in few)
        rows.append(("other numbers", Text(f"{shown}{_more(len(few), renumbered)}", "yellow")))
    return rows


def _listed(tokens: Sequence[Token], count: int, *, full: bool) -> str:
    few = tokens if full else tokens[:_FEW_TOKENS]
    return ", ".join(f"{quoted(token.text)} {token.id}" for token in few) + _more(len(few), count)


def _more(shown: int, count: int) -> str:
    return f" and {count - shown:,} others" if count > shown else ""


def quoted(token: str) -> str:
    """A token between quotes, with what cannot be seen, or steers a terminal, as Python writes it."""
    short = token if len(token) <= _LONGEST_TOKEN else token[: _LONGEST_TOKEN - 1] + "…"
    return text.escaped(repr(short))


def _templates(templates: Iterable[TextChange], width: int, *, full: bool) -> list[Text]:
    lines: list[Text] = []
    for each in templates:
        if each.lines:
            name = "chat template" if each.name == "default" else text.plain(each.name)
            lines.append(Text(f"  {name}  ", "dim").append_text(counted(each)))
            lines += unified(each, width, limit=None if full else _FEW_LINES)
    return lines

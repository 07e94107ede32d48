"""Making: what two captures tell differently of what a training computed: seeds, data, base, code, settings,
command. Owns which settings decide where files go and what is shown, and so change no number."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from stemmata.capturing.reading import BaseModel, Code, Command, Data, DataPart, Seeds, Trainer
from stemmata.compare.records import equal
from stemmata.compare.source import CommandChange
from stemmata.records import Base, Value
from stemmata.reproducing import recorded
from stemmata.reproducing.recorded import Difference

# Not those of evaluating, saving and logging steps: an evaluation draws random numbers, a save may become the
# best one, and what is logged is a mean over the steps since the last log.
_HOUSEKEEPING = re.compile(
    r"(?:output_dir|overwrite_output_dir|run_name|report_to|project|trackio_.*|hub_.*|push_to_hub.*|logging_dir"
    r"|log_level|log_level_replica|log_on_each_node|disable_tqdm|enable_progress_bar|default_root_dir"
    r"|save_total_limit|save_safetensors|save_on_each_node|save_only_model|skip_memory_metrics|ddp_timeout"
    r"|local_rank|dataloader_pin_memory|include_num_input_tokens_seen|include_tokens_per_second"
    r"|resume\.(?:asked|command))"
)
_SEEDS = ("seed", "data_seed")


def seeds(a: Seeds, b: Seeds) -> Iterator[Difference]:
    """Seeds; where none differs, generators that did not begin alike."""
    found = [
        Difference("seed", name, getattr(a, name), getattr(b, name), recorded.SEED)
        for name in _SEEDS
        if getattr(a, name) != getattr(b, name)
    ]
    yield from found
    for library in ("torch", "numpy", "python"):
        left, right = getattr(a, library) or {}, getattr(b, library) or {}
        for name in ("initial_seed", "cuda_initial_seed", "state", "cuda_state"):
            before, after = left.get(name), right.get(name)
            if found or before is None or after is None or before == after:
                continue
            if name.endswith("initial_seed"):
                found.append(
                    Difference("seed", f"{library}.{name}", _value(before), _value(after), recorded.SEED)
                )
                yield found[-1]
            else:
                states = [str(state)[:12] for state in (before, after)]
                yield Difference("seed", f"{library}.{name}", states[0], states[1], recorded.GENERATOR)


def data(a: Data, b: Data) -> Iterator[Difference]:
    """Datasets, by their part."""
    for part in sorted(a.parts.keys() | b.parts.keys()):
        rank = _rank(part)
        one, two = a.parts.get(part), b.parts.get(part)
        if one is None or two is None:
            words = [None if each is None else _rows(each) for each in (one, two)]
            yield Difference("data", part, words[0], words[1], rank)
        else:
            yield from _part(part, one, two, rank)


def _part(part: str, a: DataPart, b: DataPart, rank: int) -> Iterator[Difference]:
    if a.digest and b.digest and a.covers == b.covers:
        if a.digest != b.digest:
            yield Difference(
                "data", part, f"{_rows(a)}, {a.digest[:12]}", f"{_rows(b)}, {b.digest[:12]}", rank
            )
            yield from _files(part, a, b, rank + 1)
        return
    # No digest of the rows on both sides: then what else is known of them.
    if a.rows != b.rows and None not in (a.rows, b.rows):
        yield Difference("data", part, _rows(a), _rows(b), rank)
    elif a.columns and b.columns and a.columns != b.columns:
        yield Difference("data", f"{part} columns", [*a.columns], [*b.columns], rank)
    found = list(_files(part, a, b, rank))
    yield from found
    if not found and not a.files and a.fingerprint and b.fingerprint and a.fingerprint != b.fingerprint:
        # It changes with the code of `map` too, where every row stays what it was.
        yield Difference("data", f"{part} fingerprint", a.fingerprint, b.fingerprint, rank + 2)


def _files(part: str, a: DataPart, b: DataPart, rank: int) -> Iterator[Difference]:
    """Files of the same name whose bytes differ: a restored one lies in another folder."""
    right = {PurePath(file.path).name: file for file in b.files}
    for file in a.files:
        other = right.get(PurePath(file.path).name)
        if other is not None and file.digest and other.digest and file.digest != other.digest:
            name = f"{part} file {PurePath(file.path).name}"
            yield Difference("data", name, file.digest[:12], other.digest[:12], rank)


def row_count(name: str, before: Value, after: Value) -> Difference:
    """`train.rows` of two versions' records."""
    part = name.removesuffix(".rows")
    return Difference("data", part, f"{before} rows", f"{after} rows", _rank(part))


def _rank(part: str) -> int:
    return recorded.DATA if part.partition(".")[0] == "train" else recorded.HELD_OUT


def _rows(part: DataPart) -> str:
    return "an unknown number of rows" if part.rows is None else f"{part.rows:,} rows"


def base(a: BaseModel, b: BaseModel) -> Iterator[Difference]:
    """What the model was loaded from."""
    yield from _base((a.name_or_path, a.revision, a.digest), (b.name_or_path, b.revision, b.digest))


def base_of_adapter(a: Base | None, b: Base | None) -> Iterator[Difference]:
    """What the adapter was trained on, as the versions say it."""
    if a is not None and b is not None:
        yield from _base((a.name_or_path, a.revision, a.digest), (b.name_or_path, b.revision, b.digest))


def _base(
    a: tuple[str, str | None, str | None], b: tuple[str, str | None, str | None]
) -> Iterator[Difference]:
    if a[2] and b[2]:
        if a[2] != b[2]:
            yield Difference("base", "digest", a[2][:12], b[2][:12], recorded.BASE)
        elif a[0] != b[0]:
            yield Difference("base", "place", a[0], b[0], recorded.BASE, "its files are the same")
        return
    for name, before, after in (("name", a[0], b[0]), ("revision", a[1], b[1])):
        if before != after:
            yield Difference("base", name, before, after, recorded.BASE + 1)


def code(a: Code, b: Code) -> Iterator[Difference]:
    """Commit, files and cells. What only one side has is a difference where both stand on the same commit."""
    if a.commit and b.commit and a.commit != b.commit:
        yield Difference("code", "commit", a.commit[:12], b.commit[:12], recorded.CODE + 1)
    left, right = dict(a.files), dict(b.files)
    for path in sorted(left.keys() & right.keys()):
        if left[path].text != right[path].text:
            yield Difference("code", path, _lines(left[path].text), _lines(right[path].text), recorded.CODE)
    if a.commit == b.commit:
        yield from _alone(a, b)
    if a.entry != b.entry and (a.entry.kind, a.entry.module) != (b.entry.kind, b.entry.module):
        yield Difference("code", "entry", _entry(a), _entry(b), recorded.CODE + 2)
    if a.cells != b.cells:
        yield Difference("code", "notebook cells", len(a.cells), len(b.cells), recorded.CODE)


def _alone(a: Code, b: Code) -> Iterator[Difference]:
    """Files that one side alone has; not one that lies elsewhere on the other."""
    only_a = {p: f for p, f in a.files.items() if p not in b.files}
    only_b = {p: f for p, f in b.files.items() if p not in a.files}
    texts_a, texts_b = ({f.text for f in only.values()} for only in (only_a, only_b))
    for path, file in sorted(only_a.items()):
        if file.text not in texts_b:
            yield Difference("code", path, _lines(file.text), None, recorded.CODE)
    for path, file in sorted(only_b.items()):
        if file.text not in texts_a:
            yield Difference("code", path, None, _lines(file.text), recorded.CODE)
    for path in sorted(set(a.deleted) ^ set(b.deleted)):
        there = [None if path in each.deleted else "there" for each in (a, b)]
        yield Difference("code", path, there[0], there[1], recorded.CODE)


def _lines(text: str) -> str:
    count = text.count("\n") + bool(text and not text.endswith("\n"))
    return f"{count:,} line{'' if count == 1 else 's'}"


def _entry(told: Code) -> str:
    return " ".join(filter(None, (told.entry.kind, told.entry.path or told.entry.module)))


def arguments(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> Iterator[Difference]:
    """A training's arguments, or a version's settings; nested ones by their path."""
    for key in sorted(a.keys() | b.keys()):
        before, after = a.get(key), b.get(key)
        name = f"{prefix}{key}"
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from arguments(before, after, f"{name}.")
        elif not equal(before, after):
            yield _setting(name, _value(before), _value(after))


def _setting(name: str, before: Value, after: Value) -> Difference:
    if name in _SEEDS:
        return Difference("seed", name, before, after, recorded.SEED)
    if name == "full_determinism":
        return Difference("switch", name, before, after, recorded.SWITCH)
    housekeeping = any(_HOUSEKEEPING.fullmatch(part) for part in (name, name.partition(".")[0]))
    aside = "it says where files go, or what is shown" if housekeeping else ""
    return Difference("argument", name, before, after, recorded.ARGUMENT, aside)


def classes(a: Trainer, b: Trainer) -> Iterator[Difference]:
    """Classes of the trainer and of what it used."""
    for name in ("trainer", "model", "optimizer", "scheduler", "collator", "processing"):
        before, after = getattr(a, name), getattr(b, name)
        if before != after and None not in (before, after):
            yield Difference("class", name, before, after, recorded.CLASS)


def command(a: Command, b: Command, roots: tuple[str, str] = ("", "")) -> Iterator[Difference]:
    """The words of the command line that differ, but for Python's own path; where it ran. `roots`: where the
    code lies; a path below that, or below the working folder, is the same path in another place."""
    left, right = (_placeless(each, root) for each, root in zip((a, b), roots, strict=True))
    if left != right:
        before, after = _changed_words(left, right)
        yield Difference("command", "command", before or None, after or None, recorded.COMMAND)
    aside = "what is there is compared by itself"
    if a.folder != b.folder:
        yield Difference("command", "folder", a.folder, b.folder, recorded.COMMAND, aside)
    if a.python_path != b.python_path:
        found = [":".join(each.python_path) for each in (a, b)]
        yield Difference("command", "PYTHONPATH", found[0], found[1], recorded.COMMAND, aside)


def _placeless(told: Command, root: str) -> tuple[str, ...]:
    places = {f"{place.rstrip('/')}/" for place in (told.folder, root) if place}
    folders = sorted(places, key=len, reverse=True)
    words = []
    for word in told.argv[1:]:
        for folder in folders:
            word = word.replace(folder, "")
        words.append(word)
    return tuple(words)


def _changed_words(a: tuple[str, ...], b: tuple[str, ...]) -> tuple[str, str]:
    """Of both what the other has not; a value with the option before it."""
    before: list[str] = []
    after: list[str] = []
    option = ""
    for what, old, new in CommandChange(a, b).words():
        if what != "equal":
            lead = [option] if option.startswith("-") else []
            before += [*lead, *old] if old else []
            after += [*lead, *new] if new else []
        option = new[-1] if new else option
    return " ".join(before), " ".join(after)


def _value(value: Any) -> Value:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, list | tuple) and all(isinstance(x, str | int | float | bool | None) for x in value):
        return list(value)
    return str(value)

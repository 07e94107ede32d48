"""A tokenizer's files: what they say, as far as bounded work can read them. Owns their names and limits.

The files are those of the `tokenizers` and `transformers` libraries; nothing of them is run. What cannot be
read is a note, and costs nothing but itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from stemmata.errors import Damage
from stemmata.records import Stored, Value, flatten, load_value
from stemmata.trees import Tree, TreeFile

WHOLE = "tokenizer.json"
VOCABULARIES = (WHOLE, "vocab.json", "vocab.txt", "added_tokens.json", "merges.txt")
BINARIES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "tekken.json", "tiktoken.model")
_CONFIG, _MAP = "tokenizer_config.json", "special_tokens_map.json"
_TEMPLATE, _TEMPLATE_JSON, _MORE = "chat_template.jinja", "chat_template.json", "additional_chat_templates/"
SETTINGS = (_CONFIG, _MAP, _TEMPLATE, _TEMPLATE_JSON)
_NAMES = frozenset({*VOCABULARIES, *BINARIES, *SETTINGS})
_TELLING = _NAMES - {"merges.txt", "added_tokens.json", _TEMPLATE_JSON}
"""Files that only a tokenizer has."""

MAX_BYTES = 64 << 20
MAX_VOCABULARY = 32 << 20
"""Bytes of the vocabulary within the file: a token takes a hundred in memory."""
_MAX_SETTINGS = 4 << 20
_MAX_PART = 1 << 20
_LONGEST = 300
_DEEPEST = 6
_PIPELINE = ("normalizer", "pre_tokenizer", "post_processor", "decoder", "truncation", "padding")
_ASIDE = frozenset({"added_tokens_decoder", "name_or_path", "chat_template"})


_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`tokens`: text to number, added ones too. `merges`: as they are written. `pipeline`: each part in a
    line."""

    tokens: Mapping[str, int]
    merges: bytes = b""
    pipeline: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settings:
    """`special`: role to token. `templates`: chat templates by name."""

    special: Mapping[str, Value] = field(default_factory=dict)
    others: Mapping[str, Value] = field(default_factory=dict)
    templates: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class TokenizerFiles:
    """The files of one tokenizer, by their names in its folder. `notes` get what cannot be read."""

    folder: str
    files: Mapping[str, TreeFile]
    read: Callable[[str], bytes]
    notes: list[str]

    def bytes_of(self, name: str, most: int = MAX_BYTES) -> bytes | None:
        """None where there is no such file, or where it is too long."""
        file = self.files.get(name)
        if file is None:
            return None
        if file.size > most:
            self.notes.append(f"{file.path} has {file.size:,} bytes: too many to be compared by tokens")
            return None
        try:
            return self.read(file.path)
        except Damage as error:
            self.notes.append(f"{file.path} cannot be read: {error.kind}")
            return None

    def object_of(self, name: str) -> dict[str, Any]:
        """A JSON object; an empty one for what is none."""
        data = self.bytes_of(name, _MAX_SETTINGS)
        try:
            return msgspec.json.decode(data, type=dict[str, Any]) if data is not None else {}
        except _BROKEN:
            self.notes.append(f"{self.files[name].path} is no JSON object: compared as bytes")
            return {}


def tokenizer_files(tree: Tree, read: Callable[[str], bytes], notes: list[str]) -> TokenizerFiles | None:
    """The tokenizer nearest to the top of a tree, None where there is none."""
    by_path = {f.path: f for f in tree.files}
    folders = {_folder(p) for p in by_path if p.removeprefix(_folder(p)) in _TELLING}
    if not folders:
        return None
    folder = min(folders, key=lambda f: (f.count("/"), f))
    inside = {p.removeprefix(folder): f for p, f in by_path.items() if p.startswith(folder)}
    kept = {n: f for n, f in inside.items() if n in _NAMES or (n.startswith(_MORE) and n.endswith(".jinja"))}
    return TokenizerFiles(folder, kept, read, notes)


def _folder(path: str) -> str:
    return path[: path.rfind("/") + 1]


# --- vocabulary -----------------------------------------------------------------------------------


def read_vocabulary(files: TokenizerFiles) -> Vocabulary | None:
    """Every token, from tokenizer.json, else from the files that came before it; None if none can be read."""
    whole = files.bytes_of(WHOLE)
    if whole is not None:
        try:
            return _of_whole(whole)
        except (*_BROKEN, ValueError) as error:
            reason = str(error) if type(error) is ValueError else "it is not what the library writes"
            files.notes.append(f"{files.files[WHOLE].path} cannot be read: {reason}")
            return None
    tokens = _older(files)
    if tokens is None:
        return None
    return Vocabulary(tokens, files.bytes_of("merges.txt") or b"")


def _of_whole(data: bytes) -> Vocabulary:
    parts = _raws(data)
    model = _raws(parts.get("model", msgspec.Raw(b"{}")))
    tokens = _tokens(bytes(model.pop("vocab", msgspec.Raw(b"{}"))))
    merges = bytes(model.pop("merges", msgspec.Raw(b"")))
    for each in msgspec.json.decode(parts.get("added_tokens") or b"[]", type=list[dict[str, Any]]):
        if isinstance(each.get("content"), str) and isinstance(each.get("id"), int):
            tokens[each["content"]] = each["id"]
    pipeline: dict[str, Value] = {"model": _part(_small(model))}
    for name in _PIPELINE:
        if name in parts:
            raw = parts[name]
            pipeline[name] = _part(msgspec.json.decode(raw)) if len(raw) <= _MAX_PART else f"{len(raw)} bytes"
    return Vocabulary(tokens, merges, pipeline)


def _raws(data: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    return msgspec.json.decode(data, type=dict[str, msgspec.Raw])


def _numbered(data: bytes) -> dict[str, int]:
    return msgspec.json.decode(data, type=dict[str, int])


def _small(model: Mapping[str, msgspec.Raw]) -> dict[str, Any]:
    return {k: msgspec.json.decode(v) if len(v) <= _LONGEST else f"{len(v)} bytes" for k, v in model.items()}


def _tokens(vocabulary: bytes) -> dict[str, int]:
    if len(vocabulary) > MAX_VOCABULARY:
        raise ValueError(f"its vocabulary has {len(vocabulary):,} bytes")
    if vocabulary.lstrip().startswith(b"["):  # Unigram: the place is the number
        scored = msgspec.json.decode(vocabulary, type=list[tuple[str, float]])
        return {token: number for number, (token, _) in enumerate(scored)}
    return _numbered(vocabulary)


def _older(files: TokenizerFiles) -> dict[str, int] | None:
    """vocab.json or vocab.txt, and what was added to it."""
    tokens: dict[str, int] | None = None
    try:
        if (data := files.bytes_of("vocab.json", MAX_VOCABULARY)) is not None:
            tokens = _numbered(data)
        elif (data := files.bytes_of("vocab.txt", MAX_VOCABULARY)) is not None:
            lines = data.decode().removesuffix("\n").split("\n")
            tokens = {token.removesuffix("\r"): number for number, token in enumerate(lines)}
        if (data := files.bytes_of("added_tokens.json", MAX_VOCABULARY)) is not None:
            tokens = {**(tokens or {}), **_numbered(data)}
    except _BROKEN:
        files.notes.append(f"the vocabulary in {files.folder or 'its folder'} cannot be read")
        return None
    config = files.bytes_of(_CONFIG, _MAX_SETTINGS)
    try:
        raw = _raws(config or b"{}").get("added_tokens_decoder") or b"{}"
        added = msgspec.json.decode(raw, type=dict[int, dict[str, Any]])
    except _BROKEN:
        return tokens
    named = {each["content"]: n for n, each in added.items() if isinstance(each.get("content"), str)}
    return {**(tokens or {}), **named} or tokens


def _part(node: Any, depth: int = 0) -> str:
    """A part of the pipeline in a line: `Sequence[NFD, Lowercase]`, `BertNormalizer(lowercase=true)`."""
    if not isinstance(node, dict):
        return "none" if node is None else _scalar(node)
    if depth == _DEEPEST:
        return "…"
    shown: list[str] = []
    inner: list[str] = []
    for key, value in node.items():
        if key == "type":
            continue
        if isinstance(value, list) and value and all(isinstance(x, dict) for x in value):
            inner += [_part(x, depth + 1) for x in value[:20]]
        elif isinstance(value, dict):
            shown.append(f"{key}={_part(value, depth + 1)}" if value else f"{key}={{}}")
        else:
            shown.append(f"{key}={_scalar(value)}")
    words = str(node.get("type", ""))
    words += f"[{', '.join(inner)}]" if inner else ""
    words += f"({', '.join(shown)})" if shown else ""
    return words if len(words) <= _LONGEST else words[: _LONGEST - 1] + "…"


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if not isinstance(value, list) else f"[{', '.join(map(_scalar, value[:20]))}]"


# --- settings -------------------------------------------------------------------------------------


def read_settings(files: TokenizerFiles) -> Settings:
    """Special tokens, templates, and the rest of what is configured."""
    config, more = files.object_of(_CONFIG), files.object_of(_MAP)
    special: dict[str, Value] = {}
    for key, value in {**more, **config}.items():
        if key.endswith(("_token", "special_tokens")) and (told := _token(value)) is not None:
            special[key] = told
    others: dict[str, Stored] = {}
    for key, value in config.items():
        if key not in special and key not in _ASIDE and key not in more:
            flatten(key, value, others)
    loaded = {key: load_value(value) for key, value in others.items()}
    return Settings(special, loaded, dict(_templates(files, config)))


def _token(value: Any) -> Value:
    """A token's text, however it is written; a list of them; None for none."""
    if isinstance(value, dict):
        value = value.get("content")
    if isinstance(value, list):
        found = [_token(each) for each in value]
        return [each for each in found if isinstance(each, str)] or None
    return value if isinstance(value, str) else None


def _templates(files: TokenizerFiles, config: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    said = config.get("chat_template")
    if said is None and _TEMPLATE_JSON in files.files:
        said = files.object_of(_TEMPLATE_JSON).get("chat_template")
    if isinstance(said, str):
        yield "default", said
    elif isinstance(said, list):
        for each in said:
            if isinstance(each, dict) and isinstance(each.get("template"), str):
                yield str(each.get("name")), each["template"]
    for name in files.files:
        if name == _TEMPLATE or name.startswith(_MORE):
            data = files.bytes_of(name, _MAX_SETTINGS)
            stem = name.removeprefix(_MORE).removesuffix(".jinja")
            yield "default" if name == _TEMPLATE else stem, (data or b"").decode("utf-8", "replace")

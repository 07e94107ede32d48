"""Training arguments: what `training_args.bin` says, without its secrets.

The file is a pickle that holds `hub_token` in clear. It is read here by an interpreter of the
pickle's opcodes that imports nothing, calls nothing and hashes nothing: classes become their
names, calls become (name, arguments). Anything it does not know reads as None.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from stemmata.capture import mask_config
from stemmata.records import store_value

FILE_NAME = "training_args.bin"
PROVENANCE_KIND = "training_arguments"

MAX_FILE_BYTES = 64 << 20
MAX_PICKLE_BYTES = 8 << 20
_MAX_OPCODES = 500_000
_MAX_VALUES = 20_000
_MAX_DEPTH = 8
_MAX_BITS = 4096
_MAX_TEXT = 4 << 20
"""Characters of all texts: one may be named many times."""


@dataclass(slots=True, eq=False)
class _Named:
    """A class or function that the pickle asks for; never looked up."""

    module: str
    name: str


@dataclass(slots=True, eq=False)
class _Made:
    """The result of a call that was not made; `state` is what the pickle would set on it."""

    what: object
    arguments: object
    state: object = None


@dataclass(slots=True, eq=False)
class _Items:
    """A dict, as pairs: keys of a hostile pickle are not hashed."""

    pairs: list[tuple[object, object]] = field(default_factory=list)


_MARK = object()


def sanitised(data: bytes) -> dict[str, object] | None:
    """The arguments in a `training_args.bin`: plain values, secrets masked; None if unreadable.

    `data` is a torch zip file or a bare pickle. Nothing in it is imported or run.
    """
    pickled = _pickle_of(data)
    if pickled is None:
        return None
    try:
        top = _Machine().run(pickled)
        plain = _Simplifier().simplify(top, 0)
    except (ValueError, IndexError, TypeError, KeyError, OverflowError, UnicodeError, RecursionError):
        return None  # pickletools and the machine say "malformed" in these ways
    return sanitise_arguments(plain) if isinstance(plain, dict) else None


def sanitise_arguments(arguments: object) -> dict[str, object]:
    """Training arguments, as an object or a dict, as what may be stored: public fields, masked."""
    fields: Mapping[str, object]
    if isinstance(arguments, Mapping):
        fields = arguments
    else:
        # to_dict() of TrainingArguments writes <PAD_TOKEN> over every field named *_token.
        to_dict = getattr(arguments, "to_dict", None)
        known = to_dict() if callable(to_dict) else dict(vars(arguments))
        fields = {k: getattr(arguments, k, v) if str(k).endswith("_token") else v for k, v in known.items()}
    public = {str(k): v for k, v in fields.items() if not str(k).startswith("_")}
    plain = _Simplifier().simplify(public, 0)
    assert isinstance(plain, dict)
    return mask_config(plain)


def _pickle_of(data: bytes) -> bytes | None:
    if len(data) > MAX_FILE_BYTES:
        return None
    if not data.startswith(b"PK\x03\x04"):
        return data if len(data) <= MAX_PICKLE_BYTES else None
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist():
                if info.filename.rpartition("/")[2] == "data.pkl" and info.file_size <= MAX_PICKLE_BYTES:
                    with archive.open(info) as member:
                        found = member.read(MAX_PICKLE_BYTES + 1)
                    return found if len(found) <= MAX_PICKLE_BYTES else None
    except (zipfile.BadZipFile, zlib.error, ValueError, NotImplementedError, OSError, EOFError, RuntimeError):
        return None  # zipfile reports damage and encryption by any of these
    return None


class _Machine:
    """Runs the opcodes on inert values only."""

    def __init__(self) -> None:
        self.stack: list[object] = []
        self.memo: dict[int, object] = {}

    def run(self, data: bytes) -> object:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if count > _MAX_OPCODES:
                raise ValueError("too many opcodes")
            name = opcode.name
            if name == "STOP":
                return self.stack[-1]
            if name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name]())
            elif name in _STEPS:
                _STEPS[name](self, argument)
            elif name in _LITERALS:
                self.stack.append(argument)
            else:
                raise ValueError(f"opcode {name}")
        raise ValueError("no end")

    def marked(self) -> list[object]:
        """What lies above the last mark; the mark goes too."""
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise ValueError("no mark")
        found = self.stack[at + 1 :]
        del self.stack[at:]
        return found

    def pop(self, count: int) -> list[object]:
        if count > len(self.stack):
            raise ValueError("the stack is too short")
        found = self.stack[-count:]
        del self.stack[-count:]
        return found

    def memoize(self, key: int) -> None:
        self.memo[key] = self.stack[-1]

    def push_memo(self, key: int) -> None:
        self.stack.append(self.memo[key])

    def tuple_of(self, values: list[object]) -> None:
        self.stack.append(tuple(values))

    def extend(self, values: list[object]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(values)

    def set_items(self, values: list[object]) -> None:
        target = self.stack[-1]
        pairs = list(zip(values[::2], values[1::2], strict=True))
        if isinstance(target, _Items):
            target.pairs.extend(pairs)
        # else: items of a dict's subclass, made by a call: not of interest

    def make_dict(self, values: list[object]) -> None:
        self.stack.append(_Items())
        self.set_items(values)

    def make(self, what: object, arguments: object) -> None:
        self.stack.append(_Made(what, arguments))

    def build(self) -> None:
        (state,) = self.pop(1)
        if isinstance(self.stack[-1], _Made):
            self.stack[-1].state = state

    def named(self, module: object, name: object) -> None:
        # The text of anything else may have no end: a tuple of itself twice, forty times over.
        if not (isinstance(module, str) and isinstance(name, str)):
            raise ValueError("a class is named by two texts")
        self.stack.append(_Named(module, name))

    def global_text(self, text: str) -> None:
        module, _, name = text.partition(" ")
        self.named(module, name)


_CONSTANTS: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": _Items,
    "EMPTY_LIST": list,
    "EMPTY_SET": list,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
}
_LITERAL_OPCODES = (
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES "
    "BINBYTES8 UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 FLOAT BINFLOAT"
)
_LITERALS = frozenset(_LITERAL_OPCODES.split())
_STEPS: dict[str, Callable[[_Machine, object], object]] = {
    "PROTO": lambda _m, _a: None,
    "FRAME": lambda _m, _a: None,
    "POP": lambda m, _: m.pop(1),
    "POP_MARK": lambda m, _: m.marked(),
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    "MEMOIZE": lambda m, _: m.memoize(len(m.memo)),
    "PUT": lambda m, a: m.memoize(int(str(a))),
    "BINPUT": lambda m, a: m.memoize(int(str(a))),
    "LONG_BINPUT": lambda m, a: m.memoize(int(str(a))),
    "GET": lambda m, a: m.push_memo(int(str(a))),
    "BINGET": lambda m, a: m.push_memo(int(str(a))),
    "LONG_BINGET": lambda m, a: m.push_memo(int(str(a))),
    "TUPLE": lambda m, _: m.tuple_of(m.marked()),
    "TUPLE1": lambda m, _: m.tuple_of(m.pop(1)),
    "TUPLE2": lambda m, _: m.tuple_of(m.pop(2)),
    "TUPLE3": lambda m, _: m.tuple_of(m.pop(3)),
    "LIST": lambda m, _: m.stack.append(m.marked()),
    "FROZENSET": lambda m, _: m.stack.append(m.marked()),
    "DICT": lambda m, _: m.make_dict(m.marked()),
    "APPEND": lambda m, _: m.extend(m.pop(1)),
    "APPENDS": lambda m, _: m.extend(m.marked()),
    "ADDITEMS": lambda m, _: m.extend(m.marked()),
    "SETITEM": lambda m, _: m.set_items(m.pop(2)),
    "SETITEMS": lambda m, _: m.set_items(m.marked()),
    "GLOBAL": lambda m, a: m.global_text(str(a)),
    "STACK_GLOBAL": lambda m, _: m.named(*m.pop(2)),
    "REDUCE": lambda m, _: m.make(*m.pop(2)),
    "NEWOBJ": lambda m, _: m.make(*m.pop(2)),
    "NEWOBJ_EX": lambda m, _: m.make(*m.pop(3)[:2]),
    "OBJ": lambda m, _: m.make(None, tuple(m.marked()[1:])),
    "INST": lambda m, _: m.make(None, tuple(m.marked())),
    "BUILD": lambda m, _: m.build(),
    "BINPERSID": lambda m, _: m.make(None, tuple(m.pop(1))),
    "PERSID": lambda m, a: m.make(None, (a,)),
}


class _Simplifier:
    """Inert or live values to plain JSON ones, bounded in depth, number and length."""

    def __init__(self) -> None:
        self.left, self.room = _MAX_VALUES, _MAX_TEXT

    def simplify(self, value: object, depth: int) -> object:
        self.left -= 1
        if self.left < 0 or depth > _MAX_DEPTH:
            return "…"
        if value is None or type(value) is bool:
            return value
        if type(value) is str:
            return self._text(value)
        if type(value) is int and value.bit_length() <= _MAX_BITS:
            return value
        if type(value) in (int, float):
            return store_value(value)  # of an integer that Python itself does not write: its text
        if isinstance(value, _Items):
            pairs = [(k, v) for k, v in value.pairs if isinstance(k, str | int)]
            return {self._key(k): self.simplify(v, depth + 1) for k, v in pairs}
        if isinstance(value, Mapping):
            return {self._key(k): self.simplify(v, depth + 1) for k, v in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
            return [self.simplify(item, depth + 1) for item in items]
        return self._object(value, depth)

    def _text(self, text: str) -> str:
        """What JSON can say: a name of a file in other bytes than UTF-8 is no text."""
        self.room -= len(text)
        return text.encode("utf-8", "replace").decode() if self.room >= 0 else "…"

    def _key(self, key: object) -> str:
        return self._text(str(store_value(key)) if isinstance(key, int) else str(key))

    def _object(self, value: object, depth: int) -> object:
        if isinstance(value, _Named):
            return self._text(f"{value.module}.{value.name}")
        if isinstance(value, _Made):
            if isinstance(value.state, _Items):
                return self.simplify(value.state, depth)
            # An enum member is its class called with its value; a torch.device is much the same.
            if isinstance(value.arguments, tuple) and len(value.arguments) == 1:
                return self.simplify(value.arguments[0], depth + 1)
            return self.simplify(value.what, depth + 1)
        member = getattr(value, "value", None)
        if isinstance(member, str | int | float) and not isinstance(value, bytes):
            return self.simplify(member, depth + 1)
        if isinstance(value, bytes | bytearray):
            return f"{len(value)} bytes"
        return self._text(str(value)[:1000])

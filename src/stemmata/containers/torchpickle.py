"""What torch's pickle tells of tensors, read as text. Owns the only look that is ever taken into a pickle.

Nothing is unpickled: the opcodes are listed by pickletools, which executes none, and a stack of plain values
follows them. Of all calls only those that make tensors and dictionaries mean something here; what any
other would make stays unknown. So no import, no call, no code of the file: only names, types, shapes.
Written from https://github.com/pytorch/pytorch/blob/main/torch/_utils.py and CPython's pickletools.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from stemmata.containers.base import NotThisContainer
from stemmata.containers.tensors import MAX_DIMENSIONS, MAX_NAME, usable_name

MAX_PICKLE = 16 << 20
"""Bytes."""
MAX_STEPS = 2_000_000
"""Opcodes; a tensor takes about 35."""
MAX_NAMES = 16 << 20
"""Characters of all names together."""
_MOST = 1 << 63
_CLASSES = {
    **dict(zip(("Double", "Float", "Half", "BFloat16"), ("F64", "F32", "F16", "BF16"), strict=True)),
    **dict(zip(("Long", "Int", "Short", "Char", "Byte"), ("I64", "I32", "I16", "I8", "U8"), strict=True)),
    "Bool": "BOOL",
}
_BY_STORAGE: dict[str, str | None] = {
    **{f"torch {name}Storage": word for name, word in _CLASSES.items()},
    "torch.storage UntypedStorage": None,
}
"""Storages by their class; an untyped one leaves it to its tensors."""
_BY_TYPE = {
    **{
        f"torch {kind}int{n}": f"{word}{n}" for kind, word in (("", "I"), ("u", "U")) for n in (8, 16, 32, 64)
    },
    **{f"torch float{n}": f"F{n}" for n in (16, 32, 64)},
    "torch bfloat16": "BF16",
    "torch float8_e4m3fn": "F8_E4M3",
    "torch float8_e5m2": "F8_E5M2",
    "torch bool": "BOOL",
}


_OF_MODULES = ("_parameters", "_buffers", "_modules")
"""Attributes of a torch module that hold its tensors and the modules in it."""


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """A storage that the pickle names: `key` of its member, `word` of its type ('' if not known,
    None if its tensors tell it), how many elements, bytes where untyped."""

    key: str
    word: str | None
    count: int


@dataclass(slots=True, eq=False)
class View:
    """One tensor on a storage. `offset` in elements; `contiguous` as rows-first readers mean it."""

    storage: Storage
    word: str
    offset: int
    shape: tuple[int, ...]
    contiguous: bool
    name: str | None = None


@dataclass(slots=True, eq=False)
class Told:
    """All that a pickle told: every storage that it names, every tensor that it makes."""

    storages: list[Storage] = field(default_factory=list)
    views: list[View] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class _Global:
    """What would be imported: module and name, with a blank between."""

    path: str


@dataclass(frozen=True, slots=True, eq=False)
class _Dict:
    pairs: list[tuple[Any, Any]]


@dataclass(frozen=True, slots=True, eq=False)
class _Object:
    """What BUILD gave a state. It is looked into once, at the end: a pickle may give one to very many."""

    state: _Dict


class _Unknown:
    """What is not followed."""


_UNKNOWN: Final = _Unknown()
_MARK: Final = _Unknown()


def read_pickle(data: bytes) -> Told:
    """What `data`, a pickle that torch wrote, tells of tensors. Raises NotThisContainer.

    A tensor's name is the path of texts that leads to it through dictionaries and modules, with dots between;
    one that lies under a number or in a list has none.
    """
    if len(data) > MAX_PICKLE:
        raise NotThisContainer("its pickle is too long to be looked through")
    machine = _Machine()
    try:
        for steps, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if steps > MAX_STEPS:
                raise NotThisContainer("its pickle takes too many steps")
            machine.step(opcode, argument)
    # The file is anybody's: a stack that runs empty, an unknown number, numbers and texts that are none.
    # A warning is raised instead of printed where somebody asked for that.
    except (LookupError, ValueError, TypeError, OverflowError, Warning) as error:
        raise NotThisContainer(f"its pickle cannot be followed: {error}") from None
    _name_views(machine.result)
    return machine.told


class _Machine:
    """A stack and a memo, as the pickle machine's, of plain values."""

    def __init__(self) -> None:
        self.told = Told()
        self.result: Any = _UNKNOWN
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        name = opcode.name
        if name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self._memo[argument] = self._stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            self._stack.append(self._memo[argument])
        elif name == "MARK":
            self._stack.append(_MARK)
        elif name == "DUP":
            self._stack.append(self._stack[-1])
        elif name == "STOP":
            self.result = self._stack.pop()
        else:
            taken = self._take(opcode)
            self._stack += self._give(opcode, argument, taken)

    def _take(self, opcode: pickletools.OpcodeInfo) -> list[Any]:
        """What the opcode takes from the stack, in order, without the mark."""
        wanted = opcode.stack_before
        marked: list[Any] = []
        fixed = len(wanted)
        if pickletools.markobject in wanted:
            fixed = wanted.index(pickletools.markobject)
            while (value := self._stack.pop()) is not _MARK:
                marked.append(value)
            marked.reverse()
        if fixed > len(self._stack):
            raise NotThisContainer("its pickle's stack runs empty")
        start = len(self._stack) - fixed
        taken = self._stack[start:]
        del self._stack[start:]
        return taken + marked

    def _give(self, opcode: pickletools.OpcodeInfo, argument: Any, taken: list[Any]) -> list[Any]:
        """What the opcode leaves on the stack instead."""
        match opcode.name:
            case "EMPTY_TUPLE" | "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                return [tuple(taken)]
            case "EMPTY_DICT" | "DICT":
                return [_Dict(_pairs(taken))]
            case "SETITEM" | "SETITEMS":
                if isinstance(taken[0], _Dict):
                    taken[0].pairs.extend(_pairs(taken[1:]))
                return taken[:1]
            case "APPEND" | "APPENDS" | "ADDITEMS":
                return taken[:1]
            case "BUILD":
                whole = not isinstance(taken[0], _Dict | View) and isinstance(taken[1], _Dict)
                return [_Object(taken[1])] if whole else taken[:1]
            case "GLOBAL":
                return [_Global(argument)]
            case "STACK_GLOBAL":
                return [_Global(" ".join(taken)) if all(map(_is_short, taken)) else _UNKNOWN]
            case "REDUCE":
                return [self._call(taken[0], taken[1])]
            case "BINPERSID":
                return [self._storage(taken[0])]
        plain = isinstance(argument, str | int) and len(opcode.stack_after) == 1
        return [argument if plain else _UNKNOWN for _ in opcode.stack_after]

    def _storage(self, told: Any) -> Any:
        match told:
            case ("storage", _Global(path=path), str(key), _, int(count)) if 0 <= count < _MOST:
                storage = Storage(key, _BY_STORAGE.get(path, ""), count)
                self.told.storages.append(storage)
                return storage
        return _UNKNOWN

    def _call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, _Global) or not isinstance(arguments, tuple):
            return _UNKNOWN
        match function.path, arguments:
            case "collections OrderedDict", ():
                return _Dict([])
            case "torch._utils _rebuild_parameter" | "torch._utils _rebuild_parameter_with_state", (
                View(),
                *_,
            ):
                return arguments[0]
            case "torch._tensor _rebuild_from_type_v2", (_Global() as inner, _, tuple(within), *_):
                # A tensor of a class of its own is made as any other, then dressed up.
                return _UNKNOWN if inner.path == function.path else self._call(inner, within)
            case "torch._utils _rebuild_tensor_v2", (
                Storage(word=str(word)) as storage,
                offset,
                shape,
                strides,
                *_,
            ):
                return self._view(storage, word, offset, shape, strides)
            case "torch._utils _rebuild_tensor_v3", (
                Storage() as storage,
                offset,
                shape,
                strides,
                _,
                _,
                _Global(path=path),
                *_,
            ):
                return self._view(storage, _BY_TYPE.get(path, ""), offset, shape, strides)
        return _UNKNOWN

    def _view(self, storage: Storage, word: str, offset: Any, shape: Any, strides: Any) -> Any:
        known = isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides)
        if not known or len(shape) > MAX_DIMENSIONS or not _counts((offset, *shape, *strides)):
            # It lies somewhere on the storage: nobody else may be said to have it alone.
            view = View(storage, "", 0, (), contiguous=False)
        else:
            view = View(storage, word, offset, shape, _is_contiguous(shape, strides))
        self.told.views.append(view)
        return view


def _pairs(values: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(islice(values, 0, None, 2), islice(values, 1, None, 2), strict=False))


def _is_short(value: Any) -> bool:
    """Whether it may be joined to another text, however often a pickle repeats it."""
    return isinstance(value, str) and len(value) < 100


def _counts(values: tuple[Any, ...]) -> bool:
    return all(type(value) is int and 0 <= value < _MOST for value in values)


def _is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    expected = 1
    for n, stride in zip(reversed(shape), reversed(strides), strict=True):
        if n != 1 and stride != expected and 0 not in shape:
            return False
        expected = min(expected * n, _MOST)
    return True


def _name_views(result: Any) -> None:
    """Give the tensors that dictionaries lead to their names; the first where there are several."""
    used: set[str] = set()
    left = MAX_NAMES
    for path, view in _paths(result):
        if view.name is None and path not in used and len(path) <= left:
            view.name = usable_name(path)
            used.add(path)
            left -= len(path)


def _paths(result: Any) -> Iterator[tuple[str, View]]:
    """Tensors and the texts that lead to them. Each dictionary is entered once, by the first way to it."""
    entered: set[int] = set()
    levels: list[tuple[str, Iterator[tuple[Any, Any]]]] = [("", _within(result, entered))]
    while levels:
        prefix, pairs = levels[-1]
        for key, value in pairs:
            if not isinstance(key, str) or len(prefix) + len(key) > MAX_NAME:
                continue
            path = prefix + key
            if isinstance(value, View):
                yield path, value
            elif isinstance(value, _Dict | _Object):
                levels.append((f"{path}.", _within(value, entered)))
                break
        else:
            levels.pop()


def _within(value: Any, entered: set[int]) -> Iterator[tuple[Any, Any]]:
    """The pairs of a dictionary, or of what an object has: of a module its tensors and parts, under the names
    that `state_dict` gives them."""
    found = [value]
    if isinstance(value, _Object):
        if id(value.state) in entered:
            return
        parts = {k: v for k, v in value.state.pairs if k in _OF_MODULES and isinstance(v, _Dict)}
        found = list(parts.values()) if parts else [value.state]
        if parts:
            entered.add(id(value.state))
    for each in found:
        if isinstance(each, _Dict) and id(each) not in entered:
            entered.add(id(each))
            yield from each.pairs

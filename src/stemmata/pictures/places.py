"""Places: where in a network a tensor stands, as its name tells: in which layer, as which module.

Owns that reading, for names of any architecture: no list of models is behind it. Of a name cut at dots the
first number is the layer's; what comes before is the stack that it stands in, what comes after the module.
Weight and bias, or the factors of a LoRA, are parts of one module.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

_PART_WORDS = (
    "weight bias gamma beta base_layer running_mean running_var num_batches_tracked weight_g weight_v "
    "qweight qzeros scales g_idx absmax quant_map nested_absmax nested_quant_map SCB weight_scale "
    "input_scale weight_packed weight_shape"
)
_PARTS = frozenset(_PART_WORDS.split())
_OF_ADAPTER = re.compile(
    r"(lora|hada|lokr|vera|ia3|oft|boft|hra|randlora)_\w+|modules_to_save|original_module"
)
_PEFT = ("base_model.model.", "base_model.")
_ENTRANCE = re.compile(
    r"embed|\bwte\b|\bwpe\b|\bemb\b|\bshared\b|patch|\bpos_|position|\bstem\b|cls_token|\bconv1\b|\bbn1\b|^conv_"
)
_MANY = 4
"""Numbers within a module, such as those of experts, of which more are not told apart."""
_ORDER = (
    (re.compile(r"norm|\bln_?\d|\bln\b|_ln|layer_?scale|\bbn\d?\b"), 90),
    (re.compile(r"cross|encdec|encoder_attn"), 30),
    (re.compile(r"attn|attention|\bself\b|mixer|ssm"), 10),
    (re.compile(r"mlp|ffn|feed|intermediate|expert|moe|dense|\bfc|output|\bwi|\bwo|\bup|\bdown|\bgate"), 50),
)
_WITHIN = (
    (re.compile(r"(^|[._])(q|query|q_lin|to_q|qkv|c_attn|in_proj|query_key_value)(_proj|[._]|$)"), 0),
    (re.compile(r"(^|[._])(k|key|k_lin|to_k)(_proj|[._]|$)"), 1),
    (re.compile(r"(^|[._])(v|value|v_lin|to_v)(_proj|[._]|$)"), 2),
    (re.compile(r"gate|(^|[._])(w1|wi_0|router)([._]|$)"), 0),
    (re.compile(r"up|intermediate|c_fc|fc1|lin1|(^|[._])(w3|wi|wi_1)([._]|$)"), 1),
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor stands. `layer` is None for what is in no layer, such as embeddings or the head."""

    stack: str
    """Of the layers: `model.layers`, `encoder.block`; empty for what is in none."""
    layer: int | None
    module: str
    """Within its layer, `self_attn.q_proj`; of what is in none, its whole name."""


def places(names: Iterable[str]) -> dict[str, Place]:
    """A place for each name; all are looked at together, for what a number means shows in the others."""
    cut = {name: _cut(name) for name in names}
    found = {name: _place(parts) for name, parts in cut.items()}
    numbers: dict[tuple[str, str], set[str]] = {}
    for place in found.values():
        for before, number in _numbers(place.module):
            numbers.setdefault((place.stack, before), set()).add(number)
    many = {key for key, values in numbers.items() if len(values) > _MANY}
    deep = {place.stack for place in found.values() if place.layer is not None and place.module}
    return {name: _settled(place, cut[name], many, deep) for name, place in found.items()}


def _cut(name: str) -> list[str]:
    """The parts of a name down to its module."""
    path, colon, rest = name.partition(":")
    if not colon or "." not in path:
        path, rest = "", name
    for prefix in _PEFT:
        if rest.startswith(prefix):
            rest = rest[len(prefix) :]
            break
    parts = [part for part in rest.split(".") if part] or [rest]
    for at, part in enumerate(parts):
        if at and _OF_ADAPTER.fullmatch(part):
            parts = parts[:at]
            break
    while len(parts) > 1 and parts[-1] in _PARTS and not parts[-2].isdigit():
        parts.pop()
    if len(parts) > 2 and parts[-1] in _PARTS:
        parts.pop()  # `classifier.0.weight`: the number is all its name
    return [f"{path}:{parts[0]}", *parts[1:]] if path else parts


def _place(parts: Sequence[str]) -> Place:
    for at, part in enumerate(parts):
        if part.isdecimal() and len(part) < 6:
            return Place(".".join(parts[:at]), int(part), ".".join(parts[at + 1 :]))
    return Place("", None, ".".join(parts))


def _numbers(module: str) -> Iterable[tuple[str, str]]:
    parts = module.split(".")
    for at, part in enumerate(parts):
        if part.isdecimal():
            yield ".".join("*" if p.isdecimal() else p for p in parts[:at]), part


def _settled(place: Place, parts: Sequence[str], many: set[tuple[str, str]], deep: set[str]) -> Place:
    if place.layer is not None and not place.module and deep and place.stack not in deep:
        # A list of a few things beside a network that has layers, such as a head of two.
        return Place("", None, ".".join(parts))
    told: list[str] = []
    shown: list[str] = []
    for part in place.module.split("."):
        before = ".".join(told)
        shown.append("*" if part.isdecimal() and (place.stack, before) in many else part)
        told.append("*" if part.isdecimal() else part)
    return Place(place.stack, place.layer, ".".join(shown) or "weight")


# --- order ----------------------------------------------------------------------------------------


def comes_in(module: str) -> bool:
    """Whether what stands in no layer comes before the layers: embeddings, as its name tells."""
    return _ENTRANCE.search(module) is not None


def in_order(modules: Iterable[str]) -> list[str]:
    """Modules of a layer: attention, what is fed forward, norms; within, as numbers flow through them."""
    return sorted(modules, key=lambda module: (_rank(module.lower()), module))


def _rank(module: str) -> int:
    for pattern, rank in _ORDER:
        if pattern.search(module):
            for inner, more in _WITHIN:
                if rank < 90 and inner.search(module):
                    return rank + more
            return rank + 5
    return 70


_SAYS_LITTLE = re.compile(r"dense|linear|proj|fc|layer_?norm|conv|\d+", re.IGNORECASE)


# --- words ----------------------------------------------------------------------------------------


def short(names: Sequence[str], *, telling: bool = False) -> dict[str, str]:
    """For each name the shortest end of it, cut at dots, that no other one has; with `telling` one that says
    something alone, `pooler.dense` rather than `dense`."""
    ends: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        ends.update(".".join(parts[at:]) for at in range(len(parts)))
    found = {}
    for name in names:
        parts = name.split(".")
        tails = (".".join(parts[at:]) for at in range(len(parts) - 1, -1, -1))
        found[name] = next((tail for tail in tails if ends[tail] == 1 and _tells(tail, telling)), name)
    return found


def _tells(tail: str, telling: bool) -> bool:
    return tail != "*" and not (telling and _SAYS_LITTLE.fullmatch(tail))


def titles(stacks: Mapping[str, int]) -> dict[str, str]:
    """A short name for each stack of layers; none where there is one alone."""
    if len(stacks) < 2:
        return dict.fromkeys(stacks, "")
    found = {}
    for stack in stacks:
        parts = stack.split(".")
        others = [set(s.split(".")) for s in stacks if s != stack]
        own = [p for p in parts if not any(p in other for other in others)]
        found[stack] = own[-1] if own else stack
    if len(set(found.values())) < len(found):
        return {stack: stack for stack in stacks}
    return found

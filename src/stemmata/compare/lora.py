"""Adapters: rank and targets as the weights' shapes tell them. Owns holding adapter_config.json against them.

Of a LoRA everything is told; of PEFT's other methods what they have: a rank only where one is meant.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from math import prod
from typing import Any

import msgspec

from stemmata.compare.adapterfiles import (
    CONFIG,
    MAX_NAME,
    declared_rank,
    factor,
    in_folder,
    is_plain,
    leaf_of,
    matches,
    module_name,
    number,
    pattern_of,
    read_config,
    whole,
)
from stemmata.compare.tensors import Tensor, tensors_of
from stemmata.trees import Tree

# What PEFT's other methods call their tensors: a module's name, then one of these.
_OTHER = re.compile(
    r"(?:(?P<module>.+)\.)?(?:ia3_l|hada_\w+|lokr_\w+|vera_\w+|randlora_\w+|oft_\w+|boft_\w+|hra_\w+"
    r"|fourierft_\w+|vblora_\w+|ln_tuning_layers|prompt_embeddings|prompt_encoder|adaption_\w+)(?:\..*)?"
)
_WITH_RANK = frozenset({"LORA", "ADALORA", "LOHA", "LOKR", "VERA", "RANDLORA"})
_TITLES = {
    "LORA": "LoRA",
    "ADALORA": "AdaLoRA",
    "LOHA": "LoHa",
    "LOKR": "LoKr",
    "VERA": "VeRA",
    "PROMPT_TUNING": "prompt tuning",
    "PREFIX_TUNING": "prefix tuning",
    "P_TUNING": "p-tuning",
    "LN_TUNING": "layer norms",
}


FACTS = {"rslora": "rsLoRA", "dora": "DoRA", "rank_pattern": "other ranks", "others": "saved along"}
"""What people call these fields."""
UNSAID = ("from_weights", "disagreements", "other_bytes")
"""Fields that are no facts of the adapter to hold against another's."""


class LoraFacts(msgspec.Struct, frozen=True):
    """What the LoRA of a version is, or its adapter of another method."""

    rank: int | None
    """Of all modules, or of most of them; None for a method that has no rank."""
    alpha: float | None
    """From adapter_config.json."""
    targets: tuple[str, ...]
    """Last parts of the modules' names, sorted: c_attn, q_proj."""
    modules: int = 0
    """How many modules have a pair of factors."""
    rank_pattern: dict[str, int] = msgspec.field(default_factory=dict)
    """Ranks that are not `rank`, by target where all its modules agree, else by module."""
    dora: bool = False
    rslora: bool = False
    """Scaled by alpha / sqrt(rank) instead of alpha / rank, says the config."""
    parameters: int = 0
    """Elements of all LoRA tensors."""
    other_tensors: int = 0
    other_bytes: int = 0
    """Tensors saved beside the LoRA's: embeddings, heads, modules_to_save."""
    others: tuple[str, ...] = ()
    """Last parts of their modules' names, sorted: lm_head, wte."""
    from_weights: bool = True
    """False where no weights could be read (a pickle): then all is the config's word."""
    disagreements: tuple[str, ...] = ()
    """Where the weights contradict adapter_config.json, or each other; a clause each."""
    method: str = "LORA"
    """PEFT's name for it: LORA, IA3, PROMPT_TUNING, …"""
    virtual_tokens: int | None = None
    """Of prompt learning: how many."""

    @property
    def title(self) -> str:
        """The method as people call it."""
        return _TITLES.get(self.method, self.method)

    @property
    def beside(self) -> str:
        """What was saved along, and its size; empty where nothing was."""
        if not self.other_tensors:
            return ""
        named = _listed(self.others) if self.others else f"{self.other_tensors} tensors"
        return f"{named} ({_megabytes(self.other_bytes)})"

    def __str__(self) -> str:
        parts = [f"r={self.rank if self.rank is not None else '?'}"] if self.method in _WITH_RANK else []
        if self.virtual_tokens is not None:
            parts.append(f"{self.virtual_tokens} virtual tokens")
        if self.rank_pattern:
            parts[0] += f" ({', '.join(f'{k}={v}' for k, v in sorted(self.rank_pattern.items()))})"
        if self.alpha is not None:
            parts.append(f"alpha={self.alpha:g}")
        parts += ["DoRA"] * self.dora + ["rsLoRA"] * self.rslora
        shown = ", ".join(parts)
        if self.targets:
            shown += f"{' ' if shown else ''}on {', '.join(self.targets)}"
        if self.beside:
            shown += f", with {self.beside} saved along"
        if not self.from_weights:
            shown += " (says adapter_config.json; the weights are not readable without unpickling)"
        if self.disagreements:
            shown += f"; but {'; '.join(self.disagreements)}"
        return shown

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


def facts(tree: Tree, read: Callable[[str], bytes]) -> LoraFacts | None:
    """The adapter of a version: of the folder nearest to the top that holds one; None if none does.

    `read` gives the bytes of a file of the tree. Raises what `read` raises (Damage).
    """
    folders: dict[str, list[Tensor]] = {}
    for tensor in tensors_of(tree):
        folders.setdefault(tensor.path.rpartition("/")[0], []).append(tensor)
    with_lora = [f for f, tensors in folders.items() if any(factor(t.name) for t in tensors)]
    sizes = {f.path: f.size for f in tree.files}
    configs = [p.rpartition("/")[0] for p in sizes if p.rpartition("/")[2] == CONFIG]
    for folder in sorted({*with_lora, *configs}, key=lambda f: (f.count("/") + bool(f), f)):
        config = read_config(in_folder(folder), sizes, read)
        if folder in with_lora:
            return _from_weights(folders[folder], config)
        method = (config or {}).get("peft_type")
        if config is not None and method == "LORA":
            return _from_config(config)
        if config is not None and isinstance(method, str):
            return _of_another_method(method, folders.get(folder, []), config)
    return None


def _of_another_method(method: str, tensors: list[Tensor], config: dict[str, Any]) -> LoraFacts:
    """An adapter that is no LoRA: what its tensors' names and shapes, else its config, tell."""
    found = [(t, _OTHER.fullmatch(t.name) if len(t.name) <= MAX_NAME else None) for t in tensors]
    own = [t for t, match in found if match is not None]
    modules = {module_name(match["module"]) for _, match in found if match is not None and match["module"]}
    modules.discard("base_model")  # what all modules share, as VeRA's projections
    # A method that is not known here has all tensors for its own.
    beside = [t for t, match in found if match is None] if own else []
    own = own or tensors
    prompt = next((t.shape[0] for t in own if t.name.endswith("prompt_embeddings") and t.shape), None)
    declared = _from_config(config)
    return LoraFacts(
        rank=_rank_of(method, own, declared.rank),
        alpha=declared.alpha if method in _WITH_RANK else None,
        targets=tuple(sorted({leaf_of(m) for m in modules})) or declared.targets,
        modules=len(modules),
        parameters=sum(prod(t.shape) for t in own),
        other_tensors=len(beside),
        other_bytes=sum(t.length for t in beside),
        others=_owners(beside),
        from_weights=bool(tensors),
        method=method,
        virtual_tokens=prompt if prompt is not None else whole(config.get("num_virtual_tokens")),
    )


def _rank_of(method: str, tensors: list[Tensor], declared: int | None) -> int | None:
    if method not in _WITH_RANK:
        return None
    # LoHa's second factors are (rank, inputs), VeRA's scales of the rank are (rank,).
    ranks = Counter(
        t.shape[0] for t in tensors if t.shape and t.name.endswith((".hada_w1_b", ".vera_lambda_d"))
    )
    return ranks.most_common(1)[0][0] if ranks else declared


def _owners(tensors: Iterable[Tensor]) -> tuple[str, ...]:
    """The modules of whole tensors, by the last part of their names."""
    names = (module_name(t.name).removesuffix(".weight").removesuffix(".bias") for t in tensors)
    return tuple(sorted({leaf_of(name.removesuffix(".base_layer")) for name in names}))


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 10**6 else f"{size / 1e3:.1f} kB"


def _from_config(config: dict[str, Any]) -> LoraFacts:
    targets = config.get("target_modules")
    named = [t for t in targets if isinstance(t, str)] if isinstance(targets, list) else []
    return LoraFacts(
        rank=whole(config.get("r")),
        alpha=number(config.get("lora_alpha", config.get("alpha"))),
        targets=tuple(sorted(named)),
        rank_pattern=pattern_of(config.get("rank_pattern")),
        dora=config.get("use_dora") is True,
        rslora=config.get("use_rslora") is True,
        from_weights=False,
    )


def _from_weights(tensors: list[Tensor], config: dict[str, Any] | None) -> LoraFacts:
    ranks: dict[str, dict[str, int]] = {}
    problems: list[str] = []
    own: list[Tensor] = []
    convolutions: set[str] = set()
    dora = False
    for tensor in tensors:
        match = factor(tensor.name)
        dora = dora or ".lora_magnitude_vector" in tensor.name
        if ".lora_" in tensor.name:
            own.append(tensor)
        if match is None:
            continue
        # Factor A is (rank, inputs, ...), factor B (outputs, rank, ...).
        axis = 0 if match["side"] == "A" else 1
        if len(tensor.shape) > 2:
            convolutions.add(module_name(match["module"]))
        module = module_name(match["module"])
        if len(tensor.shape) < 2 or 0 in tensor.shape:
            problems.append(
                f"{tensor.name} has the shape {list(tensor.shape)}, as an unfinished gathering leaves it"
            )
        else:
            ranks.setdefault(module, {})[match["side"]] = tensor.shape[axis]
    by_module = {module: pair.get("A", pair.get("B", 0)) for module, pair in sorted(ranks.items())}
    for module, pair in sorted(ranks.items()):
        # Where a convolution has groups, each output reads the rank's share of its own group.
        grouped = module in convolutions and pair.get("A", 0) % pair.get("B", 1) == 0
        if len(set(pair.values())) > 1 and not grouped:
            problems.append(f"the factors of {module} have ranks {pair['A']} and {pair['B']}")
        elif len(pair) == 1:
            problems.append(f"{module} has one factor of two")
    rank = _common(by_module, whole((config or {}).get("r")))
    if config:
        problems += _disagreements(config, by_module)
    elif config is not None:
        problems.append(f"{CONFIG} cannot be read as JSON")
    return LoraFacts(
        rank=rank,
        alpha=number((config or {}).get("lora_alpha")),
        targets=tuple(sorted({leaf_of(module) for module in by_module})),
        modules=len(by_module),
        rank_pattern=_ranks_apart(by_module, rank),
        dora=dora,
        rslora=(config or {}).get("use_rslora") is True,
        parameters=sum(prod(t.shape) for t in own),
        other_tensors=len(tensors) - len(own),
        other_bytes=sum(t.length for t in tensors) - sum(t.length for t in own),
        others=_owners(t for t in tensors if ".lora_" not in t.name),
        disagreements=tuple(problems),
        method="ADALORA" if (config or {}).get("peft_type") == "ADALORA" else "LORA",
    )


def _common(by_module: Mapping[str, int], declared: int | None) -> int | None:
    """The rank of most modules; of equally frequent ones the declared one, else the greatest."""
    if not by_module:
        return declared
    counts = Counter(by_module.values())
    most = max(counts.values())
    frequent = [rank for rank, count in counts.items() if count == most]
    return declared if declared in frequent else max(frequent)


def _ranks_apart(by_module: Mapping[str, int], rank: int | None) -> dict[str, int]:
    apart: dict[str, int] = {}
    for leaf in {leaf_of(module) for module in by_module}:
        own = {module: r for module, r in by_module.items() if leaf_of(module) == leaf}
        if len(set(own.values())) == 1:
            own = {leaf: next(iter(own.values()))}
        apart.update({name: r for name, r in own.items() if r != rank})
    return dict(sorted(apart.items()))


def _disagreements(config: dict[str, Any], by_module: Mapping[str, int]) -> list[str]:
    """Where the config's r, rank_pattern and target_modules do not fit the modules found."""
    if config.get("peft_type") != "LORA" or config.get("target_parameters"):
        # Other methods change ranks as they go, and stacked parameters have stacked ranks.
        return []
    found: list[str] = []
    pattern = config.get("rank_pattern") or {}
    declared = whole(config.get("r"))
    plain = isinstance(pattern, dict) and all(is_plain(key) for key in pattern)
    if declared is not None and plain:
        named = pattern_of(pattern)
        wrong = Counter(
            (rank, wanted)
            for module, rank in by_module.items()
            if rank != (wanted := declared_rank(module, named, declared))
        )
        for (rank, wanted), count in sorted(wrong.items()):
            found.append(f"{CONFIG} says r={wanted} where {count} of {len(by_module)} modules have {rank}")
    targets = config.get("target_modules")
    if isinstance(targets, list) and all(is_plain(t) for t in targets):
        unnamed = {leaf_of(m) for m in by_module if not any(matches(m, t) for t in targets)}
        absent = [t for t in targets if not any(matches(m, t) for m in by_module)]
        if unnamed:
            found.append(f"{CONFIG} does not name {_listed(unnamed)}, which the weights adapt")
        if absent:
            found.append(f"{CONFIG} names {_listed(absent)}, which the weights do not adapt")
    return found


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:5]) + (f" and {len(ordered) - 5} more" if len(ordered) > 5 else "")

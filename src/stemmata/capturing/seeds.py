"""Seeds: what the random numbers begin from, and the switches that make a computation repeat itself.

Of libraries that are loaded already; nothing is imported, and no generator is moved. The state of a generator
is told by its digest: two runs that began alike have equal ones.
"""

from __future__ import annotations

import os
import random
import sys
import warnings
from collections.abc import Callable
from typing import Any

from blake3 import blake3


def collect(*, begin: bool = False) -> dict[str, object]:
    """Seeds and switches of Python, numpy and torch; with `begin` the generators' states of this moment."""
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy.random")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch has two ways to ask for TF32, and warns of either
        return {
            "python": {
                "hash_seed": os.environ.get(
                    "PYTHONHASHSEED", "random" if sys.flags.hash_randomization else "0"
                ),
                **({"state": _digest(repr(random.getstate()).encode())} if begin else {}),
            },
            "numpy": None if numpy is None else _of_numpy(numpy, begin=begin),
            "torch": None if torch is None else _of_torch(torch, begin=begin),
        }


def _of_numpy(numpy: Any, *, begin: bool) -> dict[str, object]:
    if not begin:
        return {}
    return _told({"state": lambda: _digest(repr(_plain(numpy.get_state())).encode())})


def _plain(state: Any) -> object:
    return [part.tolist() if hasattr(part, "tolist") else part for part in state]


def _of_torch(torch: Any, *, begin: bool) -> dict[str, object]:
    cudnn = torch.backends.cudnn
    asked: dict[str, Callable[[], object]] = {
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled,
        "deterministic_warn_only": torch.is_deterministic_algorithms_warn_only_enabled,
        "fill_uninitialized_memory": lambda: torch.utils.deterministic.fill_uninitialized_memory,
        "cudnn_deterministic": lambda: cudnn.deterministic,
        "cudnn_benchmark": lambda: cudnn.benchmark,
        "cudnn_allow_tf32": lambda: cudnn.allow_tf32,
        "matmul_allow_tf32": lambda: torch.backends.cuda.matmul.allow_tf32,
        "matmul_precision": torch.get_float32_matmul_precision,
        "flash_sdp": lambda: torch.backends.cuda.flash_sdp_enabled(),
        "mem_efficient_sdp": lambda: torch.backends.cuda.mem_efficient_sdp_enabled(),
        "default_dtype": lambda: str(torch.get_default_dtype()).removeprefix("torch."),
        "threads": torch.get_num_threads,
        "interop_threads": torch.get_num_interop_threads,
    }
    if begin:
        asked["initial_seed"] = torch.initial_seed
        asked["state"] = lambda: _digest(bytes(torch.get_rng_state().numpy()))
        if _told({"cuda": torch.cuda.is_initialized})["cuda"]:
            asked["cuda_initial_seed"] = torch.cuda.initial_seed
            asked["cuda_state"] = lambda: _digest(bytes(torch.cuda.get_rng_state().numpy()))
    return _told(asked)


def _told(asked: dict[str, Callable[[], object]]) -> dict[str, object]:
    """The answers; None where this release or build has none."""
    found: dict[str, object] = {}
    for name, ask in asked.items():
        try:
            found[name] = ask()
        except Exception:  # noqa: BLE001
            # Releases and builds differ in what they have; a capture fails no training.
            found[name] = None
    return found


def _digest(state: bytes) -> str:
    return blake3(state).hexdigest()

"""Products of bf16 numbers on a processor that has none: taken in fp32 and rounded, as such a one does it.

torch has them there as well, but many times slower than products in fp32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_ATEN = torch.ops.aten
_PRODUCTS = {_ATEN.mm.default, _ATEN.addmm.default, _ATEN.bmm.default, _ATEN.baddbmm.default}


class InSingle(TorchDispatchMode):
    """Within it, forward and backward, matrices of bf16 are multiplied in fp32 and the product is rounded."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        if func not in _PRODUCTS or args[0].dtype != torch.bfloat16:
            return func(*args, **(kwargs or {}))
        wide = [arg.float() if isinstance(arg, torch.Tensor) else arg for arg in args]
        return func(*wide, **(kwargs or {})).to(torch.bfloat16)


def native() -> bool:
    """Whether the processor itself multiplies bf16."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def products(model: Any, half: bool) -> AbstractContextManager[Any]:
    """For an epoch; `half`: whether its products are of bf16. Attention is then made of products that can be
    told apart from what is fused."""
    if not half or native():
        return nullcontext()
    model.set_attn_implementation("eager")
    return InSingle()

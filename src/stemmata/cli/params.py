"""Parameters that need no converting. Owns a short cut around the parser's validation library.

typer converts every option, given or not, by building a pydantic adapter for it: a tenth of a second
at the start of every command. A word that stays a word needs none, nor does an option that is not
given; everything else goes the usual way. Where typer works otherwise, this does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


class _AsItIs:
    """Stands before typer's own conversion, which is asked for only where there is work for it."""

    def __init__(self, usual: Callable[[], Any], annotation: object) -> None:
        self._usual = usual
        self._kinds = {str: str, list[str]: list | tuple}.get(annotation)  # type: ignore[call-overload]

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        if value is None:
            return () if getattr(param, "multiple", False) or param.nargs == -1 else None
        if self._kinds is not None and isinstance(value, self._kinds):
            return value
        return self._usual().coerce(value, param=param, ctx=ctx)


def lighten(params: Sequence[Any]) -> Sequence[Any]:
    """Let words and absent options pass through the parser as they are."""
    for param in params:
        usual = getattr(param, "get_runtime_param", None)
        descriptor = getattr(param, "type_descriptor", None)
        if usual is None or descriptor is None or "get_runtime_param" in vars(param):
            continue
        short_cut = _AsItIs(usual, getattr(descriptor, "annotation", None))
        param.get_runtime_param = lambda short_cut=short_cut: short_cut
    return params

"""What a metric's name tells: whether less of it is better, and how much people care for it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

Direction = Literal["min", "max"]

_LESS_WORDS = (
    "loss losses perplexity ppl error errors err wer cer ter mer mae mse rmse mape nll bpc bpb bpd "
    "crossentropy distance ece fid latency"
)
_LESS_IS_BETTER = frozenset(_LESS_WORDS.split())
# What the Trainer and TRL log beside the results: speed, progress, how sure the model is. No quality.
_ASIDE = ("_runtime", "_per_second", "total_flos", "num_tokens", "learning_rate", "grad_norm")


def direction_of(metric: str) -> Direction:
    """Whether less or more of a metric is better, as its name tells: `eval_loss` less, `f1` more."""
    words = re.split(r"[^a-z]+", _joined(metric))
    return "min" if _LESS_IS_BETTER.intersection(words) else "max"


def is_aside(metric: str) -> bool:
    """Whether it says how a training went, not how good its result is."""
    if any(part in metric for part in _ASIDE) or "entropy" in re.split(r"[^a-z]+", _joined(metric)):
        return True
    # Only as the whole name: Lightning's `val_loss_epoch` is a loss, told once an epoch.
    return metric.rpartition("/")[2] == "epoch"


def by_interest(metrics: Iterable[str], primary: str | None = None) -> list[str]:
    """The primary metric, else eval_loss; other results of evaluations; the rest; what is aside."""
    first = primary or "eval_loss"
    return sorted(metrics, key=lambda m: (m != first, is_aside(m), not m.startswith("eval"), m))


def _joined(metric: str) -> str:
    return re.sub(r"cross[^a-z]?entropy", "crossentropy", metric.lower())

"""What a metric's name tells: whether less of it is better, and how much people care for it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

Direction = Literal["min", "max"]

_LESS_WORDS = (
    "loss losses perplexity ppl error errors err wer cer ter mer mae mse rmse mape nll bpc bpb bpd "
    "crossentropy distance ece fid latency logloss brier msle rmsle smape nrmse mase medae bitsper"
)
_LESS_IS_BETTER = frozenset(_LESS_WORDS.split())
# At a name's end alone: before it they are datasets and other words (`ade20k_miou`, `kl_accuracy`).
_LESS_AT_END = frozenset(
    ["eer", "der", "kld", "kl", "divergence", "lpips", "kid", "fad", "ade", "fde", "minade", "minfde"]
)
# What Lightning puts behind a name, and a number leaves of one: `val_kl_epoch`, `val_kl/dataloader_idx_0`.
_BEHIND = frozenset(["", "epoch", "step", "dataloader", "idx"])
# What the Trainer and TRL log beside the results: speed, progress, how sure the model is. No quality.
_ASIDE = ("_runtime", "_per_second", "total_flos", "num_tokens", "learning_rate", "grad_norm")


def direction_of(metric: str) -> Direction:
    """Whether less or more of a metric is better, as its name tells: `eval_loss` less, `f1` more."""
    words = _words(metric)
    less = _LESS_IS_BETTER.intersection(words) or any(word.endswith(("loss", "losses")) for word in words)
    while len(words) > 1 and words[-1] in _BEHIND:
        words.pop()
    return "min" if less or words[-1] in _LESS_AT_END else "max"


def is_aside(metric: str) -> bool:
    """Whether it says how a training went, not how good its result is."""
    if any(part in metric for part in _ASIDE) or "entropy" in _words(metric):
        return True
    # Only as the whole name: Lightning's `val_loss_epoch` is a loss, told once an epoch.
    return metric.rpartition("/")[2] == "epoch"


def by_interest(metrics: Iterable[str], primary: str | None = None) -> list[str]:
    """The primary metric, else eval_loss; other results of evaluations; the rest; what is aside."""
    first = primary or "eval_loss"
    return sorted(metrics, key=lambda m: (m != first, is_aside(m), not m.startswith("eval"), m))


def _words(metric: str) -> list[str]:
    """Its words in small letters; `valLoss` and `MSELoss` have two, as `val_loss` has, and `mIoU` or `rougeL`
    one."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z][a-z]{2})|(?<=[A-Z]{2})(?=[A-Z][a-z]{3})", "_", metric).lower()
    joined = re.sub(r"cross[^a-z]?entropy", "crossentropy", parted)
    joined = re.sub(r"kl[^a-z]?div(?:ergence)?\b", "divergence", joined)
    joined = re.sub(r"bits(?:[^a-z]?per[^a-z]?|/(?=byte|char|dim|token))", "bitsper ", joined)
    return re.split(r"[^a-z]+", joined)

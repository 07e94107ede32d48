"""TRL's own commands as they ship in its package, on tiny local models and data."""

from __future__ import annotations

import json
from pathlib import Path

import tiny_models as tiny

METHODS = ("sft", "dpo", "reward")
_ROWS = {
    "sft": [{"text": text} for text in tiny.SENTENCES],
    "dpo": [{"prompt": t[:9], "chosen": t[9:], "rejected": t[9:][::-1]} for t in tiny.SENTENCES],
    "reward": [{"chosen": t[:18], "rejected": t[17::-1]} for t in tiny.SENTENCES],
}


def command(folder: Path, method: str) -> list[str]:
    """`trl METHOD` for two epochs of a step each, to be run in `folder`, which gets what it needs."""
    tiny.saved_base(folder / "base")
    (folder / "rows").mkdir()
    rows = "".join(json.dumps(row) + "\n" for row in _ROWS[method])
    (folder / "rows" / "train.jsonl").write_text(rows)
    words = ["trl", method, "--model_name_or_path", "base", "--dataset_name", "rows", "--output_dir", "out"]
    words += ["--num_train_epochs", "2", "--use_cpu", "true", "--bf16", "false", "--dtype", "float32"]
    words += ["--max_length", "24", "--report_to", "none"]
    return words if method == "dpo" else [*words, "--eos_token", "<end>"]

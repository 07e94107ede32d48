"""Times one load in a process of its own; used by history.py.

    python bench/loading.py WARM folder FOLDER
    python bench/loading.py WARM version REPOSITORY REFERENCE

WARM is a small model of the same class: it is loaded both ways first, so that no import is timed.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers

import stemmata
from measuring import peak_of, timed


def main() -> None:
    warm, way, *where = sys.argv[1:]
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch, stemmata.open(scratch, create=True) as repo:
        repo.save(warm, "warm", name="warm").load()
    from_folder(Path(warm))
    loaded: list[Any] = []
    if way == "folder":
        opened = 0.0
        seconds = timed(lambda: loaded.append(from_folder(Path(where[0]))))
    else:
        found: list[stemmata.Version] = []
        opened = timed(lambda: found.append(stemmata.open(where[0])[where[1]]))
        seconds = timed(lambda: loaded.append(found[0].load()))
    peak = peak_of()
    print(json.dumps({"opened": opened, "seconds": seconds, "peak": peak, "digest": digest(loaded[0])}))


def from_folder(folder: Path) -> Any:
    settings = json.loads((folder / "config.json").read_bytes())
    return getattr(transformers, settings["architectures"][0]).from_pretrained(folder, local_files_only=True)


def digest(model: Any) -> str:
    """Of all tensors with their names: two loads of the same weights agree."""
    whole = hashlib.blake2b()
    for name, tensor in sorted(model.state_dict().items()):
        whole.update(name.encode())
        whole.update(tensor.contiguous().view(torch.uint8).numpy())
    return whole.hexdigest()


if __name__ == "__main__":
    main()

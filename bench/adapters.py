"""Compares two LoRA adapters of a 7B model by what they add to its weights.

    .venv/bin/python bench/adapters.py [--rank 16] [--layers 32] [--write NAME]

Llama-2-7B's geometry, all seven linear modules of each layer, float32 as PEFT saves them: 160 MB an adapter.
The second follows from the first as an epoch's end from the one before. See bench/README.md.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np

import stemmata
from measuring import COMMAND, Peaks, keep, load, machine, timed

WIDTH, INNER = 4096, 11008
MODULES = {
    **{f"self_attn.{x}_proj": (WIDTH, WIDTH) for x in "qkvo"},
    **{f"mlp.{x}_proj": (INNER, WIDTH) for x in ("gate", "up")},
    "mlp.down_proj": (WIDTH, INNER),
}
"""Outputs and inputs."""
SECONDS = 10.0
MEGABYTES = 600


def main() -> int:
    options = parse_options()
    work = Path(options.work).absolute() / "adapters"
    shutil.rmtree(work, ignore_errors=True)
    with stemmata.open(work / "models", create=True) as repository:
        for epoch in (1, 2):
            adapter(work / "out", epoch, rank=options.rank, layers=options.layers)
            repository.save(work / "out", "m", name=f"epoch-{epoch}")
    size = (work / "out" / "adapter_model.safetensors").stat().st_size
    lines = [f"# {datetime.now(UTC):%Y-%m-%d}: two adapters", "", machine(), load(), ""]
    lines += [
        f"r={options.rank}, {options.layers} layers of {len(MODULES)} modules, {size / 1e6:.0f} MB each.",
        "",
    ]
    lines += ["| command | s | s of all cores | peak MB |", "| --- | --- | --- | --- |"]
    missed: list[str] = []
    for command in (["diff", "m@epoch-1", "m@epoch-2"], ["show", "m@epoch-2", "--spectrum"]):
        seconds, busy, peak = measure(command, work / "models", options.repeat)
        lines.append(f"| {' '.join(command)} | {seconds:.2f} | {busy:.2f} | {peak / 1e6:.0f} |")
        if seconds > SECONDS or peak > MEGABYTES * 1e6:
            missed.append(f"{command[0]}: {seconds:.1f} s, {peak / 1e6:.0f} MB")
    shutil.rmtree(work, ignore_errors=True)
    lines += ["", load(), "", *([f"MISSED: {m}" for m in missed] or ["Every target above was met."])]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.write:
        keep(options.write, text)
    return 1 if missed else 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the comparison of two adapters.")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--work", default="bench-work", help="folder for everything that is written")
    parser.add_argument("--write", metavar="NAME", help="also write bench/results/NAME.md")
    return parser.parse_args()


def measure(command: list[str], repository: Path, repeat: int) -> tuple[float, float, int]:
    """A whole process whose answer is JSON that is read through: seconds (median), processor seconds (mean),
    greatest peak of memory."""
    peaks = Peaks()
    arguments = [COMMAND, *command, "--repo", str(repository), "--json"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    taken = [timed(lambda: json.loads(peaks.run(arguments))) for _ in range(repeat)]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return median(taken), busy / repeat, peaks.take()


def adapter(folder: Path, epoch: int, *, rank: int, layers: int) -> None:
    """A folder as PEFT saves it: B grows from zero in few directions, A hardly leaves where it began."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "base_model_name_or_path": "llama"}
    config["target_modules"] = sorted({name.rpartition(".")[2] for name in MODULES})
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    header, offset = {}, 0
    for name, shape in named(rank, layers):
        length = 4 * shape[0] * shape[1]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + length]}
        offset += length
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "adapter_model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for place, (name, shape) in enumerate(named(rank, layers)):
            file.write(values(place, epoch, shape, "lora_A" in name).astype("<f4").tobytes())


def named(rank: int, layers: int) -> Iterator[tuple[str, tuple[int, int]]]:
    for layer in range(layers):
        for module, (outputs, inputs) in MODULES.items():
            prefix = f"base_model.model.model.layers.{layer}.{module}"
            yield f"{prefix}.lora_A.weight", (rank, inputs)
            yield f"{prefix}.lora_B.weight", (outputs, rank)


def values(seed: int, epoch: int, shape: tuple[int, int], begun: bool) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if begun:
        found = rng.uniform(-1, 1, shape) / np.sqrt(shape[1])
        return found + 1e-4 * epoch * rng.normal(size=shape)
    rank = shape[1]
    shares = 0.6 ** np.arange(rank)
    turned = np.linalg.qr(rng.normal(size=(rank, rank)))[0]
    found = (rng.normal(size=shape) * shares) @ turned
    for _ in range(epoch - 1):
        found = found + 0.2 * (rng.normal(size=shape) * shares) @ turned
    return 1e-3 * found


if __name__ == "__main__":
    sys.exit(main())

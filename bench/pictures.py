"""The pictures of the documentation, of a training that was really done: docs/pictures/*.png.

    .venv/bin/python bench/pictures.py [--work bench-work/pictures] [--epochs 4] [--steps 24]

Trains the encoder of examples/encoder.py three ways (all of it, two layers of six, a LoRA) unless it is
there, and draws it. The pages that belong to the pictures are written beside the repository, for a browser.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
from pathlib import Path

from PIL import Image

import stemmata
from stemmata.pictures.picture import Picture

ROOT = Path(__file__).resolve().parent.parent
MODEL = "encoder"


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the pictures of the documentation.")
    parser.add_argument("--work", default=str(ROOT / "bench-work" / "pictures"))
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--steps", type=int, default=24, help="optimizer steps an epoch")
    parser.add_argument("--docs", default=str(ROOT / "docs" / "pictures"), help="where the pictures go")
    options = parser.parse_args()
    work, docs = Path(options.work), Path(options.docs)
    if not (work / "models").exists():
        train(work, options.epochs, options.steps)
    docs.mkdir(parents=True, exist_ok=True)
    with stemmata.open(work / "models") as repo:
        repo.configure(MODEL, metric="eval_loss", direction="min")
        repo.alias(MODEL, "production", f"{MODEL}@frozen/epoch-2", why="to have something to show")
        last = f"epoch-{options.epochs}"
        diff = repo.diff(f"{MODEL}@start", f"{MODEL}@frozen/{last}")
        versions, adapter = repo.versions(MODEL), repo[f"{MODEL}@lora/{last}"]
        spectra = adapter.spectra()
        assert spectra is not None
        for name, picture in (
            ("heatmap", diff.heatmap()),
            ("curves", versions.curves("eval_loss", "loss")),
            ("lineage", repo.lineage(MODEL).graph()),
            ("spectra", spectra),
        ):
            size = write(docs / f"{name}.png", picture)
            print(f"{size:>8,} bytes  {name}.png  {picture.finding}")
        for name, page in (("diff", diff), ("log", versions), ("show", adapter)):
            page.to_html(work / f"{name}.html")
            print(f"written to {work / f'{name}.html'}")


def train(work: Path, epochs: int, steps: int) -> None:
    example = ROOT / "examples" / "encoder.py"
    options = ["--work", str(work), "--epochs", str(epochs), "--steps", str(steps)]
    subprocess.run([sys.executable, str(example), *options], check=True)


def write(path: Path, picture: Picture) -> int:
    """As a PNG of few colours; returns its bytes."""
    drawn = io.BytesIO()
    picture.figure().savefig(drawn, format="png", dpi=110)
    Image.open(drawn).convert("RGB").quantize(224).save(path, optimize=True)
    return path.stat().st_size


if __name__ == "__main__":
    main()

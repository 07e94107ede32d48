"""What the command line says of LoRA's delta-W."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len

from makers import Array, safetensors_bytes
from stemmata.cli.deltas import bars, cosine, share
from stemmata.repository import open as open_repository

Cli = Callable[..., Any]


def adapter(folder: Path, tensors: Mapping[str, Array], rank: int = 2, **config: Any) -> Path:
    folder.mkdir()
    named = {f"base_model.model.{name}": values for name, values in tensors.items()}
    (folder / "adapter_model.safetensors").write_bytes(safetensors_bytes(named))
    told = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, **config}
    (folder / "adapter_config.json").write_text(json.dumps(told))
    return folder


def layers(seed: int, count: int, *, spoiled: int | None = None, step: float = 0.0) -> dict[str, Array]:
    """Modules of `count` layers; of those from another `step` B has moved."""
    rng, moving = np.random.default_rng(seed), np.random.default_rng(7)
    found: dict[str, Array] = {}
    for layer in range(count):
        a, b = rng.normal(size=(2, 12)), rng.normal(size=(9, 2))
        b += step * moving.normal(size=b.shape)
        if layer == spoiled:
            b[0, 0] = np.inf
        found[f"h.{layer}.q.lora_A.weight"] = a.astype(np.float32)
        found[f"h.{layer}.q.lora_B.weight"] = b.astype(np.float32)
    return found


def test_diff_sums_up_and_lists_what_moved_most(shop: Path, cli: Cli, tmp_path: Path) -> None:
    with open_repository(".stemmata") as repo:
        repo.save(adapter(tmp_path / "a", layers(0, 14)), "m", name="a", provenance={})
        repo.save(adapter(tmp_path / "b", layers(0, 14, step=0.1)), "m", name="b", provenance={})
    said = cli("diff", "m@a", "m@b")
    assert said.code == 0
    lines = [line.strip() for line in said.out.split("\n")]
    told = {line.split("  ")[0]: line for line in lines}
    assert "→" in told["norm of delta-W"]
    assert "% of a, cosine 0.9" in told["change"]
    assert "of r=2, mean of the modules" in told["effective rank"]
    assert "angles" in told["outputs shared"]
    assert told["inputs shared"].startswith("inputs shared    100.0%")
    start = lines.index(next(line for line in lines if line.startswith("moved most")))
    assert all(line.startswith("h.") for line in lines[start + 1 : start + 11])
    assert lines[start + 11] == "and 4 more; list all with --json"
    document = cli("diff", "m@a", "m@b", "--json").json["lora"]["deltas"]
    assert len(document["modules"]) == 14
    changes = [row["difference"] for row in document["modules"].values()]
    assert document["difference"] == pytest.approx(math.hypot(*changes))
    assert set(document["modules"]["h.0.q"]) >= {"cosine", "relative", "output_angles", "input_overlap"}
    assert len(document["a"]["modules"]["h.0.q"]["singular_values"]) == 2


@pytest.mark.parametrize("width", [50, 80, 120])
def test_the_table_fits_the_terminal(
    shop: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    with open_repository(".stemmata") as repo:
        repo.save(adapter(tmp_path / "a", layers(0, 3)), "m", name="a", provenance={})
        repo.save(adapter(tmp_path / "b", layers(1, 3)), "m", name="b", provenance={})
    for line in (
        *cli("diff", "m@a", "m@b").out.split("\n"),
        *cli("show", "m@b", "--spectrum").out.split("\n"),
    ):
        if "h." in line and "lora_" not in line:
            assert cell_len(line) <= width


def test_diff_of_another_factorisation_says_equal(shop: Path, cli: Cli, tmp_path: Path) -> None:
    first = layers(0, 2)
    turn = np.array([[2.0, 0.5], [-1.0, 1.5]])
    again = {
        name: (np.linalg.inv(turn) @ x if "lora_A" in name else x @ turn).astype(np.float32)
        for name, x in first.items()
    }
    with open_repository(".stemmata") as repo:
        repo.save(adapter(tmp_path / "a", first), "m", name="a", provenance={})
        repo.save(adapter(tmp_path / "b", again), "m", name="b", provenance={})
        repo.save(adapter(tmp_path / "c", first, note="the same factors"), "m", name="c", provenance={})
    out = cli("diff", "m@a", "m@b").out
    assert "equal in 2 modules, within the rounding of F32: other factors, the same product" in " ".join(
        out.split()
    )
    assert "moved most" not in out
    same = cli("diff", "m@a", "m@c").out
    assert "equal in 2 modules\n" in same


def test_diff_says_what_it_cannot_compare_and_who_is_new(shop: Path, cli: Cli, tmp_path: Path) -> None:
    with open_repository(".stemmata") as repo:
        repo.save(adapter(tmp_path / "a", layers(0, 3, spoiled=1)), "m", name="a", provenance={})
        repo.save(adapter(tmp_path / "b", layers(1, 5)), "m", name="b", provenance={})
    out = " ".join(cli("diff", "m@a", "m@b").out.split())
    assert "not compared h.1.q: 1 of 42 values in the factors are NaN or infinite" in out
    assert "only in b + h.{3-4}.q" in out
    assert "norm of delta-W" not in out  # of a sum with an unknown part nothing is told
    document = cli("diff", "m@a", "m@b", "--json").json["lora"]["deltas"]
    assert (document["difference"], document["added"]) == (None, ["h.3.q", "h.4.q"])


def test_show_draws_the_spectrum_where_it_is_asked_for(shop: Path, cli: Cli) -> None:
    assert "singular values" not in cli("show", "sentiment@r8/epoch-1").out
    said = cli("show", "sentiment@r8/epoch-1", "--spectrum").out
    lines = [line.strip() for line in said.split("\n")]
    assert any(line.startswith("effective rank") and "of r=8, mean of the modules" in line for line in lines)
    rows = [line for line in lines if line.startswith("layers.0.")]
    assert len(rows) == 2
    assert all("█" in row for row in rows)
    document = cli("show", "sentiment@r8/epoch-1", "--spectrum", "--json").json["spectrum"]
    row = document["modules"]["layers.0.q_proj"]
    assert (row["r"], row["scale"], len(row["singular_values"])) == (8, 2.0, 8)
    assert "spectrum" not in cli("show", "sentiment@r8/epoch-1", "--json").json


def test_show_of_what_has_no_spectrum(shop: Path, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_text("x")
    tensors = layers(0, 1, spoiled=0)
    with open_repository(".stemmata") as repo:
        repo.save(tmp_path / "files", "m", name="files", provenance={})
        spoiled = adapter(tmp_path / "spoiled", tensors, use_dora=True)
        repo.save(spoiled, "m", name="spoiled", provenance={})
        (spoiled / "adapter_config.json").unlink()
        (spoiled / "adapter_model.safetensors").write_bytes(safetensors_bytes(layers(0, 2)))
        repo.save(spoiled, "m", name="bare", provenance={})
    assert "no LoRA whose weights can be read" in cli("show", "m@files", "--spectrum").out
    assert cli("show", "m@files", "--spectrum", "--json").json["spectrum"] is None
    out = cli("show", "m@spoiled", "--spectrum").out
    assert "NaN or infinite" in out
    assert "before the magnitudes" in " ".join(out.split())
    out = " ".join(cli("show", "m@bare", "--spectrum").out.split())
    assert "h.{0-1}.q: its scale is not known (no adapter_config.json): norms of B A" in out
    assert "norm of delta-W not known" in out


def test_words_for_ratios_cosines_and_spectra() -> None:
    assert [share(x) for x in (0.0, 1e-7, 0.2046, 1.5, 37.2)] == [
        "0.0%",
        "1e-05%",
        "20.5%",
        "150.0%",
        "×37.2",
    ]
    assert [cosine(x) for x in (0.5, 0.9798, 0.999999, 1.0, -1.0)] == [
        "0.500", "0.9798", "0.99999900", "1.000", "-1.000"
    ]  # fmt: skip
    assert bars([8.0, 4.0, 1.0, 0.0]) == "█▅▂▁"
    assert bars([1.0] * 20) == "█" * 16 + "…"
    assert bars([0.0, 0.0]) == bars([]) == ""

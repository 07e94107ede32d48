"""What a command imports. Time itself is measured by bench/startup.py: here it cannot creep back unseen."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from makers import model_folder
from stemmata.codecs import payloads
from stemmata.repository import open as open_repository

PACKAGES = {"blake3", "msgspec", "typer", "typing_extensions", "zstandard"}
"""Those of other people that a command may need which reads names and metrics."""
OF_TYPER = {"annotated_doc", "shellingham", "click"}
"""What some releases of it bring with them."""
UNUSED = {
    *("capture", "candidates", "checking", "checkouts", "collecting", "compare", "containers", "deleting"),
    *("describe", "hf", "lightning", "moves", "objects", "packs", "redacting", "resolve", "resuming"),
    *("pictures", "portraits", "retaining", "retention", "saving", "sources", "training_args", "usage"),
}
"""Floors that have nothing to say in a list of versions."""
HEAVY = {"email", "importlib.metadata", "asyncio", "concurrent.futures", "ctypes", "secrets", "socket", "ssl"}
"""Modules of Python's own that take long, and that nothing in such a command needs."""

LOOK = """
import json, sys
from stemmata.cli.main import run
code = run(json.loads(sys.argv[1]))
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
sys.exit(code)
"""


def imported(*arguments: str) -> set[str]:
    """All modules that are there when the command has ended."""
    ran = subprocess.run(
        [sys.executable, "-c", LOOK, json.dumps(arguments)],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(ran.stderr.splitlines()[-1]))


def foreign(modules: set[str]) -> set[str]:
    """The packages among them that are neither Python's nor ours."""
    roots = {name.partition(".")[0] for name in modules if not name.startswith("_")}
    return roots - set(sys.stdlib_module_names) - {"stemmata"}


def at_start() -> set[str]:
    """What Python itself, and what is installed beside it, has imported before anybody asks."""
    ran = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(ran.stdout.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["log"],
        ["log", "sentiment", "--run", "r8", "--metric", "eval_loss"],
        ["log", "--json"],
        ["models"],
        ["search", "sentiment", "eval_loss < 0.5"],
    ],
    ids=" ".join,
)
def test_a_list_imports_what_it_needs(shop: Path, arguments: list[str]) -> None:
    found = imported(*arguments)
    assert foreign(found - at_start()) - PACKAGES - OF_TYPER == set()
    ours = {name.split(".")[1] for name in found if name.startswith("stemmata.")}
    assert ours & UNUSED == set()
    assert (found - at_start()) & HEAVY == set()


UNREAD = {"compare.adapters", "compare.deltas", "codecs.kernels", "codecs.native", "saving", "hf"}
"""What a comparison without LoRA has no use for."""


@pytest.mark.parametrize("command", ["diff", "diff of three", "show", "show --tensors"])
def test_what_was_learnt_at_a_save_is_told_without_numpy(shop: Path, tmp_path: Path, command: str) -> None:
    with open_repository(".stemmata") as repo:
        for number in range(3):
            folder = model_folder(tmp_path / "m", number, layers=20)
            (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {str(number): 0}}}))
            provenance = {"packages": json.dumps({"torch": str(number)}).encode()}
            repo.save(folder, "m", name=f"v{number}", provenance=provenance, parents=["m@v0"] * (number == 1))
    first, *more = command.split(" ", 1)
    named = {"diff": ["m@v0", "m@v1"], "diff of three": ["m@v0", "m@v1", "m@v2"]}.get(command, ["m@v1"])
    found = imported(first, *named, *(more if first == "show" else ()))
    assert foreign(found - at_start()) - PACKAGES - OF_TYPER == set()
    assert {name.removeprefix("stemmata.") for name in found} & UNREAD == set()


def test_an_error_needs_no_more(shop: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as told:
        imported("log", "nosuch")
    assert "nosuch" in told.value.stderr
    assert "rich" not in foreign(set(json.loads(told.value.stderr.splitlines()[-1])))


def test_a_save_imports_nothing_of_training(shop: Path) -> None:
    found = imported("save", "out", "sentiment")
    needed = {"numpy"} if payloads.why_not else set()
    assert foreign(found) - PACKAGES - OF_TYPER - foreign(at_start()) <= needed
    # What tells of the packages that are installed reads their folders itself.
    assert (found - at_start()) & {"email", "importlib.metadata", "zipfile", "asyncio", "ssl"} == set()


def test_a_save_in_which_nothing_changed_needs_no_numpy(shop: Path, tmp_path: Path) -> None:
    """The second time every file is one of the parent's, a tokenizer that is cut in chunks among them."""
    folder = model_folder(tmp_path / "m", 1, layers=2)
    (folder / "tokenizer.json").write_text(json.dumps(list(range(30_000))))
    with open_repository(".stemmata") as repo:
        files = repo.save(folder, "m", name="one").files
    found = imported("save", str(folder), "m", "--name", "two", "--parent", "m@one")
    assert foreign(found - at_start()) - PACKAGES - OF_TYPER == set()
    with open_repository(".stemmata") as repo:
        assert repo["m@two"].files == files


@pytest.mark.skipif(bool(payloads.why_not), reason=payloads.why_not or "they are there")
def test_a_save_and_a_checkout_need_no_numpy(shop: Path, tmp_path: Path) -> None:
    """Not even along a chain: what is compiled writes and reads every frame of it."""
    rng, kept = np.random.default_rng(0), [0]
    weights = rng.normal(0, 0.02, 300_000)
    found: set[str] = set()
    for number in range(3):
        folder = tmp_path / f"m{number}"
        folder.mkdir()
        tensors = {"w": weights.astype("<f4"), "little": weights[:900].astype("<f4")}
        save_file(tensors, folder / "model.safetensors")
        parents = ("--parent", f"m@v{number - 1}") if number else ()
        found |= imported("save", str(folder), "m", "--name", f"v{number}", *parents)
        weights += rng.normal(0, 1e-5, len(weights))
        kept.append(sum(pack.stat().st_size for pack in Path(".stemmata/packs").rglob("*.pack")))
    assert kept[3] - kept[2] < 0.6 * (kept[1] - kept[0]), "it leans on the one before"
    found |= imported("checkout", "m@v2", "-o", "back")
    assert foreign(found - at_start()) - PACKAGES - OF_TYPER == set()
    written = Path("back/model.safetensors").read_bytes()
    assert written == (tmp_path / "m2" / "model.safetensors").read_bytes()


BEGIN = """
import json, sys
import stemmata.saving
def save(*_):
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
    sys.stderr.flush()
    sys.exit(0)
stemmata.saving.save = save
from stemmata.cli.main import run
run(["save", "out", "sentiment", "--parent", "sentiment@latest"])
"""


def test_a_save_begins_without_what_codes(shop: Path) -> None:
    """numpy comes when the first object is coded, and not before the folder is looked at."""
    ran = subprocess.run([sys.executable, "-c", BEGIN], capture_output=True, text=True, check=True)
    found = set(json.loads(ran.stderr.splitlines()[-1]))
    assert "stemmata.saving" in found
    assert foreign(found - at_start()) - PACKAGES - OF_TYPER == set()
    assert (
        found & {"stemmata.codecs.objectcode", "stemmata.codecs.kernels", "stemmata.codecs.native"} == set()
    )
    assert (found - at_start()) & {"email", "importlib.metadata", "zipfile", "ctypes", "ssl"} == set()


MADE = """
import json, sys
from stemmata.cli.main import run
code = run(json.loads(sys.argv[1]))
made = [
    f"{name}.{key}"
    for name, module in sys.modules.items()
    if name.startswith("stemmata.")
    for key, value in vars(module).items()
    if isinstance(value, type) and value.__module__ == name and "__dataclass_fields__" in vars(value)
]
print(json.dumps(made), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("arguments", "most"),
    [(["log"], 8), (["checkout", "sentiment@latest", "-o", "back"], 16), (["save", "out", "sentiment"], 36)],
    ids=["log", "checkout", "save"],
)
def test_few_dataclasses_are_made(shop: Path, arguments: list[str], most: int) -> None:
    """Each takes half a millisecond to make, used or not; a struct of msgspec a fiftieth of it."""
    ran = subprocess.run(
        [sys.executable, "-c", MADE, json.dumps(arguments)], capture_output=True, text=True, check=True
    )
    made = json.loads(ran.stderr.splitlines()[-1])
    assert len(made) <= most, made

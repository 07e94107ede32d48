"""`report_to="stemmata"` once the package is imported, whichever import came first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stemmata.repository import open as open_repository
from warm import WarmPython

TESTS = str(Path(__file__).parents[1])
SCRIPT = """
import sys
{first}
{second}
sys.path.insert(0, {tests!r})
import tiny_models as tiny
import transformers.integrations.integration_utils as table
assert not [f for f in sys.meta_path if type(f).__module__ == "stemmata.registration"]
assert type(table.__loader__).__name__ == "SourceFileLoader", "the module keeps its own loader"
assert table.__spec__.loader is table.__loader__
mine = table.INTEGRATION_TO_CALLBACK["stemmata"]
registration.install()
assert table.INTEGRATION_TO_CALLBACK["stemmata"] is mine
tiny.trainer(tiny.gpt2(), {out!r}, [], num_train_epochs=1, report_to="stemmata", run_name="r").train()
"""
STEMMATA = "import stemmata; from stemmata import registration; registration.install()"


def run(
    script: str, folder: Path, warm: WarmPython | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("STEMMATA_")}
    environment.update(variables, STEMMATA_CACHE=str(folder / "cache"))
    if warm:
        return warm.run(script, cwd=folder, env=environment)
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("ours_first", [True, False])
def test_either_order_of_imports_works(tmp_path: Path, warm: WarmPython, ours_first: bool) -> None:
    theirs = "from transformers import Trainer"
    first, second = (STEMMATA, theirs) if ours_first else (theirs, STEMMATA)
    script = SCRIPT.format(first=first, second=second, tests=TESTS, out="some/Out Folder")
    variables = (
        {} if ours_first else {"STEMMATA_MODEL": "team/chosen", "STEMMATA_REPO": str(tmp_path / "there")}
    )
    # A warm Python has imported theirs already.
    done = run(script, tmp_path, None if ours_first else warm, **variables)
    assert done.returncode == 0, done.stderr
    place, model = (".stemmata", "Out-Folder") if ours_first else ("there", "team/chosen")
    with open_repository(tmp_path / place) as repo:
        assert repo.models() == [model]
        assert repo[f"{model}@r/final"].names == ["r/epoch-1", "r/final"]


def test_another_way_into_transformers_works(tmp_path: Path) -> None:
    """Its table of integrations may be reached while its models' module is half imported."""
    script = f"{STEMMATA}\nfrom transformers import PreTrainedModel\nfrom transformers import Trainer\n"
    script += "from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK as table\n"
    script += "assert type(table['stemmata']()).__name__ == 'Reporter'\n"
    script += "assert hasattr(table['stemmata'](), 'on_epoch_end')\n"
    done = run(script, tmp_path)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_imports_none_of_the_heavy_ones(tmp_path: Path) -> None:
    script = f"""
import sys
{STEMMATA}
import stemmata.hf
registration.install()
heavy = {{"torch", "transformers", "peft", "datasets"}} & set(sys.modules)
assert not heavy, heavy
watchers = [f for f in sys.meta_path if type(f).__module__ == "stemmata.registration"]
assert len(watchers) == 1, "installed once"
import importlib.util
import json, email.mime.text  # other imports are nobody's business
assert watchers[0].find_spec("json", None) is None
"""
    done = run(script, tmp_path)
    assert done.returncode == 0, done.stderr

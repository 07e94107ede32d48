"""The cells of a notebook, run one after another as the notebook ran them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stemmata.reproducing import cells


def run(folder: Path, *given: str) -> tuple[int, str, str]:
    name, text = cells.script_of(cells.runnable(given))
    (folder / name).write_text(text, encoding="utf-8")
    command = [name] if name.endswith(".py") else ["-m", "IPython", "--colors=NoColor", name]
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_a_cell_that_fails_says_so_and_the_next_is_run(tmp_path: Path) -> None:
    given = ["x = 'a'\ntext = '''\n  b'''", "y = undefined", "print(x +", "import sys; sys.exit(3)"]
    status, out, err = run(tmp_path, *given, "def f():\n    return x + text\nprint(f())")
    assert (status, out) == (0, "a\n  b\n")
    assert 'File "<cell 2>", line 1' in err
    assert "NameError: name 'undefined' is not defined" in err


def test_the_last_cell_decides(tmp_path: Path) -> None:
    status, out, err = run(tmp_path, "import atexit; atexit.register(print, 'ended')", "1 / 0")
    assert (status, out) == (1, "ended\n")
    assert "ZeroDivisionError" in err


@pytest.mark.parametrize("more", [[], ["!true"]], ids=["python", "ipython"])
def test_cells_may_await_and_give_any_name_another_meaning(tmp_path: Path, more: list[str]) -> None:
    rows = "import asyncio\nasync def rows():\n    await asyncio.sleep(0)\n    return [1, 2]"
    names = "_run = _sys = _CELLS = _done = linecache = traceback = {}"
    task = "task = asyncio.ensure_future(rows())"
    given = [rows, names, task, "data = await task", "1 / 0", *more, "print(sum(data), await rows())"]
    assert cells.runnable(given) == given
    status, out, err = run(tmp_path, *given)
    assert (status, out.splitlines()[-1]) == (0, "3 [1, 2]"), err
    assert "ZeroDivisionError" in out + err


def test_which_cells_can_have_run_and_which_need_ipython() -> None:
    assert cells.runnable(["x = 1", "print(", "%pip list", "!ls", "x = ("]) == ["x = 1", "%pip list", "!ls"]
    assert cells.needs_ipython(["x = 1", "for f in x:\n    !ls $f"])
    assert cells.needs_ipython(["x = get_ipython().getoutput('ls')"])
    assert not cells.needs_ipython(["x = (1\n% 2)", "'''\n!ls\n'''"])


def test_cells_that_need_ipython_go_on_too(tmp_path: Path) -> None:
    status, out, _ = run(tmp_path, "x = 1", "1 / 0", "!echo hi $x")
    assert (status, out.splitlines()[-1]) == (0, "hi 1")
    assert "ZeroDivisionError" in out
    assert run(tmp_path, "%time", "1 / 0")[0] == 1

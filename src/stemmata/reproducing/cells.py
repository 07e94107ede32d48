"""Cells: what had been run of a notebook, as a script. Owns that it goes on as the notebook did: a cell that
fails says so, and the next one is run.

Which cells failed then is not known, so a failure says nothing but of the last cell: it was the one that
trained. Cells that are no Python failed then too, and are left out.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence

NAME = "stemmata_cells"
_MAGIC = re.compile(r"^\s*[%!?]", re.MULTILINE)
_SHELL = "get_ipython("
_PLAIN = """
def _run(number, cell):
    name = f"<cell {number}>"
    _linecache.cache[name] = (len(cell), None, cell.splitlines(True), name)
    try:
        exec(compile(cell, name, "exec", dont_inherit=True), globals())
    except (Exception, SystemExit):
        _traceback.print_exc()
        return False
    return True
"""
_IPYTHON = """
def _run(number, cell):
    return get_ipython().run_cell(cell).success
"""
_END = """
if __name__ == "__main__":  # no process that this one starts runs them too: nor did it in a notebook
    _done = [_run(_number, _cell) for _number, _cell in enumerate(_CELLS, start=1)]
    if not _done[-1]:
"""
_EXIT = """        _sys.exit(1)
"""
_IPYTHON_EXIT = """        _atexit._run_exitfuncs()
        _os._exit(1)  # IPython takes an exit for one of the cell's
"""


def runnable(cells: Sequence[str]) -> list[str]:
    """Those that can have run."""
    return [cell for cell in cells if _is_python(cell) or _MAGIC.search(cell)]


def needs_ipython(cells: Sequence[str]) -> bool:
    """Whether any holds a command of IPython (% or !)."""
    return any(_SHELL in cell or (not _is_python(cell) and _MAGIC.search(cell)) for cell in cells)


def script_of(cells: Sequence[str]) -> tuple[str, str]:
    """The name of the script that runs them, and its text."""
    told = "".join(f"    {cell!r},\n" for cell in cells)
    listed = f"\n_CELLS = [\n{told}]\n"
    if needs_ipython(cells):
        head = "import atexit as _atexit\nimport os as _os\n"
        return f"{NAME}.ipy", f"{head}{listed}{_IPYTHON}{_END}{_IPYTHON_EXIT}"
    head = "import linecache as _linecache\nimport sys as _sys\nimport traceback as _traceback\n"
    return f"{NAME}.py", f"{head}{listed}{_PLAIN}{_END}{_EXIT}"


def _is_python(cell: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" in somebody's cell is not ours to complain of
            compile(cell, "cell", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True

"""Cells: what had been run of a notebook, as a script. Owns that it goes on as the notebook did: a cell that
fails says so, and the next one is run.

Which cells failed then is not known, so a failure says nothing but of the last cell: it was the one that
trained. Cells that are no Python failed then too, and are left out.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Sequence

NAME = "stemmata_cells"
_MAGIC = re.compile(r"^\s*[%!?]", re.MULTILINE)
_SHELL = "get_ipython("
# What runs them imports where it stands: a cell may give any name another meaning.
_PLAIN = """
def _run(cells):
    import ast, asyncio, inspect, linecache, traceback
    loop = asyncio.new_event_loop()  # a notebook's cells may await
    for number, cell in enumerate(cells, start=1):
        name = f"<cell {number}>"
        linecache.cache[name] = (len(cell), None, cell.splitlines(True), name)
        asyncio.set_event_loop(loop)  # a cell may have taken it away, as asyncio.run does
        try:
            code = compile(cell, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, True)
            done = eval(code, globals())
            if code.co_flags & inspect.CO_COROUTINE:
                loop.run_until_complete(done)
            ended = True
        except (Exception, SystemExit):
            traceback.print_exc()
            ended = False
    loop.close()
    return ended
"""
_IPYTHON = """
def _run(cells):
    import asyncio
    from IPython.core.async_helpers import get_asyncio_loop
    asyncio.set_event_loop(get_asyncio_loop())  # a notebook has one for all its cells
    run = get_ipython().run_cell
    return [run(cell).success for cell in cells][-1]
"""
_END = """
if __name__ == "__main__":  # no process that this one starts runs them too: nor did it in a notebook
    if not _run(_CELLS):
"""
_EXIT = """        raise SystemExit(1)
"""
_IPYTHON_EXIT = """        __import__("atexit")._run_exitfuncs()
        __import__("os")._exit(1)  # IPython takes an exit for one of the cell's
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
        return f"{NAME}.ipy", f"{listed}{_IPYTHON}{_END}{_IPYTHON_EXIT}"
    return f"{NAME}.py", f"{listed}{_PLAIN}{_END}{_EXIT}"


def _is_python(cell: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" in somebody's cell is not ours to complain of
            compile(cell, "cell", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True

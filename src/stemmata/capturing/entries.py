"""Entries: what was started (a script, a module, a notebook), and the local modules that it imported."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

Kind = Literal["script", "module", "notebook", "command", "prompt", "program"]
_OWN = Path(__file__).resolve().parents[1]
BOOTSTRAP = str(Path("stemmata", "attach", "bootstrap"))
"""How the folder ends that stemmata puts first on the path of a command. It may be of another copy."""
_PACKAGES = frozenset(("site-packages", "dist-packages"))
_MOST_CELLS = 5000


class Entry(NamedTuple):
    """`kind`: "script" and "module" (`-m name`) have a `path`, "notebook" has cells, "command" is
    `python -c`, "prompt" is typed in or read from stdin, "program" is installed (stemmata's command is)."""

    kind: Kind
    path: Path | None = None
    name: str | None = None
    cells: tuple[str, ...] = ()


def find() -> Entry:
    """How this process was started."""
    shell = _shell()
    if shell is not None:
        return Entry("notebook", _notebook_path(shell), None, _cells(shell))
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if not file:
        return Entry("command" if "-c" in _flags() else "prompt")
    path = Path(file)
    path = path.resolve() if path.exists() else path.absolute()
    spec = getattr(main, "__spec__", None)
    name = getattr(spec, "name", None)
    if is_installed(path):
        return Entry("program", path, name)
    if spec is not None and name:
        return Entry("module", path, name.removesuffix(".__main__"))
    return Entry("script", path)


def folder_of(entry: Entry) -> Path:
    """Where its code lies: the script's folder, else the working one."""
    if entry.path is not None and entry.kind in ("script", "module", "notebook"):
        return entry.path.parent
    return Path()


def local_modules() -> list[Path]:
    """Files of the modules in use that are no part of Python, of an installed package or of stemmata."""
    found: set[Path] = set()
    own = f"{_OWN}{os.sep}"
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name == "__main__" or not isinstance(file, str) or not file.endswith(".py"):
            continue
        if not file.startswith(own) and not _is_installed(file) and os.path.isfile(file):  # noqa: PTH113  (many of them, at train begin)
            found.add(Path(file).resolve())
    return sorted(path for path in found if not is_installed(path))


def is_installed(path: Path) -> bool:
    """Whether a file is Python's, an installed package's or stemmata's."""
    return path.is_relative_to(_OWN) or str(path.parent).endswith(BOOTSTRAP) or _is_installed(str(path))


def _is_installed(path: str) -> bool:
    # Asked of each module in use: no `Path` is made for it.
    return path.startswith(_installed_folders()) or not _PACKAGES.isdisjoint(path.split(os.sep))  # noqa: PTH206


@lru_cache(maxsize=1)
def _installed_folders() -> tuple[str, ...]:
    known = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib", "scripts")}
    known |= {*site.getsitepackages(), site.getusersitepackages()}
    if sys.prefix != sys.base_prefix:
        known.add(sys.prefix)
    folders = {form for path in known if path for form in (path, os.path.realpath(path))}
    return tuple(sorted(folder.rstrip(os.sep) + os.sep for folder in folders))


def _flags() -> list[str]:
    """What Python itself was told, before the script."""
    return sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 2]


def _shell() -> Any:
    """IPython's shell, in a notebook or at its prompt."""
    get = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get() if callable(get) else None


def _cells(shell: Any) -> tuple[str, ...]:
    space = getattr(shell, "user_ns", None) or {}
    typed = space.get("_ih") or space.get("In") or []
    return tuple(str(cell) for cell in list(typed)[:_MOST_CELLS] if str(cell).strip())


def _notebook_path(shell: Any) -> Path | None:
    space = getattr(shell, "user_ns", None) or {}
    named = space.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME")
    path = Path(str(named)).absolute() if named else None
    return path if path is not None and path.suffix == ".ipynb" else None

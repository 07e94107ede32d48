"""Secrets in source text: what is masked in files and diffs, so that the rest of them stays as it was.

Code under a telling name is an expression more often than a secret (`token = read_token()`): of code only
literals are masked (see `literals`), and what a notebook's cell hands to a shell. In settings (`.env`, YAML,
shell) a value is masked as it stands, a bracket or block whole; references (`$TOKEN`) are left. Files that
are made to hold secrets are not kept at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from stemmata.capture import known_secrets, looks_secret, mask_assigned, mask_known, mask_shapes
from stemmata.capturing.literals import mask_literals

_CODE = frozenset(
    [
        ".py",
        ".pyi",
        ".pyx",
        ".pxd",
        ".ipynb",
        ".c",
        ".h",
        ".cc",
        ".cpp",
        ".hpp",
        ".cu",
        ".cuh",
        ".js",
        ".ts",
        ".rs",
        ".go",
        ".java",
        ".scala",
        ".jl",
        ".r",
    ]
)
_SETTINGS = frozenset(
    [
        ".json",
        ".yaml",
        ".yml",
        ".toml",
        ".cfg",
        ".ini",
        ".conf",
        ".sh",
        ".bash",
        ".zsh",
        ".txt",
        ".md",
        ".rst",
        ".jinja",
        ".jinja2",
        ".j2",
        ".in",
        ".lock",
        ".slurm",
        ".sbatch",
        ".env",
        ".tf",
        ".hcl",
        ".make",
        ".mk",
    ]
)
_SETTINGS_NAMES = frozenset(("makefile", "dockerfile", "justfile", "procfile", "requirements"))
_SECRET_FILES = re.compile(
    r"(?i)(?:\.env(?:\..*)?|.*\.env|\.envrc|\.netrc|_netrc|\.pgpass|\.npmrc|\.pypirc|\.htpasswd|\.git-credentials|kaggle\.json|\.boto|\.s3cfg|\.my\.cnf"
    r"|id_(?:rsa|dsa|ecdsa|ed25519).*|.*\.(?:pem|key|p12|pfx|jks|keystore|kdbx|gpg|asc)"
    r"|credentials?(?:\..*)?|secrets?\.(?!py$).*|.*service[_-]?account.*\.json)"
)
_OF_ONE_SECRET = frozenset(("", ".txt"))
"""Endings of files that are named as what is in them: `token`, `wandb_key.txt`. Settings (`auth.yaml`) are
read by their keys, and `tokens.json` may be a vocabulary."""
_REFERENCE = re.compile(
    r"""["']?(?:\$[A-Z_][A-Z0-9_]*|\$[0-9@*]|\$\{\{?[^}:]*\}\}?|\$\([^)]*\)|\{+[\w.\s]*\}+|<[\w\s-]*>|~|\*+"""
    r"""|(?i:null|none|true|false)|[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)?["']?,?"""
)
# What a notebook hands to others: a whole cell, to a shell or into a file, and single lines.
_CELL = re.compile(
    r"\s*%%(?:(?:bash|sh|zsh|script|system|sx|!)[^\n]*\n|(?:writefile|file)[^\S\n]+(?:-a[^\S\n]+)?(?P<name>\S+)[^\n]*\n)"
)
_SHELL_LINE = re.compile(r"^[ \t]*(?:!|%(?:set_env|env|system|sx)\b)[^\n]*$", re.MULTILINE)
_RUNS_ON = frozenset(("kernelspec", "language_info"))
_SECTION = re.compile(r"^(?=diff --git )", re.MULTILINE)


def is_code(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in _CODE


def is_notebook(path: str) -> bool:
    return path.lower().endswith(".ipynb")


def is_source(path: str) -> bool:
    """Whether a file that git does not know may be source, by its name."""
    name = PurePosixPath(path).name.lower()
    suffix = PurePosixPath(name).suffix
    return suffix in _CODE or suffix in _SETTINGS or name.partition(".")[0] in _SETTINGS_NAMES


def holds_secrets(path: str) -> bool:
    """Whether a file is made to hold secrets (`.env`, a private key, `hf_token.txt`), by its name."""
    name = PurePosixPath(path)
    if _SECRET_FILES.fullmatch(name.name) is not None:
        return True
    return name.suffix.lower() in _OF_ONE_SECRET and looks_secret(name.stem)


def mask_source(text: str, path: str) -> str:
    """A source file's text without secrets; at most a Mi characters of it are given."""
    return _mask_notebook(text) if is_notebook(path) else _mask_text(text, path)


def mask_diff(text: str) -> str:
    """A diff as git prints it, each file's part by the rules for that file; notebooks' parts are left out:
    a line of JSON does not say whether it is of a cell or of what came of it."""
    parts = [(part, _path_of(part)) for part in _SECTION.split(text) if part]
    return "".join(_mask_text(part, path, margin=1) for part, path in parts if not is_notebook(path))


def without_known(objects: Mapping[str, bytes], secrets: Iterable[str] | None = None) -> dict[str, bytes]:
    """The last gate before anything is stored: no value that the environment keeps under a secret's name."""
    values = tuple(known_secrets() if secrets is None else secrets)
    if not values:
        return dict(objects)
    return {
        kind: mask_known(data.decode("utf-8", "surrogateescape"), values).encode("utf-8", "surrogateescape")
        for kind, data in objects.items()
    }


def _path_of(section: str) -> str:
    return section.partition("\n")[0].rpartition(" b/")[2].strip('"')


def _mask_text(text: str, path: str, margin: int = 0) -> str:
    text = mask_shapes(text)
    return _mask_code(text) if is_code(path) else mask_assigned(text, _harmless, margin)


def _harmless(value: str) -> bool:
    """Nothing, a reference (`$TOKEN`, `<your token>`, `{token}`), or the name of a variable."""
    return _REFERENCE.fullmatch(value) is not None


def _mask_code(text: str) -> str:
    """A program, and what a notebook's cell gives to a shell."""
    told = _CELL.match(text)
    if told is not None:
        name = told["name"] or "cell.sh"
        return text[: told.end()] + mask_source(text[told.end() :], name)
    text = _SHELL_LINE.sub(lambda line: mask_assigned(line[0], _harmless), text)
    return mask_literals(text, _harmless)


def _mask_notebook(text: str) -> str:
    """The cells of a notebook and what it runs on; outputs and what tools note in its metadata (papermill:
    parameters) are not source and are left out. Raises ValueError."""
    book = json.loads(text)
    if not isinstance(book, dict) or not isinstance(book.get("cells"), list):
        raise ValueError("it is no notebook")
    metadata = book.get("metadata")
    kept = {k: v for k, v in metadata.items() if k in _RUNS_ON} if isinstance(metadata, dict) else {}
    numbers = {name: book[name] for name in ("nbformat", "nbformat_minor") if name in book}
    book = {"cells": [_mask_cell(cell) for cell in book["cells"]], "metadata": kept, **numbers}
    return json.dumps(book, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def _mask_cell(cell: object) -> dict[str, object]:
    if not isinstance(cell, dict):
        raise ValueError("it is no notebook")
    source = cell.get("source", "")
    whole = "".join(map(str, source)) if isinstance(source, list) else str(source)
    masked = mask_source(whole, "cell.py" if cell.get("cell_type") == "code" else "cell.md")
    found: dict[str, object] = {name: cell[name] for name in ("cell_type", "id") if name in cell}
    found |= {"metadata": {}, "source": masked}
    if "outputs" in cell:
        found |= {"outputs": [], "execution_count": None}
    return found

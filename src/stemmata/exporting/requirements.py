"""Requirements: the packages of a run as pip installs them. Owns what pip can have and what it cannot."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from stemmata.exporting.subject import Subject
from stemmata.exporting.writing import remark

FIRST = [
    "torch",
    "transformers",
    "peft",
    "trl",
    "accelerate",
    "datasets",
    "tokenizers",
    "safetensors",
    "huggingface-hub",
    "bitsandbytes",
    "flash-attn",
    "deepspeed",
    "lightning",
    "pytorch-lightning",
    "sentence-transformers",
    "evaluate",
    "scikit-learn",
    "torchvision",
    "torchaudio",
    "numpy",
    "stemmata",
]
"""What decides most of a training, the first the most."""
_NOT_OF_A_PROJECT = frozenset({"pip", "setuptools", "wheel", "distribute", "uv"})
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
# PEP 440, without the spellings that nobody's metadata has.
_VERSION = re.compile(
    r"(?:[0-9]+!)?[0-9]+(?:\.[0-9]+)*(?:(?:a|b|rc)[0-9]+)?(?:\.post[0-9]+)?(?:\.dev[0-9]+)?"
    r"(?:\+(?P<local>[a-z0-9]+(?:[._-][a-z0-9]+)*))?",
    re.IGNORECASE,
)
_URL = re.compile(r"(?:(?:git|hg|svn|bzr)\+)?(?:https?|ssh|git|svn|bzr)://[^\s;#'\"<>\\]+(?:#[\w=&.+/-]+)?")


def requirements(subject: Subject) -> str:
    """A requirements.txt: every package pinned, the telling ones first; what pip cannot have as comments."""
    lines = [
        f"# {remark(subject.reference)} ({subject.short}), as it was trained",
        *_python(subject),
        *(f"# {remark(each)}" for each in subject.missing if "packages" in each),
    ]
    pinned: dict[str, str] = {}
    apart: dict[str, str] = {}
    for name, said in subject.packages.items():
        line, is_pinned = _requirement(str(name), said)
        (pinned if is_pinned else apart).setdefault(canonical(str(name)), line)
    telling = [name for name in FIRST if name in pinned]
    rest = sorted(set(pinned) - set(telling))
    if telling:
        lines += ["", *(pinned[name] for name in telling)]
    if rest:
        lines += ["", "# what was installed beside these", *(pinned[name] for name in rest)]
    if apart:
        lines += ["", "# not to be had by name and version", *(apart[name] for name in sorted(apart))]
    return "\n".join(lines) + "\n"


def canonical(name: str) -> str:
    """A package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _python(subject: Subject) -> list[str]:
    found = subject.environment.get("python")
    if not isinstance(found, str):
        return ["# the version of Python was not recorded"]
    where = subject.environment.get("platform")
    return [f"# Python {remark(found)}" + (f" on {remark(where)}" if isinstance(where, str) else "")]


def _requirement(name: str, said: Any) -> tuple[str, bool]:
    """A line, and whether pip understands it."""
    version, url = version_and_url(said)
    shown = remark(f"{name}=={version}" if version else name)
    if not _NAME.fullmatch(name):
        return f"# {shown}: its name is none that pip takes", False
    if canonical(name) in _NOT_OF_A_PROJECT:
        return f"# {shown}", False
    if url:
        if "***" in url:
            return f"# {remark(name)} @ {remark(url)}: the credentials were not recorded", False
        if _URL.fullmatch(url):
            return f"{name} @ {url}", True
        where = "a local folder or file" if re.match(r"(?:\w+\+)?file:", url) else remark(url)
        return f"# {shown}: installed from {where}", False
    found = _VERSION.fullmatch(version)
    if found is None:
        return f"# {shown}: its version is none that pip takes", False
    if canonical(name) == "stemmata":
        return f"# {shown}: install it from its folder", False
    if found["local"]:
        # Builds for one CUDA or CPU have their own index; without the suffix any build of it fits.
        return f"{name}=={version.partition('+')[0]}  # it was {version}", True
    return f"{name}=={version}", True


def version_and_url(said: Any) -> tuple[str, str]:
    """What is recorded of a package: its version, and where it came from if not from an index by name."""
    if isinstance(said, str):
        return said, ""
    if not isinstance(said, Mapping):
        return "", ""
    version, url = said.get("version"), said.get("url") or said.get("direct_url")
    commit = said.get("commit") or said.get("commit_id")
    if isinstance(url, str) and isinstance(commit, str) and commit and commit not in url:
        kind = (
            said.get("vcs") if isinstance(said.get("vcs"), str) and str(said.get("vcs")).isalnum() else "git"
        )
        url = f"{url if url.startswith(f'{kind}+') else f'{kind}+{url}'}@{commit}"
    within = said.get("subdirectory")
    if isinstance(url, str) and isinstance(within, str) and within and "#" not in url:
        url = f"{url}#subdirectory={within}"
    return (version if isinstance(version, str) else ""), (url if isinstance(url, str) else "")

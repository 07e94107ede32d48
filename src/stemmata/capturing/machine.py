"""Machine: Python, system, processor, accelerators. Asks libraries that are loaded; starts no device."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from stemmata.capturing.missing import Missing

_NVIDIA = Path("/proc/driver/nvidia")
_VERSION = re.compile(r"(?:Kernel Module|Module)\s+(?:for \S+\s+)?([0-9][0-9.]*)")


def collect() -> tuple[dict[str, object], list[Missing]]:
    """The machine's facts, and which of them could not be told."""
    missing: list[Missing] = []
    found = {**_fixed(), "driver": _driver(_NVIDIA)}
    torch = sys.modules.get("torch")
    found["torch"] = None if torch is None else _of_torch(torch)
    found["gpus"] = _gpus(torch, missing)
    return found, missing


@lru_cache(maxsize=1)
def _fixed() -> dict[str, object]:
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "build": " ".join(platform.python_build()),
        "platform": _platform(),
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()).strip() or None,
        "cpu": _cpu_name(),
        "cpus": os.cpu_count(),
    }


def _platform() -> str:
    """As `platform.platform()`, which asks a program for the processor's name and leaves that out: nothing is
    started here, beside a training that forks."""
    if not sys.platform.startswith("linux"):
        return platform.platform()
    about = os.uname()
    libc = "".join(platform.libc_ver())
    parts = [about.sysname, about.release, about.machine, *(["with", libc] if libc else [])]
    return "-".join(part.replace(" ", "_") for part in parts)


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        return platform.processor()  # not Linux
    return platform.machine()


def _driver(place: Path) -> str | None:
    """The NVIDIA driver's version; None without one."""
    try:
        found = _VERSION.search((place / "version").read_text(errors="replace"))
    except OSError:
        return None
    return found[1] if found else None


def _of_torch(torch: Any) -> dict[str, object]:
    """What torch was built with and for; None where this release does not tell."""
    asked: dict[str, Callable[[], object]] = {
        "version": lambda: str(torch.__version__),
        "cuda": lambda: torch.version.cuda,
        "hip": lambda: torch.version.hip,
        "cudnn": lambda: torch.backends.cudnn.version() if torch.cuda.is_initialized() else None,
        "cpu_capability": lambda: torch.backends.cpu.get_cpu_capability(),
    }
    return {name: _tell(ask) for name, ask in asked.items()}


def _gpus(torch: Any, missing: list[Missing]) -> list[dict[str, object]]:
    """Names and memory of the visible GPUs if torch uses them, else the names that the driver tells."""
    try:
        if torch is not None and torch.cuda.is_initialized():
            found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
            return [
                {
                    "name": str(each.name),
                    "memory": int(each.total_memory),
                    "capability": f"{each.major}.{each.minor}",
                }
                for each in found
            ]
    except Exception as error:  # noqa: BLE001
        # A device that is lost, another release of torch: the training hears of it elsewhere.
        missing.append(Missing("GPUs", f"torch could not tell: {type(error).__name__}"))
    return [{"name": name, "memory": None, "capability": None} for name in _names(_NVIDIA)]


def _names(place: Path) -> list[str]:
    found = []
    try:
        for info in sorted(place.glob("gpus/*/information")):
            lines = info.read_text(errors="replace").splitlines()
            found += [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    except OSError:
        pass  # they may be hidden from a container
    return found


def _tell(ask: Callable[[], object]) -> object:
    try:
        said = ask()
    except Exception:  # noqa: BLE001
        # Releases and builds of torch differ in what they have.
        return None
    return said if said is None or isinstance(said, str | int | float | bool) else str(said)

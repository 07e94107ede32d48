"""What every measurement shares: clocks, copies, sizes, peaks of memory, the words on the machine."""

from __future__ import annotations

import itertools
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import stemmata
from stemmata.codecs import pages

ROOT = Path(__file__).resolve().parent.parent
COMMAND = Path(sys.executable).with_name("stemmata")
# What pip installs has its bytecode, of stemmata as of the others; run from its sources under this variable,
# it alone would be compiled anew by every process.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
_LOOK_EVERY = 0.004
"""Seconds between two looks at a process's peak. It only grows, so what is missed is its last moment."""
_ASK_EVERY = 5
"""Looks between two questions for what processes it has started: those cost more."""


def machine() -> str:
    return (
        f"stemmata {stemmata.__version__}, Python {platform.python_version()}, {platform.system()} "
        f"{platform.machine()}, {os.cpu_count()} cores, commit {commit()}. Medians."
    )


def machine_facts(work: Path) -> dict[str, str]:
    """What figures depend on, for people; `work` is where files are written."""
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    total = re.search(r"\d+", Path("/proc/meminfo").read_text(encoding="ascii"))
    return {
        "processor": processor(cpu),
        "clock": clock(cpu),
        "cores": f"{os.cpu_count()}{', of a virtual machine' if 'hypervisor' in cpu else ''}",
        "memory": memory(int(total[0]) if total else 0),
        "disk": disk(_mounted("SOURCE", work)),
        "file system": _mounted("FSTYPE", work) or "unknown",
        "system": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "Python": platform.python_version(),
    }


def memory(kib: int) -> str:
    """Its size, and whether what is new in it costs more than elsewhere."""
    if not kib:
        return "unknown"
    size = f"{kib * 1024 / 1e9:.1f} GB"
    taken = ", of which the host takes back what is free: touching new memory takes long (bench/touching.py)"
    return size if pages.huge_pages_pay() else size + taken


def processor(cpu: str) -> str:
    """Its name in /proc/cpuinfo's words, with the numbers that tell which it is where the name does not."""
    named = dict(re.findall(r"^(\S[^:\t]*?)\s*:\s*(.+)$", cpu, re.MULTILINE))
    if "model name" not in named:
        return platform.machine()
    numbers = [
        f"{word} {named[key]}" for word, key in (("family", "cpu family"), ("model", "model")) if key in named
    ]
    name = named["model name"].strip()
    return f"{name} ({', '.join(numbers)})" if numbers else name


def clock(cpu: str) -> str:
    """The highest that it is allowed; where nothing says, what it has now: a virtual machine keeps to it."""
    highest = Path("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
    if highest.exists():
        return f"up to {int(highest.read_text(encoding='ascii')) / 1e6:.1f} GHz"
    now = re.search(r"^cpu MHz\s*:\s*([\d.]+)", cpu, re.MULTILINE)
    return f"{float(now[1]) / 1e3:.1f} GHz" if now else "unknown"


def _mounted(column: str, path: Path) -> str:
    """A column of findmnt's for the file system that holds `path`, or its first parent that is there."""
    there = next(p for p in (path, *path.parents) if p.exists())
    asked = subprocess.run(
        ["findmnt", "-no", column, "-T", there], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip()


def disk(device: str) -> str:
    """Of what kind a block device says it is; a virtual one does not know."""
    name = re.sub(r"p?\d+$" if "nvme" in device else r"\d+$", "", Path(device).name)
    if re.match(r"(vd|xvd)", name):
        return f"a virtual block device ({name}); what is below it is not known"
    turns = Path(f"/sys/block/{name}/queue/rotational")
    if not turns.exists():
        return "unknown"
    return f"{'rotating' if turns.read_text(encoding='ascii').strip() == '1' else 'solid state'} ({name})"


def load() -> str:
    """How busy the machine is: processes that want a core, over the last minute."""
    return f"Load average at this moment {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores."


def commit() -> str:
    asked = subprocess.run(
        ["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or "unknown"


def keep(name: str, text: str) -> None:
    target = ROOT / "bench" / "results" / f"{name}.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text(text, encoding="utf-8")


# --- time ----------------------------------------------------------------------------------------


def timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def to_disk(action: Callable[[], object]) -> float:
    """Seconds until `action` is done and `sync` has returned; what others left unwritten goes first."""
    os.sync()
    return timed(lambda: (action(), os.sync()))


def copy_and_sync(source: Path, target: Path) -> float:
    """The floor that saves and checkouts are held against."""
    return to_disk(lambda: subprocess.run(["cp", "-r", source, target], check=True))


def without(folder: Path, action: Callable[[], object]) -> float:
    shutil.rmtree(folder, ignore_errors=True)
    return timed(action)


# --- bytes ---------------------------------------------------------------------------------------


def folder_bytes(folder: Path, leave_out: Sequence[str] = ()) -> int:
    """Bytes of all files, those in the folders `leave_out` directly below aside."""
    files = (p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
    return sum(p.stat().st_size for p in files if p.relative_to(folder).parts[0] not in leave_out)


WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
TOKENIZERS = ("tokenizer", "vocab", "merges", "special_tokens", "added_tokens", "spiece")
"""How the names of a tokenizer's files begin, as `save_pretrained` writes them."""


def parts(folder: Path) -> dict[str, int]:
    """Bytes of the weights, of the tokenizer and of what else lies in a version."""
    found = {"weights": 0, "tokenizer": 0, "rest": 0}
    for path in folder.rglob("*"):
        if path.is_file():
            weights, tokenizer = path.suffix in WEIGHTS, path.name.startswith(TOKENIZERS)
            found["weights" if weights else "tokenizer" if tokenizer else "rest"] += path.stat().st_size
    return found


def repository_bytes(repository: Path) -> int:
    """A stemmata repository's, caches aside: they may be deleted at any time."""
    return folder_bytes(repository, ["cache"])


def warm(folder: Path) -> None:
    """Read every file below, so that its bytes are in the page cache as far as that has room."""
    block = memoryview(bytearray(1 << 20))
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb", buffering=0) as file:
                while file.readinto(block):
                    pass


def same_bytes(one: Path, two: Path) -> bool:
    """Whether two folders hold the same files with the same bytes."""
    return not subprocess.run(["diff", "-rq", one, two], check=False).returncode


# --- memory --------------------------------------------------------------------------------------


@dataclass
class Peaks:
    """The greatest VmHWM of any process that `run` started since the last `take`, or that those started."""

    highest: int = 0

    def take(self) -> int:
        found, self.highest = self.highest, 0
        return found

    def run(
        self, command: Sequence[str | Path], cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> str:
        """Run a process to its end and return what it printed; ends the program if it fails."""
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        # Not getrusage: what it says of a child begins with the peak of the process that forked it.
        watcher = threading.Thread(target=self._watch, args=(process,), daemon=True)
        watcher.start()
        out, err = process.communicate()
        watcher.join()
        if process.returncode:
            raise SystemExit(f"{' '.join(map(str, command))} failed:\n{out[-2000:]}{err[-2000:]}")
        return out

    def _watch(self, process: subprocess.Popen[str]) -> None:
        family = {process.pid}
        for look in itertools.count():
            if process.poll() is not None:
                break
            if look % _ASK_EVERY == 0:
                family = descendants(process.pid)
            self.highest = max(self.highest, *map(peak_of, family))
            time.sleep(_LOOK_EVERY)


def descendants(pid: int) -> set[int]:
    """A process and all that came from it, as far as their parents live. They have higher numbers than it."""
    found = {pid}
    for one in sorted(int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) > pid):
        try:
            stat = Path(f"/proc/{one}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:  # it has ended
            continue
        if int(stat.rpartition(")")[2].split()[1]) in found:
            found.add(one)
    return found


def peak_of(pid: int | str = "self") -> int:
    """VmHWM in bytes: the most memory that the process ever had in core; 0 when it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    lines = (line.split() for line in status.splitlines())
    return next((int(words[1]) * 1024 for words in lines if words and words[0] == "VmHWM:"), 0)

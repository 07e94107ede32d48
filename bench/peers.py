"""Other stores as walking.py's tools: git-lfs, DVC, restic, borg. Owns how they are got and used.

Each is used as its documentation shows it first, with settings that keep all it writes below the work folder.
Debian's packages are unpacked there, not installed: nothing of the machine changes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from manifests import Entry
from measuring import Peaks, folder_bytes
from walking import OUT

DVC = "dvc==3.67.1"
_PACKAGES = ("git-lfs", "restic", "borgbackup", "python3-msgpack", "python3-packaging", "libxxhash0")
_WHO = {"NAME": "bench", "EMAIL": "bench@localhost"}
_IDENTITY = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in _WHO.items()}


class Peer:
    """What the peers share: a home of their own, and processes in a clean environment."""

    title = ""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._peaks = Peaks()

    def prepare(self, home: Path) -> None:
        self._home = home
        self._store = home / "repository"
        self._start()

    def stage(self, entry: Entry) -> None: ...

    def store_bytes(self) -> int:
        return folder_bytes(self._store)

    def peak(self) -> int:
        self._peaks.take()
        return 0  # several of them do their work in processes of their own, which are not watched

    def version(self) -> str:
        raise NotImplementedError

    def _start(self) -> None:
        raise NotImplementedError

    def _environment(self) -> Mapping[str, str]:
        return {}

    def _run(self, *command: str | Path, cwd: Path | None = None) -> str:
        path = os.pathsep.join([str(self._programs / "usr/bin"), os.environ["PATH"]])
        own = {"HOME": str(self._programs), "PATH": path, **_IDENTITY, **self._environment()}
        return self._peaks.run(command, cwd=cwd, env={"LANG": "C.UTF-8", **own})


class _InTree(Peer):
    """Those that live in git's work tree: the training writes into it, and versions come back in it."""

    _own: Sequence[str] = ()

    @property
    def _model(self) -> Path:
        return self._store / "model"

    def _start(self) -> None:
        self._store.mkdir()
        self._git("init", "-q", "-b", "main")

    def stage(self, entry: Entry) -> None:
        shutil.rmtree(self._model, ignore_errors=True)
        shutil.copytree(entry.folder, self._model, copy_function=shutil.copyfile)  # with new times

    def store_bytes(self) -> int:
        return sum(folder_bytes(self._store / name) for name in self._own)

    def _git(self, *arguments: str) -> str:
        return self._run("git", *arguments, cwd=self._store)

    def _commit(self, entry: Entry) -> None:
        # A version that changes no file is one all the same, and everyone gets a name to find it by.
        self._git("commit", "-q", "--allow-empty", "-m", entry.name)
        self._git("tag", entry.name)


class GitLfs(_InTree):
    title = "git-lfs"
    _own = (".git",)

    def version(self) -> str:
        return self._run("git-lfs", "version").split()[0].replace("/", " ")

    def _start(self) -> None:
        super()._start()
        self._git("lfs", "install", "--local")
        self._git("lfs", "track", "*.safetensors", "*.pt", "*.pth", "*.bin")

    def save(self, entry: Entry) -> None:
        self._git("add", "-A")
        self._commit(entry)

    def restore(self, entry: Entry) -> Path:
        self._git("checkout", "-q", entry.name)
        return self._model


class Dvc(_InTree):
    title = "DVC"
    _own = (".git", ".dvc")

    def version(self) -> str:
        return f"DVC {self._dvc('--version').strip()}"

    def _start(self) -> None:
        super()._start()
        self._dvc("init", "-q")
        self._git("commit", "-q", "-m", "dvc")

    def _environment(self) -> Mapping[str, str]:
        folders = ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "DVC_SITE_CACHE_DIR")
        return {
            "DVC_NO_ANALYTICS": "1",
            **{name: str(self._programs / "dvc-state" / name) for name in folders},
        }

    def _dvc(self, *arguments: str) -> str:
        return self._run(self._programs / "dvc/bin/dvc", *arguments, cwd=getattr(self, "_store", None))

    def save(self, entry: Entry) -> None:
        self._dvc("add", "-q", "model")
        self._git("add", "model.dvc", ".gitignore")
        self._commit(entry)

    def restore(self, entry: Entry) -> Path:
        self._git("checkout", "-q", entry.name)
        self._dvc("checkout", "-q", "-f")
        return self._model


class Restic(Peer):
    title = "restic"

    def version(self) -> str:
        return " ".join(self._run("restic", "version").split()[:2])

    def _start(self) -> None:
        self._run("restic", "init", "-q")

    def _environment(self) -> Mapping[str, str]:
        if not hasattr(self, "_home"):
            return {}
        cache = {"RESTIC_CACHE_DIR": str(self._home / "cache")}
        return {"RESTIC_REPOSITORY": str(self._store), "RESTIC_PASSWORD": "bench", **cache}

    def save(self, entry: Entry) -> None:
        self._run("restic", "backup", "-q", "--tag", entry.name, ".", cwd=entry.folder)

    def restore(self, entry: Entry) -> Path:
        self._run("restic", "restore", "latest", "--tag", entry.name, "--target", self._home / OUT)
        return self._home / OUT


class Borg(Peer):
    def __init__(self, programs: Path, compression: str) -> None:
        super().__init__(programs)
        self._compression = compression
        self.title = f"borg, {compression}"

    def version(self) -> str:
        return self._borg("--version").strip()

    def _start(self) -> None:
        self._borg("init", "-e", "none", str(self._store))

    def _environment(self) -> Mapping[str, str]:
        packages = self._programs / "usr/lib/python3/dist-packages"
        own = {"BORG_BASE_DIR": str(getattr(self, "_home", self._programs)), "PYTHONPATH": str(packages)}
        libraries = {"LD_LIBRARY_PATH": str(self._programs / "usr/lib/x86_64-linux-gnu")}
        return {**own, **libraries, "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}

    def _borg(self, *arguments: str, cwd: Path | None = None) -> str:
        # Debian's borg is built for Debian's Python.
        return self._run("/usr/bin/python3", self._programs / "usr/bin/borg", *arguments, cwd=cwd)

    def save(self, entry: Entry) -> None:
        name = f"{self._store}::{entry.name}"
        self._borg("create", "--compression", self._compression, name, ".", cwd=entry.folder)

    def restore(self, entry: Entry) -> Path:
        target = self._home / OUT
        target.mkdir()
        self._borg("extract", f"{self._store}::{entry.name}", cwd=target)
        return target


def ready(programs: Path) -> list[Peer]:
    """The peers, unpacked and installed in `programs` if they are not there yet."""
    if not (programs / "complete").exists():
        shutil.rmtree(programs, ignore_errors=True)
        programs.mkdir(parents=True)
        _unpack(programs)
        subprocess.run([sys.executable, "-m", "venv", programs / "dvc"], check=True)
        subprocess.run([programs / "dvc/bin/pip", "install", "-qq", DVC], check=True)
        (programs / "complete").touch()
    return [
        GitLfs(programs),
        Dvc(programs),
        Restic(programs),
        Borg(programs, "lz4"),
        Borg(programs, "zstd,3"),
    ]


def _unpack(programs: Path) -> None:
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise SystemExit("the peers come from Debian's packages: there is no apt-get or dpkg here")
    subprocess.run(["apt-get", "download", "-q", *_PACKAGES], cwd=programs, check=True)
    for package in sorted(programs.glob("*.deb")):
        subprocess.run(["dpkg", "-x", package, programs], check=True)
        package.unlink()

"""Other stores as walking.py's tools: copies, archives, git-lfs, DVC, restic, borg. Owns how they are used.

Each is used as its documentation shows it first, with settings that keep all it writes below the work folder
and let it call nobody. How they are got is programs.py's; trackers of experiments are in trackers.py.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from manifests import Entry
from measuring import Peaks, folder_bytes
from programs import Programs
from walking import OUT, WalksAlone

_WHO = {"NAME": "bench", "EMAIL": "bench@localhost"}
_IDENTITY = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in _WHO.items()}


class Peer(WalksAlone):
    """What the peers share: a home of their own, and processes in a clean environment."""

    title = ""
    how = ""
    """How it is used, in words of a line."""
    starting = ""
    """What `version` runs."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._peaks = Peaks()

    def install(self) -> None:
        """Get the program, if it is not there yet."""
        self._programs.debian()

    def prepare(self, home: Path) -> None:
        self._home = home
        self._store = home / "repository"
        self._start()

    def stage(self, entry: Entry) -> None: ...

    def store_bytes(self) -> int:
        return folder_bytes(self._store)

    def peak(self) -> int:
        return self._peaks.take()

    def version(self) -> str:
        raise NotImplementedError

    def start(self) -> str:
        self.version()
        return self.starting

    def _start(self) -> None:
        raise NotImplementedError

    def _environment(self) -> Mapping[str, str]:
        return {}

    def _run(self, *command: str | Path, cwd: Path | None = None) -> str:
        path = os.pathsep.join([str(self._programs.path), os.environ["PATH"]])
        own = {"HOME": str(self._programs.home), "PATH": path, **_IDENTITY, **self._environment()}
        return self._peaks.run(command, cwd=cwd, env={"LANG": "C.UTF-8", **own})


class Copies(Peer):
    """The floor: a copy of each version, which is all that there is without a tool."""

    title = "cp -r"
    how = "`cp -r FOLDER STORE/NAME`, and back"
    starting = "cp --version"

    def install(self) -> None: ...

    def version(self) -> str:
        return "cp " + self._run("cp", "--version").splitlines()[0].split()[-1]

    def _start(self) -> None:
        self._store.mkdir()

    def save(self, entry: Entry) -> None:
        self._run("cp", "-r", entry.folder, self._store / entry.name)

    def restore(self, entry: Entry) -> Path:
        self._run("cp", "-r", self._store / entry.name, self._home / OUT)
        return self._home / OUT


class Archives(Peer):
    """An archive for each version, compressed by zstd on all cores."""

    title = "tar + zstd 3"
    how = "`tar -I 'zstd -3 -T0' -cf STORE/NAME.tar.zst`, and `tar -x`"
    starting = "zstd --version"

    def version(self) -> str:
        words = self._run("zstd", "--version").replace(",", " ").split()
        return "zstd " + next(word for word in words if word.startswith("v")).lstrip("v")

    def _start(self) -> None:
        self._store.mkdir()

    def _archive(self, entry: Entry) -> Path:
        return self._store / f"{entry.name}.tar.zst"

    def save(self, entry: Entry) -> None:
        self._run("tar", "-I", "zstd -3 -T0", "-cf", self._archive(entry), "-C", entry.folder, ".")

    def restore(self, entry: Entry) -> Path:
        target = self._home / OUT
        target.mkdir()
        self._run("tar", "-I", "zstd", "-xf", self._archive(entry), "-C", target)
        return target


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
    how = "`git lfs track` once; `git add -A`, `git commit`, `git tag`, and `git checkout NAME`"
    starting = "git-lfs version"
    _own = (".git",)

    def version(self) -> str:
        return self._run("git-lfs", "version").split()[0].replace("/", " ")

    def _start(self) -> None:
        super()._start()
        self._git("lfs", "install", "--local")
        self._git("lfs", "track", "*.safetensors", "*.pt", "*.pth", "*.bin")

    def stage(self, entry: Entry) -> None:
        super().stage(entry)
        # git sees by times whether a file is as it was added, in seconds. Of one that was written in the very
        # second of the `add` it cannot tell, and the commit has git-lfs hash all of it once more.
        time.sleep(1.01 - time.time() % 1)

    def save(self, entry: Entry) -> None:
        self._git("add", "-A")
        self._commit(entry)

    def restore(self, entry: Entry) -> Path:
        self._git("checkout", "-q", entry.name)
        return self._model


class Dvc(_InTree):
    title = "DVC"
    how = "`dvc add model`, `git add`, `git commit`, `git tag`, and `git checkout NAME`, `dvc checkout`"
    starting = "dvc --version"
    requirement = "dvc==3.67.1"
    _own = (".git", ".dvc")

    def install(self) -> None:
        self._programs.python(self.requirement)

    def version(self) -> str:
        return f"DVC {self._dvc('--version').strip()}"

    def _start(self) -> None:
        super()._start()
        self._dvc("init", "-q")
        for question in ("analytics", "check_update"):  # both would go to the network
            self._dvc("config", "-q", f"core.{question}", "false")
        self._git("add", "-A")
        self._git("commit", "-q", "-m", "dvc")

    def _environment(self) -> Mapping[str, str]:
        folders = ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "DVC_SITE_CACHE_DIR")
        # In the store's home, so that a walk begins without what the one before has left.
        state = getattr(self, "_home", self._programs.home) / "dvc-state"
        return {"DVC_NO_ANALYTICS": "1", **{name: str(state / name) for name in folders}}

    def _dvc(self, *arguments: str) -> str:
        program = self._programs.python(self.requirement) / "dvc"
        store: Path | None = getattr(self, "_store", None)  # its version is asked for without one
        return self._run(program, *arguments, cwd=store if store and store.exists() else None)

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
    how = "`restic backup --tag NAME .`, and `restic restore latest --tag NAME`"
    starting = "restic version"

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
    starting = "borg --version"

    def __init__(self, programs: Programs, compression: str) -> None:
        super().__init__(programs)
        self._compression = compression
        self.title = f"borg {compression.replace(',', ' ')}"
        self.how = f"`borg create --compression {compression} STORE::NAME .`, and `borg extract`"

    def version(self) -> str:
        return self._borg("--version").strip()

    def _start(self) -> None:
        self._borg("init", "-e", "none", str(self._store))

    def _environment(self) -> Mapping[str, str]:
        packages = self._programs.home / "usr/lib/python3/dist-packages"
        own = {"BORG_BASE_DIR": str(getattr(self, "_home", self._programs.home)), "PYTHONPATH": str(packages)}
        libraries = {"LD_LIBRARY_PATH": str(self._programs.home / "usr/lib/x86_64-linux-gnu")}
        return {**own, **libraries, "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}

    def _borg(self, *arguments: str, cwd: Path | None = None) -> str:
        # Debian's borg is built for Debian's Python.
        return self._run("/usr/bin/python3", self._programs.path / "borg", *arguments, cwd=cwd)

    def save(self, entry: Entry) -> None:
        name = f"{self._store}::{entry.name}"
        self._borg("create", "--compression", self._compression, name, ".", cwd=entry.folder)

    def restore(self, entry: Entry) -> Path:
        target = self._home / OUT
        target.mkdir()
        self._borg("extract", f"{self._store}::{entry.name}", cwd=target)
        return target


def stores(programs: Programs) -> list[Peer]:
    """Those that are made to keep versions of files, got if they are not there yet."""
    found = [
        GitLfs(programs),
        Dvc(programs),
        Restic(programs),
        Borg(programs, "lz4"),
        Borg(programs, "zstd,3"),
    ]
    for peer in found:
        peer.install()
    return found

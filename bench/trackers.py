"""Trackers of experiments as walking.py's tools: the artifacts of trackio and MLflow, kept on this disk.

Owns where they keep what. What a user's script would do stands in with_trackio.py and with_mlflow.py, which
run as whole processes in environments of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from manifests import Entry
from peers import Peer
from walking import OUT

_ALONE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}


class _Tracker(Peer):
    requirement = ""
    script = ""

    def install(self) -> None:
        self._programs.python(self.requirement)

    def version(self) -> str:
        return self.requirement.replace("==", " ")

    @property
    def _place(self) -> Path:
        """The store, or where one would be while there is none yet."""
        return getattr(self, "_store", self._programs.home / "nothing-yet")

    def start(self) -> str:
        """What each of their scripts begins with."""
        package = self.requirement.partition("==")[0]
        self._run(self._programs.python(self.requirement) / "python", "-c", f"import {package}")
        return f"python -c 'import {package}'"

    def _start(self) -> None:
        self._store.mkdir()
        self._script("prepare", str(self._store))

    def _script(self, *words: str | Path) -> None:
        python = self._programs.python(self.requirement) / "python"
        self._run(python, Path(__file__).with_name(self.script), *words, cwd=self._home)

    def save(self, entry: Entry) -> None:
        self._script("save", entry.folder, entry.name)

    def restore(self, entry: Entry) -> Path:
        self._script("restore", entry.name, self._home / OUT)
        return self._home / OUT


class Trackio(_Tracker):
    title = "trackio"
    how = "`trackio.log_artifact(FOLDER, name=, aliases=[NAME])` in a run, and `artifact.download()`"
    requirement = "trackio==0.43.0"
    script = "with_trackio.py"

    def _environment(self) -> Mapping[str, str]:
        return {"TRACKIO_DIR": str(self._place), **_ALONE}


class MLflow(_Tracker):
    title = "MLflow"
    how = "`mlflow.log_artifacts(FOLDER, 'model')` in a run on SQLite, and `artifacts.download_artifacts()`"
    requirement = "mlflow==3.17.2"
    script = "with_mlflow.py"

    def _environment(self) -> Mapping[str, str]:
        database = f"sqlite:///{self._place / 'mlflow.db'}"
        return {"MLFLOW_TRACKING_URI": database, "MLFLOW_DISABLE_TELEMETRY": "true", **_ALONE}

    def restore(self, entry: Entry) -> Path:
        return super().restore(entry) / "model"

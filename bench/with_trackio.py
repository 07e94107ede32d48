"""What a user's script does with trackio: with_trackio.py save FOLDER NAME | restore NAME OUT | prepare STORE

Runs in the environment of that package alone, so it imports nothing of this folder. See trackers.py.
"""

from __future__ import annotations

import sys

import trackio

PROJECT = "measured"


def prepare(store: str) -> None:
    """Nothing to do: the first run makes the database."""


def save(folder: str, name: str) -> None:
    trackio.init(project=PROJECT, name=name)
    trackio.log_artifact(folder, name="model", type="model", aliases=[name])
    trackio.finish()


def restore(name: str, out: str) -> None:
    trackio.init(project=PROJECT, name=f"use-{name}")
    trackio.use_artifact(f"model:{name}").download(out)
    trackio.finish()


if __name__ == "__main__":
    {"prepare": prepare, "save": save, "restore": restore}[sys.argv[1]](*sys.argv[2:])

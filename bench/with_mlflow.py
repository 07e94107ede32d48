"""What a user's script does with MLflow: with_mlflow.py save FOLDER NAME | restore NAME OUT | prepare STORE

Runs in the environment of that package alone, so it imports nothing of this folder. See trackers.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

import mlflow

EXPERIMENT = "measured"


def prepare(store: str) -> None:
    mlflow.create_experiment(EXPERIMENT, artifact_location=(Path(store) / "artifacts").as_uri())


def save(folder: str, name: str) -> None:
    mlflow.set_experiment(EXPERIMENT)
    with mlflow.start_run(run_name=name):
        mlflow.log_artifacts(folder, "model")


def restore(name: str, out: str) -> None:
    wanted = f"attributes.run_name = '{name}'"
    (run,) = mlflow.search_runs(
        experiment_names=[EXPERIMENT], filter_string=wanted, max_results=1, output_format="list"
    )
    Path(out).mkdir()
    mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="model", dst_path=out)


if __name__ == "__main__":
    {"prepare": prepare, "save": save, "restore": restore}[sys.argv[1]](*sys.argv[2:])

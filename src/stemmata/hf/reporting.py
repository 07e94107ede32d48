"""Reporting: the callback behind `report_to="stemmata"`, set up by the environment alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from stemmata.hf.callback import VersionCallback
from stemmata.names import clean_name, slug
from stemmata.repository import locate
from stemmata.repository import open as open_repository

MODEL_VARIABLE = "STEMMATA_MODEL"


class Reporter(VersionCallback):
    """A VersionCallback without arguments.

    Repository: `STEMMATA_REPO`, else the nearest `.stemmata` upward, else a new one in the working
    directory. Model: `STEMMATA_MODEL`, else the output folder's name.
    """

    def __init__(self) -> None:
        super().__init__("", "unnamed")

    def on_train_begin(self, args: Any, state: Any, _control: Any, **live: Any) -> None:
        self._repository = open_repository(locate(), create=True)
        chosen = os.environ.get(MODEL_VARIABLE)
        self.model = clean_name(chosen) if chosen else slug(Path(args.output_dir).absolute().name)
        super().on_train_begin(args, state, _control, **live)

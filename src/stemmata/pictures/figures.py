"""Figures: pictures by matplotlib. Owns that it is there, and which module draws what."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from stemmata.errors import MissingExtra
from stemmata.pictures.picture import Picture


def figure(picture: Picture, *, dark: bool = False) -> Any:
    """A `matplotlib.figure.Figure`. Raises MissingExtra."""
    try:
        drawer = import_module(f"stemmata.pictures.drawn.{picture.kind}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "matplotlib":
            raise
        raise MissingExtra(feature="a figure", package="matplotlib", extra="plot") from error
    return drawer.draw(picture, dark)

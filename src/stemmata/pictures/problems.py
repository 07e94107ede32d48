"""Problems: why a picture was not written. Classes of the one tree of errors."""

from __future__ import annotations

from stemmata.errors import StemmataError


class PictureNotWritten(StemmataError):
    kind = "picture-not-written"
    what = "{path} cannot be written: {reason}"
    untouched = "the repository is as it was"
    next_step = "name a file in a folder that is there and may be written to"

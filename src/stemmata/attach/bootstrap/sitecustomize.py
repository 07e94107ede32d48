"""Runs at the start of every Python below `stemmata run`: lets the hook in, then the next sitecustomize.

Any Python may come by here, older ones and ones without stemmata too: plain words, nothing raised.
"""

import os
import sys


def _step_aside() -> None:
    """Take this folder off the path: the command's own imports see what they would see without us."""
    here = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120  (pathlib costs its import)
    sys.path[:] = [p for p in sys.path if not p or os.path.realpath(p) != here]


def _let_in() -> None:
    try:
        from stemmata.attach import hook

        hook.install()
    except BaseException as error:  # noqa: BLE001  (whatever it is, the command goes on)
        _tell(error)


def _tell(error: BaseException) -> None:
    """A line for the parent's report; this Python may have no stemmata to write it with."""
    try:
        import json

        words = f"{sys.executable}: {type(error).__name__}: {error}"
        report = json.loads(os.environ["STEMMATA_RUN"])["report"]
        with open(report, "a") as file:
            file.write(json.dumps({"kind": "absent", "text": words}) + "\n")
    except Exception:  # noqa: BLE001, S110
        pass  # then the parent finds no Trainer in the report and says that


def _chain() -> None:
    """Run the sitecustomize that would have run without us; its errors are for `site` to show."""
    mine = sys.modules.pop("sitecustomize", None)
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
    except ImportError as error:
        if error.name != "sitecustomize":
            raise
    finally:
        if mine is not None:
            sys.modules.setdefault("sitecustomize", mine)


if "STEMMATA_RUN" in os.environ:
    _step_aside()
    _let_in()
    _chain()

"""Runs at the start of every Python below `stemmata run` or `stemmata reproduce`: lets the hooks in, then the
next sitecustomize.

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


def _hold_back() -> None:
    """Of a run that is made again: without it the command would write over what the first one left."""
    try:
        from stemmata.attach import again
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "stemmata":
            return  # a Python without stemmata writes to no repository
        raise
    again.install()


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


if "STEMMATA_RUN" in os.environ or "STEMMATA_REPRODUCE" in os.environ:
    _step_aside()
    if "STEMMATA_REPRODUCE" in os.environ:
        try:
            _hold_back()
        except BaseException as error:  # noqa: BLE001
            # `site` would show it and go on.
            sys.stderr.write(f"stemmata: the run was not begun: {type(error).__name__}: {error}\n")
            sys.stderr.flush()
            os._exit(70)
    if "STEMMATA_RUN" in os.environ:
        _let_in()
    _chain()

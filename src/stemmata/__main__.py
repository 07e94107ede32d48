"""The command `stemmata`, and `python -m stemmata`. Owns what has to be set before anything is imported."""

from __future__ import annotations

import gc
import sys

_COLLECTED_AFTER = 50_000
"""New objects after which the interpreter looks for garbage. Its own 700 cost a short command a tenth of its
time: what imports make stays."""

_INTERRUPTED = 130
"""As a shell says it of SIGINT. The command line has it too, and is not imported yet."""


def main() -> None:
    """Run the command line of this process and exit with its code."""
    gc.set_threshold(_COLLECTED_AFTER)
    try:
        from stemmata.cli import main as command_line

        command_line.main()
    except KeyboardInterrupt:
        # Before or after the command, which says itself what an interruption left: there is nothing to tell.
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()

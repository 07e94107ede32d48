"""What the page of benchmarks says of each tool beside its figures, by the keys of benchmarks.py.

Owns where it is from, how it is set up, and which documentation its usage follows.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    origin: str
    setup: str
    documentation: str
    """A link of the page."""


_BORG = Known(
    "Debian",
    "encryption `none`; one core",
    "[borg's quick start](https://borgbackup.readthedocs.io/en/stable/quickstart.html)",
)
KNOWN = {
    "stemmata": Known(
        "this repository", "all cores; told the version's parent", "[the command line](cli.md)"
    ),
    "stemmata-alone": Known(
        "this repository", "all cores; not told the version's parent", "[the command line](cli.md)"
    ),
    "stemmata-gone": Known(
        "this repository",
        "all cores; told the version's parent; its notes of where parents lay are deleted before each save",
        "[the command line](cli.md)",
    ),
    "cp": Known(
        "the system", "one core", "[coreutils](https://www.gnu.org/software/coreutils/manual/coreutils.html)"
    ),
    "zstd": Known(
        "Debian; tar is the system's",
        "`-T0`: all cores to compress",
        "[tar](https://www.gnu.org/software/tar/manual/), [zstd](https://github.com/facebook/zstd)",
    ),
    "zstd-patch": Known(
        "Debian; tar is the system's",
        "`-T0`: all cores to compress; told the version's parent, whose tar is rebuilt from the store first; "
        "`--long=31`, the largest window, so that all of the parent is in reach; tar with fixed order, times "
        "and owners",
        "[zstd's patches](https://github.com/facebook/zstd/wiki/Zstandard-as-a-patching-engine)",
    ),
    "restic": Known(
        "Debian",
        "all cores; always encrypted",
        "[restic's backing up](https://restic.readthedocs.io/en/stable/040_backup.html)",
    ),
    "borg-lz4": _BORG,
    "borg-zstd": _BORG,
    "dvc": Known(
        "PyPI",
        "`cache.type` as it comes: reflinks, and copies where the file system has none, as ext4",
        "[dvc add](https://dvc.org/doc/command-reference/add)",
    ),
    "git-lfs": Known("Debian", "no server; no `prune`", "[git-lfs](https://git-lfs.com)"),
    "trackio": Known(
        "PyPI", "a folder of this disk, no Space", "[trackio](https://github.com/gradio-app/trackio)"
    ),
    "mlflow": Known(
        "PyPI", "SQLite and a folder of this disk, no server", "[MLflow](https://mlflow.org/docs/latest/)"
    ),
}
UNKNOWN = Known("-", "-", "-")

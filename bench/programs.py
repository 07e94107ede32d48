"""The programs of others, below one folder: Debian's unpacked, PyPI's each in an environment of its own.

Owns how they are got, and that what is there already is not got again. Nothing of the machine changes.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

_DEBIAN = ("git-lfs", "restic", "borgbackup", "python3-msgpack", "python3-packaging", "libxxhash0", "zstd")


class Programs:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.path = home / "usr" / "bin"
        """Where Debian's programs lie."""

    def debian(self) -> None:
        """git-lfs, restic, borg, zstd and what they need beside Debian's base system."""
        done, wanted = self.home / "debian-complete", " ".join(_DEBIAN)
        if _holds(done, wanted):
            return
        if not shutil.which("apt-get") or not shutil.which("dpkg"):
            raise SystemExit("the peers come from Debian's packages: there is no apt-get or dpkg here")
        shutil.rmtree(self.home / "usr", ignore_errors=True)
        fetched = self.home / "debs"
        shutil.rmtree(fetched, ignore_errors=True)
        fetched.mkdir(parents=True)
        # apt-get gives its downloads to a user of its own, who need not be able to write here.
        no_sandbox = ("-o", "APT::Sandbox::User=root")
        subprocess.run(["apt-get", "download", "-q", *no_sandbox, *_DEBIAN], cwd=fetched, check=True)
        for package in sorted(fetched.glob("*.deb")):
            subprocess.run(["dpkg", "-x", package, self.home], check=True)
        shutil.rmtree(fetched)
        done.write_text(wanted, encoding="utf-8")

    def python(self, requirement: str) -> Path:
        """The bin folder of an environment that holds just `requirement`, pinned, and what it needs."""
        home = self.home / re.split(r"\W", requirement)[0]
        done = home / "complete"
        if not _holds(done, requirement):
            shutil.rmtree(home, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", home], check=True)
            subprocess.run([home / "bin/python", "-m", "pip", "install", "-qq", requirement], check=True)
            # As an installed program is found: compiled. Else the first walk would pay for it.
            subprocess.run([home / "bin/python", "-m", "compileall", "-qq", home / "lib"], check=False)
            done.write_text(requirement, encoding="utf-8")
        return home / "bin"


def _holds(mark: Path, wanted: str) -> bool:
    return mark.exists() and mark.read_text(encoding="utf-8") == wanted

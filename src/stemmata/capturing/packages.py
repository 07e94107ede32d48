"""Packages: every installed distribution with its version, and where it came from if not from an index."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from importlib.metadata import Distribution, distributions

from stemmata.capture import mask

_FIELD = re.compile(r"^(Name|Version): *(\S+)", re.MULTILINE)

Found = dict[str, str | dict[str, object]]


@lru_cache(maxsize=1)
def collect() -> Found:
    """Name -> version, or {version, url, …} of one that has a direct URL (PEP 610); by name."""
    found: Found = {}
    for distribution in distributions():
        # Not through `metadata`, which parses all of it as a mail: a quarter of a second for 200 packages.
        text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
        fields = dict(_FIELD.findall(text.partition("\n\n")[0]))
        name = fields.get("Name")
        if not name or name in found:
            continue  # the first on the path is the one that imports
        version = mask(fields.get("Version", ""))
        origin = _origin(distribution)
        found[name] = {"version": version, **origin} if origin else version
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def _origin(distribution: Distribution) -> dict[str, object]:
    text = distribution.read_text("direct_url.json")
    if not text:
        return {}
    try:
        said = json.loads(text)
        found: dict[str, object] = {"url": mask(str(said["url"]))}
        version_control = said.get("vcs_info") or {}
        if version_control.get("commit_id"):
            found["commit"] = str(version_control["commit_id"])
            found["vcs"] = str(version_control.get("vcs", "git"))
        archive = said.get("archive_info") or {}
        hashes = archive.get("hashes") or {}
        if hashes.get("sha256") or archive.get("hash"):
            found["hash"] = f"sha256={hashes['sha256']}" if hashes.get("sha256") else str(archive["hash"])
        if (said.get("dir_info") or {}).get("editable"):
            found["editable"] = True
        if said.get("subdirectory"):
            found["subdirectory"] = str(said["subdirectory"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}  # not as PEP 610 has it
    return found

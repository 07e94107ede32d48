"""Checkouts: from a tree back to files, byte for byte. Owns that nothing unverified is visible."""

from stemmata.checkouts.cached import shared
from stemmata.checkouts.reading import ReadObject, read_file
from stemmata.checkouts.writing import write

__all__ = ["ReadObject", "read_file", "shared", "write"]

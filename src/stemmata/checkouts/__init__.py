"""Checkouts: from a tree back to files, byte for byte. Owns that nothing unverified is visible."""

from stemmata.checkouts.cached import find, hand_out, shared
from stemmata.checkouts.reading import ReadObject, read_file
from stemmata.checkouts.tensors import FillObject, TensorFile
from stemmata.checkouts.writing import write

__all__ = ["FillObject", "ReadObject", "TensorFile", "find", "hand_out", "read_file", "shared", "write"]

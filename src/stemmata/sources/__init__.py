"""Sources: the folder or file that is being saved. Owns what is taken, and that it held still.

Nothing is opened but ordinary files inside the source; each is opened once for storing and read
into private memory. What changes between the listing and the end of the save is an error, as far as
its marks tell: writes through a memory mapping need not move them. Files that are in memory already are
read from there.
"""

from stemmata.sources.files import OpenedFile, SourceFile, read_inside
from stemmata.sources.memory import MemoryFile, MemoryFolder
from stemmata.sources.source import Source, scan
from stemmata.sources.storing import Writer, planned, store

__all__ = [
    "MemoryFile",
    "MemoryFolder",
    "OpenedFile",
    "Source",
    "SourceFile",
    "Writer",
    "planned",
    "read_inside",
    "scan",
    "store",
]

"""Objects: from a digest to verified bytes, and from bytes to a digest."""

from stemmata.objects.reading import ObjectReader
from stemmata.objects.room import Room
from stemmata.objects.surveying import Look, comparable
from stemmata.objects.writing import Candidate, ObjectWriter, WriterStats

__all__ = ["Candidate", "Look", "ObjectReader", "ObjectWriter", "Room", "WriterStats", "comparable"]

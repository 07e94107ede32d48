"""Usage: how much space, and where. Owns what a version's bytes are said to be; frees none."""

from stemmata.usage.measure import measure
from stemmata.usage.report import Growth, Kept, Part, Places, Usage, VersionPart

__all__ = ["Growth", "Kept", "Part", "Places", "Usage", "VersionPart", "measure"]

"""Recovering: the log, its bundles and `stemmata.json`, put right from what is intact.

Owns one promise: no byte is written that is not proven to be the one that was there, by a hash that the rest
of the log, a sealed bundle or this machine's memory holds. What cannot be proven is said to be lost, exactly.
Works on a storage alone: a damaged log may keep the repository from being opened. Packs are not its matter.
"""

from stemmata.recovering.origins import copies_at
from stemmata.recovering.report import Lost, Recovered, RecoveryReport, Vanished
from stemmata.recovering.run import readable, recover

__all__ = ["Lost", "Recovered", "RecoveryReport", "Vanished", "copies_at", "readable", "recover"]

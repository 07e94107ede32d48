"""Capturing: what a run was made of, once per run, as erasable objects. Owns their kinds and their layout.

    process      `command`: command line and working folder
    environment, machine   `environment`: variables that change numbers; Python, system, processor, GPUs
    packages     `packages`: installed distributions
    seeds        `seeds`: seeds and switches
    code, gitting, entries, secrets   `code`, `code_diff`, `code_files`, `code_cells`
    rows         `data`: what the datasets held
    background   all that can wait, on a thread beside the training
    reading      the objects, read again and typed

Nothing here fails a training or a save: what cannot be told is listed as missing, with the reason. FORMAT.md
(section 7) has every layout. No secret passes: `capture`, `secrets`.
"""

from stemmata.capturing.background import Capturing, beside, collect
from stemmata.capturing.missing import Missing
from stemmata.capturing.reading import Captured, read

__all__ = ["Captured", "Capturing", "Missing", "beside", "collect", "read"]

"""The words of the page of benchmarks that are the same whatever was measured. Figures are benchpage.py's."""

ABOUT = {
    "H": """A sentence encoder of 23 million parameters: fp32 epochs of all weights, epochs with most of it
frozen, epochs in bf16, two LoRA adapters. What a project collects that fine-tunes a model in several ways""",
    "G": """GPT-2's geometry, 124 million parameters in fp32: random weights, then epochs in which every value
moves. The hardest case: nothing is equal from one version to the next""",
    "tiny": "Made up in a moment, to try the benchmark itself. **Its figures say nothing**",
}
ELSE = "See bench/README.md"

HEAD = """# Benchmarks

stemmata beside what people keep models with otherwise: the same histories of fine-tunings, the same
machine, one after the other, each by its own command line or from a script, as its documentation shows
it first. Every figure on this page and in its pictures is made from [{name}]({file}) by
`bench/benchmarks.py`; none is typed.
"""

PROCEDURE = """## How

A **walk** begins with an empty store. Every version of the history is saved, oldest first. Then every
one is brought back, to an empty folder (git-lfs and DVC: to the work tree, where the version before
lies), and compared with the original with `diff -r`.

- **Whole processes.** A time is what a user waits for: the start of the program, reading, hashing,
  compressing, writing, and then `sync`, so that each pays for its own bytes. Before a time begins, all
  that is unwritten goes to the disk. Making the empty store is not timed.
- **The floor.** Just before each save the same folder is copied with `cp -r` and `sync`. *x* is a tool's
  time over that of these copies. The row `cp -r` is such a copy as a tool: how far its *x* is from 1.0
  shows how much is noise.
- **Warm.** The folders that are saved are in the page cache, and so is most of a store that was just
  written.
- **s per save** and **s per restore** are means over all versions of a history. **s again**: the last
  large version is saved once more, when nothing of it is new; it is in no mean.
- **MB kept**: what the store grew by, all its files, caches that may be deleted aside. Of git-lfs and
  DVC the version in the work tree is not counted, and that the training writes it there is not timed.
- **MiB**: the most memory that any one process of the tool had, over all versions. A process that lives
  for a few milliseconds only is not seen.
- **By themselves.** Each tool has a home of its own and a clean environment, telemetry and look-ups of
  newer versions are off, nothing goes over a network. The tools take turns: one walk of each, then the
  next round. {walks}

What is not in it: networks and remote stores, several writers at once, encryption (restic has no store
without), and all that the tools can do that is not about bytes.
"""

EQUAL = "Figures that differ by less than one part in twenty are in neither column."

REPETITION = """## How to repeat it

On Linux with apt-get, in a copy of this repository in which `./scripts/test` has run:

    .venv/bin/python bench/benchmarks.py{options}

It unpacks Debian's packages and installs PyPI's below `bench-work/`, where nothing of the machine
changes, trains the histories, which takes some minutes, and measures. It may be interrupted: the same
command goes on with the walk that was cut off. `--repeat 3` takes medians of three walks, `--only-tools`
and `--histories` measure less, `--page` writes the page anew from what is kept. Leave the machine alone
meanwhile; the load average above tells whether it was. `bench/README.md` has the rest.
"""

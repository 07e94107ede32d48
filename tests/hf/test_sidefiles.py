"""A version whose JSON files are broken or endless is refused by name; nothing else comes of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, GPT2LMHeadModel

import tiny_models as tiny
from stemmata.errors import NotLoadable
from stemmata.hf import sidefiles
from stemmata.repository import Repository
from stemmata.version import Version

BROKEN = [b"", b"{", b"[]", b"7", b"\xff\xfe{}", b"[" * 100_000]


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    tiny.with_lora(AutoModelForCausalLM.from_pretrained(base)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("text", BROKEN)
def test_a_model_with_a_broken_config_is_refused_by_name(repo: Repository, base: Path, text: bytes) -> None:
    (base / "config.json").write_bytes(text)
    version = repo.save(base, "m")
    for arguments in ({}, {"model_class": GPT2LMHeadModel}):
        with pytest.raises(NotLoadable, match=r"its config\.json is no JSON object"):
            version.load(**arguments)
    assert version.state_dict()


@pytest.mark.parametrize("text", BROKEN)
def test_an_adapter_with_a_broken_config_is_refused_by_name(
    repo: Repository, base: Path, adapter: Path, text: bytes
) -> None:
    (adapter / "adapter_config.json").write_bytes(text)
    version = repo.save(adapter, "m")
    with pytest.raises(NotLoadable, match=r"its adapter_config\.json is no JSON object"):
        version.load(base=base)


def test_the_config_of_a_base_is_named_with_its_place(repo: Repository, base: Path, adapter: Path) -> None:
    version = repo.save(adapter, "m")
    folder = shutil.copytree(base, adapter.parent / "other")
    (folder / "config.json").write_text("{")
    with pytest.raises(NotLoadable, match=r"other/config\.json is no JSON object"):
        version.load(base=folder, allow_other_base=True)
    (folder / "config.json").unlink()
    version = repo.save(_without_task(adapter), "m")
    with pytest.raises(NotLoadable, match=r"there is no config\.json in .*other"):
        version.load(base=folder, allow_other_base=True)


def _without_task(adapter: Path) -> Path:
    config = json.loads((adapter / "adapter_config.json").read_text())
    config |= {"task_type": None, "auto_mapping": "none"}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    return adapter


def test_a_file_that_is_too_long_is_refused_before_it_is_read(
    repo: Repository, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = repo.save(base, "m")
    monkeypatch.setattr(sidefiles, "MOST", 16)
    monkeypatch.setattr(Version, "read", None)
    with pytest.raises(NotLoadable, match=r"its config\.json has \d+ bytes, and .* 16 at most"):
        version.load()
    monkeypatch.setattr(Path, "read_bytes", None)
    with pytest.raises(NotLoadable, match=r"config\.json has \d+ bytes"):
        sidefiles.object_of(version, base, "config.json")


def test_what_is_not_there_is_none(repo: Repository, base: Path) -> None:
    version = repo.save(base, "m")
    assert sidefiles.object_of(version, version, "other.json") is None
    assert sidefiles.object_of(version, base, "other.json") is None
    assert sidefiles.object_in(version, "config.json") == json.loads((base / "config.json").read_text())


def test_what_has_another_type_than_it_should_counts_as_empty() -> None:
    settings = {"architectures": 7, "auto_map": ["x"], "names": ["a"], "map": {"a": "b"}}
    assert sidefiles.list_in(settings, "architectures") == sidefiles.list_in(settings, "none") == []
    assert sidefiles.dict_in(settings, "auto_map") == sidefiles.dict_in(settings, "none") == {}
    assert sidefiles.list_in(settings, "names") == ["a"]
    assert sidefiles.dict_in(settings, "map") == {"a": "b"}

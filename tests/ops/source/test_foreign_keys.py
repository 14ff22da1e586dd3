"""Of a model's files only the keys of its architecture and of a tokenizer reach transformers: others load code or paths."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.integrations import hub_kernels

from colbuild.errors import BuildError
from colbuild.ops.source import source_tokenizer as source_tokenizer
from colbuild.ops.source.settled_beginning import settle_beginning
from colbuild.weights.files.transformers_tokenizer import (
    SETTING_KEYS,
    is_tokenizer_class,
    tokenizer_settings,
    transformers_tokenizer,
)
from tests.helpers.steps import run_step
from tests.helpers.tiny import make_tiny_corpus, make_tiny_model
from tests.ops.corpus.helpers import build
from tests.ops.family import carry_out

KERNEL = "somebody/kernel"
FOREIGN: dict[str, Any] = {
    "attn_implementation": KERNEL,
    "_attn_implementation": KERNEL,
    "_attn_implementation_internal": KERNEL,
    "_attn_implementation_autoset": True,
    "_experts_implementation": KERNEL,
    "kernel_config": {"RMSNorm": KERNEL},
    "trust_remote_code": True,
    "torch_dtype": "somebody.dtype",
    "dtype": "somebody.dtype",
    "quantization_config": None,
    "auto_map": None,
    "custom_generate": KERNEL,
    "transformers_weights": "/dev/zero",
    "_name_or_path": KERNEL,
    "name_or_path": KERNEL,
    "_commit_hash": "main",
    "tokenizer_class": "AutoModelForCausalLM",
    "architectures": ["pipeline"],
    "base_model_tp_plan": {"layers.*": "somebody"},
    "generation_config": {"attn_implementation": KERNEL},
    "text_config": {"_attn_implementation": KERNEL, "auto_map": {"AutoModel": f"{KERNEL}--m.M"}},
    "sub_configs": {"text_config": KERNEL},
    "vision_config": {"quantization_config": {"quant_method": "gptq"}},
}
"""What a hostile config.json may hold without being refused at once."""

CODE = [
    ("config.json", {"auto_map": {"AutoModelForCausalLM": f"{KERNEL}--m.M"}}),
    ("config.json", {"auto_map": ["a.B"]}),
    ("config.json", {"quantization_config": {"quant_method": "gptq"}}),
    ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": [None, f"{KERNEL}--m.M"]}}),
]
SETTINGS: dict[str, Any] = {
    "auto_map": None,
    "init_inputs": ["/dev/zero"],
    "tokenizer_file": "/dev/zero",
    "vocab_file": "/dev/zero",
    "merges_file": "/dev/zero",
    "fast_tokenizer_files": ["../../tokenizer.0.json"],
    "gguf_file": "/dev/zero",
    "tokenizer_object": "x",
    "trust_remote_code": True,
    "word_tokenizer_type": "mecab",
    "mecab_kwargs": {"mecab_option": "-r /dev/zero"},
    "sudachi_kwargs": {"sudachi_config_path": "/dev/zero"},
    "phonemizer_backend": "espeak",
    "files_loaded": ["/dev/zero"],
    "post_processor": "x",
}
"""What a hostile tokenizer_config.json or special_tokens_map.json may hold without being refused at once."""


MEASURE = {"tokens": 512, "split": "heldout"}


def edit(path: Path, **changes: Any) -> None:
    found = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**found, **changes}))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"), layers=2, ffn=64)


@pytest.fixture
def raw(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "raw"))


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The files that every folder given to transformers' tokenizers holds: name -> its content; None for other than JSON."""
    seen: list[dict[str, Any]] = []
    read = AutoTokenizer.from_pretrained

    def watched(folder: Path, **settings: Any) -> Any:
        assert settings["local_files_only"]
        assert settings["trust_remote_code"] is False
        names = {path.name: path for path in Path(folder).iterdir()}
        small = {name: path for name, path in names.items() if path.suffix == ".json" and name != "tokenizer.json"}
        seen.append(dict.fromkeys(names) | {name: json.loads(path.read_text()) for name, path in small.items()})
        return read(folder, **settings)

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", watched)
    return seen


def source(raw: Path, output: Path) -> Path:
    output.mkdir()
    run_step("source", {"raw": raw}, {}, output)
    return output


def test_no_foreign_key_of_a_configuration_is_in_a_result_or_reaches_transformers(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: list[dict[str, Any]]
) -> None:
    before = set(json.loads((source(raw, tmp_path / "plain") / "config.json").read_text()))
    edit(raw / "config.json", **FOREIGN)
    edit(raw / "generation_config.json", **FOREIGN)
    edit(raw / "tokenizer_config.json", **SETTINGS, tokenizer_class="AutoModelForCausalLM")
    edit(raw / "special_tokens_map.json", **SETTINGS)
    configurations = []
    build_model = AutoModelForCausalLM.from_config

    def watched(config: Any, **settings: Any) -> Any:
        configurations.append(json.dumps(config.to_dict()) + json.dumps(vars(config), default=str))
        return build_model(config, **settings)

    def kernels(*_: Any, **__: Any) -> None:
        raise AssertionError("a kernel is loaded")

    monkeypatch.setattr(AutoModelForCausalLM, "from_config", watched)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", kernels)
    for name in ("load_and_register_attn_kernel", "load_and_register_kernel", "lazy_load_kernel", "get_kernel"):
        monkeypatch.setattr(hub_kernels, name, kernels, raising=False)

    model = source(raw, tmp_path / "model")
    corpus = build(make_tiny_corpus(tmp_path / "corpus.txt"), tmp_path / "corpus", tokenizer=model, heldout=0.1)
    ordered = tmp_path / "ordered"
    ordered.mkdir()
    run_step("order", {"model": model, "corpus": corpus}, {"tokens": 512, "split": "train"}, ordered)
    carry_out("evaluate", {"model": ordered, "reference": model, "corpus": corpus}, MEASURE)

    assert len(configurations) >= 2
    assert not [one for one in configurations if "somebody" in one or "/dev/zero" in one]
    for folder in (model, ordered):
        config = json.loads((folder / "config.json").read_text())
        assert set(config) == before
        assert config["torch_dtype"] == "float32"
        assert "somebody" not in json.dumps(config)
    assert folders
    for files in folders:
        assert set(files["config.json"]) <= {"model_type", "transformers_version"}
        assert not SETTINGS.keys() & (
            files["tokenizer_config.json"].keys() | files.get("special_tokens_map.json", {}).keys()
        )
        assert files["tokenizer_config.json"].get("tokenizer_class") != "AutoModelForCausalLM"
        assert not [name for name in files if name.endswith((".safetensors", ".py"))]


@pytest.mark.parametrize(("name", "changes"), CODE)
def test_what_asks_for_code_or_other_weights_is_refused(raw: Path, tmp_path: Path, name: str, changes: dict[str, Any]):
    edit(raw / name, **changes)
    with pytest.raises(BuildError, match=next(iter(changes))):
        source(raw, tmp_path / "model")


def test_an_older_tokenizer_is_converted_from_its_own_files_alone(
    raw: Path, tmp_path: Path, folders: list[dict[str, Any]]
) -> None:
    content = json.loads((raw / "tokenizer.json").read_text())["model"]
    (raw / "tokenizer.json").unlink()
    (raw / "vocab.json").write_text(json.dumps(content["vocab"]))
    merges = (" ".join(one) if isinstance(one, list) else one for one in content["merges"])
    (raw / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges))
    output = tmp_path / "output"
    output.mkdir()
    edit(raw / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer", for_others=[1])
    source_tokenizer.convert(raw, None, output)
    plain = {path.name: path.read_bytes() for path in output.iterdir()}
    assert json.loads(plain["tokenizer_config.json"])["for_others"] == [1]

    edit(raw / "tokenizer_config.json", **SETTINGS)
    (raw / "tokenization_own.py").write_text("raise SystemExit")
    (tmp_path / "again").mkdir()
    source_tokenizer.convert(raw, None, tmp_path / "again")
    assert (tmp_path / "again/tokenizer.json").read_bytes() == plain["tokenizer.json"]
    assert not {"tokenization_own.py", "model.safetensors"} & folders[-1].keys()
    assert not SETTINGS.keys() & folders[-1]["tokenizer_config.json"].keys()


@pytest.mark.parametrize(
    "name", ["AutoModelForCausalLM", "pipeline", "models", "AutoTokenizer", "RagTokenizer", "__name__", 7, None, ["a"]]
)
def test_a_class_that_is_no_tokenizer_is_passed_over(raw: Path, name: Any) -> None:
    assert not is_tokenizer_class(name)
    edit(raw / "tokenizer_config.json", tokenizer_class=name)
    assert settle_beginning(raw, None) == ()
    with transformers_tokenizer(raw) as tokenizer:
        assert isinstance(tokenizer, transformers.PreTrainedTokenizerBase)


def test_sampling_of_sentencepiece_names_no_file() -> None:
    asked = {"sp_model_kwargs": {"model_file": "/dev/zero", "alpha": 0.1, "enable_sampling": True}}
    assert tokenizer_settings(asked) == {"sp_model_kwargs": {"alpha": 0.1, "enable_sampling": True}}
    assert tokenizer_settings({"sp_model_kwargs": "/dev/zero"}) == {"sp_model_kwargs": {}}


def test_no_key_that_is_passed_on_is_a_path() -> None:
    ends = ("_file", "_files", "_path", "_dir", "_spm", "_kwargs")
    assert [key for key in SETTING_KEYS if key.endswith(ends)] == ["sp_model_kwargs"]

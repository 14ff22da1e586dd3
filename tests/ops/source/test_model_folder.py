"""Model folders as people have them: a plan reads their headers, completes what is right, and refuses the rest by name."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from colbuild.arch import ARCHITECTURES, Role, parameters, read_structure
from colbuild.errors import BuildError
from colbuild.fetch.fetching import read_config
from tests.export.helpers import saved
from tests.helpers.configs import random_config
from tests.helpers.project import replace_in
from tests.helpers.steps import run_step
from tests.helpers.tiny import VOCABULARY, make_tiny_tokenizer, tiny_documents

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 269060552\n"
SPEC = "specs/tiny.yaml"
Edit = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]


def made(folder: Path, name: str, **settings: Any) -> Path:
    """A random model of an architecture with a tokenizer."""
    config = random_config(name, 1) | {"vocab_size": VOCABULARY, "tie_word_embeddings": True} | settings
    saved(config, folder)
    make_tiny_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tied model of each architecture."""
    return {name: made(tmp_path_factory.mktemp(name), name) for name in ARCHITECTURES}


@pytest.fixture
def raw(models: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(models["llama"], tmp_path / "raw"))


def convert(raw: Path, folder: Path) -> list[str]:
    remarks: list[str] = []
    folder.mkdir()
    run_step("source", {"raw": raw}, {}, folder, remark=remarks.append)
    return remarks


def refused(raw: Path) -> str:
    """The message and the hint that a plan ends with."""
    with pytest.raises(BuildError) as caught:
        read_config(raw)
    return f"{caught.value.message} = {caught.value.hint or ''}"


def edit(raw: Path, change: Edit) -> None:
    path = raw / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def configure(raw: Path, **settings: Any) -> None:
    path = raw / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def shard(raw: Path) -> None:
    """Splits a model's weights into two files with an index."""
    weights = load_file(raw / "model.safetensors")
    (raw / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, own in parts.items():
        save_file({name: weights[name] for name in own}, raw / file, metadata={"format": "pt"})
    listed = {name: file for file, own in parts.items() for name in own}
    (raw / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))


def logits(folder: Path) -> torch.Tensor:
    model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    assert not any(report.values()), report
    with torch.no_grad():
        return model(input_ids=torch.arange(1, 20)[None]).logits


def named(name: str, role: Role) -> str:
    """What files of an architecture call its embedding or head."""
    architecture = ARCHITECTURES[name]
    return architecture.stored_name(next(one.name for one in architecture.tensors if one.role is role))


# -- what a plan refuses ------------------------------------------------------------------------------------------------


def test_a_plan_reads_headers_and_no_torch(raw: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from colbuild.fetch.fetching import read_config;"
        f"read_config(Path({str(raw)!r})); assert not {{'torch', 'transformers'}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def cut(raw: Path) -> None:
    path = raw / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def pointer(name: str) -> Callable[[Path], None]:
    return lambda raw: (raw / name).write_text(POINTER) and None


def without(part: str) -> Callable[[Path], None]:
    return lambda raw: edit(raw, lambda weights: {name: one for name, one in weights.items() if part not in name})


def quantised(raw: Path) -> None:
    edit(raw, lambda weights: {**weights, "model.layers.0.mlp.up_proj.qweight": torch.zeros(4, 4, dtype=torch.int32)})


def eight_bits(raw: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    edit(raw, lambda weights: {**weights, name: weights[name].to(torch.float8_e4m3fn)})


def pickled(raw: Path) -> None:
    (raw / "model.safetensors").rename(raw / "pytorch_model.bin")


def part_missing(raw: Path) -> None:
    shard(raw)
    (raw / "model-00002-of-00002.safetensors").unlink()


def index_missing(raw: Path) -> None:
    shard(raw)
    (raw / "model.safetensors.index.json").unlink()


def part_incomplete(raw: Path) -> None:
    shard(raw)
    path = raw / "model-00002-of-00002.safetensors"
    save_file(dict(list(load_file(path).items())[1:]), path)


def adapter(raw: Path) -> None:
    (raw / "model.safetensors").rename(raw / "adapter_model.safetensors")
    (raw / "adapter_config.json").write_text("{}")


def adapter_alone(raw: Path) -> None:
    adapter(raw)
    (raw / "config.json").unlink()


def adapter_inside(raw: Path) -> None:
    edit(raw, lambda weights: {**weights, "model.layers.0.mlp.up_proj.lora_A.weight": torch.zeros(2, 2)})


def sentencepiece_alone(raw: Path) -> None:
    (raw / "tokenizer.json").unlink()
    (raw / "tokenizer.model").write_bytes(b"\x0a\x0e\x0a\x05")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        pytest.param(cut, ("truncated", "fetch"), id="cut off"),
        pytest.param(pickled, ("pickled weights only (pytorch_model.bin)", "save_pretrained"), id="pickled"),
        pytest.param(
            pointer("model.safetensors"), ("model.safetensors is a Git LFS pointer", "git lfs pull"), id="LFS"
        ),
        pytest.param(pointer("config.json"), ("config.json is a Git LFS pointer", "git lfs pull"), id="LFS config"),
        pytest.param(pointer("tokenizer.json"), ("tokenizer.json is a Git LFS pointer",), id="LFS tokenizer"),
        pytest.param(quantised, ("quantised weights", "original weights"), id="quantised"),
        pytest.param(eight_bits, ("F8_E4M3", "original weights"), id="eight bits"),
        pytest.param(part_missing, ("lacks model-00002-of-00002.safetensors",), id="a shard is missing"),
        pytest.param(index_missing, ("without model.safetensors.index.json",), id="the index is missing"),
        pytest.param(part_incomplete, ("missing: model.",), id="a shard is incomplete"),
        pytest.param(without("layers.0.mlp.up"), ("missing: model.layers.0.mlp.up_proj.weight",), id="incomplete"),
        pytest.param(adapter, ("holds an adapter", "merge the adapter"), id="adapter"),
        pytest.param(adapter_alone, ("holds an adapter", "merge the adapter"), id="adapter alone"),
        pytest.param(adapter_inside, ("weights of an adapter", "merge the adapter"), id="adapter inside"),
        pytest.param(lambda raw: configure(raw, hidden_size=None), ("hidden_size is null",), id="null"),
        pytest.param(lambda raw: configure(raw, use_cache=None), ("use_cache is null",), id="null run"),
        pytest.param(lambda raw: configure(raw, num_attention_heads=0), ("num_attention_heads is 0",), id="zero"),
        pytest.param(lambda raw: configure(raw, intermediate_size=99), ("of another shape", "up_proj"), id="shape"),
        pytest.param(lambda raw: (raw / "tokenizer.json").unlink(), ("has no tokenizer",), id="no tokenizer"),
    ],
)
def test_what_cannot_be_built_is_refused_by_the_plan(raw: Path, damage: Callable[[Path], None], told: tuple[str, ...]):
    damage(raw)
    message = refused(raw)
    assert all(part in message for part in told), message


def test_a_tokenizer_of_sentencepiece_alone_names_the_extra(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sentencepiece_alone(raw)
    monkeypatch.setattr("colbuild.arch.files.tokenizer_files.find_spec", lambda name: None)
    assert "pip install 'colbuild[sentencepiece]'" in refused(raw)


@pytest.mark.parametrize(
    ("kind", "named", "told"),
    [("bpe", "LlamaTokenizer", None), ("unigram", None, None), ("unigram", "LlamaTokenizer", "encodes")],
)
def test_a_tokenizer_of_sentencepiece_is_converted_and_compared(
    raw: Path, tmp_path: Path, kind: str, named: str | None, told: str | None
) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(tiny_documents()), model_writer=model, model_type=kind, vocab_size=400, byte_fallback=True,
        hard_vocab_limit=False, minloglevel=2, remove_extra_whitespaces=False, normalization_rule_name="identity",
    )  # fmt: skip
    (raw / "tokenizer.json").unlink()
    (raw / "tokenizer.model").write_bytes(model.getvalue())
    settings = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True}
    (raw / "tokenizer_config.json").write_text(json.dumps(settings | ({"tokenizer_class": named} if named else {})))
    assert read_config(raw)["model_type"] == "llama"
    if told is not None:
        with pytest.raises(BuildError, match=told):
            convert(raw, tmp_path / "made")
        return
    convert(raw, tmp_path / "made")
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    text = "Ada paints 12 maps.  Zürich!"
    converted = Tokenizer.from_file(str(tmp_path / "made" / "tokenizer.json"))
    assert converted.encode(text, add_special_tokens=False).ids == pieces.encode(text)


def test_a_configuration_alone_can_be_planned_with_and_is_told(raw: Path, tmp_path: Path) -> None:
    (raw / "model.safetensors").unlink()
    (raw / "tokenizer.json").unlink()
    notices: list[str] = []
    assert read_config(raw, notices.append)["model_type"] == "llama"
    assert "no weights" in notices[0]
    with pytest.raises(BuildError, match="no weights"):
        convert(raw, tmp_path / "made")


# -- heads --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_head_that_differs_from_the_embedding_unties_the_model(name: str, models: dict[str, Path], tmp_path: Path):
    raw = Path(shutil.copytree(models[name], tmp_path / "raw"))
    head, embedding = named(name, Role.HEAD), named(name, Role.EMBEDDING)
    before = parameters(read_structure(read_config(raw)))
    edit(raw, lambda weights: {**weights, head: weights[embedding].flip(0).contiguous()})
    config = read_config(raw)
    assert config["tie_word_embeddings"] is False
    extra = load_file(raw / "model.safetensors")[embedding].numel()
    assert parameters(read_structure(config)) == before + extra, "the plan counts the head"
    [remark] = convert(raw, tmp_path / "made")
    assert "untied" in remark
    configure(raw, tie_word_embeddings=False)
    assert torch.equal(logits(tmp_path / "made"), logits(raw))


@pytest.mark.parametrize("sharded", [False, True])
def test_one_differing_number_in_a_head_is_seen_and_an_equal_head_is_dropped(raw: Path, tmp_path: Path, sharded: bool):
    equal = Path(shutil.copytree(raw, tmp_path / "equal"))
    embedding = "model.embed_tokens.weight"
    edit(equal, lambda weights: {**weights, "lm_head.weight": weights[embedding].clone()})

    def differing(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        head = weights[embedding].clone()
        head[-1, -1] += 1.0
        return {**weights, "lm_head.weight": head}

    edit(raw, differing)
    if sharded:
        shard(raw)
        shard(equal)
    assert read_config(raw)["tie_word_embeddings"] is False
    assert read_config(equal)["tie_word_embeddings"] is True
    assert convert(equal, tmp_path / "dropped") == []
    assert "lm_head.weight" not in load_file(tmp_path / "dropped" / "model.safetensors")


def test_a_tied_model_that_stores_its_head_alone_has_it_as_embedding(raw: Path, tmp_path: Path) -> None:
    expected = logits(raw)
    name = "model.embed_tokens.weight"
    edit(raw, lambda weights: {"lm_head.weight" if key == name else key: one for key, one in weights.items()})
    [remark] = convert(raw, tmp_path / "made")
    assert "used as" in remark
    assert torch.equal(logits(tmp_path / "made"), expected)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_weights_of_the_bare_model_are_read(name: str, models: dict[str, Path], tmp_path: Path) -> None:
    raw = Path(shutil.copytree(models[name], tmp_path / "raw"))
    prefix = ARCHITECTURES[name].prefix
    edit(raw, lambda weights: {key.removeprefix(prefix): one for key, one in weights.items()})
    assert not any(key.startswith(prefix) for key in load_file(raw / "model.safetensors"))
    convert(raw, tmp_path / "made")
    assert torch.equal(logits(tmp_path / "made"), logits(models[name]))


# -- configurations -----------------------------------------------------------------------------------------------------


def test_the_running_choices_of_another_machine_are_dropped(raw: Path, tmp_path: Path) -> None:
    expected = logits(raw)
    configure(
        raw,
        _attn_implementation="flash_attention_2",
        attn_implementation="flash_attention_2",
        dtype="x",
        use_cache=False,
    )
    configure(raw, torch_dtype="float16", quantization_config=None, output_attentions=True, id2label={"0": "a"})
    convert(raw, tmp_path / "made")
    found = json.loads((tmp_path / "made" / "config.json").read_text())
    assert found["dtype"] == found["torch_dtype"] == "float32"
    assert not {"_attn_implementation", "attn_implementation", "use_cache", "id2label", "output_attentions"} & set(
        found
    )
    assert torch.equal(logits(tmp_path / "made"), expected)


def test_ids_of_a_config_outside_the_vocabulary_are_dropped_and_told(raw: Path, tmp_path: Path) -> None:
    configure(raw, bos_token_id=VOCABULARY, eos_token_id=[0, -1], pad_token_id=-1)
    remarks = convert(raw, tmp_path / "made")
    found = json.loads((tmp_path / "made" / "config.json").read_text())
    assert (found["bos_token_id"], found["eos_token_id"], found["pad_token_id"]) == (None, [0], None)
    assert len([remark for remark in remarks if remark.startswith("config.json")]) == 3


# -- through the command line -------------------------------------------------------------------------------------------


def test_a_plan_tells_what_a_build_could_not_end_with(project: Path, colbuild: Callable[..., Any]) -> None:
    cut(project / ".tiny" / "ansnet")
    ran = colbuild("plan", SPEC)
    assert ran.code == 3
    assert ran.err.startswith(f"error: {SPEC}:9:11: ") and "truncated" in ran.err


def test_a_checkpoint_to_start_from_is_compared_by_the_plan(project: Path, colbuild: Callable[..., Any]) -> None:
    shutil.copytree(project / ".tiny" / "ansnet", project / "start")
    asked = "{name: small, shape: {layers: 2, ffn: 64}, init: {checkpoint: ./start}}"
    replace_in(project / SPEC, "{name: small, params: 200k}", asked)
    ran = colbuild("plan", SPEC)
    assert ran.code == 3
    assert f"error: {SPEC}:26:" in ran.err and "layers 6, not 2" in ran.err
    edit(
        project / "start",
        lambda weights: {**weights, "lm_head.weight": weights["model.embed_tokens.weight"].flip(0).contiguous()},
    )
    assert "tie_word_embeddings: false" in colbuild("plan", SPEC).err
    cut(project / "start")
    assert "truncated" in colbuild("plan", SPEC).err

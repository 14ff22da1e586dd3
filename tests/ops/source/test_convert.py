from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from colbuild.errors import BuildError
from colbuild.fetch.fetching import read_config
from colbuild.progress import Progress
from colbuild.weights.files.origin import Origin, read_origin
from tests.helpers.steps import run_step
from tests.helpers.tiny import make_tiny_model
from tests.ops.source.gguf_models import write_gguf

F32, F16, BF16 = (gguf.GGMLQuantizationType[name] for name in ("F32", "F16", "BF16"))
Q8_0, Q4_0 = (gguf.GGMLQuantizationType[name] for name in ("Q8_0", "Q4_0"))
TEXT = "Ada paints 12 maps in Aarhus.\n  Zürich, 1999!"
CHAT = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"), layers=2, ffn=128)


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("untied"), layers=2, ffn=128, tied=False, dtype=torch.bfloat16)


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "output"
    folder.mkdir()
    return folder


def convert(raw: Path, output: Path) -> Path:
    run_step("source", {"raw": raw}, {}, output)
    return output


def refused(raw: Path, output: Path) -> BuildError:
    with pytest.raises(BuildError) as caught:
        convert(raw, output)
    return caught.value


def logits(folder: Path) -> torch.Tensor:
    model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    assert not any(report.values()), report
    with torch.no_grad():
        return model(input_ids=torch.arange(1, 60)[None]).logits


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_folder_is_copied_without_changing_a_value(untied: Path, output: Path) -> None:
    convert(untied, output)
    before, after = load_file(untied / "model.safetensors"), load_file(output / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) and after[name].dtype == torch.bfloat16 for name in before)
    with safe_open(output / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
    config = json.loads((output / "config.json").read_text())
    assert (config["architectures"], config["model_type"]) == (["LlamaForCausalLM"], "llama")
    assert (config["dtype"], config["torch_dtype"]) == ("bfloat16", "bfloat16")
    assert torch.equal(logits(output), logits(untied))


def test_the_tokenizer_and_its_chat_template_come_along(tiny: Path, output: Path) -> None:
    convert(tiny, output)
    before, after = AutoTokenizer.from_pretrained(tiny), AutoTokenizer.from_pretrained(output)
    assert before(TEXT).input_ids == after(TEXT).input_ids
    assert before.apply_chat_template(CHAT, tokenize=False) == after.apply_chat_template(CHAT, tokenize=False)


def test_where_a_family_comes_from_is_written_down(copy: Path, output: Path) -> None:
    (copy / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# A model\n\nlicense: none\n")
    (copy / "LICENSE").write_text("Do as you like.\n")
    convert(copy, output)
    digest = hashlib.sha256((output / "model.safetensors").read_bytes()).hexdigest()
    assert read_origin(output) == Origin(digest, "apache-2.0")
    assert (output / "LICENSE").read_text() == "Do as you like.\n"
    assert not (output / "README.md").exists()


def test_a_model_that_names_no_licence_has_none(copy: Path, output: Path) -> None:
    (copy / "README.md").write_text("# A model\n\nlicense: apache-2.0 it is not, as this is no header\n")
    found = read_origin(convert(copy, output))
    assert found is not None
    assert found.license is None


def test_several_weight_files_give_the_same_bytes_as_one(untied: Path, output: Path, tmp_path: Path) -> None:
    sharded = Path(shutil.copytree(untied, tmp_path / "sharded"))
    (sharded / "model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(untied).save_pretrained(sharded, max_shard_size="100KB")
    assert len(list(sharded.glob("model-*.safetensors"))) > 1
    single = tmp_path / "single"
    single.mkdir()
    assert digests(convert(sharded, output)) == digests(convert(untied, single))


def test_a_tied_head_and_old_buffers_are_left_out(copy: Path, output: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    extra = {
        "lm_head.weight": weights["model.embed_tokens.weight"].clone(),
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8),
    }
    save_file({**weights, **extra}, copy / "model.safetensors", metadata={"format": "pt"})
    convert(copy, output)
    assert load_file(output / "model.safetensors").keys() == weights.keys()


def test_an_older_tokenizer_is_converted(copy: Path, output: Path) -> None:
    content = json.loads((copy / "tokenizer.json").read_text())
    (copy / "tokenizer.json").unlink()
    (copy / "vocab.json").write_text(json.dumps(content["model"]["vocab"]))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in content["model"]["merges"]]
    (copy / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    edit(copy / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer", unk_token="<|endoftext|>")
    convert(copy, output)
    plain = AutoTokenizer.from_pretrained(output)
    assert plain.decode(plain(TEXT).input_ids) == TEXT
    assert plain.apply_chat_template(CHAT, tokenize=False) == "user: Hello\n"


@pytest.mark.parametrize(("kind", "dtype"), [(F32, torch.float32), (F16, torch.float16), (BF16, torch.bfloat16)])
def test_a_gguf_file_of_plain_floats_keeps_its_values(
    tiny: Path, output: Path, tmp_path: Path, kind: gguf.GGMLQuantizationType, dtype: torch.dtype
) -> None:
    expected = write_gguf(tiny, tmp_path / "x.gguf", kind)
    convert(tmp_path / "x.gguf", output)
    found = load_file(output / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert torch.equal(found[name], torch.from_numpy(numpy.array(values)).to(dtype)), name
    if kind is F32:
        assert torch.equal(logits(output), logits(tiny))


@pytest.mark.parametrize("kind", [Q8_0, Q4_0])
def test_a_quantised_gguf_file_is_dequantised_to_bfloat16(
    untied: Path, output: Path, tmp_path: Path, kind: gguf.GGMLQuantizationType
) -> None:
    folder = Path(shutil.copytree(untied, tmp_path / "floats"))
    weights = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    expected = write_gguf(folder, tmp_path / "x.gguf", kind)
    convert(tmp_path / "x.gguf", output)
    assert json.loads((output / "config.json").read_text())["dtype"] == "bfloat16"
    rounded = {name: torch.from_numpy(numpy.array(values)).bfloat16() for name, values in expected.items()}
    save_file(rounded, folder / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(logits(output), logits(folder))


def test_a_gguf_file_brings_its_tokenizer_and_chat_template(tiny: Path, output: Path, tmp_path: Path) -> None:
    write_gguf(tiny, tmp_path / "x.gguf", F32)
    convert(tmp_path / "x.gguf", output)
    before, after = AutoTokenizer.from_pretrained(tiny), AutoTokenizer.from_pretrained(output)
    assert before(TEXT).input_ids == after(TEXT).input_ids
    assert after.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True) == "user: Hello\nassistant: "
    assert (after.bos_token, after.eos_token) == ("<|endoftext|>", "<|endoftext|>")


def test_a_gguf_file_names_its_licence(tiny: Path, output: Path, tmp_path: Path) -> None:
    write_gguf(tiny, tmp_path / "model.gguf", F32)
    found = read_origin(convert(tmp_path / "model.gguf", output))
    assert found is not None
    assert found.license == "apache-2.0"


def test_digits_are_cut_as_the_gguf_file_says(tiny: Path, output: Path, tmp_path: Path) -> None:
    write_gguf(tiny, tmp_path / "x.gguf", F32, splitter="smollm")
    convert(tmp_path / "x.gguf", output)
    cut = AutoTokenizer.from_pretrained(output).backend_tokenizer.pre_tokenizer.pre_tokenize_str("a  12")
    # GPT-2's way would be "a", "Ġ", "Ġ12".
    assert [part for part, _ in cut] == ["a", "ĠĠ", "1", "2"]


def test_the_same_input_gives_the_same_bytes(tiny: Path, output: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    write_gguf(tiny, tmp_path / "x.gguf", Q8_0)
    shutil.copyfile(tmp_path / "x.gguf", tmp_path / "elsewhere" / "other-name.gguf")
    again = tmp_path / "again"
    again.mkdir()
    assert digests(convert(tmp_path / "x.gguf", output)) == digests(
        convert(tmp_path / "elsewhere/other-name.gguf", again)
    )


def test_progress_counts_parameters(tiny: Path, output: Path) -> None:
    seen: list[Progress] = []
    run_step("source", {"raw": tiny}, {}, output, seen.append)
    assert seen[-1].done == seen[-1].total == sum(t.numel() for t in load_file(tiny / "model.safetensors").values())


# -- what is refused ----------------------------------------------------------------------------------------------------


def test_pickled_weights_are_refused_unopened(copy: Path, output: Path, tmp_path: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    error = refused(copy, output)
    assert "pickled weights" in error.message and "safetensors" in (error.hint or "")
    (tmp_path / "model.pt").write_bytes(b"\x80\x04.")
    assert "pickled weights" in refused(tmp_path / "model.pt", output).message


def test_code_of_the_models_own_is_refused(copy: Path, output: Path) -> None:
    edit(copy / "tokenizer_config.json", auto_map={"AutoTokenizer": ["x.Tokenizer", None]})
    assert "'auto_map'" in refused(copy, output).message
    edit(copy / "config.json", auto_map={"AutoModelForCausalLM": "x.Model"})
    assert "'auto_map'" in refused(copy, output).message


def test_an_unsupported_architecture_is_refused(copy: Path, output: Path, tmp_path: Path) -> None:
    write_gguf(copy, tmp_path / "x.gguf", F32, architecture="mamba")
    assert "architecture 'mamba' is not supported" in refused(tmp_path / "x.gguf", output).message
    edit(copy / "config.json", model_type="bert")
    assert "architecture 'bert' is not supported" in refused(copy, output).message


def test_quantised_weights_in_a_folder_are_refused(copy: Path, output: Path) -> None:
    edit(copy / "config.json", quantization_config={"quant_method": "gptq"})
    assert "quantised weights" in refused(copy, output).message


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_cut_off_safetensors_file_is_refused(copy: Path, output: Path, share: float) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "model.safetensors" in refused(copy, output).message


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.5, 0.999])
def test_a_cut_off_gguf_file_is_refused(tiny: Path, output: Path, tmp_path: Path, share: float) -> None:
    write_gguf(tiny, tmp_path / "x.gguf", Q8_0)
    content = (tmp_path / "x.gguf").read_bytes()
    (tmp_path / "x.gguf").write_bytes(content[: int(share * len(content))])
    assert "x.gguf" in refused(tmp_path / "x.gguf", output).message


def test_a_gguf_header_of_nonsense_is_refused(output: Path, tmp_path: Path) -> None:
    for tail in (b"\xff" * 100, b"\x03\0\0\0" + b"\xff" * 100, b"\x01\0\0\0" + bytes(100)):
        (tmp_path / "x.gguf").write_bytes(b"GGUF" + tail)
        refused(tmp_path / "x.gguf", output)


def test_what_a_llama_gguf_may_not_be_is_refused(tiny: Path, output: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    write_gguf(tiny, path, F32, extra={"blk.0.unheard_of.weight": numpy.ones((2, 2), numpy.float32)})
    assert "blk.0.unheard_of.weight" in refused(path, output).message
    write_gguf(tiny, path, F32, splitter="a-new-one")
    assert "'a-new-one'" in refused(path, output).message
    write_gguf(tiny, path, F32, tokenizer=False)
    assert "no tokenizer" in refused(path, output).message


def test_a_folder_that_is_no_model_is_refused(copy: Path, output: Path) -> None:
    (copy / "tokenizer.json").unlink()
    assert "no tokenizer" in refused(copy, output).message
    (copy / "config.json").write_text("{")
    assert "is not JSON" in refused(copy, output).message
    (copy / "config.json").unlink()
    (copy / "x.gguf").touch()
    error = refused(copy, output)
    assert "has no config.json" in error.message and "x.gguf" in (error.hint or "")


def test_single_files_that_are_no_model_are_refused(copy: Path, output: Path, tmp_path: Path) -> None:
    assert "weights only" in refused(copy / "model.safetensors", output).message
    (tmp_path / "notes.txt").write_text("notes")
    assert "neither a model folder nor a GGUF file" in refused(tmp_path / "notes.txt", output).message


def test_an_index_may_name_files_beside_it_only(copy: Path, output: Path, tmp_path: Path) -> None:
    (copy / "model.safetensors").rename(tmp_path / "outside.safetensors")
    index = copy / "model.safetensors.index.json"
    for name, says in (("../outside.safetensors", "beside it"), ("absent.safetensors", "lacks absent.safetensors")):
        index.write_text(json.dumps({"weight_map": {"model.norm.weight": name}}))
        assert says in refused(copy, output).message
    index.write_text("[]")
    assert "not a JSON object" in refused(copy, output).message


def test_weights_that_do_not_fit_the_configuration_are_refused(copy: Path, output: Path) -> None:
    edit(copy / "config.json", num_hidden_layers=3)
    assert "missing: model.layers.2" in refused(copy, output).message


@pytest.mark.parametrize("key", ["attention.head_count", "block_count", "embedding_length", "attention.head_count_kv"])
def test_a_length_of_nothing_is_refused_by_its_name(tiny: Path, tmp_path: Path, key: str) -> None:
    write_gguf(tiny, tmp_path / "x.gguf", F32, facts={f"llama.{key}": 0})
    with pytest.raises(BuildError, match=key):
        read_config(tmp_path / "x.gguf")


@pytest.mark.parametrize("lost", [1, 4096])
def test_a_file_that_ends_early_is_refused_by_the_plan(tiny: Path, tmp_path: Path, lost: int) -> None:
    path = tmp_path / "x.gguf"
    write_gguf(tiny, path, F32)
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(BuildError, match="truncated"):
        read_config(path)

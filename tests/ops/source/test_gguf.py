"""GGUF files of each architecture that is read, whole and split: the model and the tokenizer that they were made of."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy
import pytest
import torch
from gguf.constants import GGMLQuantizationType
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from colbuild.arch.files.gguf_config import READABLE
from colbuild.arch.files.gguf_header import gguf_parts, read_header
from colbuild.arch.files.gguf_rotary import rotary_scaling
from colbuild.errors import BuildError, SourceUnavailableError
from colbuild.fetch.fetching import fetch, look, read_config
from colbuild.ops.corpus.tokens import load_vocabulary
from colbuild.ops.source.gguf_tokenizer import CUTTINGS
from tests.helpers.steps import run_step
from tests.helpers.tiny import CHAT_TEMPLATE, make_tiny_tokenizer, tiny_documents
from tests.ops.source.gguf_models import llama3_divisors, write_gguf

F32, F16, Q8_0 = (GGMLQuantizationType[name] for name in ("F32", "F16", "Q8_0"))
ROOT = Path(__file__).parents[3]
TEXT = "Ada paints 1234 maps in Aarhus.\n\n  Zu\u0308rich, it's 1999! \t x"
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
COMMON = {
    "vocab_size": 512,
    "hidden_size": 96,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "max_position_embeddings": 16384,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "tie_word_embeddings": False},
    "llama-3": {"model_type": "llama", "head_dim": 32, "rope_parameters": LLAMA3, "tie_word_embeddings": True},
    "biased llama": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "head_dim": 32, "tie_word_embeddings": False},
    "granite": {
        "model_type": "granite",
        "embedding_multiplier": 12.0,
        "attention_multiplier": 0.0625,
        "residual_multiplier": 0.22,
        "logits_scaling": 8.0,
    },
    "olmo2": {"model_type": "olmo2"},
    "gemma3": {
        "model_type": "gemma3_text",
        "head_dim": 32,
        "num_hidden_layers": 7,
        "sliding_window": 16,
        "query_pre_attn_scalar": 32,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
        "tie_word_embeddings": True,
    },
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Makes the model of a name, once: every weight random, norms and biases too."""
    root = tmp_path_factory.mktemp("models")

    def make(name: str) -> Path:
        folder = root / name.replace(" ", "-")
        if not folder.exists():
            torch.manual_seed(len(name))
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**{**COMMON, **CONFIGS[name]}))
            for parameter in model.parameters():
                parameter.data = torch.randn_like(parameter) * 0.1
            make_tiny_tokenizer(folder)
            model.to(torch.float32).save_pretrained(folder)
        return folder

    return make


def convert(raw: Path, output: Path) -> Path:
    output.mkdir(exist_ok=True)
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
        return model(input_ids=torch.arange(1, 200)[None] % 500).logits


@pytest.mark.parametrize(
    ("name", "kind"), [("gemma3", F16), *((name, kind) for name in CONFIGS for kind in (F32, Q8_0))]
)
def test_a_gguf_model_computes_what_it_was_made_of_computes(
    made: Any, name: str, kind: GGMLQuantizationType, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(made(name), tmp_path / "floats"))
    values = write_gguf(folder, tmp_path / "x.gguf", kind)
    found = convert(tmp_path / "x.gguf", tmp_path / "output")
    dtype = {F32: torch.float32, F16: torch.float16}.get(kind, torch.bfloat16)
    rounded = {name: torch.from_numpy(numpy.array(value)).to(dtype) for name, value in values.items()}
    save_file(rounded, folder / "model.safetensors", metadata={"format": "pt"})
    kept = load_file(found / "model.safetensors")
    assert kept.keys() == rounded.keys()
    # Norms that had one added to them come back as near as float32 allows.
    assert all(torch.allclose(kept[name].float(), tensor.float(), atol=1e-3) for name, tensor in rounded.items())
    assert torch.allclose(logits(found), logits(folder), atol=2e-5 if kind is F32 else 2e-2)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_its_config_says_what_the_models_own_says(made: Any, name: str, tmp_path: Path) -> None:
    write_gguf(made(name), tmp_path / "x.gguf", F32)
    found = AutoConfig.from_pretrained(convert(tmp_path / "x.gguf", tmp_path / "output")).to_dict()
    own = AutoConfig.from_pretrained(made(name)).to_dict()
    free = {"torch_dtype", "pad_token_id", "_name_or_path", "initializer_range", "head_dim", "dtype"}
    assert {key: value for key, value in found.items() if key not in free and own.get(key) != value} == {}


@pytest.mark.parametrize("name", ["llama-3", "gemma3"])
def test_a_split_model_is_read_from_any_of_its_files(made: Any, name: str, tmp_path: Path) -> None:
    write_gguf(made(name), tmp_path / "whole.gguf", F16)
    (tmp_path / "split").mkdir()
    write_gguf(made(name), tmp_path / "split" / "x.gguf", F16, tensors_in_part=9)
    parts = sorted((tmp_path / "split").iterdir())
    assert len(parts) > 2
    whole = convert(tmp_path / "whole.gguf", tmp_path / "a")
    for number, raw in enumerate((parts[0], parts[2], tmp_path / "split")):
        found = convert(raw, tmp_path / f"b{number}")
        assert {path.name: path.read_bytes() for path in found.iterdir()} == {
            path.name: path.read_bytes() for path in whole.iterdir()
        }


def test_a_split_models_digest_covers_all_of_its_files(made: Any, tmp_path: Path) -> None:
    write_gguf(made("llama"), tmp_path / "x.gguf", F16, tensors_in_part=12)
    parts = sorted(tmp_path.glob("*.gguf"))
    uri = f"./{parts[0].name}"

    def digest(uri: str = uri) -> str | None:
        return look(uri, root=tmp_path, downloads=tmp_path / "downloads")

    before = digest()
    assert before == digest(f"./{parts[1].name}")
    content = bytearray(parts[1].read_bytes())
    content[-1] ^= 1
    parts[1].write_bytes(content)
    assert digest() != before
    parts[1].unlink()
    with pytest.raises(SourceUnavailableError, match=parts[1].name) as caught:
        digest()
    assert "gguf-split --merge" in (caught.value.hint or "")
    assert parts[1].name in refused(parts[0], tmp_path / "output").message


def test_files_that_are_renamed_or_of_another_model_are_refused(made: Any, tmp_path: Path) -> None:
    write_gguf(made("llama"), tmp_path / "x.gguf", F16, tensors_in_part=12)
    parts = sorted(tmp_path.glob("*.gguf"))
    shutil.copyfile(parts[0], tmp_path / "alone.gguf")
    assert "has 3 files" in refused(tmp_path / "alone.gguf", tmp_path / "output").message
    shutil.copyfile(parts[0], parts[1])
    assert "contradicts the file names" in refused(parts[0], tmp_path / "output").message


def test_a_plan_reads_a_header_without_torch(made: Any, tmp_path: Path) -> None:
    write_gguf(made("llama-3"), tmp_path / "x.gguf", Q8_0)
    code = (
        "import sys; from pathlib import Path; from colbuild.fetch.fetching import read_config\n"
        "from colbuild.arch import read_structure; print(read_structure(read_config(Path(sys.argv[1]))).shape.hidden)\n"
        "assert not {'torch', 'transformers', 'numpy', 'gguf'} & sys.modules.keys()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.gguf")], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "96"


# -- rotary positions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"factor": 8.0},
        {"high_freq_factor": 8.0, "original_max_position_embeddings": 4096},
        {"low_freq_factor": 2.0, "high_freq_factor": 10.0, "original_max_position_embeddings": 5000},
    ],
)
def test_scaled_positions_are_found_again(made: Any, settings: dict[str, float], tmp_path: Path) -> None:
    rotary = {**LLAMA3, **settings}
    write_gguf(made("llama"), tmp_path / "x.gguf", F32, extra={"rope_freqs.weight": llama3_divisors(rotary, 128)})
    found = rotary_scaling(read_header(gguf_parts(tmp_path / "x.gguf")), "llama", 500000.0)
    assert found is not None
    again = llama3_divisors({"rope_theta": 500000.0, **found}, 128)
    assert numpy.allclose(again, llama3_divisors(rotary, 128), rtol=1e-5)
    if not settings.get("low_freq_factor"):
        assert {**rotary, **found} == rotary


def test_other_scalings_of_positions_are_said_as_transformers_does(made: Any, tmp_path: Path) -> None:
    facts = {
        "qwen2.rope.scaling.type": "yarn",
        "qwen2.rope.scaling.factor": 4.0,
        "qwen2.rope.scaling.original_context_length": 32768,
    }
    write_gguf(made("qwen2"), tmp_path / "x.gguf", F32, facts=facts)
    assert read_config(tmp_path / "x.gguf")["rope_scaling"] == {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 32768,
    }
    write_gguf(made("qwen2"), tmp_path / "x.gguf", F32, facts={**facts, "qwen2.rope.scaling.type": "longrope"})
    error = refused(tmp_path / "x.gguf", tmp_path / "output")
    assert "longrope" in error.message and "safetensors" in (error.hint or "")
    write_gguf(made("llama"), tmp_path / "x.gguf", F32, extra={"rope_freqs.weight": numpy.arange(1, 9, dtype="f4")})
    error = refused(tmp_path / "x.gguf", tmp_path / "output")
    assert "rotary positions" in error.message and "safetensors" in (error.hint or "")


# -- tokenizers ---------------------------------------------------------------------------------------------------------


def with_tokenizer(model: Path, folder: Path, tokenizer: Tokenizer, **settings: Any) -> Path:
    """A copy of a model with another tokenizer."""
    shutil.copytree(model, folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": CHAT_TEMPLATE, **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def byte_level(splitter: str, special: list[str]) -> Tokenizer:
    """A byte-level vocabulary whose text is cut in one of the ways that files name."""
    cutting = CUTTINGS[splitter]
    tokenizer = Tokenizer(models.BPE(ignore_merges=cutting.whole_words))
    content = json.loads(tokenizer.to_str())
    content |= {"pre_tokenizer": cutting.pre_tokenizer, "normalizer": cutting.normalizer}
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=480, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(tiny_documents(40), trainer)
    return tokenizer


@pytest.mark.parametrize("splitter", list(CUTTINGS))
def test_text_is_cut_as_the_file_says(made: Any, splitter: str, tmp_path: Path) -> None:
    own = with_tokenizer(
        made("llama"), tmp_path / "own", byte_level(splitter, ["<s>", "</s>"]), bos_token="<s>", eos_token="</s>"
    )
    write_gguf(own, tmp_path / "x.gguf", F32, splitter=splitter, facts={"tokenizer.ggml.add_bos_token": False})
    found = convert(tmp_path / "x.gguf", tmp_path / "output")
    ours, theirs = (Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in (found, own))
    assert ours.encode(TEXT).ids == theirs.encode(TEXT).ids
    assert ours.encode("a</s>b").ids == theirs.encode("a</s>b").ids
    assert ours.decode(ours.encode(TEXT).ids).endswith("1999! \t x")


@pytest.mark.parametrize(
    ("splitter", "says", "begins"),
    [
        ("llama-bpe", None, True),
        ("llama-bpe", False, False),
        ("qwen2", None, False),
        ("qwen2", True, True),
        ("gpt-2", False, False),
        ("smollm", None, False),
    ],
)
def test_texts_begin_with_the_token_that_the_file_says(
    made: Any, splitter: str, says: bool | None, begins: bool, tmp_path: Path
) -> None:
    special = ["<|begin_of_text|>", "<|end_of_text|>"]
    own = with_tokenizer(
        made("llama"), tmp_path / "own", byte_level(splitter, special), bos_token=special[0], eos_token=special[1]
    )
    facts = {} if says is None else {"tokenizer.ggml.add_bos_token": says}
    write_gguf(own, tmp_path / "x.gguf", F32, splitter=splitter, facts=facts)
    found = convert(tmp_path / "x.gguf", tmp_path / "output")
    plain = Tokenizer.from_file(str(tmp_path / "own" / "tokenizer.json")).encode("Ada paints").ids
    expected = [0, *plain] if begins else plain
    # transformers', and the library's alone, from which packages are read.
    assert AutoTokenizer.from_pretrained(found)("Ada paints").input_ids == expected
    assert Tokenizer.from_file(str(found / "tokenizer.json")).encode("Ada paints").ids == expected
    settings = json.loads((found / "tokenizer_config.json").read_text())
    assert settings.get("add_bos_token", False) is begins
    assert "add_eos_token" not in settings


def test_a_token_that_the_file_does_not_list_is_none_of_its_own(made: Any, tmp_path: Path) -> None:
    # transformers adds "<|endoftext|>" to the vocabulary; documents would be separated by a row that was never trained.
    special = ["<|begin_of_text|>", "<|end_of_text|>"]
    own = with_tokenizer(
        made("llama"), tmp_path / "own", byte_level("llama-bpe", special), bos_token=special[0], eos_token=special[1]
    )
    write_gguf(own, tmp_path / "x.gguf", F32, splitter="llama-bpe")
    found = convert(tmp_path / "x.gguf", tmp_path / "output")
    tokenizer = Tokenizer.from_file(str(found / "tokenizer.json"))
    assert set(tokenizer.get_vocab()) == set(Tokenizer.from_file(str(own / "tokenizer.json")).get_vocab())
    assert load_vocabulary(found).separator == tokenizer.token_to_id(special[1])


def test_texts_end_with_a_token_where_the_file_says_so(made: Any, tmp_path: Path) -> None:
    write_gguf(made("llama"), tmp_path / "x.gguf", F32, facts={"tokenizer.ggml.add_eos_token": True})
    found = convert(tmp_path / "x.gguf", tmp_path / "output")
    plain = Tokenizer.from_file(str(made("llama") / "tokenizer.json")).encode("Ada paints").ids
    assert AutoTokenizer.from_pretrained(found)("Ada paints").input_ids == [*plain, 0]


def sentencepiece(prefix: bool) -> Tokenizer:
    """A vocabulary of the kind of Llama 2's, or without a space in front as gemma's."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    scheme = "always" if prefix else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=True)
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(tiny_documents(40), trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = content["added_tokens"][:3]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    if prefix:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), tokenizer.normalizer])
    tokenizer.pre_tokenizer = None
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*parts, *([decoders.Strip(" ", 1, 0)] if prefix else [])])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special[:3]])
    return tokenizer


@pytest.mark.parametrize(("name", "prefix"), [("llama", True), ("llama", False), ("gemma3", False)])
def test_a_sentencepiece_vocabulary_gives_the_same_tokens(made: Any, name: str, prefix: bool, tmp_path: Path) -> None:
    own = with_tokenizer(
        made(name), tmp_path / "own", sentencepiece(prefix), bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    facts = {"tokenizer.ggml.add_space_prefix": prefix, "tokenizer.ggml.unknown_token_id": 0}
    write_gguf(own, tmp_path / "x.gguf", F32, splitter="-", facts=facts)
    found = convert(tmp_path / "x.gguf", tmp_path / "output")
    ours, theirs = (Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in (found, own))
    for text in ("Ada paints maps.", "Zürich 🙂 x", "in  Aarhus\n\nby"):
        ids = theirs.encode(text).ids
        # Where the file says nothing, llama.cpp puts the BOS token in front of such vocabularies.
        assert ours.encode(text).ids == [1, *ids]
        assert AutoTokenizer.from_pretrained(found)(text).input_ids == [1, *ids]
        assert ours.decode(ids) == text


# -- what is refused ----------------------------------------------------------------------------------------------------


def test_what_is_not_read_is_refused_by_name_with_the_way_out(made: Any, tmp_path: Path) -> None:
    path, output = tmp_path / "x.gguf", tmp_path / "output"

    def told(*, name: str = "llama", **how: Any) -> str:
        write_gguf(made(name), path, F32, **how)
        error = refused(path, output)
        return f"{error.message} | {error.hint}"

    assert "mixture of experts" in told(facts={"llama.expert_count": 8})
    for kind in ("mamba", "qwen3moe", "phi3", "gemma2"):
        assert f"architecture '{kind}' is not supported | supported:" in told(architecture=kind)
    for kind in ("gpt2", "gptneox"):
        assert f"holds a {kind} model" in told(architecture=kind)
        assert "safetensors" in told(architecture=kind)
    assert "its layers differ" in told(facts={"llama.attention.head_count_kv": [1, 2, 3]})
    assert "soft" in told(name="gemma3", facts={"gemma3.final_logit_softcapping": 30.0})
    write_gguf(made("llama"), path, F32, endianess=gguf.GGUFEndian.BIG)
    assert "big-endian" in refused(path, output).message


def test_types_that_no_library_reads_are_refused_before_a_weight_is_read(made: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    write_gguf(made("llama"), path, F32)
    entry = b"blk.0.attn_q.weight" + (2).to_bytes(4, "little") + (96).to_bytes(8, "little") * 2
    content = path.read_bytes()
    place = content.index(entry) + len(entry)
    path.write_bytes(content[:place] + (40).to_bytes(4, "little") + content[place + 4 :])
    with pytest.raises(BuildError, match=r"blk\.0\.attn_q\.weight is of the GGML type NVFP4") as caught:
        read_config(path)
    assert "Q8_0" in (caught.value.hint or "")


def test_every_type_that_is_taken_can_be_turned_into_floats() -> None:
    plain = {GGMLQuantizationType.F32, GGMLQuantizationType.F16}
    assert {int(kind) for kind in (*plain, *gguf.quants._type_traits)} >= READABLE


def test_a_split_model_is_fetched_whole(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.ops.source.servers import Hub

    (tmp_path / "parts").mkdir()
    write_gguf(made("llama"), tmp_path / "parts" / "x.gguf", Q8_0, tensors_in_part=12)
    parts = {f"Q8/{path.name}": path.read_bytes() for path in sorted((tmp_path / "parts").iterdir())}
    uri = f"hf://org/tiny@v1/{next(iter(parts))}"
    downloads = tmp_path / "downloads"
    with Hub("org/tiny", {**parts, "Q4/x.gguf": b"other"}).serve() as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        fetched = fetch(uri, root=tmp_path, downloads=downloads)
    names = [path.name for path in sorted(fetched.path.iterdir())]
    assert names == [name.removeprefix("Q8/") for name in parts]
    # The same files have the same digest, wherever they are.
    assert fetched.digest == look(f"./parts/{names[1]}", root=tmp_path, downloads=downloads)
    assert look(uri, root=tmp_path, downloads=downloads) == fetched.digest
    assert torch.isfinite(logits(convert(fetched.path, tmp_path / "output"))).all()

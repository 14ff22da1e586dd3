"""Models as they are published: folders of Hugging Face's form, one file of them damaged, and GGUF files."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any, Final

from tests.fuzz.frame import Driver
from tests.fuzz.mutate import deep_json, mutated_bytes, mutated_json
from tests.helpers.steps import run_step

MODEL: Final = "model"
GGUF: Final = "model.gguf"
Case = Callable[[Path, Path], None]
"""From the folder of seeds and the folder of the input to nothing: writes the input."""


def _start_folders(folder: Path) -> Path:
    import torch

    from colbuild.ops.source import convert  # noqa: F401 - a trial imports nothing
    from tests.helpers.tiny import make_tiny_model

    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    model = make_tiny_model(folder / MODEL, layers=1, hidden=16, ffn=16, heads=2, kv_heads=1)
    _edit(model / "config.json", rope_scaling={"rope_type": "linear", "factor": 2.0}, rope_parameters=None)
    _edit(model / "generation_config.json", eos_token_id=[0, 1], temperature=0.7, suppress_tokens=[3])
    token = {"content": "<|endoftext|>", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    (model / "special_tokens_map.json").write_text(json.dumps({"bos_token": token, "eos_token": "<|endoftext|>"}))
    (model / "added_tokens.json").write_text(json.dumps({"<|endoftext|>": 0}))
    (model / "README.md").write_text("---\nlicense: mit\n---\n# Tiny\n")
    shutil.copytree(model, folder / "sharded")
    _shard(folder / "sharded")
    _attempt(folder, folder)  # What is imported late, and caches: a trial that is forked has them.
    return folder


def _start_gguf(folder: Path) -> Path:
    import gguf

    from tests.ops.source.gguf_models import write_gguf

    _start_folders(folder)
    model = folder / MODEL
    _edit(model / "config.json", rope_parameters={"rope_theta": 10000.0, "rope_type": "linear", "factor": 2.0})
    write_gguf(model, folder / GGUF, gguf.GGMLQuantizationType.F16)
    _attempt_gguf(folder, folder)
    return folder


def _edit(path: Path, **changes: Any) -> None:
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, **changes}))


def _shard(folder: Path) -> None:
    """Makes a model of one file one of two."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    names = {name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(sorted(weights))}
    for file in sorted(set(names.values())):
        held = {name: weights[name] for name in weights if names[name] == file}
        save_file(held, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors").unlink()
    index = {"metadata": {"total_size": 1}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _attempt(_seeds: Path, folder: Path) -> None:
    """As `plan` and then the source step read a folder."""
    _read(folder, f"./{MODEL}")


def _attempt_gguf(_seeds: Path, folder: Path) -> None:
    _read(folder, f"./{GGUF}")


def _read(folder: Path, uri: str) -> None:
    from colbuild.arch.files.tokenizer_size import tokenizer_bytes
    from colbuild.arch.files.vocabulary import read_vocabulary
    from colbuild.fetch.fetching import fetch, read_config

    raw = fetch(uri, root=folder, downloads=folder / "downloads").path
    read_config(raw)
    tokenizer_bytes(raw)
    if raw.is_dir():
        read_vocabulary(raw)
    output = folder / "output"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    run_step("source", {"raw": raw}, {}, output)


def _copied(seeds: Path, folder: Path, seed: str = MODEL) -> Path:
    return Path(shutil.copytree(seeds / seed, folder / MODEL))


def _json_file(name: str, seed: str = MODEL) -> Callable[[Path, Random, Path], None]:
    def make(seeds: Path, random: Random, folder: Path) -> None:
        path = _copied(seeds, folder, seed) / name
        path.write_bytes(mutated_json(random, json.loads(path.read_text())))

    return make


def _make_safetensors(seeds: Path, random: Random, folder: Path) -> None:
    path = _copied(seeds, folder) / "model.safetensors"
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    if random.random() < 0.5:
        header = mutated_json(random, json.loads(content[8 : 8 + length]))
        path.write_bytes(struct.pack("<Q", len(header)) + header + content[8 + length :])
    else:
        path.write_bytes(mutated_bytes(random, content[: 8 + length]) + content[8 + length :])


def _make_gguf(seeds: Path, random: Random, folder: Path) -> None:
    content = (seeds / GGUF).read_bytes()
    # The header: weights hold any bytes.
    cut = random.choice((256, 2048, 16_384, len(content)))
    (folder / GGUF).write_bytes(mutated_bytes(random, content[:cut]) + content[cut:])


def _with(name: str, content: bytes) -> Case:
    def case(seeds: Path, folder: Path) -> None:
        (_copied(seeds, folder) / name).write_bytes(content)

    return case


def _setting(name: str, **changes: Any) -> Case:
    def case(seeds: Path, folder: Path) -> None:
        _edit(_copied(seeds, folder) / name, **changes)

    return case


def _special(name: str) -> Mapping[str, Case]:
    """A pipe, a device and a folder in the place of a file."""

    def replacing(make: Callable[[Path], None]) -> Case:
        def case(seeds: Path, folder: Path) -> None:
            path = _copied(seeds, folder) / name
            path.unlink(missing_ok=True)
            make(path)

        return case

    return {
        f"{name} is a pipe": replacing(os.mkfifo),
        f"{name} is a device": replacing(lambda path: path.symlink_to("/dev/zero")),
        f"{name} is a folder": replacing(Path.mkdir),
        f"{name} links out": replacing(lambda path: path.symlink_to(path.parents[2] / "outside/canary")),
    }


def _hostile_json(name: str) -> Mapping[str, Case]:
    return {
        f"{name} is deep": _with(name, deep_json(100_000)),
        f"{name} is a deep object": _with(name, b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
        f"{name} has a long number": _with(name, b'{"a": ' + b"1" * 5000 + b"}"),
        f"{name} is Latin-1": _with(name, '{"a": "\u00fc"}'.encode("latin-1")),
        f"{name} is a list": _with(name, b"[1]"),
        f"{name} is empty": _with(name, b""),
        **_special(name),
    }


_SETTINGS: Final = "tokenizer_config.json"
_FOLDER_CASES: Final[Mapping[str, Case]] = {
    **_hostile_json("config.json"),
    "layers without end": _setting("config.json", num_hidden_layers=1 << 40),
    "many layers": _setting("config.json", num_hidden_layers=4096, vocab_size=1 << 24, hidden_size=1 << 20),
    "a kernel": _setting("config.json", attn_implementation="a/b", _attn_implementation="a/b"),
    "a list of ids": _setting("config.json", eos_token_id=[[0], {}, 1e400], layer_types="x"),
    "rope of no kind": _setting("config.json", rope_scaling={"rope_type": {}, "type": []}, rope_parameters=[]),
}
_SETTINGS_CASES: Final[Mapping[str, Case]] = {
    **_hostile_json(_SETTINGS),
    "a class of models": _setting(_SETTINGS, tokenizer_class="AutoModelForCausalLM"),
    "paths": _setting(_SETTINGS, tokenizer_file="/dev/zero", init_inputs=["/dev/zero"], vocab_file="/dev/zero"),
    "tokens of no kind": _setting(_SETTINGS, bos_token={"content": []}, eos_token=[7], added_tokens_decoder=3),
    "an endless template": _setting(_SETTINGS, chat_template="{% for i in range(10**9) %}a{% endfor %}"),
}


def _safetensors(header: bytes, length: int | None = None) -> Case:
    return _with(
        "model.safetensors", struct.pack("<Q", len(header) if length is None else length) + header + b"\0" * 64
    )


def _entry(**changes: Any) -> bytes:
    return json.dumps({"lm_head.weight": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **changes}}).encode()


_SAFETENSORS_CASES: Final[Mapping[str, Case]] = {
    "a header without end": _safetensors(b"{}", (1 << 64) - 1),
    "a header as long as the limit": _safetensors(b"{}", 100_000_000),
    "a deep header": _safetensors(deep_json(100_000)),
    "a shape of many": _safetensors(_entry(shape=[1 << 62] * 40)),
    "a long shape": _safetensors(_entry(shape=[2] * 500_000)),
    "an endless number": _safetensors(b'{"a": {"dtype": "F32", "shape": [1e999], "data_offsets": [0, 4]}}'),
    "offsets that overlap": _safetensors(_entry(data_offsets=[-16, 0])),
    "a name of control characters": _safetensors(_entry().replace(b"lm_head", b"\\u001b[2J")),
    "metadata of no kind": _safetensors(b'{"__metadata__": [1]}'),
    **_special("model.safetensors"),
}


def _index(content: Any) -> Case:
    def case(seeds: Path, folder: Path) -> None:
        path = _copied(seeds, folder, "sharded") / "model.safetensors.index.json"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())

    return case


_INDEX_CASES: Final[Mapping[str, Case]] = {
    "deep": _index(deep_json(100_000)),
    "a list": _index([]),
    "a map of lists": _index({"weight_map": {"a": ["x"], "b": 7, "c": None}}),
    "a map of kinds": _index({"weight_map": {"a": "x.safetensors", "b": 7}}),
    "a way out": _index({"weight_map": {"a": "../../outside/canary"}}),
    "a name with zero": _index({"weight_map": {"a": "\0.safetensors"}}),
    "a long name": _index({"weight_map": {"a": "a" * 10_000 + ".safetensors"}}),
    "Latin-1": _index(b'{"weight_map": {"\xfc": 1}}'),
}


def _string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def _gguf(tensors: int = 0, values: int = 0, rest: bytes = b"", version: int = 3) -> Case:
    def case(_seeds: Path, folder: Path) -> None:
        (folder / GGUF).write_bytes(b"GGUF" + struct.pack("<IQQ", version, tensors, values) + rest)

    return case


def _fact(name: bytes, old: bytes, new: bytes) -> Case:
    """The value of a fact replaced, in place."""

    def case(seeds: Path, folder: Path) -> None:
        content = (seeds / GGUF).read_bytes()
        at = content.index(_string(name)) + 8 + len(name)
        if not content[at:].startswith(old):
            raise ValueError(content[at : at + 16])
        (folder / GGUF).write_bytes(content[:at] + new + content[at + len(old) :])

    return case


_ARRAY: Final = struct.pack("<I", 9)
_DEEP: Final = _string(b"a") + _ARRAY + struct.pack("<IQ", 9, 1) * 200_000
_MANY: Final = (1 << 64) - 1
_GGUF_CASES: Final[Mapping[str, Case]] = {
    "values without end": _gguf(values=_MANY),
    "tensors without end": _gguf(tensors=_MANY),
    "a text without end": _gguf(values=1, rest=struct.pack("<Q", _MANY)),
    "an array without end": _gguf(values=1, rest=_string(b"a") + _ARRAY + struct.pack("<IQ", 8, _MANY)),
    "empty arrays without end": _gguf(values=1, rest=_string(b"a") + _ARRAY + struct.pack("<IQ", 9, 1 << 62)),
    "arrays in arrays": _gguf(values=1, rest=_DEEP),
    "dimensions without end": _gguf(tensors=1, rest=_string(b"a") + struct.pack("<I", (1 << 32) - 1)),
    "many small values": _gguf(values=1 << 22, rest=(_string(b"a") + struct.pack("<IB", 0, 1)) * (1 << 18)),
    "a version of another time": _gguf(version=77),
    "heads of none": _fact(b"llama.attention.head_count", struct.pack("<II", 4, 2), struct.pack("<II", 4, 0)),
    "heads of minus": _fact(b"llama.attention.head_count", struct.pack("<II", 4, 2), struct.pack("<Ii", 5, -2)),
    "layers without end": _fact(b"llama.block_count", struct.pack("<II", 4, 1), struct.pack("<II", 4, 1 << 31)),
    "no alignment": _fact(b"general.license", b"", b""),
    "an infinite base": _fact(b"llama.rope.freq_base", struct.pack("<I", 6), struct.pack("<If", 6, float("inf"))),
}


DRIVERS: Final = (
    Driver("config.json", _start_folders, _json_file("config.json"), _attempt, _FOLDER_CASES),
    Driver(
        "generation_config.json",
        _start_folders,
        _json_file("generation_config.json"),
        _attempt,
        _hostile_json("generation_config.json"),
    ),
    Driver("tokenizer_config.json", _start_folders, _json_file(_SETTINGS), _attempt, _SETTINGS_CASES),
    Driver(
        "special_tokens_map.json",
        _start_folders,
        _json_file("special_tokens_map.json"),
        _attempt,
        _hostile_json("special_tokens_map.json"),
    ),
    Driver("model.safetensors", _start_folders, _make_safetensors, _attempt, _SAFETENSORS_CASES),
    Driver(
        "model.safetensors.index.json",
        _start_folders,
        _json_file("model.safetensors.index.json", "sharded"),
        _attempt,
        _INDEX_CASES,
    ),
    Driver("model.gguf", _start_gguf, _make_gguf, _attempt_gguf, _GGUF_CASES),
)

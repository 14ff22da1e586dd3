"""The tokenizer of a GGUF model as tokenizer.json, and its chat template.

transformers turns vocabulary and merges into a tokenizer; how text is cut before that, and what stands in front of a text and
behind it, is written here as llama.cpp reads it from the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from colbuild.arch.files.gguf_architectures import READ
from colbuild.arch.files.gguf_header import ArrayValue, GGUFHeader
from colbuild.arch.files.json_file import read_object
from colbuild.arch.files.model_files import SETTINGS, TOKENIZER
from colbuild.errors import BuildError
from colbuild.ops.source.settled_beginning import around_text
from colbuild.ops.source.source_tokenizer import convert
from colbuild.weights.files.checkpoint import write_json

_INSTEAD: Final = "use the model's safetensors folder instead"


@dataclass(frozen=True)
class Cutting:
    """The text splitting of a `tokenizer.ggml.pre`, in the terms of tokenizer.json.

    Attributes:
        pre_tokenizer: How text is cut before its bytes are merged.
        normalizer: What is done to it before that; None for nothing.
        whole_words: Whether a word that is a token as a whole is never merged from parts.
        begins: Whether texts begin with the BOS token where the file does not say.
    """

    pre_tokenizer: Mapping[str, Any]
    normalizer: Mapping[str, Any] | None = None
    whole_words: bool = False
    begins: bool = False


def _bytes(*, use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _cut_by(regex: str) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, _bytes(use_regex=False)]}


def _words(digits: str) -> str:
    """The regular expression of tiktoken's cl100k, with another number of digits that stay together."""
    return (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
        + digits
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


_GPT2: Final = Cutting(_bytes(use_regex=True))
_DIGITS: Final = {"type": "Digits", "individual_digits": True}
_LLAMA3: Final = Cutting(_cut_by(_words(r"\p{N}{1,3}")), whole_words=True, begins=True)
_QWEN2: Final = Cutting(_cut_by(_words(r"\p{N}")), normalizer={"type": "NFC"})
CUTTINGS: Final[Mapping[str, Cutting]] = {
    "default": _GPT2,
    "gpt-2": _GPT2,
    "dbrx": Cutting(_cut_by(_words(r"\p{N}{1,3}"))),
    **dict.fromkeys(
        ("refact", "smollm"), Cutting({"type": "Sequence", "pretokenizers": [_DIGITS, _bytes(use_regex=True)]})
    ),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3"), _LLAMA3),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), _QWEN2),
}


def convert_gguf_tokenizer(header: GGUFHeader, output: Path) -> None:
    """Writes a GGUF model's tokenizer and chat template.

    Raises:
        BuildError: There is none, or it cannot be converted.
    """
    facts, path = header.metadata, header.parts[0]
    tokens = facts.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, ArrayValue):
        raise BuildError(f"{header.name} holds no tokenizer", hint="use a GGUF file that llama.cpp itself can run")
    cutting = _cutting(header)
    _, form = READ[facts["general.architecture"]]
    convert(path.parent, path.name, output, form.tokenizer_of)
    content = read_object(output / TOKENIZER)
    changed = {**content, "added_tokens": _own_tokens(content, tokens.length)}
    if cutting is not None:
        changed["pre_tokenizer"] = cutting.pre_tokenizer
        if cutting.normalizer is not None:
            changed["normalizer"] = cutting.normalizer
        if cutting.whole_words:
            changed["model"] = {**content["model"], "ignore_merges": True}
    elif facts.get("tokenizer.ggml.add_space_prefix") is False:
        changed |= _without_space(content)
    around = _around(header, cutting)
    settings = read_object(output / SETTINGS)
    named = {place: settings.get(f"{place}_token") for place, added in around.items() if added}
    ids = {token["content"]: token["id"] for token in content.get("added_tokens") or ()}
    absent = [place for place, token in named.items() if not isinstance(token, str) or token not in ids]
    if absent:
        raise BuildError(f"{header.name}: texts get a {absent[0]} token, but the file does not name it", hint=_INSTEAD)
    if named or (content.get("post_processor") or {}).get("special_tokens"):
        begin, behind = ([(token, ids[token])] if (token := named.get(place)) else [] for place in ("bos", "eos"))
        changed["post_processor"] = around_text(begin, behind)
    if changed != content:
        write_json(output / TOKENIZER, changed)
    kept = {key: value for key, value in settings.items() if key not in ("add_bos_token", "add_eos_token")}
    kept |= {f"add_{place}_token": True for place in named}
    if kept != settings:
        write_json(output / SETTINGS, kept)


def _own_tokens(content: Mapping[str, Any], size: int) -> list[Any]:
    """The added tokens without those behind the file's vocabulary: transformers' defaults, which the model has never seen."""
    return [token for token in content.get("added_tokens") or () if token["id"] < size]


def _cutting(header: GGUFHeader) -> Cutting | None:
    """How text is cut before its bytes are merged; None for a vocabulary that is no byte-level one."""
    if header.metadata.get("tokenizer.ggml.model") != "gpt2":
        return None
    kind = str(header.metadata.get("tokenizer.ggml.pre", "default"))
    if kind not in CUTTINGS:
        raise BuildError(
            f"{header.name} splits text in an unsupported way ('tokenizer.ggml.pre' is '{kind}')",
            hint=f"{_INSTEAD}; supported: {', '.join(CUTTINGS)}",
        )
    return CUTTINGS[kind]


def _around(header: GGUFHeader, cutting: Cutting | None) -> dict[str, bool]:
    """Returns whether a text gets a token in front, and one behind; llama.cpp's defaults without a setting."""
    begins = cutting.begins if cutting is not None else header.metadata.get("tokenizer.ggml.model") == "llama"
    usual = {"bos": begins, "eos": False}
    return {place: bool(header.metadata.get(f"tokenizer.ggml.add_{place}_token", usual[place])) for place in usual}


_PUT_SPACE: Final = ("Prepend", "Strip")
"""Steps that put a space in front of a text, and remove it when ids become text again."""


def _without_space(content: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a SentencePiece tokenizer that put a space in front of a text, without it."""
    parts = (("normalizer", "normalizers"), ("pre_tokenizer", "pretokenizers"), ("decoder", "decoders"))
    return {part: _spaceless(content[part], listed) for part, listed in parts if content.get(part)}


def _spaceless(step: Mapping[str, Any], listed: str) -> Mapping[str, Any] | None:
    """A step of a tokenizer, or a sequence of such, without the space; None if nothing else is left of it."""
    if listed in step:
        kept = [one for each in step[listed] if (one := _spaceless(each, listed)) is not None]
        return {**step, listed: kept} if kept else None
    if step["type"] in _PUT_SPACE:
        return None
    return {**step, "prepend_scheme": "never"} if step["type"] == "Metaspace" else step

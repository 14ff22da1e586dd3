"""Loads a folder's tokenizer as transformers' class: the only module that passes such files to transformers.

transformers reads more than a tokenizer there: names of classes that may be any of its own, positional arguments, paths of
other files, a whole config.json. It is therefore given a folder of its own, for as long as it reads:

::

    tokenizer_config.json, special_tokens_map.json    the keys of a tokenizer, no other
    config.json                                       which architecture, and which class
    vocabularies, templates                           links to the files
    weights, code, other configurations               nothing
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import transformers
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from colbuild.arch.files.json_file import read_object
from colbuild.arch.files.model_files import NAMED_TEMPLATES, SETTINGS
from colbuild.arch.files.model_folder import CONFIG_FILE
from colbuild.bounds import JSON_BYTES
from colbuild.errors import BuildError
from colbuild.units import format_bytes

_TOKENS: Final = "special_tokens_map.json"
_CLASS: Final = "tokenizer_class"
_VOCABULARIES: Final = frozenset((".json", ".jinja", ".model", ".spm", ".tiktoken", ".txt"))
_NO_VOCABULARIES: Final = (".index.json", "generation_config.json", "processor_config.json", "preprocessor_config.json")
_REFUSED: Final = frozenset(
    ("auto_map", "init_inputs", "name_or_path", "_commit_hash", "device_map", "slow_tokenizer_class")
)

SETTING_KEYS: Final = frozenset((
    "_spm_precompiled_charsmap", "add_bos_token", "add_eos_token", "add_prefix_space", "added_tokens_decoder",
    "additional_special_tokens", "byte_fallback", "chat_template", "clean_text", "clean_up_tokenization_spaces",
    "do_basic_tokenize", "do_clean_text", "do_lower_case", "do_lowercase", "errors", "extra_ids", "extra_special_tokens",
    "fix_mistral_regex", "from_slow", "id2lang", "keep_accents", "lang2id", "lang_codes", "langs", "language",
    "language_codes", "legacy", "legacy_behaviour", "max_len", "max_length", "model_input_names", "model_max_length",
    "never_split", "normalization", "normalize", "num_madeup_words", "offset", "pad_to_multiple_of",
    "pad_token_type_id", "padding_side", "predict_timestamps", "processor_class", "remove_space", "response_template",
    "chat_control_tokens", "source_lang", "sp_model_kwargs", "spaces_between_special_tokens", "split_by_punct",
    "split_special_tokens", "src_lang", "stride", "strip_accents", "target_lang", "task", "tgt_lang",
    "tokenize_chinese_chars", "trim_offsets", "truncation_side", "truncation_strategy", "unk_id",
    "use_default_system_prompt", "verbose", "wordpieces_prefix", _CLASS,
))  # fmt: skip
"""Keys of tokenizer_config.json that are passed on, beside every `*_token`."""

_MODEL_KEYS: Final = ("model_type", "model_name", "transformers_version", _CLASS)
"""Keys of config.json by which transformers chooses a class of tokenizers."""

_GGUF_TOKENIZER: Final = "tokenizer."
"""How the names of a GGUF file's facts begin that tell of its tokenizer."""

_SAMPLING: Final = ("enable_sampling", "nbest_size", "alpha")
"""Keys of `sp_model_kwargs`; sentencepiece would take paths of files there, too."""


@contextmanager
def transformers_tokenizer(
    folder: Path, gguf_file: str | None = None, architecture: str | None = None
) -> Iterator[Any]:
    """The tokenizer of a folder as transformers has it, with no network and no code of its own.

    What transformers raises about the files comes through as it is.

    Args:
        folder: Holds the tokenizer's files.
        gguf_file: The GGUF file in it whose tokenizer is meant; no other file is then looked at.
        architecture: What transformers is told that this file's architecture is; by default what it is.

    Raises:
        BuildError: A file is no JSON object.
    """
    with tempfile.TemporaryDirectory(prefix="colbuild-tokenizer-") as room:
        own = Path(room)
        if gguf_file is not None:
            if architecture is None:
                (own / gguf_file).symlink_to((folder / gguf_file).absolute())
            else:
                _write_tokenizer_facts(folder / gguf_file, own / gguf_file, architecture)
            yield AutoTokenizer.from_pretrained(
                own, local_files_only=True, trust_remote_code=False, gguf_file=gguf_file
            )
            return
        for path in folder.iterdir():
            if _is_vocabulary(path):
                if path.stat().st_size > JSON_BYTES:
                    raise BuildError(f"{path} is larger than {format_bytes(JSON_BYTES)}, the limit")
                (own / path.name).symlink_to(path.absolute())
        for name, kept in (
            (SETTINGS, tokenizer_settings),
            (_TOKENS, tokenizer_settings),
            (CONFIG_FILE, _model_settings),
        ):
            if (folder / name).is_file():
                # In the order of the file: ids are given to tokens in the order in which they are read.
                (own / name).write_text(json.dumps(kept(read_object(folder / name))), encoding="utf-8")
        yield AutoTokenizer.from_pretrained(own, local_files_only=True, trust_remote_code=False)


def _write_tokenizer_facts(source: Path, target: Path, architecture: str) -> None:
    """Writes a GGUF file that holds another one's tokenizer, and nothing else."""
    from gguf import GGUFReader, GGUFValueType, GGUFWriter

    writer = GGUFWriter(target, architecture)
    for name, found in GGUFReader(source).fields.items():
        if name.startswith(_GGUF_TOKENIZER):
            of = found.types[-1] if found.types[0] is GGUFValueType.ARRAY else None
            writer.add_key_value(name, found.contents(), found.types[0], sub_type=of)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def tokenizer_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A tokenizer_config.json with the keys that are passed on to transformers, and no other."""
    kept = {key: value for key, value in settings.items() if key in SETTING_KEYS or key.endswith("_token")}
    if "sp_model_kwargs" in kept:
        found = kept["sp_model_kwargs"] if isinstance(kept["sp_model_kwargs"], Mapping) else {}
        kept["sp_model_kwargs"] = {key: value for key, value in found.items() if key in _SAMPLING}
    return _with_class(kept)


def carried_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that are for other programs: they are handed on with a converted tokenizer, and not passed on."""
    passed = tokenizer_settings(settings)
    return {
        key: value
        for key, value in settings.items()
        if key not in passed and key not in _REFUSED and key != _CLASS and not key.endswith(("_file", "_files"))
    }


def _model_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    return _with_class({key: value for key, value in config.items() if key in _MODEL_KEYS and isinstance(value, str)})


def _with_class(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings without a class that is none of a tokenizer: any name in transformers would be loaded."""
    if _CLASS in settings and not is_tokenizer_class(settings[_CLASS]):
        return {key: value for key, value in settings.items() if key != _CLASS}
    return settings


def is_tokenizer_class(name: Any) -> bool:
    """Returns whether transformers has a tokenizer of this name, or nothing at all, which it passes over."""
    if not isinstance(name, str):
        return False
    found = getattr(transformers, name, None) or getattr(transformers, name.removesuffix("Fast"), None)
    # Where a library is missing a stand-in is found, whose message names the library.
    stands_in = getattr(found, "is_dummy", False) and name.removesuffix("Fast").endswith(("Tokenizer", "Backend"))
    return found is None or bool(stands_in) or (isinstance(found, type) and issubclass(found, PreTrainedTokenizerBase))


def _is_vocabulary(path: Path) -> bool:
    if path.name == NAMED_TEMPLATES:
        return path.is_dir()
    apart = path.name in (SETTINGS, _TOKENS, CONFIG_FILE) or path.name.endswith(_NO_VOCABULARIES)
    return path.suffix in _VOCABULARIES and not apart and path.is_file()

"""Writes the rule for the beginning of texts into tokenizer.json, once for each tokenizer.

transformers follows `add_bos_token` of tokenizer_config.json where that is given, other libraries the post-processor in
tokenizer.json. Where the two differ, the post-processor is written again as in transformers, so that corpora,
packages and every client put the same tokens in front of a text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer

from colbuild.arch.files.model_files import SETTINGS, TOKENIZER
from colbuild.arch.files.tokenizer_file import first_token, load_tokenizer, read_settings
from colbuild.ops.source.source_tokenizer import ANY_FAST
from colbuild.train.corpus.text_beginning import beginning
from colbuild.weights.files.checkpoint import write_json
from colbuild.weights.files.origin import ORIGIN, origin_json, read_origin

_SAMPLE: Final = "a"
_FLAGS: Final = ("add_bos_token", "add_eos_token")


def settle_beginning(folder: Path, asked: str | None) -> tuple[str, ...]:
    """Makes a folder's tokenizer.json put in front of texts what it should.

    Args:
        folder: Holds tokenizer.json and tokenizer_config.json, which are changed where they have to be.
        asked: The token that the spec wants there, or "none"; None for the tokenizer's own rule, as transformers has it.

    Returns:
        The tokens in front of every text.

    Raises:
        BuildError: The token that the spec wants is not in the vocabulary.
    """
    tokenizer = _read(folder)
    had = beginning(tokenizer)
    wanted, behind = _by_transformers(folder, tokenizer) if asked is None else (first_token(tokenizer, asked), ())
    if asked is not None:
        _follow(folder, tokenizer, wanted)
    if wanted != had or (asked is not None and _adds(tokenizer) != len(wanted)):
        _write(folder, tokenizer, wanted, behind)
    if asked is not None and _by_transformers(folder, tokenizer)[0] != wanted:
        # GPT-NeoX's class passes over what is said of the BOS, CodeLlama's always puts one in front.
        write_json(folder / SETTINGS, {**read_settings(folder), "tokenizer_class": ANY_FAST})
    return tuple(_name(tokenizer, index) for index in wanted)


def carry_beginning(source: Path, folder: Path) -> tuple[str, ...]:
    """Gives a new tokenizer the beginning of another one, whose tokens it has.

    Args:
        source: The folder of the tokenizer whose texts begin with something.
        folder: The folder of the tokenizer to change.
    """
    theirs, ours = _read(source), _read(folder)
    names = tuple(_name(theirs, index) for index in beginning(theirs))
    wanted = tuple(index for name in names if (index := ours.token_to_id(name)) is not None)
    if wanted != beginning(ours):
        _write(folder, ours, wanted, ())
    return names if len(wanted) == len(names) else ()


def beginning_names(folder: Path) -> tuple[str, ...]:
    """The tokens that a folder's tokenizer puts in front of every text."""
    tokenizer = _read(folder)
    return tuple(_name(tokenizer, index) for index in beginning(tokenizer))


def write_beginning(folder: Path) -> None:
    """Makes a model's origin.json, if it has one, name what its own tokenizer puts in front of every text."""
    origin = read_origin(folder)
    if origin is not None and tuple(origin.begin) != (names := beginning_names(folder)):
        write_json(folder / ORIGIN, origin_json(replace(origin, begin=names)))


def _read(folder: Path) -> Tokenizer:
    return load_tokenizer(folder / TOKENIZER)


def _name(tokenizer: Tokenizer, index: int) -> str:
    return str(tokenizer.id_to_token(index))


def _named(tokenizer: Tokenizer, ids: Sequence[int]) -> list[tuple[str, int]]:
    return [(_name(tokenizer, index), index) for index in ids]


def _adds(tokenizer: Tokenizer) -> int:
    return int(tokenizer.num_special_tokens_to_add(is_pair=False))


def _by_transformers(folder: Path, tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that `tokenizer(text)` in transformers puts in front of a text and behind it.

    Asked for every tokenizer: some classes have a rule of their own, without a flag in tokenizer_config.json.
    """
    own = beginning(tokenizer)
    from colbuild.weights.files.transformers_tokenizer import transformers_tokenizer

    try:
        with transformers_tokenizer(folder) as theirs:
            whole, plain = (list(theirs(_SAMPLE, add_special_tokens=add)["input_ids"]) for add in (True, False))
    except Exception:  # noqa: BLE001 - a class that transformers cannot make of these files says nothing of the beginning
        return own, ()
    for count in range(len(whole) - len(plain) + 1):
        if whole[count : count + len(plain)] == plain:
            return tuple(whole[:count]), tuple(whole[count + len(plain) :])
    return own, ()


def _follow(folder: Path, tokenizer: Tokenizer, wanted: Sequence[int]) -> None:
    """Makes tokenizer_config.json say the same as the spec, for every release of transformers."""
    settings = {key: value for key, value in read_settings(folder).items() if key not in _FLAGS}
    own = settings.get("bos_token")
    own = own.get("content") if isinstance(own, Mapping) else own
    names = [_name(tokenizer, index) for index in wanted]
    if not names or names == [own]:
        # Classes of transformers 4 put a BOS in front where nothing is said.
        settings["add_bos_token"] = bool(names)
    else:
        # The flag stands for the BOS alone; of another token the post-processor has to tell.
        settings["tokenizer_class"] = ANY_FAST
    write_json(folder / SETTINGS, settings)


def _write(folder: Path, tokenizer: Tokenizer, begin: Sequence[int], behind: Sequence[int]) -> None:
    """Writes tokenizer.json with a post-processor that puts these ids around a text."""
    content = json.loads((folder / TOKENIZER).read_text(encoding="utf-8"))
    kept = [part for part in _parts(content.get("post_processor")) if part.get("type") == "ByteLevel"]
    parts = [*kept, around_text(_named(tokenizer, begin), _named(tokenizer, behind))] if begin or behind else kept
    content["post_processor"] = None
    if parts:
        content["post_processor"] = parts[0] if len(parts) == 1 else {"type": "Sequence", "processors": parts}
    (folder / TOKENIZER).write_text(json.dumps(content, ensure_ascii=False, indent=2), encoding="utf-8")


def _parts(processor: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if processor is None:
        return []
    return list(processor["processors"]) if processor.get("type") == "Sequence" else [processor]


def around_text(begin: Sequence[tuple[str, int]], behind: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """The post-processor in tokenizer.json that puts tokens, each with its id, in front of a text and behind it."""

    def added(tokens: Sequence[tuple[str, int]], kind: int) -> list[dict[str, Any]]:
        return [{"SpecialToken": {"id": token, "type_id": kind}} for token, _ in tokens]

    def around(sequence: str, kind: int) -> list[dict[str, Any]]:
        return [*added(begin, kind), {"Sequence": {"id": sequence, "type_id": kind}}, *added(behind, kind)]

    single = around("A", 0)
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, *around("B", 1)],
        "special_tokens": {
            token: {"id": token, "ids": [index], "tokens": [token]} for token, index in (*begin, *behind)
        },
    }

"""tokenizer: the family's own vocabulary, trained on its text or fetched, with the tokens of the AnsNet's chat template."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from colbuild.arch.files.json_file import object_if_there, read_object
from colbuild.arch.files.model_files import CHAT_FILES, CHAT_TEMPLATE, LICENCES, SETTINGS, TOKENIZER
from colbuild.arch.files.model_folder import CONFIG_FILE
from colbuild.arch.files.tokenizer_file import NONE, load_tokenizer, read_settings
from colbuild.arch.files.tokenizer_trial import try_tokenizer
from colbuild.errors import BuildError
from colbuild.fetch.background import in_background
from colbuild.fetch.texts.choose import choose
from colbuild.fetch.texts.readers import reader_of
from colbuild.fetch.texts.reading import Reading
from colbuild.fetch.texts.text_documents import documents
from colbuild.ops.source.added_tokens import reset_orders
from colbuild.ops.source.chat import separate_chat
from colbuild.ops.source.settled_beginning import beginning_names, carry_beginning, settle_beginning, write_beginning
from colbuild.ops.source.source_tokenizer import copy_tokenizer
from colbuild.ops.step_run import StepRun
from colbuild.plan.steps.tokenizer import TokenizerParams
from colbuild.progress import Progress
from colbuild.train.across.spelling import spelling_of
from colbuild.weights.files.checkpoint import GENERATION, write_json
from colbuild.weights.files.origin import ORIGIN, copy_files

SEPARATOR: Final = "<|endoftext|>"
BEGINNING: Final = "beginning.json"
NAMES: Final = ("bos_token", "eos_token", "pad_token", "unk_token")
"""Keys of tokenizer_config.json that name special tokens; config.json has their ids under the same names with `_id`."""


def run(step: StepRun, params: TokenizerParams) -> None:
    """Makes the family's tokenizer.

    Inputs: `model` (the AnsNet); `raw`, the text to train on or the tokenizer's files. Params: `rows`, how many ids there may
    be; `train`, with the text's parameters as the corpus step has them, for one that is trained; for a fetched one `begin`
    where the spec says what texts begin with.

    Special tokens that the AnsNet's chat template or its beginning and end of text are made of are added where they are
    missing, its template and generation settings carried over, unless the tokenizer comes with a template of its own. A trained
    tokenizer puts the same tokens in front of a text as the AnsNet's; a fetched one follows its own rule, or `begin` if it has
    that token.

    Raises:
        BuildError: It cannot be read, cannot spell every text, or has no room for the special tokens.
    """
    if params.train:
        _trained(step, params)
    else:
        _copied(step)
    path = step.output / TOKENIZER
    reset_orders(path)
    _with_chat(step)
    _begin(step, params)
    separate_chat(step.output)
    # The family's models have all of this from here (`colbuild.plan.drawing.parts`), with what their own texts begin with.
    copy_files((ORIGIN, *LICENCES), step.inputs["model"], step.output)
    write_beginning(step.output)
    tokenizer = load_tokenizer(path)
    spelling_of(tokenizer, "the tokenizer")
    highest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    if highest >= params.rows:
        raise BuildError(
            f"the tokenizer has {highest + 1:,} ids with the special tokens of the AnsNet's chat template, and room for "
            f"{params.rows:,}",
            hint="choose a tokenizer with a chat template of its own",
        )


def _begin(step: StepRun, params: TokenizerParams) -> None:
    """Settles what texts begin with in the family's tokens, and writes it down where that is anything.

    The file makes the result another one than those of before texts began with their tokens, whose corpora lack them.
    """
    names = _settled(step, params)
    if names:
        write_json(step.output / BEGINNING, {"begin": list(names)})


def _settled(step: StepRun, params: TokenizerParams) -> tuple[str, ...]:
    if params.train:
        return carry_beginning(step.inputs["model"], step.output)
    asked = params.begin
    known = asked == NONE or _read_tokenizer(step.output).token_to_id(asked or "") is not None
    names = settle_beginning(step.output, asked if known else None)
    if len(names) == 1 and _content(read_settings(step.output).get("bos_token")) != names[0]:
        # The AnsNet's name for it was carried over with its chat.
        write_json(step.output / SETTINGS, {**read_settings(step.output), "bos_token": names[0]})
        _with_generation(step.output, {"bos_token_id": _read_tokenizer(step.output).token_to_id(names[0])})
    return names


def _with_generation(folder: Path, changed: Mapping[str, Any]) -> None:
    """Changes settings of generation that a folder has."""
    path = folder / GENERATION
    settings = object_if_there(path)
    if known := {key: value for key, value in changed.items() if key in settings}:
        write_json(path, {**settings, **known})


def _trained(step: StepRun, params: TokenizerParams) -> None:
    model = _read_tokenizer(step.inputs["model"])
    tokenizer = Tokenizer(models.BPE())
    # Cut where the AnsNet cuts, as far as it works on bytes too: the more boundaries the two share, the more can be compared.
    theirs = model.pre_tokenizer
    tokenizer.pre_tokenizer = theirs if _on_bytes(model) else pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=params.rows,
        special_tokens=_wanted(step.inputs["model"]),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # Counting and merging are one call into the library, which takes minutes on much text.
    in_background(lambda: tokenizer.train_from_iterator(_texts(step, params), trainer), step.check)
    size = tokenizer.get_vocab_size()
    if size < params.rows:
        raise BuildError(
            f"the text is too short for a vocabulary of {params.rows:,} tokens: it gives {size:,}",
            hint=f"write tokenizer: {{train: {size}}}, or give more text (a higher 'limit')",
        )
    tokenizer.save(str(step.output / TOKENIZER))
    write_json(
        step.output / SETTINGS, {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    )


def _texts(step: StepRun, params: TokenizerParams) -> Iterator[str]:
    """The documents that models are trained on; what is held out stays out of the vocabulary too."""
    chosen = choose(step.inputs["raw"], params.format, params.files)
    limit = params.limit
    done = 0
    with (
        tempfile.TemporaryDirectory(dir=step.output, prefix=".scratch-") as scratch,
        closing(reader_of(chosen.format)(Reading(chosen.files, params.text, Path(scratch)))) as texts,
    ):
        for document in documents(texts, limit):
            done += document.size
            step.reached(Progress(done, limit or 0, "bytes", "reading"))
            if document.rank >= params.heldout:
                yield document.text


def _copied(step: StepRun) -> None:
    raw = step.inputs["raw"]
    if raw.is_dir():
        copy_tokenizer(raw, step.output)
        return
    if raw.suffix != ".json":
        raise BuildError(
            f"{raw.name} is not a tokenizer", hint=f"name a {TOKENIZER}, or a folder with one, in 'tokenizer'"
        )
    try_tokenizer(raw)
    shutil.copyfile(raw, step.output / TOKENIZER)
    write_json(step.output / SETTINGS, {"tokenizer_class": "PreTrainedTokenizerFast"})


def _with_chat(step: StepRun) -> None:
    """Adds what the AnsNet's chat needs, unless the tokenizer has a template of its own."""
    model, output = step.inputs["model"], step.output
    settings = read_settings(output)
    if settings.get("chat_template") or any(True for name in CHAT_FILES for _ in output.glob(name)):
        return
    path = output / TOKENIZER
    tokenizer = load_tokenizer(path)
    known = tokenizer.get_vocab(with_added_tokens=True)
    missing = [token for token in _wanted(model) if token not in known]
    if missing:
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in missing])
        tokenizer.save(str(path))
    theirs = read_settings(model)
    kept = {key: theirs[key] for key in (*NAMES, "chat_template") if theirs.get(key)}
    names = _names_by_id(model)
    write_json(output / SETTINGS, {**settings, **{key: name for key, name in names.items() if key not in kept}, **kept})
    copy_files(CHAT_FILES, model, output)
    if (model / GENERATION).is_file():
        write_json(output / GENERATION, _in_other_ids(read_object(model / GENERATION), model, tokenizer))


def _in_other_ids(settings: dict[str, Any], model: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """Settings of generation whose token ids are those of another tokenizer; what has none there is left out."""
    old = _read_tokenizer(model)

    def other(index: Any) -> Any:
        if isinstance(index, list):
            return [found for one in index if (found := other(one)) is not None] or None
        content = old.id_to_token(index) if isinstance(index, int) else None
        return None if content is None else tokenizer.token_to_id(content)

    changed = {key: other(value) if key.endswith(("token_id", "tokens")) else value for key, value in settings.items()}
    return {key: value for key, value in changed.items() if value is not None}


def special_ids(folder: Path) -> dict[str, int]:
    """`bos_token_id` and the like of a tokenizer, as config.json has them."""
    tokenizer, settings = _read_tokenizer(folder), read_settings(folder)
    found = {f"{key}_id": tokenizer.token_to_id(_content(settings.get(key))) for key in NAMES if settings.get(key)}
    return {key: index for key, index in found.items() if index is not None}


def _wanted(model: Path) -> list[str]:
    """The AnsNet's special tokens that its chat is made of, in the order of their ids."""
    tokenizer, settings = _read_tokenizer(model), read_settings(model)
    template = (
        (model / CHAT_TEMPLATE).read_text(encoding="utf-8")
        if (model / CHAT_TEMPLATE).is_file()
        else settings.get("chat_template")
    )
    text = template if isinstance(template, str) else json.dumps(template or "")
    named = {_content(settings.get(key)) for key in NAMES} | set(_names_by_id(model).values()) | {SEPARATOR}
    named |= set(beginning_names(model))
    added = json.loads(tokenizer.to_str()).get("added_tokens") or ()
    special = [token["content"] for token in added if token["special"]]
    wanted = [token for token in special if token in named or re.search(re.escape(token), text)]
    # Something must stand between documents.
    return wanted or [SEPARATOR]


def _names_by_id(model: Path) -> dict[str, str]:
    """`eos_token` and the like of a model that tells only their ids, in its config.json."""
    path = model / CONFIG_FILE
    config = object_if_there(path)
    tokenizer = _read_tokenizer(model)
    ids = {key: config.get(f"{key}_id") for key in NAMES}
    found = {key: tokenizer.id_to_token(index) for key, index in ids.items() if isinstance(index, int)}
    return {key: name for key, name in found.items() if name is not None}


def _read_tokenizer(folder: Path) -> Tokenizer:
    return load_tokenizer(folder / TOKENIZER)


def _content(token: Any) -> str:
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else ""


def _on_bytes(tokenizer: Tokenizer) -> bool:
    return tokenizer.pre_tokenizer is not None and "ByteLevel" in tokenizer.to_str()

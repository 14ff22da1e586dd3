"""A Hugging Face model folder as a plan and the source step read it: configuration and headers, no tensor, no torch.

::

    config.json        the architecture's own settings, each checked; ids outside the vocabulary are dropped
    *.safetensors      names, shapes and types, compared with what the configuration demands
    tokenizer files    one must be there; none may need code of its own

A head beside a configuration that calls it tied is compared with the embedding, byte by byte: equal, it is dropped; different,
the configuration is wrong (adapters were merged into a tied model), and the head stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from colbuild.arch import Role, Structure, checked_structure, own_settings, read_structure, tensors
from colbuild.arch.files.json_file import read_object
from colbuild.arch.files.safetensors_headers import (
    INDEX,
    PICKLED,
    Entry,
    check_kind_of,
    check_lengths,
    entries,
    same_content,
)
from colbuild.arch.files.tokenizer_files import check_tokenizer_files
from colbuild.arch.files.vocabulary import ids_inside
from colbuild.errors import BuildError

CONFIG_FILE: Final = "config.json"

_ADAPTER: Final = "adapter_config.json"
_ADAPTER_WEIGHTS: Final = ("adapter_model.safetensors", "adapter_model.bin")
_MERGE: Final = (
    "merge the adapter into its base model first (peft: merge_and_unload, save_pretrained), and name that folder"
)
_ADAPTED: Final = (".lora_A.", ".lora_B.", ".lora_embedding_A", ".base_layer.")
_QUANTISED: Final = (
    ".qweight",
    ".qzeros",
    ".g_idx",
    ".absmax",
    ".quant_map",
    ".weight_scale",
    ".weight_packed",
    ".SCB",
)
_ORIGINAL: Final = "use the model's original weights, or a GGUF file, which is dequantised"
_TIED: Final = "tie_word_embeddings"
SPECIAL_IDS: Final = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True)
class Model:
    """A model without its weights.

    Attributes:
        config: Its settings, as transformers' config.json holds them.
        stored: Name in the model -> where its files hold that tensor; empty for a GGUF file.
        remarks: What was changed or left out, for the user.
    """

    config: dict[str, Any]
    stored: Mapping[str, Entry] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def read_model_folder(folder: Path) -> Model:
    """Reads what a folder says of its model, and compares it with the headers of its weights.

    Raises:
        BuildError: It is no model, needs code of its own, is damaged or incomplete, or is one that cannot be used.
    """
    config = read_folder_config(folder)
    structure = read_structure(config)
    found = _by_name(folder, structure)
    check_tokenizer_files(folder)
    config, found, told = _with_head(config, structure, found)
    for entry in found.values():
        check_kind_of(entry)
    check_lengths(read_structure(config), {name: entry.lengths for name, entry in found.items()})
    return Model(config, found, tuple(told))


def fitted_ids(model: Model) -> Model:
    """The same model without ids that lie outside its vocabulary."""
    config, rows, told = dict(model.config), model.config.get("vocab_size"), []
    for key in SPECIAL_IDS:
        value = config.get(key)
        kept = ids_inside(value, rows) if isinstance(rows, int) else value
        if kept != value:
            told.append(f"{CONFIG_FILE}: {key}: {value} is outside the vocabulary of {rows:,}: it is dropped")
            # Not left out: transformers has ids of its own for what is missing.
            config[key] = kept
    return Model(config, model.stored, (*model.remarks, *told)) if told else model


def has_no_weights(folder: Path) -> bool:
    """Returns whether a folder holds a configuration, and no weights of any form."""
    patterns = ("*.safetensors", "*.gguf", INDEX, *PICKLED)
    return (folder / CONFIG_FILE).is_file() and not any(any(folder.glob(pattern)) for pattern in patterns)


def read_folder_config(folder: Path) -> dict[str, Any]:
    """The settings in a folder's config.json that are its architecture's own.

    Raises:
        BuildError: There is none, or it is one of a model that cannot be used.
    """
    path = folder / CONFIG_FILE
    if (folder / _ADAPTER).is_file() and not any(folder.glob("model*.safetensors")):
        raise BuildError(f"{folder} holds an adapter ({_ADAPTER}), not a whole model", hint=_MERGE)
    if not path.is_file():
        ggufs = sorted(entry.name for entry in folder.glob("*.gguf"))
        hint = f"name one of its GGUF files: {', '.join(ggufs[:3])}" if ggufs else None
        if any((folder / name).is_file() for name in _ADAPTER_WEIGHTS):
            hint = _MERGE
        raise BuildError(f"{folder} is not a model: it has no {CONFIG_FILE}", hint=hint)
    config = read_object(path)
    if config.get("auto_map"):
        raise BuildError(
            f"{path} needs custom code ('auto_map'), which colbuild never runs",
            hint="use a model whose architecture is part of transformers",
        )
    if config.get("quantization_config"):
        raise BuildError(
            f"{path} describes quantised weights ('quantization_config'), which cannot be trained or subset",
            hint=_ORIGINAL,
        )
    # Also what is not passed on is looked at, before it goes.
    checked_structure(config)
    return own_settings(config)


def _by_name(folder: Path, structure: Structure) -> dict[str, Entry]:
    """Where a folder's files hold each tensor, by its name in the model; what is no weight is left out.

    Files of the bare model lack the prefix that every name but the head's has.
    """
    architecture = structure.architecture
    expected = {tensor.name for tensor in tensors(structure)}
    found: dict[str, Entry] = {}
    for entry in _weights(folder):
        name = architecture.model_name(entry.name)
        if entry.name.endswith(architecture.buffers):
            continue
        if name not in expected and architecture.prefix + name in expected:
            name = architecture.prefix + name
        if name in found:
            raise BuildError(f"{folder} stores {name} twice; the intended one is ambiguous")
        found[name] = entry
    return found


def _weights(folder: Path) -> Iterator[Entry]:
    for entry in entries(folder):
        if any(part in entry.name for part in _ADAPTED):
            raise BuildError(f"{folder} holds the weights of an adapter ({entry.name})", hint=_MERGE)
        if entry.name.endswith(_QUANTISED):
            raise BuildError(
                f"{folder} holds quantised weights ({entry.name}), which cannot be trained or subset", hint=_ORIGINAL
            )
        yield entry


def _with_head(
    config: dict[str, Any], structure: Structure, found: dict[str, Entry]
) -> tuple[dict[str, Any], dict[str, Entry], list[str]]:
    """Returns the configuration and the tensors with the model's own head, and remarks on each change."""
    patterns = structure.architecture.tensors
    head, embedding = (
        next(pattern.name for pattern in patterns if pattern.role is role) for role in (Role.HEAD, Role.EMBEDDING)
    )
    if not dict(structure.flags)[_TIED] or head not in found:
        return config, found, []
    if embedding not in found:
        named = {embedding if name == head else name: entry for name, entry in found.items()}
        return config, named, [f"the model stores its tied embedding as {head} only: it is used as {embedding}"]
    if same_content(found[head], found[embedding]):
        return config, {name: entry for name, entry in found.items() if name != head}, []
    told = f"{head} is not the embedding, although {_TIED} is true in {CONFIG_FILE}: the head is kept, and the model untied"
    return {**config, _TIED: False}, found, [told]

"""source: a model of any supported form as a plain Hugging Face folder that transformers loads strictly, without a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from colbuild.arch import Structure, own_settings, parameters, read_structure
from colbuild.arch.files.gguf_header import read_header
from colbuild.arch.files.model_config import model_parts, read_model
from colbuild.arch.files.model_files import LICENCES
from colbuild.arch.files.model_folder import CONFIG_FILE, Model
from colbuild.errors import BuildError
from colbuild.hashing import hash_file
from colbuild.ops.source.added_tokens import fit_tokenizer
from colbuild.ops.source.chat import separate_chat
from colbuild.ops.source.folder_weights import read_folder_weights
from colbuild.ops.source.gguf_tokenizer import convert_gguf_tokenizer
from colbuild.ops.source.gguf_weights import read_gguf_weights
from colbuild.ops.source.settled_beginning import settle_beginning
from colbuild.ops.source.source_tokenizer import copy_tokenizer
from colbuild.ops.step_run import StepRun
from colbuild.plan.steps.source import SourceParams
from colbuild.progress import Progress, Report
from colbuild.weights.files.checkpoint import check_tensors, write_json
from colbuild.weights.files.finite import check_numbers
from colbuild.weights.files.origin import ORIGIN, Origin, card_license, copy_files, origin_json
from colbuild.weights.files.tensor_files import WEIGHTS
from colbuild.weights.files.transformers_config import transformers_config


def run(step: StepRun, params: SourceParams) -> None:
    """Converts a fetched model.

    Inputs: `raw`, a model folder or a GGUF file. Params: `begin` where the spec says what texts begin with. The output holds
    config.json, model.safetensors, the tokenizer, and where it all comes from (`colbuild.weights.files.origin`). A folder's
    tensors are copied as they are, a GGUF file's are dequantised.

    Raises:
        BuildError: It is no model, is damaged, holds NaN or infinite weights, would have to run code of its own, or is of an
            unsupported architecture.
    """
    raw = step.inputs["raw"]
    model = read_model(raw)
    config = model.config
    for told in model.remarks:
        step.remark(told)
    parts = model_parts(raw)
    structure = read_structure(config)
    weights = dict(_reported(_weights(parts, model, structure), parameters(structure), step.reached))
    check_tensors(structure, weights)
    check_numbers(weights, raw)
    dtype = _name_of(weights)
    # transformers asks for this one metadata key. More than one are written in random order: other bytes each time.
    named = structure.architecture.stored_name
    save_file(
        {named(name): tensor for name, tensor in weights.items()}, step.output / WEIGHTS, metadata={"format": "pt"}
    )
    write_json(step.output / CONFIG_FILE, _plain(config, structure, dtype))
    if parts:
        convert_gguf_tokenizer(read_header(parts), step.output)
    else:
        copy_tokenizer(raw, step.output)
        copy_files(LICENCES, raw, step.output)
    fit_tokenizer(step.output, structure.shape.vocab, step.remark)
    begin = settle_beginning(step.output, params.begin)
    separate_chat(step.output)
    write_json(step.output / ORIGIN, origin_json(Origin(hash_file(step.output / WEIGHTS), _license(raw, parts), begin)))


def _license(raw: Path, parts: Sequence[Path]) -> str | None:
    """What a model says its licence is called."""
    if not parts:
        return card_license(raw)
    told = read_header(parts).metadata.get("general.license")
    return told if isinstance(told, str) and told else None


def _weights(parts: Sequence[Path], model: Model, structure: Structure) -> Iterator[tuple[str, torch.Tensor]]:
    if not parts:
        return read_folder_weights(model.stored)
    return read_gguf_weights(read_header(parts), structure, getattr(torch, model.config["dtype"]))


def _reported(
    weights: Iterator[tuple[str, torch.Tensor]], total: int, report: Report
) -> Iterator[tuple[str, torch.Tensor]]:
    done = 0
    for name, tensor in weights:
        yield name, tensor
        done += tensor.numel()
        report(Progress(min(done, total), total, "parameters", "converting"))


def _name_of(weights: dict[str, torch.Tensor]) -> str:
    """The type that most parameters are stored in."""
    counts: dict[str, int] = {}
    for tensor in weights.values():
        name = str(tensor.dtype).removeprefix("torch.")
        counts[name] = counts.get(name, 0) + tensor.numel()
    if not counts:
        raise BuildError("the model holds no weights")
    return max(sorted(counts), key=counts.__getitem__)


def _plain(config: dict[str, Any], structure: Structure, dtype: str) -> dict[str, Any]:
    """The configuration with what transformers needs to load it, in the spelling of its old and its new versions."""
    kept = own_settings(config)
    missing = [key for key in structure.architecture.per_layer if not kept.get(key)]
    if missing:
        # What follows from a layer's place is written down before any layer goes.
        listed = transformers_config(kept).to_dict()
        kept |= {key: listed[key] for key in missing if listed.get(key)}
    return kept | {"architectures": [structure.architecture.model_class], "dtype": dtype, "torch_dtype": dtype}

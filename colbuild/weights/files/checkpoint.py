"""A checkpoint: weights with the record of their origin.

On disk it is a Hugging Face model folder plus `lineage.json` (which AnsNet layer each layer is, and how layers rank) and
`residual.safetensors` (energy of the residual stream, needed when the hidden width shrinks). An anchor of a segment has the
nested student that it was cut from beside it, in `nested/`: the same files, but for the tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as stored_arrays

from colbuild.arch import Structure, norm_sites, read_structure, wide_norms
from colbuild.arch.files.json_file import read_object
from colbuild.arch.files.model_files import CHAT_FILES, LICENCES, SETTINGS, TOKENIZER
from colbuild.arch.files.model_folder import CONFIG_FILE
from colbuild.arch.files.safetensors_headers import check_lengths
from colbuild.errors import BuildError
from colbuild.weights.files.arrays import Array
from colbuild.weights.files.finite import check_numbers
from colbuild.weights.files.origin import ORIGIN, copy_files
from colbuild.weights.files.tensor_files import WEIGHTS, weight_files

if TYPE_CHECKING:
    import torch

Numbers = TypeVar("Numbers", "torch.Tensor", Array)

LINEAGE = "lineage.json"
RESIDUAL = "residual.safetensors"
NESTED = "nested"
GENERATION = "generation_config.json"
COMPANIONS = (
    TOKENIZER,
    SETTINGS,
    "special_tokens_map.json",
    "added_tokens.json",
    *CHAT_FILES,
    GENERATION,
)
"""Files that belong to every model of a family, or patterns of such. In the store they lie once, in the result of the source or
tokenizer step (`colbuild.plan.drawing.parts`)."""


Energies = Any
"""Mean squares [norms, channels]: a tensor in a model in memory, an array of numpy's where weights are left in their files."""


@dataclass(frozen=True)
class Lineage:
    """The origin of an ordered model's layers.

    Attributes:
        layers: For each layer, its index in the AnsNet.
        ranking: Every AnsNet layer, most important first; a model of n layers keeps the first n of them.
        residual: Mean square of each residual channel at each norm's input, [norm sites, hidden], in the order of
            `colbuild.arch.norm_sites`.
        heads: Mean square of each group of heads at the input of each norm over all heads, [wide norms, kv_heads], in the order
            of `colbuild.arch.wide_norms`; None where a model has no such norms.
    """

    layers: tuple[int, ...]
    ranking: tuple[int, ...]
    residual: Energies
    heads: Energies | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A model's configuration, structure and weights; `lineage` once it has been ordered."""

    config: Mapping[str, Any]
    structure: Structure
    tensors: Mapping[str, torch.Tensor]
    lineage: Lineage | None = None

    @property
    def ordered(self) -> Lineage:
        """The lineage of an ordered model.

        Raises:
            BuildError: The model has not been ordered, so its prefixes mean nothing.
        """
        if self.lineage is None:
            raise BuildError("the model has no lineage.json: it was never ordered, so its prefixes are not subsets")
        return self.lineage


def load_checkpoint(folder: Path) -> Checkpoint:
    """Reads a model folder.

    Raises:
        BuildError: A file is missing or damaged, a weight is no number, or the tensors are not the ones that the configuration
            implies.
    """
    import torch

    facts = load_facts(folder)
    stored = {name: tensor for path in weight_files(folder) for name, tensor in _read_tensors(path).items()}
    weights = {facts.structure.architecture.model_name(name): tensor for name, tensor in stored.items()}
    check_tensors(facts.structure, weights)
    lineage = facts.lineage
    if lineage is not None:
        heads = None if lineage.heads is None else torch.tensor(lineage.heads)
        lineage = replace(lineage, residual=torch.tensor(lineage.residual), heads=heads)
    return replace(facts, tensors=weights, lineage=lineage)


def load_facts(folder: Path) -> Checkpoint:
    """The same without any weights, and without torch.

    Raises:
        BuildError: A file is missing or damaged.
    """
    config = read_object(folder / CONFIG_FILE)
    structure = read_structure(config)
    return Checkpoint(config, structure, {}, _read_lineage(folder, structure) if (folder / LINEAGE).exists() else None)


def load_nested(folder: Path) -> Checkpoint | None:
    """The nested student beside a model; None if it has none.

    Raises:
        BuildError: As `load_checkpoint` does.
    """
    return load_checkpoint(folder / NESTED) if (folder / NESTED).exists() else None


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return _read(path, load_file)


def _read(path: Path, load: Callable[[Path], dict[str, Numbers]]) -> dict[str, Numbers]:
    try:
        found = load(path)
    except (OSError, SafetensorError) as error:
        raise BuildError(f"{path} cannot be read: {error}") from None
    check_numbers(found, path)
    return found


def _read_lineage(folder: Path, structure: Structure) -> Lineage:
    facts, tensors_found = read_object(folder / LINEAGE), _read(folder / RESIDUAL, stored_arrays.load_file)
    try:
        layers, ranking = (tuple(facts[key]) for key in ("layers", "ranking"))
        lineage = Lineage(layers, ranking, tensors_found["residual"], tensors_found.get("heads"))
    except (KeyError, TypeError) as error:
        raise BuildError(f"{folder / LINEAGE} is damaged: {error}") from None
    shape, wide = structure.shape, len(wide_norms(structure))
    expected = (len(norm_sites(structure)), shape.hidden), (wide, shape.kv_heads) if wide else None
    found = lineage.residual.shape, None if lineage.heads is None else lineage.heads.shape
    if len(lineage.layers) != shape.layers or found != expected:
        raise BuildError(f"{folder / LINEAGE} belongs to another model than {CONFIG_FILE} beside it")
    return lineage


def check_tensors(structure: Structure, weights: Mapping[str, torch.Tensor]) -> None:
    """Compares weights with the table of their architecture.

    Raises:
        BuildError: Tensors are missing, unknown, or of another shape.
    """
    check_lengths(structure, {name: tuple(tensor.shape) for name, tensor in weights.items()})


def save_checkpoint(checkpoint: Checkpoint, folder: Path, companions: Path) -> None:
    """Writes a model folder that transformers loads strictly; tokenizer and the like are copied from `companions`."""
    _write_model(checkpoint, folder)
    copy_companions(companions, folder)


def save_nested(student: Checkpoint, folder: Path) -> None:
    """Writes the nested student that the model in `folder` was cut from beside it; that one's tokenizer is its own too."""
    (folder / NESTED).mkdir()
    _write_model(student, folder / NESTED)


def _write_model(checkpoint: Checkpoint, folder: Path) -> None:
    from safetensors.torch import save_file

    named = checkpoint.structure.architecture.stored_name
    contiguous = {named(name): tensor.contiguous() for name, tensor in checkpoint.tensors.items()}
    # transformers asks for this one metadata key. More than one are written in random order: other bytes each time.
    save_file(contiguous, folder / WEIGHTS, metadata={"format": "pt"})
    save_facts(checkpoint, folder)


def save_facts(checkpoint: Checkpoint, folder: Path) -> None:
    """Writes all of a model folder but its weights and what `copy_companions` copies."""
    write_json(folder / CONFIG_FILE, dict(checkpoint.config))
    if checkpoint.lineage is not None:
        lineage = checkpoint.lineage
        write_json(folder / LINEAGE, {"layers": list(lineage.layers), "ranking": list(lineage.ranking)})
        energies = {"residual": lineage.residual, **({} if lineage.heads is None else {"heads": lineage.heads})}
        kept = {name: np.ascontiguousarray(energy, dtype=np.float32) for name, energy in energies.items()}
        stored_arrays.save_file(kept, folder / RESIDUAL)


def copy_companions(source: Path, folder: Path) -> None:
    """Copies the tokenizer and the like of a model, and where its family comes from."""
    copy_files((*COMPANIONS, ORIGIN, *LICENCES), source, folder)


def write_json(path: Path, value: object) -> None:
    """Writes JSON as every step does: sorted, indented, with a newline at its end."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")

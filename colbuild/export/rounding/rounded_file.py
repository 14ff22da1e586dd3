"""The file of a model's trained rounded weights: `colbuild.ops.quantise` writes it, an export reads it.

::

    rounded.safetensors   for each matrix its codes and scales, and zeros if it has any; every vector in float32
    rounded.json          bits, block and columns of each matrix

All by the names of the graph. Embedding and head are among them where they have 4 bits: 8 they are rounded to as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file, save_file

from colbuild.export.rounding.block_rounding import Blocks
from colbuild.export.rounding.fitting import Fitted
from colbuild.weights.files.checkpoint import write_json

TENSORS: Final = "rounded.safetensors"
FACTS: Final = "rounded.json"
_VECTOR: Final = "vector:"


def write_rounded(folder: Path, matrices: Mapping[str, Blocks], vectors: Mapping[str, torch.Tensor]) -> None:
    """Writes the two files into a folder."""
    tensors = {_VECTOR + name: vector.float().contiguous() for name, vector in vectors.items()}
    facts = {}
    for name, blocks in matrices.items():
        facts[name] = {"bits": blocks.bits, "block": blocks.block, "columns": blocks.columns}
        tensors[f"codes:{name}"], tensors[f"scales:{name}"] = blocks.codes, blocks.scales
        if blocks.zeros is not None:
            tensors[f"zeros:{name}"] = blocks.zeros
    save_file({name: tensor.contiguous() for name, tensor in sorted(tensors.items())}, folder / TENSORS)
    write_json(folder / FACTS, facts)


def read_rounded(folder: Path, weights: Mapping[str, torch.Tensor]) -> tuple[Fitted, dict[str, torch.Tensor]]:
    """Reads them.

    Args:
        folder: Where they are.
        weights: The model's own, by the names of the graph; its matrices that are not in the files keep 8 bits.

    Returns:
        (how matrices are stored, vector by name).
    """
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    tensors = load_file(folder / TENSORS)
    matrices = {
        name: Blocks(
            **about,
            codes=tensors[f"codes:{name}"],
            scales=tensors[f"scales:{name}"],
            zeros=tensors.get(f"zeros:{name}"),
        )
        for name, about in facts.items()
    }
    vectors = {name.removeprefix(_VECTOR): one for name, one in tensors.items() if name.startswith(_VECTOR)}
    whole = {name for name, tensor in weights.items() if tensor.ndim == 2 and name not in matrices}
    return Fitted(frozenset(whole), matrices), vectors

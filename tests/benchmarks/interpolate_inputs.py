"""Random llama models for the interpolation benchmark: pairs of anchors with a lineage, as sharded safetensors.

`python -m tests.benchmarks.interpolate_inputs KIND FOLDER` makes one model, in a process of its own, so that the one that
measures stays small: what a child holds at most is counted from what its parent held.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
_PIECE: Final = 2**22


@dataclass(frozen=True)
class Size:
    """Models of one size.

    Attributes:
        name: What it is called in the table.
        dtype: "bfloat16" or "float32".
        config: The anchors' configuration.
        narrow: What a smaller anchor has less of.
        between: The same for a DesNet between that one and the larger anchor.
        shard: Bytes of a weight file at most.
    """

    name: str
    dtype: str
    config: Mapping[str, Any]
    narrow: Mapping[str, int]
    between: Mapping[str, int]
    shard: int


_LLAMA: Final = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 49152,
    "tie_word_embeddings": True,
    "max_position_embeddings": 2048,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

HALF: Final = Size(
    "0.5 GB fp32",
    "float32",
    # SmolLM2-135M's.
    {
        **_LLAMA,
        "dtype": "float32",
        "num_hidden_layers": 30,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
    {"num_hidden_layers": 24, "intermediate_size": 1024, "num_attention_heads": 6, "num_key_value_heads": 2},
    {"num_hidden_layers": 27, "intermediate_size": 1280},
    200 * 10**6,
)
THREE: Final = Size(
    "3 GB bf16",
    "bfloat16",
    # SmolLM2-1.7B's, with 21 of its 24 layers.
    {
        **_LLAMA,
        "dtype": "bfloat16",
        "num_hidden_layers": 21,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
    },
    {"num_hidden_layers": 18, "intermediate_size": 6144, "num_attention_heads": 24, "num_key_value_heads": 24},
    {"num_hidden_layers": 20, "intermediate_size": 7168, "num_attention_heads": 28, "num_key_value_heads": 28},
    10**9,
)
SIZES: Final = {size.name: size for size in (HALF, THREE)}


@dataclass(frozen=True)
class Anchors:
    """Model folders of one size: two of the same shape, and a smaller one nested in that shape."""

    one: Path
    other: Path
    narrow: Path

    @property
    def files(self) -> list[Path]:
        """All of their weight files."""
        return [file for folder in (self.one, self.other, self.narrow) for file in sorted(folder.glob("*.safetensors"))]


def anchors_in(folder: Path, size: Size) -> Anchors:
    """The anchors of a size in a folder, made where they are missing."""
    home = folder / size.name.replace(" ", "-")
    found = Anchors(home / "one", home / "other", home / "narrow")
    for path in (found.one, found.other, found.narrow):
        if not path.exists():
            # Renamed when whole: the next run does not take a part for it.
            draft = path.with_name(f"{path.name}.draft{os.getpid()}")
            draft.mkdir(parents=True)
            run = [sys.executable, "-m", "tests.benchmarks.interpolate_inputs", size.name, path.name, str(draft)]
            subprocess.run(run, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
            draft.rename(path)
    return found


def _make(size: Size, which: str, folder: Path) -> None:
    """Writes one model of random weights, and a lineage in which the last layers matter least."""
    import torch

    from colbuild.arch import NORMS, norm_sites, read_structure, tensors
    from colbuild.weights.files.arrays import as_array, type_of
    from colbuild.weights.files.checkpoint import Checkpoint, Lineage, save_facts
    from colbuild.weights.files.tensor_writer import Planned, TensorWriter
    from colbuild.weights.mixing.streaming import as_bytes

    config = {**size.config, "head_dim": size.config["hidden_size"] // size.config["num_attention_heads"]}
    ranking = tuple(range(config["num_hidden_layers"]))
    structure = read_structure(config | (size.narrow if which == "narrow" else {}))
    dtype, generator = getattr(torch, size.dtype), torch.Generator().manual_seed(sum(which.encode()))
    found = {tensor.name: tensor for tensor in tensors(structure)}
    planned = [Planned(tensor.name, type_of(torch.empty(0, dtype=dtype)), tensor.lengths) for tensor in found.values()]
    with TensorWriter(folder, planned, size.shard) as writer:
        for tensor in planned:
            count, around = tensor.bytes // dtype.itemsize, 1.0 if found[tensor.name].role in NORMS else 0.0
            for start in range(0, count, _PIECE):
                noise = torch.empty(min(_PIECE, count - start)).normal_(around, 0.02, generator=generator)
                writer.write(tensor.name, start * dtype.itemsize, as_bytes(as_array(noise.to(dtype))))
    residual = torch.rand(len(norm_sites(structure)), structure.shape.hidden, generator=generator) + 0.5
    lineage = Lineage(ranking[: structure.shape.layers], ranking, residual)
    written = config | (size.narrow if which == "narrow" else {})
    save_facts(Checkpoint(written, structure, {}, lineage), folder)


if __name__ == "__main__":
    _make(SIZES[sys.argv[1]], sys.argv[2], Path(sys.argv[3]))

"""What aligning undoes: an anchor of SmolLM2-135M with a head of its own, turned and put in another order at random."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from colbuild.arch import read_structure
from tests.benchmarks.init_models import Models
from tests.benchmarks.init_tables import Made, Tables

if TYPE_CHECKING:
    from colbuild.weights.files.checkpoint import Checkpoint

BETWEEN = "halfway between an anchor and itself, scrambled"
ENDS = "the anchor"
ALIGNED = "align: procrustes"
ALONE = "not aligned"
_SHAPE = {"layers": 24, "ffn": 1024}
_TOKENS = 1_024


def scrambled(tables: Tables, models: Models) -> Iterator[Made]:
    """The loss of an anchor, and halfway from it to a copy in other coordinates, aligned or not."""
    import torch

    from colbuild.ops.shared.running_models import calibration, model_of
    from colbuild.train.loop.devices import forward_type
    from colbuild.weights.align.alignment import align
    from colbuild.weights.files.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
    from colbuild.weights.prefix.subset import subset
    from tests.helpers.scramble import turned

    folder = models.ansnet("llama")
    tied = load_checkpoint(folder)
    weights = {name: tensor.float() for name, tensor in tied.tensors.items()}
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    config = {**tied.config, "tie_word_embeddings": False, "dtype": "float32"}
    whole = Checkpoint(config, read_structure(config), weights, tied.lineage)
    anchor = subset(whole, replace(whole.structure.shape, **_SHAPE))

    def halfway(other: Callable[[], Checkpoint]) -> Checkpoint:
        with torch.no_grad():
            theirs = other().tensors
            mixed = {name: (tensor + theirs[name]) / 2 for name, tensor in anchor.tensors.items()}
        return replace(anchor, tensors=mixed)

    def aligned() -> Checkpoint:
        moved = turned(anchor, 3)
        ours, theirs = (model_of(one, forward_type()) for one in (moved, whole))
        windows = calibration(models.corpus("llama"), "train", _TOKENS, theirs)[:, :-1]
        return align(moved, ours, whole, theirs, windows, "procrustes")

    ways: dict[tuple[str, str], Callable[[], Checkpoint]] = {
        (ENDS, "–"): lambda: anchor,
        (BETWEEN, ALONE): lambda: halfway(lambda: turned(anchor, 3)),
        (BETWEEN, ALIGNED): lambda: halfway(aligned),
    }
    for (what, by), make in ways.items():

        def write(to: Path, make: Callable[[], Checkpoint] = make) -> None:
            save_checkpoint(make(), to, folder)

        yield Made("llama", what, by, (tables.score("llama", f"scrambled {what} {by}", write),))

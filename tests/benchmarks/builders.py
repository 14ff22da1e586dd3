"""What can build a decoder's graph with a cache, for each architecture: how long it takes, and what the graph computes.

`python -m tests.benchmarks.builders [--quick] [--json FILE]`. Small random models (4 layers, hidden 128) in float32.
"mobius" is what colbuild uses, with onnxruntime's operators, with ONNX's alone, and in ONNX's older operator set 18;
"torch.onnx" traces the PyTorch model (dynamo); "genai" is onnxruntime-genai's builder. Differences are the largest of
a logit from PyTorch's: for a text at once, for a batch padded on the left, and token by token through the cache.
`--quick` looks at llama and gpt2.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel

from colbuild.arch import ARCHITECTURES, read_structure
from colbuild.export.graph.decoder import decoder_graph
from colbuild.export.graph.graph_nodes import fill_float
from colbuild.export.graph.onnx_file import write_onnx
from colbuild.ops.shared.running_models import model_of
from colbuild.weights.files.checkpoint import load_checkpoint
from tests.benchmarks.harness import Bar, Result, at_most, run_benchmark
from tests.export.helpers import saved
from tests.helpers.tiny import make_tiny_tokenizer

COMMAND = "python -m tests.benchmarks.builders"
POSITIONS: Final = 128
VOCABULARY: Final = 512
_COMMON: Final = {
    "num_hidden_layers": 4,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 16,
    "max_position_embeddings": POSITIONS,
    "vocab_size": VOCABULARY,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
_FULL: Final = {"layer_types": ["full_attention"] * 4}
CONFIGS: Final[Mapping[str, dict[str, Any]]] = {
    "llama": _COMMON,
    "mistral": {**_COMMON, "sliding_window": None},
    "qwen2": {**_COMMON, **_FULL},
    "qwen3": {**_COMMON, **_FULL},
    "gemma3_text": {
        **_COMMON,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "sliding_window": 16,
        "query_pre_attn_scalar": 16,
    },
    "gpt2": {
        "n_layer": 4,
        "n_embd": 128,
        "n_head": 8,
        "n_inner": 256,
        "n_positions": POSITIONS,
        "vocab_size": VOCABULARY,
        "bos_token_id": 0,
        "eos_token_id": 0,
    },
    "gpt_neox": {key: value for key, value in _COMMON.items() if key not in ("num_key_value_heads", "head_dim")},
}

Build = Callable[[Path, Path], Path]
"""(model folder, empty folder) -> the graph's file."""


def measure(quick: bool) -> Result:
    """Has every builder build every architecture."""
    rows = []
    for name in ("llama", "gpt2") if quick else ARCHITECTURES:
        with TemporaryDirectory() as temporary:
            model, _ = saved({"model_type": name, **CONFIGS[name]}, Path(temporary) / "model")
            make_tiny_tokenizer(model)
            for builder, build in BUILDERS.items():
                folder = Path(temporary) / builder.replace(" ", "-").replace(",", "")
                folder.mkdir()
                rows.append({"architecture": name, "builder": builder, **_row(model, folder, build)})
    return Result(tuple(rows), tuple(_bars(rows)))


def _bars(rows: list[dict[str, Any]]) -> list[Bar]:
    ours = [row for row in rows if row["builder"].startswith("mobius")]
    kinds = ("text", "padded", "token by token")
    worst = max(float("inf") if row[kind] is None else row[kind] for row in ours for kind in kinds)
    return [at_most("mobius, every architecture and form: largest difference of a logit from PyTorch's", worst, 1e-3)]


def _row(model: Path, folder: Path, build: Build) -> dict[str, Any]:
    started = time.perf_counter()
    unknown = dict.fromkeys(("seconds", "nodes", "domains", "text", "padded", "token by token"))
    try:
        file = build(model, folder)
    except Exception as error:  # noqa: BLE001  (whatever another library raises is its answer)
        return {**unknown, "remark": _short(error)}
    seconds = time.perf_counter() - started
    graph = onnx.load(file, load_external_data=False)
    domains = sorted({node.domain or "ONNX" for node in graph.graph.node})
    opset = next(one.version for one in graph.opset_import if one.domain in ("", "ai.onnx"))
    found = {"seconds": seconds, "nodes": len(graph.graph.node), "domains": f"{', '.join(domains)}; opset {opset}"}
    differences, remarks = _differences(model, file)
    return {**unknown, **found, **differences, "remark": "; ".join(remarks)}


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:100]


# -- builders ---------------------------------------------------------------------------------------------------------


def _mobius(operators: str, opset: int | None) -> Build:
    def build(model: Path, folder: Path) -> Path:
        checkpoint = load_checkpoint(model)
        decoder = decoder_graph(checkpoint.config, checkpoint.tensors, POSITIONS, operators, opset=opset)
        fill_float(decoder.model, decoder.weights)
        write_onnx(decoder.model, folder / "model.onnx")
        return folder / "model.onnx"

    return build


class _Flat(nn.Module):
    """A model whose cache goes in and comes out as tensors."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, past: list[torch.Tensor]
    ) -> tuple[torch.Tensor, ...]:
        cache = DynamicCache(list(zip(past[::2], past[1::2], strict=True)))
        answer = self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        layers = answer.past_key_values.layers
        return (answer.logits, *(part for layer in layers for part in (layer.keys, layer.values)))


def _traced(model: Path, folder: Path) -> Path:
    loaded = AutoModelForCausalLM.from_pretrained(model, attn_implementation="sdpa").eval()
    config = loaded.config
    kv_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    layers = config.num_hidden_layers
    ids, seen = torch.arange(6).reshape(2, 3), 5
    past = [torch.zeros(2, kv_heads, seen, head_dim) for _ in range(2 * layers)]
    inputs = (ids, torch.ones(2, 3 + seen, dtype=torch.long), torch.arange(seen, seen + 3).expand(2, 3), past)
    batch, new, old = (torch.export.Dim(name) for name in ("batch", "new", "past"))
    both = torch.export.Dim("total")
    shapes = ({0: batch, 1: new}, {0: batch, 1: both}, {0: batch, 1: new}, [{0: batch, 2: old}] * (2 * layers))
    names = [f"{{}}.{layer}.{part}" for layer in range(layers) for part in ("key", "value")]
    torch.onnx.export(
        _Flat(loaded),
        inputs,
        folder / "model.onnx",
        input_names=[
            "input_ids",
            "attention_mask",
            "position_ids",
            *(name.format("past_key_values") for name in names),
        ],
        output_names=["logits", *(name.format("present") for name in names)],
        dynamic_shapes=shapes,
        opset_version=23,
        dynamo=True,
        verbose=False,
    )
    return folder / "model.onnx"


def genai_build(model: Path, folder: Path, precision: str = "fp32", more: Sequence[str] = ()) -> Path:
    """The graph of onnxruntime-genai's own builder, with our blocks where there are any; raises what it says."""
    options = ["-m", str(model), "-i", str(model), "-o", str(folder), "-p", precision, "-e", "cpu", "-c", str(folder)]
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", *options]
    command += ["--extra_options", "block_size=32", *more] if precision != "fp32" else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return folder / "model.onnx"


BUILDERS: Final[Mapping[str, Build]] = {
    "mobius, contrib": _mobius("contrib", None),
    "mobius, standard": _mobius("standard", None),
    "mobius, opset 18": _mobius("standard", 18),
    "torch.onnx": _traced,
    "genai": genai_build,
}


# -- what a graph computes --------------------------------------------------------------------------------------------


def _differences(model: Path, file: Path) -> tuple[dict[str, float | None], list[str]]:
    reference = model_of(load_checkpoint(model), torch.float32)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, VOCABULARY, (2, 24), generator=generator).numpy()
    mask = np.ones_like(ids)
    padded = mask.copy()
    padded[0, :7] = 0
    found: dict[str, float | None] = {}
    remarks = []
    cases = {"text": (mask, [24]), "padded": (padded, [24]), "token by token": (mask, [16, *[1] * 8])}
    for name, (each, pieces) in cases.items():
        try:
            found[name] = _difference(reference, session, ids, each, pieces)
        except Exception as error:  # noqa: BLE001
            found[name] = None
            remarks.append(f"{name}: {_short(error)}")
    return found, remarks


def _difference(
    reference: PreTrainedModel, session: onnxruntime.InferenceSession, ids: Any, mask: Any, pieces: list[int]
) -> float:
    """The largest difference of a logit that is meant."""
    positions = np.clip(mask.cumsum(axis=1) - 1, 0, None)
    with torch.no_grad():
        expected = reference(
            input_ids=torch.from_numpy(ids),
            attention_mask=torch.from_numpy(mask),
            position_ids=torch.from_numpy(positions),
        ).logits.numpy()
    known = [value.name for value in session.get_inputs()]
    shape = read_structure(reference.config.to_dict()).shape
    nothing = np.zeros((len(ids), shape.kv_heads, 0, shape.head_dim), np.float32)
    past = {name: nothing for name in known if name.startswith("past_key_values")}
    outputs = [value.name for value in session.get_outputs()]
    logits, start = [], 0
    for piece in pieces:
        end = start + piece
        feeds = {
            "input_ids": ids[:, start:end],
            "attention_mask": mask[:, :end],
            "position_ids": positions[:, start:end],
        }
        answer = dict(
            zip(outputs, session.run(None, {key: feeds[key] for key in feeds if key in known} | past), strict=True)
        )
        logits.append(answer["logits"])
        past = {name: answer[name.replace("past_key_values", "present")] for name in past}
        start = end
    meant = mask.astype(bool)
    return float(np.abs(np.concatenate(logits, axis=1) - expected)[meant].max())


if __name__ == "__main__":
    run_benchmark(
        "builders", COMMAND, measure, ("mobius-onnx", "onnx", "onnxruntime", "onnxruntime-genai", "onnxscript", "torch")
    )

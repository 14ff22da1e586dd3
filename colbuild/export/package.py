"""From a checkpoint and a device profile to a package: graph, tokenizer, settings and manifest in one folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import onnx_ir
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from colbuild import __version__
from colbuild.arch import Structure, parameters, read_structure
from colbuild.errors import BuildError
from colbuild.export.graph import check_names, decoder_graph, fill_float
from colbuild.export.manifest import MANIFEST, SCHEMA_VERSION, Graph, Manifest, ModelFacts, PackagedFile, Parity, Sample
from colbuild.export.onnx_file import write_onnx
from colbuild.export.parity import Bound, check_bound, compare, parity_prompts, reference_logits, sample
from colbuild.export.quantise import fill_int8
from colbuild.export.session import open_decoder
from colbuild.progress import Progress, Report
from colbuild.spec.models import Device
from colbuild.store.hashing import hash_file, scan_tree
from colbuild.units import format_bytes
from colbuild.weights.checkpoint import COMPANIONS, CONFIG, load_checkpoint, write_json
from colbuild.weights.tensor_files import WEIGHTS

GENERATION: Final = "generation_config.json"


@dataclass(frozen=True)
class Precision:
    """How weights are stored: one line of the table below.

    Attributes:
        file: The graph's path in the package; names that Transformers.js looks for.
        fill: Writes a checkpoint's weights into an empty graph; the last argument is the profile's block.
        bound: What the package must keep of the PyTorch model.
    """

    file: str
    fill: Callable[[onnx_ir.Model, Mapping[str, torch.Tensor], int], None]
    bound: Bound


PRECISIONS: Final[Mapping[str, Precision]] = {
    "fp32": Precision(
        "onnx/model.onnx",
        fill_float,
        Bound(lambda parity: parity.max_difference, 1e-3, "the largest difference of a logit"),
    ),
    # Sound packages are at 0.03 to 0.06 whether the model is trained or random; top-1 agreement and KL are not
    # comparable between the two, because a random model's tokens are all about equally likely.
    "int8": Precision(
        "onnx/model_quantized.onnx",
        fill_int8,
        Bound(lambda parity: parity.relative_error, 0.2, "the relative error of the logits"),
    ),
}


@dataclass(frozen=True)
class Exported:
    """What is packaged.

    Attributes:
        folder: A Hugging Face folder: configuration, weights, and the files that go along.
        config: Its config.json.
        structure: What that describes.
        reference: Makes the PyTorch model in float32; called once, when nothing else is held in memory.
    """

    folder: Path
    config: Mapping[str, Any]
    structure: Structure
    reference: Callable[[], PreTrainedModel]


def exported_model(folder: Path, reference: Callable[[], PreTrainedModel]) -> Exported:
    """The model in a folder. Raises BuildError if its architecture is not supported."""
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return Exported(folder, config, read_structure(config), reference)


def build_package(
    exported: Exported, profile: Device, versions: Mapping[str, str], output: Path, report: Report
) -> Manifest:
    """Fills an empty folder with a package.

    Raises:
        BuildError: The context is longer than the model's positions, the graph cannot be built or does not compute what
            the model does, or a limit of the profile is broken.
    """
    check_context(exported.config, profile.context)
    graph = _write_graph(exported, profile, output, report)
    _write_companions(exported, profile, output)
    parity, sampled = _compare(exported, profile, graph, output, report)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        colbuild=__version__,
        model=_facts(exported),
        profile=profile,
        graph=graph,
        files=tuple(PackagedFile(**asdict(entry)) for entry in scan_tree(output)),
        versions=dict(versions),
        parity=parity,
        sample=sampled,
    )
    write_json(output / MANIFEST, manifest.model_dump(mode="json"))
    check_limit(sum(file.size for file in manifest.files) + (output / MANIFEST).stat().st_size, profile)
    return manifest


def check_context(config: Mapping[str, Any], context: int) -> None:
    """Raises BuildError if a context is longer than the model has positions."""
    positions = int(config.get("max_position_embeddings", context))
    if context > positions:
        raise BuildError(
            f"the profile's context of {context:,} tokens is longer than the model's {positions:,} positions",
            hint=f"the largest possible is context: {positions}",
        )


def check_limit(size: int, profile: Device) -> None:
    """Raises BuildError if a package is larger than its profile's `max_package`."""
    most = profile.limits.max_package
    if most is not None and size > most:
        smaller = "a smaller DesNet" if profile.precision == "int8" else "precision: int8, or a smaller DesNet"
        raise BuildError(
            f"the package has {format_bytes(size)} ({size:,} bytes), {format_bytes(size - most)} more than its limit "
            f"max_package: {format_bytes(most)}",
            hint=f"what would make it smaller: {smaller}",
        )


def _write_graph(exported: Exported, profile: Device, output: Path, report: Report) -> Graph:
    precision, shape = PRECISIONS[profile.precision], exported.structure.shape
    report(Progress(0, 0, "layers", "building the graph"))
    # Loaded here and nowhere else, so that the weights are let go before the package is compared with PyTorch.
    weights = load_checkpoint(exported.folder).tensors
    model = decoder_graph(exported.config, profile.context)
    check_names(model, weights)
    report(Progress(0, 0, "layers", "writing weights" if profile.precision == "fp32" else "quantising"))
    precision.fill(model, weights, profile.block)
    graph = Graph(
        file=precision.file,
        opsets=dict(sorted(model.graph.opset_imports.items())),
        inputs=("input_ids", "attention_mask", "position_ids"),
        outputs=("logits",),
        past=("past_key_values.{layer}.key", "past_key_values.{layer}.value"),
        present=("present.{layer}.key", "present.{layer}.value"),
        layers=shape.layers,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
    )
    path = output / precision.file
    path.parent.mkdir(parents=True)
    write_onnx(model, path)
    return graph


def _compare(exported: Exported, profile: Device, graph: Graph, output: Path, report: Report) -> tuple[Parity, Sample]:
    """Compares the package written so far with PyTorch, and lets it speak for the manifest."""
    vocab, tokenizer = exported.structure.shape.vocab, _tokenizer(output)
    prompts = parity_prompts(vocab, profile.context, tokenizer)

    def told(done: int) -> None:
        report(Progress(done, len(prompts), "prompts", "comparing"))

    told(0)
    references = reference_logits(exported.reference(), prompts)
    # One thread, so that sums come out in the same order on every run.
    decoder = open_decoder(output / graph.file, graph, threads=1)
    parity = compare(decoder, prompts, references, told)
    check_bound(parity, PRECISIONS[profile.precision].bound)
    return parity, sample(decoder, vocab, profile.context, tokenizer)


def _write_companions(exported: Exported, profile: Device, output: Path) -> None:
    """Everything beside the graph: what tokenizers, transformers and Transformers.js look for."""
    for name in COMPANIONS:
        if (exported.folder / name).exists():
            shutil.copyfile(exported.folder / name, output / name)
    config = dict(exported.config)
    write_json(output / CONFIG, {**config, "dtype": "float32", "max_position_embeddings": profile.context})
    if not (output / GENERATION).exists():
        keys = ("bos_token_id", "eos_token_id", "pad_token_id")
        write_json(output / GENERATION, {key: config[key] for key in keys if config.get(key) is not None})


def _tokenizer(folder: Path) -> Tokenizer | None:
    path = folder / "tokenizer.json"
    return Tokenizer.from_file(str(path)) if path.exists() else None


def _facts(exported: Exported) -> ModelFacts:
    structure = exported.structure
    return ModelFacts(
        architecture=structure.architecture.name,
        parameters=parameters(structure),
        shape=asdict(structure.shape),
        tied=bool(exported.config.get("tie_word_embeddings", False)),
        sha256=hash_file(exported.folder / WEIGHTS),
    )

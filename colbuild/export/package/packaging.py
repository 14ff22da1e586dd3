"""Makes a package from a checkpoint and a device profile: graph, tokenizer, settings and manifest."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from colbuild import __version__
from colbuild.arch import Structure, parameters, positions_key, read_structure
from colbuild.arch.files.model_files import TOKENIZER
from colbuild.arch.files.model_folder import CONFIG_FILE
from colbuild.arch.files.tokenizer_file import load_tokenizer
from colbuild.errors import BuildError
from colbuild.export.graph.decoder import decoder_graph
from colbuild.export.graph.graph_nodes import fill_float
from colbuild.export.graph.grouped_attention import is_grouped
from colbuild.export.graph.onnx_file import write_onnx
from colbuild.export.manifest import (
    INPUTS,
    SCHEMA_VERSION,
    Graph,
    Manifest,
    ModelFacts,
    PackagedFile,
    Parity,
    Quality,
    Sample,
)
from colbuild.export.package.companions import CARD, model_card, tell_data_files, write_companions, write_genai_config
from colbuild.export.package.device_limits import broken_limits
from colbuild.export.package.parity import check_bound, compare, parity_prompts, reference_logits, sample
from colbuild.export.package.quality import HeldOutText, measure_quality, model_answers
from colbuild.export.rounding.block_rounding import Blocks, round_blocks
from colbuild.export.rounding.fitting import fit, room_for_matrices
from colbuild.export.rounding.matrix_statistics import Seen, gather
from colbuild.export.rounding.quantised_graph import fill_quantised
from colbuild.export.rounding.rounded_file import read_rounded
from colbuild.export.runtime.chat_template import read_template
from colbuild.export.runtime.session import open_decoder
from colbuild.hashing import hash_file, scan_tree
from colbuild.plan.steps.export import MANIFEST
from colbuild.process_memory import give_back_pages
from colbuild.progress import Progress, Report
from colbuild.spec.model.device import Device
from colbuild.train.loop.devices import forward_type
from colbuild.weights.files.checkpoint import load_checkpoint, write_json
from colbuild.weights.files.origin import read_origin
from colbuild.weights.files.tensor_files import WEIGHTS


@dataclass(frozen=True)
class Texts:
    """The calibration and evaluation windows [windows, length + 1] of token ids of a package; None without."""

    calibration: torch.Tensor | None = None
    heldout: HeldOutText | None = None


@dataclass(frozen=True)
class Exported:
    """The model to package.

    Attributes:
        folder: A Hugging Face folder: configuration, weights, and the files that go along.
        config: Its config.json.
        structure: What that describes.
        reference: Makes the PyTorch model in a type; called when nothing else is held in memory.
    """

    folder: Path
    config: Mapping[str, Any]
    structure: Structure
    reference: Callable[[torch.dtype], PreTrainedModel]


def exported_model(folder: Path, reference: Callable[[torch.dtype], PreTrainedModel]) -> Exported:
    """The model in a folder. Raises BuildError if its architecture is not supported."""
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    return Exported(folder, config, read_structure(config), reference)


def build_package(
    exported: Exported,
    profile: Device,
    versions: Mapping[str, str],
    output: Path,
    report: Report,
    texts: Texts = Texts(),
    trained: Path | None = None,
) -> Manifest:
    """Fills an empty folder with a package.

    Args:
        exported: The model.
        profile: The device.
        versions: Of what takes part; the manifest repeats them.
        output: The folder.
        report: Told how far it is.
        texts: What it is fitted to and measured on.
        trained: A folder of the model's weights as they were trained to be rounded; by default they are rounded here.

    Raises:
        BuildError: The context is longer than the model's positions, the graph cannot be built or does not compute what
            the model does, or a limit of the profile is broken.
    """
    check_context(exported.config, profile.context)
    statistics: dict[str, Seen] = {}
    if profile.fitted and trained is None and texts.calibration is not None:
        statistics = gather(exported.reference(forward_type()), exported.structure, texts.calibration, report)
        give_back_pages()
    write_companions(exported.folder, exported.config, profile, output)
    graph, eight = _write_graph(exported, profile, statistics, trained, output, report)
    if profile.static is None:
        # It feeds as many tokens as there are.
        write_genai_config(output, graph, exported.structure, profile)
    parity, quality, sampled = _compare(exported, profile, graph, texts, output, report)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        colbuild=__version__,
        model=_facts(exported),
        profile=profile,
        graph=graph,
        files=(),
        versions=dict(versions),
        parity=parity,
        quality=quality,
        eight_bits=eight,
        broken=(),
        sample=sampled,
    )
    (output / CARD).write_text(model_card(manifest, exported.structure), encoding="utf-8")
    listed = tuple(PackagedFile(**asdict(entry)) for entry in scan_tree(output))
    whole = manifest.model_copy(update={"files": listed})
    write_json(output / MANIFEST, whole.model_dump(mode="json"))
    broken = broken_limits(whole, output)
    if broken:
        whole = whole.model_copy(update={"broken": broken})
        write_json(output / MANIFEST, whole.model_dump(mode="json"))
    return whole


def check_context(config: Mapping[str, Any], context: int) -> None:
    """Raises BuildError if a context is longer than the model has positions."""
    positions = int(config.get(positions_key(config), context))
    if context > positions:
        raise BuildError(
            f"the profile's context of {context:,} tokens is longer than the model's {positions:,} positions",
            hint=f"the largest possible is context: {positions}",
        )


def _write_graph(
    exported: Exported,
    profile: Device,
    statistics: dict[str, Seen],
    trained: Path | None,
    output: Path,
    report: Report,
) -> tuple[Graph, tuple[str, ...]]:
    """Writes the graph; returns how to call it, and what keeps 8 bits where others have 4."""
    shape, half = exported.structure.shape, profile.stored.float_type == "float16"
    sequence = None if profile.static is None else profile.static.sequence
    report(Progress(0, 0, "layers", "building the graph"))
    # Loaded here and nowhere else, so that the weights are let go before the package is compared with PyTorch.
    weights = load_checkpoint(exported.folder).tensors
    empty = decoder_graph(
        exported.config,
        weights,
        profile.context,
        profile.operators,
        half=half,
        sequence=sequence,
        opset=profile.opset,
    )
    model = empty.model
    eight: tuple[str, ...] = ()
    if profile.stored.quantised:
        fitted = None
        if trained is not None:
            fitted, vectors = read_rounded(trained, empty.weights)
            empty = replace(empty, weights={**empty.weights, **vectors})
        elif profile.fitted:
            fitted = fit(empty, profile, statistics, room_for_matrices(profile, empty, output), report)
        if fitted is not None:
            eight = tuple(sorted(fitted.eight))

        def rounded(name: str, weight: torch.Tensor) -> Blocks:
            if fitted is not None and name in fitted.rounded:
                return fitted.rounded.pop(name)
            return round_blocks(weight, 8 if profile.fitted else profile.stored.bits, profile.table_block)

        give_back_pages()
        report(Progress(0, 0, "layers", "quantising"))
        fill_quantised(model, empty.weights, rounded, profile.operators)
    else:
        report(Progress(0, 0, "layers", "writing weights"))
        fill_float(model, empty.weights)
    file = profile.stored.graph
    graph = Graph(
        file=file,
        opsets=dict(sorted(model.graph.opset_imports.items())),
        inputs=tuple(name for name in INPUTS if any(value.name == name for value in model.graph.inputs)),
        outputs=("logits",),
        past=("past_key_values.{layer}.key", "past_key_values.{layer}.value"),
        present=("present.{layer}.key", "present.{layer}.value"),
        layers=shape.layers,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        cache=profile.stored.float_type,
        sequence=sequence,
        cache_length=None if sequence is None else profile.context - 1,
        in_place=is_grouped(model.graph),
    )
    path = output / file
    path.parent.mkdir(parents=True)
    if parts := write_onnx(model, path):
        tell_data_files(output, path.name, parts)
    return graph, eight


def _compare(
    exported: Exported, profile: Device, graph: Graph, texts: Texts, output: Path, report: Report
) -> tuple[Parity, Quality | None, Sample]:
    """Compares the package written so far with PyTorch, and lets it speak for the manifest."""
    vocab, tokenizer = exported.structure.shape.vocab, _tokenizer(output)
    prompts = parity_prompts(vocab, profile.context, tokenizer)

    def told(done: int) -> None:
        report(Progress(done, len(prompts), "prompts", "comparing"))

    told(0)
    give_back_pages()
    model = exported.reference(torch.float32)
    references = reference_logits(model, prompts)
    give_back_pages()
    answers = None if texts.heldout is None else model_answers(model, texts.heldout, report)
    del model
    give_back_pages()
    # One thread, so that sums come out in the same order on every run.
    decoder = open_decoder(output / graph.file, graph, threads=1, pooled=False)
    parity = compare(decoder, prompts, references, told)
    check_bound(parity, profile.stored.bound)
    quality = None
    if answers is not None and texts.heldout is not None:
        quality = measure_quality(decoder, texts.heldout, answers, report)
    return parity, quality, sample(decoder, vocab, profile.context, tokenizer)


def _tokenizer(folder: Path) -> Tokenizer | None:
    path = folder / TOKENIZER
    return load_tokenizer(path) if path.exists() else None


def _facts(exported: Exported) -> ModelFacts:
    structure, origin = exported.structure, read_origin(exported.folder)
    return ModelFacts(
        architecture=structure.architecture.name,
        parameters=parameters(structure),
        shape=asdict(structure.shape),
        tied=bool(exported.config.get("tie_word_embeddings", False)),
        sha256=hash_file(exported.folder / WEIGHTS),
        ansnet=None if origin is None else origin.ansnet,
        license=None if origin is None else origin.license,
        chat=(template := read_template(exported.folder)) is not None and template.works,
    )

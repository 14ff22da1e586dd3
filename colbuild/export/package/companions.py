"""What lies beside the graph: what tokenizers, transformers, Transformers.js and onnxruntime-genai look for; and a card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from colbuild.arch import Structure, parameters, positions_key
from colbuild.arch.files.model_files import LICENCES, TOKENIZER
from colbuild.arch.files.model_folder import CONFIG_FILE, SPECIAL_IDS
from colbuild.arch.files.tokenizer_file import without_orders
from colbuild.export.manifest import Graph, Manifest
from colbuild.spec.model.device import Device
from colbuild.units import format_count
from colbuild.weights.files.checkpoint import COMPANIONS, GENERATION, write_json
from colbuild.weights.files.origin import copy_files

GENAI: Final = "genai_config.json"
CARD: Final = "README.md"


def write_companions(folder: Path, config: Mapping[str, Any], profile: Device, output: Path) -> None:
    """Copies what belongs to a model folder, and writes its configuration for a profile.

    Args:
        folder: The model's.
        config: Its config.json.
        profile: The device.
        output: The package's folder, made if it is not there.
    """
    output.mkdir(parents=True, exist_ok=True)
    copy_files((*COMPANIONS, *LICENCES), folder, output)
    _shorten(output / TOKENIZER)
    write_json(
        output / CONFIG_FILE, {**config, "dtype": profile.stored.float_type, positions_key(config): profile.context}
    )
    if not (output / GENERATION).exists():
        write_json(output / GENERATION, {key: config[key] for key in SPECIAL_IDS if config.get(key) is not None})


def tell_data_files(output: Path, file: str, parts: int) -> None:
    """Says in config.json how many files of weights lie beside the graph, which Transformers.js cannot see over the web."""
    config = json.loads((output / CONFIG_FILE).read_text(encoding="utf-8"))
    write_json(output / CONFIG_FILE, {**config, "transformers.js_config": {"use_external_data_format": {file: parts}}})


def _shorten(path: Path) -> None:
    """Writes tokenizer.json without orders to cut or pad texts, and without spaces, which are half of it.

    The file stays where that cannot be done, or is no shorter.
    """
    if not path.is_file():
        return
    whole = path.read_bytes()
    try:
        content = json.loads(whole)
        kept = without_orders(content)
        short = json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode()
    except ValueError:  # also half of a surrogate pair, which UTF-8 does not have
        return
    if len(short) < len(whole) or kept != content:
        path.write_bytes(short)


def write_genai_config(output: Path, graph: Graph, structure: Structure, profile: Device) -> None:
    """genai_config.json, by which onnxruntime-genai runs the package's folder as it is."""
    config = json.loads((output / CONFIG_FILE).read_text(encoding="utf-8"))
    settings = {**config, **json.loads((output / GENERATION).read_text(encoding="utf-8"))}
    shape = structure.shape
    past, present = ([one.replace("{layer}", "%d") for one in names] for names in (graph.past, graph.present))
    session: dict[str, Any] = {"provider_options": []}
    if profile.threads is not None:
        session["intra_op_num_threads"] = profile.threads
    decoder = {
        "session_options": session,
        "filename": graph.file,
        "head_size": graph.head_dim,
        "hidden_size": shape.hidden,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": graph.layers,
        "num_key_value_heads": graph.kv_heads,
        "inputs": {
            **{str(name): name for name in graph.inputs},
            "past_key_names": past[0],
            "past_value_names": past[1],
        },
        "outputs": {"logits": "logits", "present_key_names": present[0], "present_value_names": present[1]},
    }
    ids = {key: settings[key] for key in SPECIAL_IDS if settings.get(key) is not None}
    ends = ids.get("eos_token_id", 0)
    # It asks for all three, whatever the model has.
    ids = {"bos_token_id": 0, "eos_token_id": ends, "pad_token_id": ends[0] if isinstance(ends, list) else ends, **ids}
    model = {
        "type": structure.architecture.graph.genai,
        "vocab_size": shape.vocab,
        "context_length": profile.context,
        **ids,
        "decoder": decoder,
    }
    search = {"do_sample": False, "max_length": profile.context, "past_present_share_buffer": graph.in_place}
    write_json(output / GENAI, {"model": model, "search": search})


def model_card(manifest: Manifest, structure: Structure) -> str:
    """The package's README.md, with the header that model hubs read."""
    profile, quality = manifest.profile, manifest.quality
    rows = [
        ("Architecture", f"{structure.architecture.name}, {format_count(parameters(structure))} parameters"),
        ("Shape", ", ".join(f"{axis} {length:,}" for axis, length in manifest.model.shape.items())),
        ("Graph", f"`{manifest.graph.file}`, {_opsets(manifest.graph)}"),
        ("Weights", _weights(profile)),
        ("Context", f"{profile.context:,} tokens"),
        ("Largest difference of a logit from PyTorch's", f"{manifest.parity.max_difference:g}"),
    ]
    if quality is not None:
        told = f"{quality.perplexity:g}; PyTorch in float32 {quality.reference:g}, {quality.increase:+.1%}"
        rows.append((f"Perplexity on {quality.tokens:,} held-out tokens", told))
        rows.append(("Same likeliest token", f"{quality.top1_agreement:.1%}"))
    if manifest.model.ansnet is not None:
        rows.append(("Made from", f"an AnsNet whose model.safetensors has the sha256 `{manifest.model.ansnet}`"))
    named = manifest.model.license
    header = ["library_name: onnx", *([f"license: {named}"] if named else []), "pipeline_tag: text-generation"]
    header.append(f"tags: [onnx, colbuild, {structure.architecture.name}]")
    lines = "\n".join(header)
    table = "\n".join(f"| {name} | {told} |" for name, told in rows)
    return f"""---
{lines}
---

# A package built by colbuild

| | |
|---|---|
{table}

Packaged from a model.safetensors with the sha256 `{manifest.model.sha256}`. `manifest.json` lists every file with its digest;
`colbuild verify` checks them, and a generation.

The folder runs with onnxruntime, onnxruntime-genai and Transformers.js as it is. The licence is that of the model that it
was made from{f": {named}" if named else ""}.
"""


def _weights(profile: Device) -> str:
    told = profile.precision
    if profile.fitted:
        told += f", embedding and head in {profile.embedding_bits} bits"
    if profile.stored.quantised:
        told += ", blocks of " + " and ".join(map(str, sorted({profile.block, profile.table_block})))
    return told if profile.recover is None else f"{told}, trained to be rounded on {profile.recover.tokens:,} tokens"


def _opsets(graph: Graph) -> str:
    return ", ".join(f"{domain or 'ONNX'} opset {version}" for domain, version in graph.opsets.items())

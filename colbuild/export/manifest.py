"""The manifest: a package's description of itself, which a device can check with onnxruntime alone.

Nothing in it differs from one run to the next: no times, no speeds, no paths of the machine that built it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from colbuild.bounds import MANIFEST_BYTES, PACKED_FILES, SAMPLE_TOKENS
from colbuild.documents import MalformedError, parse_json, read_regular
from colbuild.errors import BuildError
from colbuild.hashing import TreeEntry, scan_tree
from colbuild.plan.steps.export import MANIFEST
from colbuild.spec.model.device import Device
from colbuild.unpack import UnpackError, inner_parts

SCHEMA_VERSION: Final = 1
AGAIN: Final = "copy or build the package again"
"""What to do where a package is damaged."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Natural = Annotated[int, Field(ge=0, lt=2**53)]
Input = Literal["input_ids", "attention_mask", "position_ids"]
INPUTS: Final[tuple[Input, ...]] = get_args(Input)
"""What a graph may read besides the cache."""


class Part(BaseModel):
    """A frozen part of a manifest that refuses keys it does not know."""

    # Not strict: JSON has no tuples.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PackagedFile(Part):
    """One file: its path inside the package with forward slashes, its size in bytes and its digest."""

    path: str
    size: Natural
    sha256: Sha256


class ModelFacts(Part):
    """The model that was packaged.

    Attributes:
        architecture: `model_type` of its config.json.
        parameters: Stored parameters, tied embeddings counted once.
        shape: Lengths of its axes: layers, hidden, ffn, heads, kv_heads, head_dim, vocab.
        tied: Whether embedding and head are one tensor.
        sha256: Of the model.safetensors that it was made from.
        ansnet: sha256 of the model.safetensors of the AnsNet that its family was made from.
        license: What the AnsNet's licence is called, where it says so.
        chat: Whether a chat template that takes a user's message comes with it; without one it only continues text.
    """

    architecture: str
    parameters: Natural
    shape: dict[str, Natural]
    tied: bool
    sha256: Sha256
    ansnet: Sha256 | None
    license: str | None
    chat: bool


class Graph(Part):
    """The ONNX graph and its inputs and outputs.

    `past` and `present` name the cache's tensors, float32 [batch, kv_heads, length, head_dim]; `{layer}` runs over
    `range(layers)`. The first call has a past of length 0; what comes out as `present` goes in as the next `past`.

    Attributes:
        file: The graph inside the package.
        opsets: Operator domain -> version; "" is ONNX itself.
        inputs: Names besides the cache, int64: ids [batch, sequence], mask [batch, past + sequence], and positions [batch,
            sequence] if the graph does not count them.
        outputs: Names besides the cache: logits, float32 [batch, sequence, vocab].
        past: Name patterns of the cache that goes in.
        present: Name patterns of the cache that comes out, in the order of `past`.
        layers: Blocks, each with a key and a value cache.
        kv_heads: Key/value heads.
        head_dim: Width of one head.
        cache: What the cache is made of: float32, or float16.
        sequence: Tokens in each call where that is fixed, and then one text at a time; None: any number.
        cache_length: Length of the cache that goes in where that is fixed, its newest entries on the right; None: any length.
        in_place: Whether a cache that is as long as all text to come may be both what goes in and what comes out. Then a batch
            is fed whole first and token by token after that; a single text still in any pieces.
    """

    file: str
    opsets: dict[str, int]
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    past: tuple[str, ...]
    present: tuple[str, ...]
    layers: Natural
    kv_heads: Natural
    head_dim: Natural
    cache: Literal["float32", "float16"] = "float32"
    sequence: Natural | None = None
    cache_length: Natural | None = None
    in_place: bool = False

    def names(self, patterns: tuple[str, ...]) -> tuple[str, ...]:
        """The cache's tensor names, layer by layer."""
        return tuple(pattern.replace("{layer}", str(layer)) for layer in range(self.layers) for pattern in patterns)


class Parity(Part):
    """The difference of the package's logits from the PyTorch model's in float32, on fixed prompts.

    Attributes:
        prompts: For each prompt the largest absolute difference of a logit.
        max_difference: The largest of them.
        relative_error: Root mean square of the difference by that of the logits, each centred over the vocabulary.
        mean_kl: Mean KL(PyTorch || package) of the next token's distribution, in nats.
        top1_agreement: How often both find the same token likeliest, 0 to 1.
        loss_increase: By how much the package predicts the prompts worse, in nats per token; below 0 if better.
        tokens: How many positions were compared.
    """

    prompts: dict[str, float]
    max_difference: float
    relative_error: float
    mean_kl: float
    top1_agreement: float
    loss_increase: float
    tokens: Natural


class Quality(Part):
    """The package's perplexity on held-out text.

    Attributes:
        tokens: How many were predicted.
        perplexity: The package's.
        reference: That of the PyTorch model in float32.
        increase: By how much the package's is higher, as a share: 0.05 is 5%; below 0 if it is lower.
        top1_agreement: How often both find the same token likeliest, 0 to 1.
    """

    tokens: Natural
    perplexity: float
    reference: float
    increase: float
    top1_agreement: float


class Sample(Part):
    """A greedy generation that shows a device whether it computes the same.

    Attributes:
        prompt: Token ids to start with.
        tokens: The likeliest tokens that followed, end-of-text tokens included like any other.
        margin: The smallest lead of a chosen token's logit over the second; where it is tiny, another processor may
            rightly choose differently.
    """

    prompt: Annotated[tuple[Natural, ...], Field(min_length=1, max_length=SAMPLE_TOKENS)]
    tokens: Annotated[tuple[Natural, ...], Field(max_length=SAMPLE_TOKENS)]
    margin: float


class Manifest(Part):
    """All that `manifest.json` holds.

    Attributes:
        quality: On held-out text; None where there was none.
        eight_bits: The matrices and tables that keep 8 bits where others have 4.
        broken: What of its limits the package does not keep, where the profile only warns.
    """

    schema_version: Literal[1]
    colbuild: str
    model: ModelFacts
    profile: Device
    graph: Graph
    files: Annotated[tuple[PackagedFile, ...], Field(max_length=PACKED_FILES)]
    versions: dict[str, str]
    parity: Parity
    quality: Quality | None
    eight_bits: tuple[str, ...]
    broken: tuple[str, ...]
    sample: Sample


PACKAGE_HINT: Final = "give the folder of a package, such as out/smol-edge/phone/phone-int8"


def read_manifest(folder: Path) -> Manifest:
    """Reads a package's manifest.

    Raises:
        BuildError: The folder is no package, or one that this version cannot read.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise BuildError(f"{folder} is not a folder", hint=PACKAGE_HINT)
    try:
        content = read_regular(path, MANIFEST_BYTES)
    except FileNotFoundError:
        raise BuildError(f"{folder} is not a package: it has no {MANIFEST}", hint=PACKAGE_HINT) from None
    except (OSError, MalformedError) as error:
        raise BuildError(f"{path} cannot be read: {error}", hint=PACKAGE_HINT) from None
    return parse_manifest(content, path)


def parse_manifest(content: bytes, path: Path) -> Manifest:
    """Reads a manifest's text, which lies at `path`.

    Raises:
        BuildError: It is no manifest, or one that this version cannot read.
    """
    try:
        written = parse_json(content)
    except MalformedError as error:
        raise BuildError(f"{path} cannot be read: {error}", hint=PACKAGE_HINT) from None
    version = written.get("schema_version") if isinstance(written, dict) else None
    if version is None:
        raise BuildError(
            f"{path.parent} is not a package: its {MANIFEST} was not written by colbuild", hint=PACKAGE_HINT
        )
    if version != SCHEMA_VERSION:
        raise BuildError(
            f"{path} has schema version {str(version)[:20]}; this colbuild supports version {SCHEMA_VERSION}",
            hint="run it with the colbuild that built it, or build it again",
        )
    try:
        # As JSON, in which a profile's tuples are lists.
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BuildError(f"{path} is damaged at '{place}': {first['msg']}", hint="build the package again") from None


def changed_files(manifest: Manifest, found: Iterable[TreeEntry]) -> list[str]:
    """Returns the files of a package whose content differs from the manifest."""
    digests = {file.path: file.sha256 for file in manifest.files}
    return [entry.path for entry in found if digests.get(entry.path, entry.sha256) != entry.sha256]


def own_files(folder: Path, manifest: Manifest) -> list[TreeEntry]:
    """The files of a package that is to leave this machine, its manifest among them; what else lies there stays behind.

    Raises:
        BuildError: A file is missing or is not what was built, or something there is neither a file nor a folder.
    """
    check_files(folder, manifest)
    found = scan_tree(folder)
    if changed := changed_files(manifest, found):
        raise BuildError(
            f"{folder / changed[0]} has changed since the build: its sha256 differs from the manifest's",
            hint="build the package again",
        )
    own = {MANIFEST, *(file.path for file in manifest.files)}
    return [entry for entry in found if entry.path in own]


def check_files(folder: Path, manifest: Manifest) -> None:
    """Compares the files that a manifest lists with those on disk, by presence and size.

    Raises:
        BuildError: A file is missing, has another size, or lies outside the package.
    """
    for file in manifest.files:
        try:
            inner_parts(file.path)
        except UnpackError:
            raise BuildError(f"{folder / MANIFEST} names '{file.path[:200]}', which lies outside the package") from None
        path = folder / file.path
        if not path.is_file():
            raise BuildError(f"the package {folder} lacks {file.path}", hint="build or copy the package again")
        if (size := path.stat().st_size) != file.size:
            raise BuildError(
                f"{path} is not the package's own file: it has {size:,} bytes, not {file.size:,} as in the manifest",
                hint="build or copy the package again",
            )
    if manifest.graph.file not in {file.path for file in manifest.files}:
        raise BuildError(f"{folder / MANIFEST} does not list its own graph, {manifest.graph.file}")

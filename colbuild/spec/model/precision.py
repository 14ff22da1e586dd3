"""The precisions that a package's weights can have, one row each, and what training can compute in.

A new precision is a new row of `PRECISIONS`: specs accept it, plans count its bytes, and exports write it. See
"Add a precision" in `docs/packages.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import ceil, prod
from typing import Final, Literal


@dataclass(frozen=True)
class Bound:
    """The accuracy that a package must keep of the PyTorch model, or the export fails.

    Attributes:
        measure: The attribute of `colbuild.export.manifest.Parity` that is compared.
        most: The largest value that a sound package has.
    """

    measure: Literal["max_difference", "relative_error"]
    most: float


@dataclass(frozen=True)
class Precision:
    """One way to store the weights of a package.

    Attributes:
        name: As profiles write it.
        bits: Bits of a weight: 32 and 16 are floating point; 8 and 4 are integers in blocks that share a scale.
        graph: The graph's path in the package; names that Transformers.js looks for.
        bound: How far the package may be from the PyTorch model.
        packed: Bytes that a package has in memory for each number of its embedding, beside PyTorch's model.
        fitted: Whether the rounding is fitted on text; embedding, head and chosen matrices may then keep 8 bits.
        measured: Whether measurements decide which matrices keep 8 bits, as many as `max_package` has room for.
        smaller: The precision that a hint suggests where the package is too large; None where none is smaller.
        finer: What a hint suggests where the package is not exact enough.
    """

    name: str
    bits: Literal[32, 16, 8, 4]
    graph: str
    bound: Bound
    packed: float
    fitted: bool = False
    measured: bool = False
    smaller: str | None = None
    finer: str = "a smaller block"

    @property
    def quantised(self) -> bool:
        """Whether weights are integers."""
        return self.bits <= 8

    @property
    def float_type(self) -> Literal["float16", "float32"]:
        """The type of all other numbers: the cache, the logits, and norms."""
        return "float16" if self.bits == 16 else "float32"


_ROWS: Final = (
    Precision("fp32", 32, "onnx/model.onnx", Bound("max_difference", 1e-3), packed=5.5, smaller="int8"),
    Precision("fp16", 16, "onnx/model_fp16.onnx", Bound("relative_error", 0.02), packed=2.8, smaller="int8"),
    # Sound packages are at 0.03 to 0.06 whether the model is trained or random; top-1 agreement and KL are not
    # comparable between the two, because a random model's tokens are all about equally likely.
    Precision("int8", 8, "onnx/model_quantized.onnx", Bound("relative_error", 0.2), packed=0.0, smaller="int4"),
    # Four bits are a sixteenth as fine. What that costs is in the manifest; this only catches what is wrong.
    Precision(
        "int4",
        4,
        "onnx/model_q4.onnx",
        Bound("relative_error", 0.7),
        packed=1.7,
        fitted=True,
        finer="int4-mixed or int8",
    ),
    Precision(
        "int4-mixed",
        4,
        "onnx/model_q4.onnx",
        Bound("relative_error", 0.7),
        packed=1.7,
        fitted=True,
        measured=True,
        finer="a larger max_package, or int8",
    ),
)

PRECISIONS: Final[Mapping[str, Precision]] = {row.name: row for row in _ROWS}
"""By name, in the order in which messages and schemas list them."""


@dataclass(frozen=True)
class ComputingType:
    """A type of number that models compute in: its bytes, and its name in PyTorch."""

    bytes: int
    torch: Literal["bfloat16", "float32"]


FORWARD: Final = "bf16"
"""What models that are not trained compute in."""

EXACT: Final = "fp32"
"""What hints suggest where numbers overflow."""

COMPUTING: Final[Mapping[str, ComputingType]] = {
    FORWARD: ComputingType(2, "bfloat16"),
    EXACT: ComputingType(4, "float32"),
}
"""What training can compute in, by its name in recipes."""


def named(wanted: Callable[[Precision], bool], rows: Iterable[Precision] | None = None) -> str:
    """The names of the precisions that are wanted, as a message lists them: "int4 and int4-mixed"."""
    *most, last = (row.name for row in (PRECISIONS.values() if rows is None else rows) if wanted(row))
    return f"{', '.join(most)} and {last}" if most else last


_SCALE: Final = 4
"""A block's scale is a float32."""


def stored_bytes(bits: int, lengths: tuple[int, ...], block: int) -> int:
    """Bytes of a tensor whose weights have so many bits.

    Of 8 bits or fewer a matrix is stored in blocks, the last of a row padded, with a scale each; of 4 with a zero too. Tensors
    that are no matrices stay in float32.

    Args:
        bits: As in `Precision`.
        lengths: Of the tensor's axes.
        block: Weights that share a scale.
    """
    if bits > 8 or len(lengths) != 2:
        return (4 if bits <= 8 else bits // 8) * prod(lengths)
    rows, columns = lengths
    blocks = ceil(columns / block)
    zeros = ceil(blocks / 2) if bits == 4 else 0
    return rows * (blocks * (block * bits // 8 + _SCALE) + zeros)

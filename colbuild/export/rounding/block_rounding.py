"""Rounds a matrix to few bits, in blocks that share a scale, with the smallest error of its output.

Plain rounding takes each weight to its nearest step. With the second moments H = X^T X of what the matrix multiplies, two
things do better: steps are chosen in each block by the weighted error of the rounded weights, and the error of each column is
made up for by those that are not rounded yet (GPTQ, arXiv 2210.17323, sections 3.2 and 3.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch.nn.functional import pad

DAMPING: Final = 0.01
"""Of the mean of H's diagonal, added to it: what the calibration text never touched stays where it is."""
SHRINKS: Final = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
"""How much of a block's range its steps cover; what lies outside goes to the outermost step."""
_GROUP: Final = 128
"""Columns that are made up for at once."""
_ROWS: Final = 4096
"""Rows that are rounded at once."""
_TINY: Final = 1e-12


@dataclass(frozen=True, eq=False)
class Blocks:
    """A rounded matrix [rows, columns]: weight = (code - zero) * scale.

    Attributes:
        bits: 4 or 8.
        block: Columns that share a scale.
        columns: Without the padding of the last block.
        codes: uint8 [rows, blocks, block].
        scales: float32 [rows, blocks].
        zeros: uint8 [rows, blocks]; None where all are in the middle.
    """

    bits: int
    block: int
    columns: int
    codes: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor | None

    @property
    def middle(self) -> int:
        """The code of 0 where there are no zeros of their own."""
        return 1 << (self.bits - 1)

    def values(self) -> torch.Tensor:
        """The dequantised values, float32 [rows, columns]."""
        return self.parts().flatten(1)[:, : self.columns].contiguous()

    def parts(self) -> torch.Tensor:
        """The same by blocks, float32 [rows, blocks, block]; the last one may be filled up."""
        zeros = self.middle if self.zeros is None else self.zeros.float()[:, :, None]
        return (self.codes.float() - zeros) * self.scales[:, :, None]


def stacked(every: Sequence[Blocks]) -> Blocks:
    """Matrices of as many columns that are rounded alike, one below the other."""
    codes, scales = (torch.cat(parts) for parts in zip(*((each.codes, each.scales) for each in every), strict=True))
    zeros = [each.zeros for each in every if each.zeros is not None]
    return replace(every[0], codes=codes, scales=scales, zeros=torch.cat(zeros) if zeros else None)


@dataclass(frozen=True, eq=False)
class Inputs:
    """Statistics of a matrix's inputs, for its rounding.

    Attributes:
        importance: How much an error of each column weighs [columns].
        inverse: The upper Cholesky factor of the inverse of H [columns, columns], float32.
    """

    importance: torch.Tensor
    inverse: torch.Tensor


def inputs_of(moments: torch.Tensor) -> Inputs:
    """Returns the parts of H = X^T X [columns, columns] that all roundings of a matrix share; computing them is expensive."""
    damped = moments.double()
    damped.diagonal().add_(DAMPING * damped.diagonal().mean() + _TINY)
    # From the last row and column to the first, the inverse of H's factor is one of H's inverse: one factorisation is enough.
    lower = torch.linalg.cholesky(damped.flip(0, 1)).float()
    factor = torch.linalg.solve_triangular(lower, torch.eye(len(lower)), upper=False)
    return Inputs(moments.diagonal().clamp_min(_TINY), factor.flip(0, 1).contiguous())


def round_blocks(weight: torch.Tensor, bits: int, block: int, inputs: Inputs | None = None) -> Blocks:
    """Rounds a matrix.

    Args:
        weight: [rows, columns], of any type; computed with in float32.
        bits: 8: symmetric around the middle code; 4: each block has a zero of its own.
        block: Columns that share a scale.
        inputs: What it multiplies, for 4 bits; None rounds each weight to its nearest step.
    """
    columns = weight.shape[1]
    if bits == 8:
        return _symmetric(weight, block)
    padded = pad(weight.float(), (0, -columns % block))
    if inputs is None:
        scales, zeros = _steps(_parts(padded, block).movedim(2, 0).contiguous(), torch.ones(block))
        codes = _codes(_parts(padded, block), scales[:, :, None], zeros[:, :, None])
        return Blocks(bits, block, columns, codes.to(torch.uint8), scales, zeros.to(torch.uint8))
    return _compensated(padded, block, columns, inputs)


def _parts(matrix: torch.Tensor, block: int) -> torch.Tensor:
    """[rows, columns] as [rows, blocks, block]."""
    return matrix.reshape(matrix.shape[0], -1, block)


def _symmetric(weight: torch.Tensor, block: int) -> Blocks:
    scales, codes = [], []
    # An embedding is larger than all else: it is not held several times over.
    for rows in torch.split(weight, _ROWS):
        parts = _parts(pad(rows.float(), (0, -weight.shape[1] % block)), block)
        scales.append((parts.abs().amax(dim=2) / 127.0).clamp_min(_TINY))
        codes.append(((parts / scales[-1][:, :, None]).round().clamp(-127, 127) + 128).to(torch.uint8))
    return Blocks(8, block, weight.shape[1], torch.cat(codes), torch.cat(scales), None)


def _steps(parts: torch.Tensor, importance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales and zeros [...] for blocks [block, ...], by the error weighted with the importance of a block's columns.

    What shares a scale lies one below the other here, and all is computed in one buffer: that is several times faster.

    Args:
        parts: The weights.
        importance: [block].
    """
    low, high = parts.amin(dim=0).clamp_max(0.0), parts.amax(dim=0).clamp_min(0.0)
    best = torch.full_like(low, torch.inf)
    scales, zeros, back = torch.ones_like(low), torch.zeros_like(low), torch.empty_like(parts)
    for shrink in SHRINKS:
        scale = ((high - low) * shrink / 15.0).clamp_min(_TINY)
        zero = (-low * shrink / scale).round().clamp(0, 15)
        torch.div(parts, scale, out=back).round_().add_(zero).clamp_(0, 15)
        back.sub_(zero).mul_(scale).sub_(parts).square_()
        error = torch.mv(back.flatten(1).T, importance).view_as(low)
        better = error < best
        best = torch.where(better, error, best)
        scales, zeros = torch.where(better, scale, scales), torch.where(better, zero, zeros)
    return scales, zeros


def _codes(values: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    return ((values / scale).round() + zero).clamp(0, 15)


def _compensated(weight: torch.Tensor, block: int, columns: int, inputs: Inputs) -> Blocks:
    """GPTQ, with steps that are found when a block's turn comes.

    A column is done at a time, so that columns are what lies together in memory here.
    """
    rows, width = weight.shape
    left = weight.T.contiguous()
    # What the last block is filled up with is 0, is stored as 0, and has no part in anything.
    inverse = torch.eye(width)
    inverse[:columns, :columns] = inputs.inverse
    importance = pad(inputs.importance, (0, width - columns), value=_TINY)
    codes = torch.zeros(width, rows)
    scales, zeros = torch.zeros(width // block, rows), torch.zeros(width // block, rows)
    group = max(block, _GROUP // block * block)
    diagonal = inverse.diagonal().tolist()
    for start in range(0, width, group):
        end = min(start + group, width)
        missed = torch.zeros(end - start, rows)
        for first in range(start, end, block):
            last = first + block
            scale, zero = _steps(left[first:last], importance[first:last])
            scales[first // block], zeros[first // block] = scale, zero
            errors, ours = missed[first - start : last - start].unbind(), left[first:last].unbind()
            for column, (code, mine, error) in enumerate(
                zip(codes[first:last].unbind(), ours, errors, strict=True), first
            ):
                # In place, as what these few numbers take is mostly the calls. An error is what was added to the weights.
                torch.div(mine, scale, out=code).round_().add_(zero).clamp_(0, 15)
                torch.sub(code, zero, out=error).mul_(scale).sub_(mine).div_(diagonal[column])
                left[column:last].addr_(inverse[column, column:last], error)
            left[last:end] += inverse[first:last, last:end].T @ missed[first - start : last - start]
        left[end:] += inverse[start:end, end:].T @ missed
    whole = _parts(codes.T.to(torch.uint8).contiguous(), block)
    return Blocks(4, block, columns, whole, scales.T.contiguous(), zeros.T.to(torch.uint8).contiguous())

"""A teacher's distributions on a text, stored on disk: at most 64 bytes for each token.

::

    lessons.json   what was kept, of which teacher's softening, of what text
    windows.bin    the windows of the corpus that were taught, rising, int64
    records.bin    window by window, token by token, RECORD bytes each, little-endian:
                     sampled   [entropy f2][id id id ...]                    30 draws, or 15 where an id needs 4 bytes
                     top_k     [log p ... log of the rest f2][id id ...]     15 ids, or 10

`sampled` draws systematically: with one random u in [0, 1) for a token, the ids at (u + j) / k of the cumulative distribution,
j = 0 ... k - 1. An id of probability p is there floor(k p) or ceil(k p) times and k p times on average, so the loss is unbiased
as with the independent draws of RS-KD (arXiv 2503.16870, section 3), and varies less: with SmolLM2-135M and a 103M student its
variance is 0.29 of theirs, and that of the weights 0.37. 15 draws without repetition, always with the most likely ids, have
weights of their own in as many bytes, and gave a worse gradient. `top_k` gives a better one, but its loss is too low there by
0.16 of 0.70 nats. u is a function of the seed, the window and the place in it: the order of work changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from colbuild.documents import read_json_file
from colbuild.errors import BuildError
from colbuild.spec.model.precision import EXACT, FORWARD
from colbuild.train.batch import Batch
from colbuild.train.losses.divergences import coarsened
from colbuild.train.losses.losses import TeacherSamples, TeacherTop

FORMAT: Final = 1
META: Final = "lessons.json"
WINDOWS: Final = "windows.bin"
RECORDS: Final = "records.bin"
RECORD: Final = 62
"""Bytes of a token: with its share of the windows' numbers and of the JSON a token takes less than 64."""

Kind = Literal["sampled", "top_k"]

_BLOCK: Final = 256
_HALF: Final = np.dtype("<f2")
_LEAST: Final = float(np.finfo(np.float16).min)


@dataclass(frozen=True)
class Teachings:
    """The settings of a teacher's cache.

    Attributes:
        type: "sampled" or "top_k".
        temperature: The teacher's distribution is softened by it.
        vocabulary: The teacher's.
        sequence: Tokens in a window.
        documents: "joined" or "apart": whether the documents of a window saw each other.
        windows: How many.
    """

    type: Kind
    temperature: float
    vocabulary: int
    sequence: int
    documents: str
    windows: int

    @property
    def kept(self) -> int:
        """Returns the number of stored ids of a token; `top_k` leaves at least one to the rest."""
        size = self._id.itemsize
        if self.type == "sampled":
            return (RECORD - _HALF.itemsize) // size
        return min((RECORD - _HALF.itemsize) // (size + _HALF.itemsize), self.vocabulary - 1)

    @property
    def record(self) -> np.dtype[Any]:
        """One token's bytes."""
        halves = 1 if self.type == "sampled" else self.kept + 1
        return np.dtype([("halves", _HALF, (halves,)), ("ids", self._id, (self.kept,))])

    @property
    def window_bytes(self) -> int:
        """One window's."""
        return self.record.itemsize * self.sequence

    @property
    def _id(self) -> np.dtype[Any]:
        return np.dtype("<u2" if self.vocabulary <= 1 << 16 else "<u4")


# -- writing ----------------------------------------------------------------------------------------------------------


def offsets(seed: int, window: int, sequence: int) -> torch.Tensor:
    """Returns each token's u [sequence] in [0, 1), float64; Philox's bits are the same in every version of numpy."""
    bits: NDArray[np.uint64] = np.random.Philox(key=(seed << 64) | window).random_raw(sequence)
    return torch.from_numpy((bits >> np.uint64(11)) * 2.0**-53)


def encode(logits: torch.Tensor, teachings: Teachings, starts: torch.Tensor) -> bytes:
    """The records of some tokens.

    Args:
        logits: The teacher's [tokens, vocabulary], in float32 or better.
        teachings: How they are kept.
        starts: Each token's u [tokens], float64, on the CPU; `top_k` reads none.

    Raises:
        BuildError: The teacher's logits are not numbers.
    """
    softened = logits if teachings.temperature == 1.0 else logits / teachings.temperature
    log_likely = functional.log_softmax(softened, dim=-1)
    # One figure that is no number makes all of its token's none.
    if not bool(log_likely[:, 0].isfinite().all()):
        raise BuildError(
            "the teacher's logits are NaN or infinite",
            hint=f"its weights are damaged, or too large for {FORWARD}: try precision: {EXACT} in the recipe",
        )
    if teachings.type == "sampled":
        likely = log_likely.exp()
        ids = systematic(likely, teachings.kept, starts)
        halves = -torch.linalg.vecdot(likely, log_likely)[:, None]
    else:
        ids = log_likely.topk(teachings.kept, dim=-1).indices
        halves = coarsened(log_likely, ids).clamp(min=_LEAST)
    records = np.empty(len(logits), teachings.record)
    records["halves"] = halves.cpu().numpy()
    records["ids"] = ids.cpu().numpy()
    return records.tobytes()


def systematic(likely: torch.Tensor, count: int, starts: torch.Tensor) -> torch.Tensor:
    """Ids [tokens, count] drawn from probabilities [tokens, vocabulary], with one random start in [0, 1) for each token.

    First the block of ids that a place of the cumulative distribution lies in, then the id: float64 keeps the boundaries
    between 49k ids where they are, and would take longer than the draws are worth on all of them.
    """
    wide = torch.device("cpu") if likely.device.type == "mps" else likely.device  # MPS has no float64
    blocks = functional.pad(likely, (0, -likely.shape[1] % _BLOCK)).view(len(likely), -1, _BLOCK)
    ends = blocks.sum(dim=-1).to(wide, torch.float64).cumsum(dim=-1)
    steps = torch.arange(count, dtype=torch.float64, device=wide)
    places = (starts.to(wide)[:, None] + steps) / count * ends[:, -1:]
    block = _first_beyond(ends, places)
    rest = places - functional.pad(ends, (1, 0)).gather(1, block)
    inside = blocks.gather(1, block.to(likely.device)[:, :, None].expand(-1, -1, _BLOCK)).to(wide)
    at = _first_beyond(inside.cumsum(dim=-1, dtype=torch.float64), rest[:, :, None]).squeeze(-1)
    return block * _BLOCK + at


def _first_beyond(ends: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Which part of a cumulative sum [..., parts] each place [..., places] lies in: never one of length 0."""
    last = torch.nextafter(ends[..., -1:], torch.zeros_like(ends[..., -1:]))
    return torch.searchsorted(ends, torch.minimum(places, last), right=True)


# -- reading ----------------------------------------------------------------------------------------------------------


class Lessons:
    """A teacher's cache, memory-mapped.

    Attributes:
        folder: Where it is.
        about: What was kept, and of what.
    """

    def __init__(self, folder: Path, about: Teachings, windows: NDArray[np.int64], records: NDArray[Any]) -> None:
        self.folder = folder
        self.about = about
        self._windows = windows
        self._records = records

    def samples(self, batch: Batch) -> TeacherSamples | TeacherTop:
        """Returns the teacher's stored distributions for a batch, row after row, on the batch's device.

        Raises:
            BuildError: A window of the batch was not taught, or the records are damaged.
        """
        about, device = self.about, batch.tokens.device
        if batch.tokens.shape[1] != about.sequence:
            raise BuildError(
                f"{self.folder} holds sequences of {about.sequence} tokens, not of {batch.tokens.shape[1]}"
            )
        records = self._records[self._places(batch.windows)].reshape(-1)
        ids = torch.from_numpy(records["ids"].astype(np.int64))
        halves = torch.from_numpy(records["halves"].astype(np.float32))
        if int(ids.max()) >= about.vocabulary or not bool(halves.isfinite().all()):
            raise BuildError(f"{self.folder / RECORDS} is damaged", hint="remove it from the store and build again")
        ids, halves = ids.to(device), halves.to(device)
        if about.type == "sampled":
            return TeacherSamples(ids, torch.full_like(ids, 1.0 / about.kept, dtype=torch.float32), halves.squeeze(1))
        # Rounded to half precision they do not sum to 1 any more.
        return TeacherTop(ids, functional.log_softmax(halves, dim=-1))

    def _places(self, windows: tuple[int, ...]) -> NDArray[np.int64]:
        asked = np.asarray(windows, np.int64)
        places = np.searchsorted(self._windows, asked)
        found = self._windows[np.minimum(places, len(self._windows) - 1)] == asked
        if not found.all():
            raise BuildError(f"{self.folder} has no record of window {asked[~found][0]} of the corpus")
        return places


def open_lessons(folder: Path) -> Lessons:
    """Opens what `colbuild.ops.teach` wrote, without reading it.

    Raises:
        BuildError: It is missing, damaged or of another format.
    """
    try:
        values = read_json_file(folder / META)
        if (found := values.pop("format")) != FORMAT:
            raise BuildError(f"{folder} has format {found}; this colbuild reads format {FORMAT}", hint="build it again")
        about = Teachings(**values)
        windows = _map(folder / WINDOWS, np.dtype("<i8"), (about.windows,))
        records = _map(folder / RECORDS, about.record, (about.windows, about.sequence))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BuildError(f"{folder} is not a teacher's cache, or is damaged: {error}", hint="build it again") from error
    if about.type not in get_args(Kind) or bool((np.diff(windows) <= 0).any()):
        raise BuildError(f"{folder} is damaged", hint="build it again")
    return Lessons(folder, about, windows, records)


def _map(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if path.stat().st_size != dtype.itemsize * int(np.prod(shape)):
        raise ValueError(f"{path.name} does not have the size that {META} says")
    return np.memmap(path, dtype, mode="r", shape=shape)

"""Maps a teacher's tokens to a student's, so that the distributions of two vocabularies can be compared.

::

    teacher's  " the"    -> " the"                the same bytes
               " theatre" -> " the"               the student writes it as " the" "atre": this is its first token
    student's  " therein", which the teacher writes as " the" "rein", makes " the" ambiguous: the teacher's " the" may mean
               either. Such tokens are taken together, as one event "something else"
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from rapidfuzz.distance import Levenshtein

from colbuild.train.across.spelling import Spelling


@dataclass(frozen=True, eq=False)
class Projection:
    """From the teacher's vocabulary to events of the student's.

    Attributes:
        to: [teacher's vocabulary] the student's token that each token stands for; the student's vocabulary's size for
            "something else".
        told: [student's vocabulary] whether a token is an event of its own.
    """

    to: torch.Tensor
    told: torch.Tensor

    def to_device(self, device: torch.device) -> Projection:
        """The same on a device."""
        return Projection(self.to.to(device), self.told.to(device))


def first_tokens(source: Spelling, target: Spelling, rows: int) -> torch.Tensor:
    """[rows] for each token of one vocabulary the first token that the other writes it with; -1 if there is none.

    That is the one that spells the same bytes, or else the longest that it begins with. Special tokens stand for special
    tokens of the same name.

    Args:
        source: The one.
        target: The other.
        rows: How many ids the one has; those beyond its tokenizer's stand for nothing.
    """
    found = torch.full((rows,), -1)
    for index, token in enumerate(source.spelled):
        first = target.prefix(token) if token else None
        if first is not None:
            found[index] = first
    for content, index in source.special.items():
        if content in target.special:
            found[index] = target.special[content]
    return found


def events(student: Spelling, teacher: Spelling, sizes: tuple[int, int], separators: tuple[int, int]) -> Projection:
    """The finest events that both vocabularies can tell apart.

    A student's token is one if the teacher has it too and writes no other of the student's tokens with it at their
    beginning. Of one vocabulary with itself every token is.

    Args:
        student: The student's tokenizer.
        teacher: The teacher's.
        sizes: Rows of the student's embedding and the teacher's.
        separators: The ids of the student's and the teacher's separator, which stand for each other.
    """
    ours, theirs = sizes
    forth, back = first_tokens(teacher, student, theirs), first_tokens(student, teacher, ours)
    forth[separators[1]], back[separators[0]] = separators
    told = torch.zeros(ours, dtype=torch.bool)
    both = torch.nonzero(back >= 0).squeeze(1)
    meant = back[both]
    exact = both[forth[meant] == both]
    told[exact] = True
    # A token that the teacher begins with another of the student's tokens.
    other = both[forth[meant] != both]
    told[forth[back[other]]] = False
    return Projection(_or_else(forth, told), told)


def nearest_tokens(
    student: Spelling, teacher: Spelling, sizes: tuple[int, int], separators: tuple[int, int]
) -> Projection:
    """Each of the teacher's tokens as the student's of the smallest edit distance (FuseLLM, arXiv 2401.10491, section 3.3).

    Those of the same bytes are taken first; for the others, of the student's tokens that begin with the same two bytes, the
    nearest, as FuseLLM's own search among all would find nearly always.
    """
    ours, theirs = sizes
    found = first_tokens(teacher, student, theirs)
    found[separators[1]] = separators[0]
    beginning: dict[bytes, list[tuple[bytes, int]]] = {}
    for spelled, index in student.by_bytes.items():
        beginning.setdefault(spelled[:2], []).append((spelled, index))
    for index, token in enumerate(teacher.spelled):
        near = beginning.get(token[:2], ()) if token and token not in student.by_bytes else ()
        if near and token:
            found[index] = min(near, key=lambda one: (Levenshtein.distance(token, one[0]), one[1]))[1]
    return Projection(torch.where(found < 0, ours, found), torch.ones(ours, dtype=torch.bool))


def _or_else(found: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
    size = len(told)
    known = found >= 0
    return torch.where(known & told[found.clamp(min=0)], found, size)

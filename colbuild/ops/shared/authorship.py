"""Checks that the text that a model wrote has the likelihood that the model gives it, and is not empty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from colbuild.errors import BuildError
from colbuild.ops.shared.text_writing import Text
from colbuild.plan.workload.at_once import CHUNK_TOKENS
from colbuild.process_memory import give_back_pages
from colbuild.train.losses.forward import final_hidden, head_weight

SCORED: Final = 8
"""Texts that are read again: enough to tell, and little beside the time to write them."""

APART: Final = 0.25
"""Nats by which both readings of a token may differ in the mean. In bf16 they differ by at most 0.06; where attention lost its
cache, by 2 and more of trained models, by 0.35 and more of random ones."""


def check_author(model: PreTrainedModel, texts: Sequence[Text]) -> None:
    """Reads some of a model's texts again, each whole, without a cache and with transformers' own attention.

    The tokens are the same both times, so how they were drawn adds no noise: only what is computed otherwise can differ.

    Raises:
        BuildError: The model finds them more or less likely than when it wrote them.
    """
    some = [text for text in texts if text.drawn][:SCORED]
    if not some:
        return
    then = torch.tensor([cost for text in some for cost in text.nats])
    now = torch.cat(_read_again(model, some))
    # Written so that NaN fails too.
    if not float((now - then).abs().mean()) <= APART:
        raise BuildError(
            f"the text that the AnsNet wrote is wrong: it sampled {len(then):,} tokens at {then.mean():.2f} nats each, and "
            f"scores the same text at {now.mean():.2f} nats a token in one pass without a cache; its key/value cache is "
            "wrong on this machine",
            hint="report this with the model's config.json and the versions of torch and transformers; until then give a "
            "'source' in 'data', and a loss.across other than seqkd",
        )


@torch.no_grad()
def _read_again(model: PreTrainedModel, texts: Sequence[Text]) -> list[torch.Tensor]:
    """The negative log-likelihood of each text's drawn tokens, in nats."""
    running, head = model.config._attn_implementation, head_weight(model)
    model.set_attn_implementation("sdpa")
    found = []
    try:
        for text in texts:
            # Every length makes tensors of sizes of its own, for which holes in the heap are too small.
            give_back_pages()
            ids = torch.tensor(text.ids, device=head.device)
            hidden = final_hidden(model, ids[None, :-1])[-text.drawn :]
            for start in range(0, text.drawn, CHUNK_TOKENS):
                part = slice(start, start + CHUNK_TOKENS)
                logits, targets = hidden[part] @ head.T, ids[-text.drawn :][part]
                found.append(functional.cross_entropy(logits.float(), targets, reduction="none").cpu())
    finally:
        model.set_attn_implementation(running)
    return found


def check_begun(empty: int, begun: int, beginning: str) -> None:
    """Checks that a model does not write empty texts.

    Args:
        empty: Texts that ended where they began.
        begun: All texts.
        beginning: The token that they begin with.

    Raises:
        BuildError: Most are empty.
    """
    if 2 * empty > begun:
        raise BuildError(
            f"{empty:,} of {begun:,} texts that the AnsNet wrote for data.generate are empty: after its begin token, "
            f"{beginning!r}, it ends a text at once; it was probably trained with another begin token, or without one",
            hint="set data.begin to the token that the AnsNet's texts begin with, or give 'prompts' in data.generate",
        )

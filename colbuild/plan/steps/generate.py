"""generate: text that the AnsNet writes, as a corpus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from colbuild.arch import forward_flops, parameters
from colbuild.plan.drawing.draft import Draft, FamilyPath
from colbuild.plan.drawing.step import Step
from colbuild.plan.operation import TOKENIZER, WEIGHTS, Operation, Params, Scene, Work
from colbuild.plan.workload.model_memory import FORWARD, FULL, KERNEL, KERNELS, PROCESSES, TOKEN
from colbuild.spec.model.family import Generate

GENERATED_AT_ONCE: Final = 64
"""Texts that are written at once; more are faster, and need memory for their keys and values."""

_WORD: Final = 5
"""Bytes of a token in a text."""

_WRITING: Final = 100_000_000
"""Memory of a step that writes texts, beside its model's."""


@dataclass(frozen=True)
class GenerateParams(Params):
    """Parameters of `generate`.

    Attributes:
        tokens: Tokens to write.
        temperature: Of sampling.
        prompts: Beginnings of texts, taken in turn.
        length: The most tokens of a text.
        seed: Decides the texts.
    """

    tokens: int
    temperature: float
    prompts: tuple[str, ...]
    length: int
    seed: int

    @property
    def taught_tokens(self) -> int:
        """See `Params`."""
        return self.tokens


def draw(draft: Draft, name: str, wanted: Generate, source: str, place: FamilyPath) -> str:
    """Draws a text that the AnsNet writes."""
    params = wanted.model_dump(mode="json")
    step = Step("generate", name, params, inputs={"model": source})
    return draft.add(step, {"": place, **{key: (*place, key) for key in params}})


def _work(params: GenerateParams, scene: Scene) -> Work:
    """A model with the keys and values of many texts, and each text's logits: as computed, and four times in fp32."""
    model, tokens = scene.model("model"), params.tokens
    shape = model.shape
    cache = 2 * FORWARD * GENERATED_AT_ONCE * params.length * shape.layers * shape.kv_heads * shape.head_dim
    logits = (FORWARD + 4 * FULL) * GENERATED_AT_ONCE * shape.vocab
    stored = model.stored if model.stored != FORWARD else 0
    weights = (FORWARD + stored) * parameters(model)
    kernels = KERNEL * min(params.length, KERNELS)
    memory = PROCESSES + _WRITING + weights + cache + logits + kernels + TOKEN * shape.vocab
    return Work(tokens * forward_flops(model, params.length), None, _WORD * tokens, memory)


GENERATE: Final = Operation(
    op="generate",
    epoch=2,
    params=GenerateParams,
    module="colbuild.ops.generate",
    work=_work,
    title=lambda _: "the generated text",
    reads={"model": (WEIGHTS, TOKENIZER)},
    # 0.54 and 0.68 on one core of a Xeon, of texts as long as they may be; less where they end sooner
    flops_share=0.4,
    whole_machine=True,
    takes_gpu=True,
    counts_as_making=True,
    size_by_text=True,
    taught_by="model",
)

"""generate: text that the AnsNet writes, as a corpus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from colbuild.arch import Structure, forward_flops, parameters
from colbuild.plan.drawing.draft import Draft, FamilyPath
from colbuild.plan.drawing.step import Step
from colbuild.plan.operation import TOKENIZER, WEIGHTS, Operation, Params, Scene, Work
from colbuild.plan.workload.model_memory import FORWARD, FULL, KERNEL, KERNELS, PROCESSES, TOKEN
from colbuild.spec.model.family import Generate

GENERATED_AT_ONCE: Final = 64
"""Texts that are written at once at least."""

_MOST_AT_ONCE: Final = 256
"""More are hardly faster."""

_ROOM: Final = 800_000_000
"""Memory for keys, values and logits, within which more texts are written at once."""

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


def generated_at_once(model: Structure, length: int) -> int:
    """Returns how many texts of at most `length` tokens are written at once: more of a small model's, which are faster."""
    return max(GENERATED_AT_ONCE, min(_MOST_AT_ONCE, _ROOM // _text_bytes(model, length) // 64 * 64))


def _text_bytes(model: Structure, length: int) -> int:
    """A text's keys and values, and its logits: as computed, and four times in fp32."""
    shape = model.shape
    cache = 2 * FORWARD * length * shape.layers * shape.kv_heads * shape.head_dim
    return cache + (FORWARD + 4 * FULL) * shape.vocab


def draw(draft: Draft, name: str, wanted: Generate, source: str, place: FamilyPath) -> str:
    """Draws a text that the AnsNet writes."""
    params = wanted.model_dump(mode="json")
    step = Step("generate", name, params, inputs={"model": source})
    return draft.add(step, {"": place, **{key: (*place, key) for key in params}})


def _work(params: GenerateParams, scene: Scene) -> Work:
    """A model with the keys and values of many texts, and each text's logits."""
    model, tokens = scene.model("model"), params.tokens
    texts = generated_at_once(model, params.length) * _text_bytes(model, params.length)
    stored = model.stored if model.stored != FORWARD else 0
    weights = (FORWARD + stored) * parameters(model)
    kernels = KERNEL * min(params.length, KERNELS)
    memory = PROCESSES + _WRITING + weights + texts + kernels + TOKEN * model.shape.vocab
    return Work(tokens * forward_flops(model, params.length), None, _WORD * tokens, memory)


GENERATE: Final = Operation(
    op="generate",
    epoch=3,
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

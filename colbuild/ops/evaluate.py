"""evaluate: a model's loss on held-out text, and its divergence from the AnsNet."""

from __future__ import annotations

import math

from colbuild.errors import BuildError
from colbuild.ops.shared.running_models import check_vocabulary, model_of
from colbuild.ops.step_run import StepRun
from colbuild.plan.steps.evaluate import EvaluateParams
from colbuild.plan.workload.at_once import WINDOW
from colbuild.progress import Progress
from colbuild.train.corpus.packing import open_corpus
from colbuild.train.corpus.text_windows import evaluation_documents
from colbuild.train.loop.devices import forward_type
from colbuild.train.losses.logits_buffer import Room
from colbuild.train.watching.measure import NOTHING, score_window
from colbuild.weights.files.checkpoint import load_checkpoint, write_json

METRICS = "metrics.json"
_LOST = 700.0
"""A loss in nats whose perplexity is no float any more; no model that computes at all comes near."""


def run(step: StepRun, params: EvaluateParams) -> None:
    """Measures a model on whole documents of held-out text.

    Inputs: `model`, `reference` (the AnsNet, or the bridge where its vocabulary is another), `corpus`. Params: `tokens`,
    `split`. The output is `metrics.json`: `loss` in nats per token, `perplexity`, `bits_per_byte` of UTF-8 text,
    `top1_agreement` with the reference (0 to 1), `kl`, which is KL(reference || model) in nats per token, and what they were
    measured on.

    Raises:
        BuildError: The corpus was made with another tokenizer, or what a model computes is no number.
    """
    model = model_of(load_checkpoint(step.inputs["model"]), forward_type())
    # The AnsNet is compared with itself: it agrees, and need not be computed twice.
    same = step.inputs["reference"] == step.inputs["model"]
    reference = None if same else model_of(load_checkpoint(step.inputs["reference"]), forward_type())
    corpus = open_corpus(step.inputs["corpus"], params.split)
    check_vocabulary(corpus.vocabulary, model)
    windows = evaluation_documents(corpus, params.tokens, min(WINDOW, int(model.config.max_position_embeddings)))
    wanted = sum(len(window.targets) for window in windows)
    total, size, room = NOTHING, 0, Room()
    for window in windows:
        total = total.plus(score_window(model, window.inputs[None], window.targets, reference, room))
        size += window.bytes
        report = {"bits/byte": total.nats / math.log(2) / size} if size else {}
        step.reached(Progress(total.tokens, wanted, "tokens", "measuring", report))
    loss = total.nats / total.tokens
    if not loss < _LOST:
        raise BuildError(f"the model's loss is {loss}: its weights are damaged, or its training diverged")
    kl = total.kl / total.tokens
    if not kl < _LOST:
        raise BuildError(f"the divergence from the AnsNet is {kl}: the AnsNet's weights are damaged")
    write_json(
        step.output / METRICS,
        {
            "loss": loss,
            "perplexity": math.exp(loss),
            "bits_per_byte": total.nats / math.log(2) / size,
            "top1_agreement": total.agreed / total.tokens,
            "kl": kl,
            "tokens": total.tokens,
            "bytes": size,
            "split": params.split,
        },
    )

"""Every kind of step, in one table. A new kind is a module beside this one, one in `colbuild.ops`, and a line here.

`flops_share` and `byte_share` of a kind come from the recorded runs of the SmolLM2 family (`specs/family.yaml`) on two cores
of an AMD EPYC. Each core multiplies fp32 matrices at 112 GFLOP/s and counts the words of 15 MB of text in a second. Steps that
do not train use half of the cores. All of them compute in bf16, for which this processor has instructions: so 1 is not the most
there is, and a processor without these instructions is slower than the shares say. A recipe's fp32 counts as equally fast,
although it is a fifth slower there.
"""

from __future__ import annotations

from typing import Any, Final

from colbuild.plan.operation import Operation
from colbuild.plan.steps.align import ALIGN
from colbuild.plan.steps.bridge import BRIDGE_STEP
from colbuild.plan.steps.corpus import CORPUS
from colbuild.plan.steps.distill import DISTILL
from colbuild.plan.steps.evaluate import EVALUATE
from colbuild.plan.steps.export import EXPORT
from colbuild.plan.steps.generate import GENERATE
from colbuild.plan.steps.interpolate import INTERPOLATE
from colbuild.plan.steps.order import ORDER
from colbuild.plan.steps.quantise import QUANTISE
from colbuild.plan.steps.recover import RECOVER
from colbuild.plan.steps.source import SOURCE
from colbuild.plan.steps.teach import TEACH
from colbuild.plan.steps.tokenizer import TOKENIZER_STEP

OPERATIONS: Final[dict[str, Operation[Any]]] = {
    operation.op: operation
    for operation in (
        SOURCE,
        GENERATE,
        TOKENIZER_STEP,
        CORPUS,
        ORDER,
        BRIDGE_STEP,
        ALIGN,
        TEACH,
        DISTILL,
        INTERPOLATE,
        RECOVER,
        QUANTISE,
        EVALUATE,
        EXPORT,
    )
}
"""Name -> kind. The kinds that a finished model gets (`draws`) are drawn in this order."""


def epochs() -> dict[str, int]:
    """Name of each kind -> its epoch."""
    return {op: operation.epoch for op, operation in OPERATIONS.items()}

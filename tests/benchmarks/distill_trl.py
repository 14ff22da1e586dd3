"""TRL's GKD trainer on the same batches, in the environment of its own that it is installed into.

`beta=0` is the forward KL there: `generalized_jsd_loss` then takes `kl_div(log student, log teacher, log_target=True)`, which
is KL(teacher || student), and its documentation says "the KL divergence". `lmbda=0` trains on the given text, generates none.
Gradient checkpointing, on by default, is off: it saves memory for a third more work, and no other loop here does it.
"""

from __future__ import annotations

import tempfile
from typing import Any

from tests.benchmarks.distill_clock import Clock, job


def main(asked: dict[str, Any]) -> None:
    """Trains for some steps."""
    import numpy as np
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    clock = Clock()

    class Watch(TrainerCallback):  # type: ignore[misc]  # transformers has no types here
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.step(float("nan"))

    def together(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ids = torch.tensor([row["input_ids"] for row in rows])
        # Without a "prompts" key nothing can be generated, and with lmbda=0 nothing is.
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}

    needed = asked["steps"] * asked["batch"]
    text = np.load(asked["text"])[:, : asked["sequence"]]
    rows = [{"input_ids": text[row % len(text)].tolist()} for row in range(needed)]
    with tempfile.TemporaryDirectory() as folder:
        trainer = GKDTrainer(
            model=AutoModelForCausalLM.from_pretrained(asked["student"], dtype=torch.float32),
            teacher_model=AutoModelForCausalLM.from_pretrained(asked["teacher"], dtype=torch.bfloat16),
            args=GKDConfig(
                output_dir=folder,
                lmbda=0.0,
                beta=0.0,
                temperature=1.0,
                max_steps=asked["steps"],
                per_device_train_batch_size=asked["batch"],
                learning_rate=3e-4,
                bf16=True,
                use_cpu=asked["device"] == "cpu",
                gradient_checkpointing=False,
                max_length=asked["sequence"],
                report_to="none",
                logging_strategy="no",
                save_strategy="no",
                disable_tqdm=True,
            ),
            data_collator=together,
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(asked["teacher"]),
            callbacks=[Watch()],
        )
        trainer.train()
    clock.tell(torch.cuda.max_memory_allocated() / 2**30 if asked["device"] == "cuda" else None)


if __name__ == "__main__":
    main(job())

"""optimum's ORTModelForCausalLM continues the prompt of each package's manifest: FOLDER …; prints the tokens as JSON.

Runs in an environment of its own: optimum-onnx 0.1 asks for an older transformers than colbuild.
"""

import json
import sys
from pathlib import Path

import torch
from optimum.onnxruntime import ORTModelForCausalLM
from transformers import AutoTokenizer

for name in sys.argv[1:]:
    folder = Path(name)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    graph, sample = Path(manifest["graph"]["file"]), manifest["sample"]
    model = ORTModelForCausalLM.from_pretrained(
        folder, subfolder=str(graph.parent), file_name=graph.name, local_files_only=True
    )
    prompt, most = torch.tensor([sample["prompt"]]), len(sample["tokens"])
    made = model.generate(
        input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=most
    )
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    text = tokenizer.decode(tokenizer("Ada visits Zürich.").input_ids)
    print(json.dumps({"package": folder.name, "tokens": made[0, prompt.shape[1] :].tolist(), "text": text}))

"""A whole family over a bridge, from its file to packages, by the command line: as a user would, on a tiny AnsNet."""

from __future__ import annotations

import json

from transformers import AutoModelForCausalLM, AutoTokenizer

FAMILY = """\
apiVersion: colbuild/v1
name: crossed
ansnet: {source: ./.tiny/ansnet}
data:
  train: {generate: {tokens: 12k, prompts: [Ada, The sea], length: 64}, heldout: 0.1}
  eval: {tokens: 500}
order: {tokens: 512}
chain:
  recipe: recipes/quick.yaml
  tokens: 1k
  sequence: 32
  batch: 4
  precision: fp32
  bridge: {architecture: qwen3, tokenizer: {train: 330}, shape: {layers: 5}}
  anchors:
    - {name: large, params: 300k}
    - {name: small, params: 200k}
desnets:
  - {name: middle, params: 256k, exports: [tiny-int8]}
defaults:
  interpolate: {tokens: 256}
"""


def test_a_family_without_text_in_another_architecture_and_vocabulary_is_built_and_packaged(project, colbuild):
    run = colbuild
    (project / "specs/crossed.yaml").write_text(FAMILY, encoding="utf-8")
    built = run("build", "specs/crossed.yaml")
    assert built.code == 0, built.err
    assert "equals the bridge's; KL: nats per token to the bridge" in " ".join(built.out.split())
    folder = project / "out/crossed/middle/checkpoint"
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert (model.config.model_type, model.config.vocab_size) == ("qwen3", 330)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(tokenizer("Ada visits Zürich.").input_ids) == "Ada visits Zürich."
    assert (project / "out/crossed/middle/tiny-int8/onnx").is_dir()
    lock = json.loads((project / "specs/crossed.lock").read_text(encoding="utf-8"))
    assert lock["shapes"]["bridge"]["vocab"] == 330

    again = run("build", "specs/crossed.yaml", "--locked")
    assert (again.code, "Nothing to do" in again.out) == (0, True)
    planned = " ".join(run("plan", "specs/crossed.yaml").out.split())
    assert (
        "started from the AnsNet approximately, since the AnsNet has no norms over each head's queries and keys, "
        "as the family is qwen3 and the AnsNet llama and it has its own vocabulary" in planned
    )

    answered = run("run", "out/crossed/middle/tiny-int8", "--raw", "--prompt", "Ada", "--max-tokens", "4")
    assert answered.code == 0, answered.err

"""Keys and parameters of every step of the shipped families, and of families that have every kind of step.

A move of code must not change them: a changed key builds the step again in every store that a user has. Where a change
of meaning is wanted, `COLBUILD_GOLDEN=write pytest tests/plan/test_golden_keys.py` writes the file again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from colbuild.arch import read_structure
from colbuild.plan.drawing.build_graph import BuildGraph, build_graph
from colbuild.plan.shapes.chain import resolve_chain
from colbuild.plan.shapes.context_lengths import with_contexts
from colbuild.plan.steps.operations import OPERATIONS
from colbuild.spec import load_family
from tests.helpers.configs import SMOLLM2
from tests.helpers.golden import check_file
from tests.plan.families import VERSIONS
from tests.plan.test_key_invariance import keys_of

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden" / "keys.json"

TINY = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 96,
    "intermediate_size": 192,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}

HEAD = "apiVersion: colbuild/v1\nname: {name}\nansnet: {{source: ./ansnet}}\norder: {{tokens: 4k}}\n"

EVERY_KIND = {
    "chain": """data: {train: {source: ./text.txt}, eval: {tokens: 4k}}
chain:
  recipe: recipes/distill.yaml
  tokens: 6k
  anchors: [{name: large, params: 103M}, {name: small, params: 76M}]
desnets:
  - {name: mid, params: 88M, exports: [p-int8, p-fp32, p-int4, p-trained]}
  - name: mended
    params: 88M
    interpolate: {method: subset}
    recover: {recipe: recipes/recover.yaml, tokens: 6k}
    exports: []
defaults: {interpolate: {tokens: 2k}}
""",
    "lessons": """data: {train: {source: ./text.jsonl}, eval: {tokens: 2k}}
chain:
  recipe: recipes/distill.yaml
  tokens: 6k
  teacher: cached
  anchors:
    - {name: large, shape: {layers: 24, ffn: 1280}, elastic: null, init: {checkpoint: ./start, tokens: 2k}}
    - {name: small, params: 76M, elastic: {form: segment}}
desnets: [{name: mid, params: 88M, interpolate: {tokens: 2k}}]
""",
    "bridge": """data: {train: {source: ./text.parquet}, eval: {tokens: 2k}}
chain:
  recipe: recipes/distill.yaml
  tokens: 4k
  bridge: {architecture: qwen3, tokenizer: {train: 4k}, recipe: recipes/recover.yaml, tokens: 6k}
  anchors: [{name: large, shape: {layers: 20}, elastic: null}]
desnets: [{name: same, shape: {layers: 20}}]
""",
    "own": """data: {train: {generate: {tokens: 16k, length: 128}, heldout: 0.4}, eval: {tokens: 4k}}
chain: {recipe: recipes/distill.yaml, tokens: 2k, anchors: [{name: large, params: 103M}]}
desnets: [{name: same, params: 103M}]
""",
}
FILES = {
    "recipes/distill.yaml": "sequence: 256\nloss: {temperature: 1.0, kd_weight: 0.9}\noptimizer: {lr: 5e-4}\n",
    "recipes/recover.yaml": "sequence: 256\ntokens: 2M\noptimizer: {lr: 1e-4}\n",
    "exports/p-fp32.yaml": "precision: fp32\n",
    "exports/p-int8.yaml": "precision: int8\ncontext: 512\n",
    "exports/p-int4.yaml": "precision: int4\nlimits: {max_package: 90MB}\n",
    "exports/p-trained.yaml": "precision: int4-mixed\nlimits: {max_package: 90MB}\nrecover: {tokens: 6k}\n",
}


def described(graph: BuildGraph) -> dict[str, Any]:
    """Step id -> everything of a step that its key or its run depends on."""
    keys = keys_of(graph)
    return {
        step.id: {
            "key": keys[step.id],
            "params": step.params,
            "reads": {name: f"{read.step} {read.part}" for name, read in step.reads.items()},
            "sources": step.sources,
            "settings": step.settings,
        }
        for step in graph.steps
    }


def drawn(path: Path, config: dict[str, Any]) -> BuildGraph:
    loaded = load_family(path)
    structure = read_structure(config)
    chain = resolve_chain(loaded, structure)
    return build_graph(with_contexts(loaded.family, config), chain, VERSIONS)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BuildGraph]:
    found = {
        f"specs/{name}.yaml": drawn(ROOT / f"specs/{name}.yaml", config)
        for name, config in (("family", SMOLLM2), ("pocket", SMOLLM2), ("tiny", TINY))
    }
    project = tmp_path_factory.mktemp("every-kind")
    for name, text in (
        FILES | {f"specs/{name}.yaml": HEAD.format(name=name) + text for name, text in EVERY_KIND.items()}
    ).items():
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(text)
    return found | {name: drawn(project / f"specs/{name}.yaml", SMOLLM2) for name in EVERY_KIND}


def test_keys_and_parameters_are_as_they_were(graphs):
    told = {family: described(graph) for family, graph in graphs.items()}
    check_file(GOLDEN, json.dumps(told, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def test_every_kind_of_step_is_among_them(graphs):
    assert {step.op for graph in graphs.values() for step in graph.steps} == OPERATIONS.keys()

"""Every optional field at every position of a family: it is planned to the end, or refused at its place."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest

from colbuild.arch import Structure
from colbuild.errors import SpecError
from colbuild.plan.changes.states import plan_steps
from colbuild.plan.cost.estimate import estimate, peak_memory
from colbuild.plan.drawing.build_graph import build_graph
from colbuild.plan.shapes.chain import resolve_chain
from colbuild.spec import load_family
from colbuild.store import open_store
from tests.conftest import MACHINE
from tests.plan.built import SOURCES
from tests.plan.families import ANSNET, VERSIONS, project

SIZES = ("{layers: 25, ffn: 1280}", "{layers: 19, ffn: 944}", "{layers: 12, ffn: 768}")
"""The anchors' shapes: the first, one in the middle, and the last."""

ANCHOR_FIELDS = {
    "nothing": "",
    "init": "init: {checkpoint: ./start}",
    "init, turned": "init: {checkpoint: ./start, align: procrustes, tokens: 1k}",
    "init, as it is": "init: {checkpoint: ./start, align: none}",
    "cached": "teacher: cached",
    "init and cached": "init: {checkpoint: ./start}, teacher: cached",
    "segment": "elastic: {form: segment}",
    "anchor": "elastic: {form: anchor}",
    "not elastic": "elastic: null",
    "reverse": "loss: {type: reverse_kl}",
    "text alone": "loss: {kd_weight: 0, ce_weight: 1}",
    "hidden": "loss: {hidden_weight: 0.5}",
    "on policy": "on_policy: {share: 0.5}",
    "on policy, chat": "on_policy: {share: 1.0, prompt: chat}, loss: {type: reverse_kl}",
    "apart": "documents: apart, precision: fp32, sequence: 128, batch: 2",
}
BRIDGES = {
    "none": "",
    "the same": "{}",
    "another architecture": "{architecture: qwen3}",
    "smaller": "{params: 120M}",
    "another vocabulary": "{tokenizer: {train: 16k}}",
    "written": "{tokenizer: {train: 16k}, loss: {across: seqkd}}",
    "at random": "{architecture: gpt2, start: random}",
}
LIKE_OTHERS = ("the same", "another architecture", "at random", "written")
"""Bridges below which an anchor's own training is planned as below another one."""

DESNET_FIELDS = {
    "params": "params: 60M",
    "package": "max_package: 75MB, exports: [phone-int8]",
    "recover": "params: 60M, recover: {tokens: 1M, teacher: cached}",
    **{
        f"method {name}": f"params: 60M, interpolate: {{method: {name}}}"
        for name in ("global_alpha", "layer_alpha", "patch", "subset", "expand", "random", "uniform", "nested")
    },
    "alpha": "params: 60M, interpolate: {method: global_alpha, alpha: distance, fill: zero}",
    "refit": "params: 60M, interpolate: {method: subset, refit: auto}",
}
DATA = {
    "a file": "  train: {source: ./corpus.txt}\n",
    "part of a file": "  train: {source: ./corpus.txt, limit: 8MB}\n  eval: {source: ./other.txt}\n",
    "generated": "  train: {generate: {tokens: 200k}}\n",
}


def families() -> Iterator[tuple[str, dict[str, str]]]:
    """Each field at each position, with each bridge; one field of a family at a time."""
    for (field, text), at, (bridged, bridge) in product(ANCHOR_FIELDS.items(), range(3), BRIDGES.items()):
        if bridged in LIKE_OTHERS and "init" not in field:
            continue
        lines = [
            f"    - {{name: a{place}, shape: {size}{', ' + text if text and place == at else ''}}}\n"
            for place, size in enumerate(SIZES)
        ]
        yield f"{field} at {at}, bridge {bridged}", {"anchors": "".join(lines), "bridge": bridge}
    for (field, text), (bridged, bridge) in product(DESNET_FIELDS.items(), BRIDGES.items()):
        yield f"{field}, bridge {bridged}", {"desnets": f"  - {{name: d, {text}}}\n", "bridge": bridge}
    for (field, text), (bridged, bridge) in product(DATA.items(), BRIDGES.items()):
        yield f"{field}, bridge {bridged}", {"data": text, "bridge": bridge}


@pytest.mark.parametrize("bridged", BRIDGES)
def test_every_field_at_every_position_is_planned_or_refused_at_its_place(tmp_path, bridged):
    chosen = {name: parts for name, parts in families() if name.endswith(f"bridge {bridged}")}
    planned = 0
    for name, parts in chosen.items():
        anchors = "".join(f"    - {{name: a{place}, shape: {size}}}\n" for place, size in enumerate(SIZES))
        parts = {"anchors": anchors, "desnets": "  - {name: d, params: 60M}\n", **parts}
        try:
            _plan(tmp_path, parts)
            planned += 1
        except SpecError as error:
            assert "specs/family.yaml:" in error.message, name
        except Exception as error:
            raise AssertionError(f"{name}: {error!r}") from error
    assert planned > len(chosen) / 2


def _plan(root, parts: dict[str, str]) -> None:
    """What `colbuild plan` computes of a family, without its sources."""
    loaded = load_family(project(root / "project", **parts))
    chain = resolve_chain(loaded, ANSNET)
    assert isinstance(chain.top.structure, Structure)
    graph = build_graph(loaded.family, chain, VERSIONS)
    steps = plan_steps(
        graph, family="fam", store=open_store(root / "store"), places=loaded.places, source_digest=SOURCES.get
    )
    found = estimate(graph, steps, chain, list, lambda: MACHINE, lambda seconds, memory: (0.0, 0))
    assert found.steps.keys() == peak_memory(graph, chain).keys()

"""Valid specs with a few things broken at random: the outcome is a plan or a located error, never anything else."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from colbuild.errors import ColbuildError, SpecError
from colbuild.plan.changes.states import State, plan_steps
from colbuild.plan.drawing.build_graph import build_graph
from colbuild.plan.lock.locked_sources import sources_of
from colbuild.plan.shapes.chain import resolve_chain
from colbuild.spec import load_family
from colbuild.store import Store, open_store
from tests.plan.families import ANSNET, VERSIONS

FILES = {
    "specs/family.yaml": """\
apiVersion: colbuild/v1
name: fam
ansnet: {source: ./ansnet, exports: [gateway]}
data:
  train: {source: ./corpus.txt, limit: 8MB, heldout: 0.05}
  eval: {tokens: 8k}
order: {tokens: 8k}
chain:
  recipe: recipes/distill.yaml
  tokens: 64k
  max_gap: 2.5
  route: cheapest
  anchors:
    - {name: a100, params: 103M}
    - {name: a76, params: 76M, recipe: recipes/slow.yaml, loss: {temperature: 2.0}}
    - {name: a50, shape: {layers: 12, ffn: 768}}
desnets:
  - {name: phone, params: 88M, exports: [phone-int8, gateway]}
  - {name: kiosk, shape: {layers: 22, ffn: 1152}, recover: {recipe: recipes/slow.yaml}}
  - {name: watch, params: 76M}
defaults:
  interpolate: {method: group_alpha, tokens: 2k}
  exports: [phone-int8]
""",
    "recipes/distill.yaml": """\
tokens: 2M
seed: 3
sequence: 256
batch: 4
precision: bf16
loss: {type: forward_kl, temperature: 1.0, kd_weight: 0.9, ce_weight: 0.1}
optimizer: {lr: 5e-4, betas: [0.9, 0.95], clip: 1.0}
schedule: {type: cosine, warmup: 0.1, final: 0.1}
""",
    "recipes/slow.yaml": "extends: recipes/distill.yaml\noptimizer: {lr: 1e-4}\n",
    "exports/phone-int8.yaml": "precision: int8\nblock: 32\ncontext: 1024\nlimits: {max_package: 120MB}\n",
    "exports/gateway.yaml": "context: 8192\n",
}
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 9, 12, 30, 31, 576, 2**31, 10**12, 10**400, 0.5, 1.5, -0.0, 1e-300, 1e300),
    *(
        float("nan"),
        float("inf"),
        "",
        " ",
        "~",
        "no",
        "88M",
        "76M",
        "134515008",
        "134.5M",
        "100k",
        "1.5B",
        "88m",
        "40MB",
    ),
    *(
        "1e9M",
        "0M",
        "-5M",
        "0x10",
        "1_000",
        "٣M",
        "a100",
        "phone",
        "ansnet",
        "A100",
        "..",
        "a/b",
        "/etc/passwd",
        "C:\\x",
    ),
    *(
        "a" * 70,
        "naïve",
        "\u202e",
        "\0",
        "{}",
        "<<",
        "*x",
        "&x y",
        "!!python/object:os.system x",
        "./x",
        "./",
        "hf://a/b",
    ),
    *(
        "pkg://a/b",
        "pypi://a==1/b",
        "recipes/slow.yaml",
        "recipes/none.yaml",
        "specs/family.yaml",
        "phone-int8",
        "fp32",
    ),
    *("stepwise", "subset", "auto", [], {}, [[]], [None], ["x", "x"], {"x": 1}, {"params": "88M"}, {"layers": 12}),
)
TEXTS = (
    "",
    " ",
    "  ",
    "\t",
    "\n",
    ":",
    "- ",
    "#",
    "'",
    '"',
    "{",
    "}",
    "[",
    "]",
    ",",
    "&a ",
    "*a",
    "? ",
    "|\n",
    "%",
    "@",
    "\0",
)
SHARES = st.floats(0, 1, exclude_max=True)

LOCATED = re.compile(r"^(specs|recipes|exports)/[\w./-]+\.yaml:\d+:\d+: \S")


def holders(tree: Any) -> list[tuple[Any, Any]]:
    """Every (mapping, key) and (list, index) of a tree."""
    own = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [pair for key, value in list(own) for pair in ((tree, key), *holders(value))]


def drop(holder: Any, key: Any, _: Any) -> None:
    del holder[key]


def swap(holder: Any, key: Any, value: Any) -> None:
    holder[key] = value


def rename(holder: Any, key: Any, value: Any) -> None:
    if isinstance(holder, dict):
        holder[str(value) if isinstance(value, list | dict | float) else value] = holder.pop(key)


def double(holder: Any, key: Any, _: Any) -> None:
    if isinstance(holder, list):
        holder.insert(key, holder[key])


def turn(holder: Any, key: Any, _: Any) -> None:
    if isinstance(holder[key], list):
        holder[key].reverse()


def stretch(holder: Any, key: Any, value: Any) -> None:
    """A number or a size becomes another one of its kind."""
    plain = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9
    factor = value if plain else 0.97
    old = holder[key]
    if isinstance(old, str) and (number := re.fullmatch(r"([0-9]+\.?[0-9]*)(\D+)", old)):
        holder[key] = f"{float(number[1]) * factor:g}{number[2]}"
    elif isinstance(old, int | float) and abs(old) < 1e15:
        holder[key] = old * factor


TREE_EDITS: tuple[Callable[[Any, Any, Any], None], ...] = (drop, swap, swap, rename, double, turn, stretch, stretch)


def edit_tree(text: str, edits: list[tuple[int, float, Any]]) -> str:
    tree = yaml.safe_load(text)
    for kind, share, value in edits:
        pairs = holders(tree)
        if pairs:
            # A copy: later edits may reach into it, and the next example is given the same object.
            TREE_EDITS[kind](*pairs[int(share * len(pairs))], deepcopy(value))
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=200)


def edit_text(text: str, edits: list[tuple[str, float, str]]) -> str:
    for kind, share, word in edits:
        lines = text.split("\n")
        at = int(share * len(lines))
        if kind == "insert":
            place = int(share * len(text))
            text = text[:place] + word + text[place:]
            continue
        if kind == "remove":
            del lines[at]
        elif kind == "double":
            lines.insert(at, lines[at])
        elif kind == "indent":
            lines[at] = word + lines[at]
        elif kind == "outdent":
            lines[at] = lines[at].removeprefix(" ")
        else:
            lines[at:] = reversed(lines[at:])
        text = "\n".join(lines)
    return text


TREE = st.lists(st.tuples(st.integers(0, len(TREE_EDITS) - 1), SHARES, st.sampled_from(VALUES)), max_size=3)
TEXT = st.lists(
    st.tuples(
        st.sampled_from(("insert", "remove", "double", "indent", "outdent", "reverse")), SHARES, st.sampled_from(TEXTS)
    ),
    max_size=2,
)
NAMES = st.sampled_from((*["specs/family.yaml"] * 4, *FILES))


def outcome(root: Path, store: Store) -> str:
    """What planning a project comes to: "plan", or the error's message once it is known to be located."""
    try:
        loaded = load_family(root / "specs/family.yaml")
        graph = build_graph(loaded.family, resolve_chain(loaded, ANSNET), VERSIONS)
        sources_of(loaded, store)
        steps = plan_steps(
            graph, family=loaded.family.name, store=store, places=loaded.places, source_digest=lambda _: None
        )
    except SpecError as error:
        title, *problems = error.message.split("\n\n")
        assert title == ("1 problem" if len(problems) == 1 else f"{len(problems)} problems") + " in the spec"
        for problem in problems:
            assert LOCATED.match(problem), problem
        return error.message
    except ColbuildError as error:
        return error.message
    assert {step.state for step in steps} == {State.NEW}
    return "plan"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzz")
    return root, open_store(root / ".colbuild")


def write(root: Path, changed: dict[str, str]) -> None:
    for name, text in (FILES | changed).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="surrogatepass")


def test_what_is_mutated_is_a_plan_before(place):
    write(place[0], {name: edit_tree(text, []) for name, text in FILES.items()})
    assert outcome(*place) == "plan"


@pytest.mark.slow
@settings(max_examples=700, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(name=NAMES, edits=TREE)
def test_broken_values_give_a_plan_or_a_located_error(place, name, edits):
    write(place[0], {name: edit_tree(FILES[name], edits)})
    outcome(*place)


@pytest.mark.slow
@settings(max_examples=500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(name=NAMES, edits=TEXT)
@example(name="specs/family.yaml", edits=[("double", 0.0, "")])
def test_broken_text_gives_a_plan_or_a_located_error(place, name, edits):
    write(place[0], {name: edit_text(FILES[name], edits)})
    outcome(*place)

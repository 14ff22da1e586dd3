"""Running packages: with onnxruntime alone, streamed, and with clear words where something is wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from colbuild.errors import BuildError
from colbuild.export.runtime import session
from colbuild.export.runtime.running import generate, open_package
from tests.export.helpers import CONTEXT

DOCS = Path(__file__).parents[2] / "docs/packages.md"


@pytest.fixture
def copy(int8_package: Path, tmp_path: Path) -> Path:
    """A package that a test may spoil."""
    return Path(shutil.copytree(int8_package, tmp_path / "package"))


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_onnxruntime_alone_answers_without_torch(int8_package: Path):
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'onnx', 'onnx_ir', 'onnxscript', 'mobius'): sys.modules[name] = None\n"
        "from pathlib import Path\n"
        "from colbuild.export.runtime.running import generate, open_package\n"
        "print(''.join(generate(open_package(Path(sys.argv[1])), 'Ada builds', max_tokens=8)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, int8_package], capture_output=True, text=True, check=True)
    assert done.stdout == "".join(generate(open_package(int8_package), "Ada builds", max_tokens=8)) + "\n"


@pytest.mark.parametrize("package", ["fp32_package", "int8_package"])
def test_example_in_the_documentation_answers(package: str, request: pytest.FixtureRequest):
    code = DOCS.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    folder = request.getfixturevalue(package)
    done = subprocess.run(
        [sys.executable, "-c", code, folder, "Ada builds"], capture_output=True, text=True, check=True
    )
    opened = open_package(folder)
    object.__setattr__(opened, "ends", frozenset())
    assert done.stdout == "".join(generate(opened, "Ada builds", max_tokens=16, chat=False)) + "\n"


def test_chat_template_is_used_unless_refused(int8_package: Path):
    opened = open_package(int8_package)
    asked, continued = (generate(opened, "Ada", max_tokens=2, chat=chat) for chat in (None, False))
    plain = len(opened.tokenizer.encode("Ada").ids)
    assert continued.prompt_tokens == plain
    assert asked.prompt_tokens == len(opened.tokenizer.encode("user: Ada\nassistant: ").ids) > plain


def test_same_seed_draws_the_same_and_another_seed_differs(fp32_package: Path):
    opened = open_package(fp32_package)

    def answer(seed: int) -> str:
        return "".join(generate(opened, "Ada", max_tokens=24, temperature=1.5, seed=seed))

    assert answer(1) == answer(1)
    assert answer(1) != answer(2)


def test_long_prompt_read_in_pieces_gives_what_it_gives_at_once(fp32_package: Path, monkeypatch: pytest.MonkeyPatch):
    opened = open_package(fp32_package)
    at_once = "".join(generate(opened, "Elsa repairs clocks. " * 6, max_tokens=12))
    monkeypatch.setattr(session, "PROMPT_PIECE", 7)
    assert "".join(generate(opened, "Elsa repairs clocks. " * 6, max_tokens=12)) == at_once


def test_figures_count_tokens_and_say_why_it_stopped(fp32_package: Path):
    opened = open_package(fp32_package)
    generation = generate(opened, "Ada", max_tokens=5)
    list(generation)
    assert (generation.new_tokens, generation.stopped, generation.steps) == (5, "max_tokens", 4)
    assert generation.seconds > 0.0
    assert "5 new tokens" in generation.summary()


def test_answer_ends_at_an_end_token(fp32_package: Path):
    opened = open_package(fp32_package)
    whole = open_package(fp32_package).manifest.sample
    text = opened.tokenizer.decode(list(whole.prompt))
    object.__setattr__(opened, "ends", frozenset({whole.tokens[0]}))
    generation = generate(opened, text, max_tokens=9, chat=False)
    assert list(generation) == []
    assert (generation.new_tokens, generation.stopped) == (0, "end")


def test_answer_stops_where_the_context_is_full(fp32_package: Path):
    opened = open_package(fp32_package)
    object.__setattr__(opened, "ends", frozenset())
    ids = opened.tokenizer.encode("a " * (CONTEXT // 2 - 2)).ids
    prompt = opened.tokenizer.decode(ids[: CONTEXT - 3])
    generation = generate(opened, prompt, max_tokens=1000, chat=False)
    room = CONTEXT - generation.prompt_tokens
    list(generation)
    assert (generation.new_tokens, generation.stopped) == (room, "context")


def test_prompt_beyond_the_context_is_refused_with_both_numbers(fp32_package: Path):
    with pytest.raises(BuildError, match=r"the prompt has \d{3,} tokens; this package takes 256"):
        generate(open_package(fp32_package), "Ada builds bridges. " * 200, max_tokens=1)


def test_empty_prompt_starts_from_the_beginning_token(fp32_package: Path):
    generation = generate(open_package(fp32_package), "", max_tokens=2, chat=False)
    list(generation)
    assert (generation.prompt_tokens, generation.new_tokens) == (1, 2)


# -- what is not a package, or not as it was ---------------------------------------------------------------------------


def message(folder: Path) -> str:
    with pytest.raises(BuildError) as caught:
        open_package(folder)
    return caught.value.message


def test_folder_without_manifest_is_no_package(tmp_path: Path):
    assert "not a package: it has no manifest.json" in message(tmp_path)
    assert "is not a folder" in message(tmp_path / "nowhere")


def test_foreign_manifest_is_no_package(tmp_path: Path):
    (tmp_path / "manifest.json").write_text('{"name": "a web app"}')
    assert "not written by colbuild" in message(tmp_path)
    (tmp_path / "manifest.json").write_text("[1]")
    assert "not written by colbuild" in message(tmp_path)
    (tmp_path / "manifest.json").write_text("not json")
    assert "cannot be read" in message(tmp_path)


def test_newer_schema_is_named(copy: Path):
    edit(copy / "manifest.json", schema_version=2)
    assert "schema version 2; this colbuild supports version 1" in message(copy)


def test_damaged_manifest_is_named_with_the_place(copy: Path):
    edit(copy / "manifest.json", parity={})
    assert "damaged at 'parity.prompts'" in message(copy)


def test_missing_file_is_named(copy: Path):
    (copy / "tokenizer.json").unlink()
    assert "lacks tokenizer.json" in message(copy)


def test_file_of_another_size_is_named(copy: Path):
    (copy / "config.json").write_text("{}")
    assert "config.json is not the package's own file: it has 2 bytes" in message(copy)


def test_manifest_cannot_reach_outside_the_package(copy: Path):
    outside = {"path": "../secret", "size": 1, "sha256": "0" * 64}
    edit(copy / "manifest.json", files=[outside])
    assert "lies outside the package" in message(copy)


def test_graph_that_onnxruntime_cannot_load_is_named(copy: Path):
    path = copy / "onnx/model_quantized.onnx"
    path.write_bytes(b"x" * path.stat().st_size)
    assert "cannot load" in message(copy)

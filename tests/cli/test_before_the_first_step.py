"""What cannot end well is said by `plan`, `lock` and `build` alike, before anything is built."""

from __future__ import annotations

import pytest

from colbuild import Resources
from colbuild.cli import build_options
from colbuild.cli.common import warn_of_threads
from colbuild.errors import EXIT_SPEC_ERROR
from colbuild.plan.family_plan import open_workspace
from colbuild.plan.planning import make_plan
from colbuild.spec import load_family
from tests.helpers.project import replace_in

SPEC = "specs/tiny.yaml"


@pytest.mark.parametrize("command", ["plan", "lock", "build"])
def test_more_tokens_than_the_text_has_are_told_at_their_line(project, colbuild, command):
    replace_in(project / SPEC, "  tokens: 4k", "  tokens: 20M")
    ran = colbuild(command, SPEC)
    assert ran.code == EXIT_SPEC_ERROR
    assert f"{SPEC}:20:11: 'tokens' needs 19,999,744 tokens: ./.tiny/corpus.txt has at most" in ran.err
    assert ran.err.count("20:11") == 1, "once for all anchors"
    replace_in(project / "recipes" / "distill.yaml", "epochs: once", "epochs: allow")
    assert colbuild("plan", SPEC).code == 0


def test_more_tokens_than_the_text_is_likely_to_have_are_a_warning(project, colbuild):
    replace_in(project / SPEC, "  tokens: 4k", "  tokens: 100k")
    ran = colbuild("plan", SPEC)
    assert ran.code == 0
    assert (
        f"warning: {SPEC}:20:11: 'tokens' needs 99,840 tokens: the train split of ./.tiny/corpus.txt probably"
        in ran.out
    )


@pytest.mark.parametrize("command", ["plan", "lock", "build"])
def test_a_context_beyond_the_models_positions_is_told_at_its_line(project, colbuild, command):
    replace_in(project / "exports" / "tiny-int8.yaml", "context: 512", "context: 600")
    ran = colbuild(command, SPEC)
    assert ran.code == EXIT_SPEC_ERROR
    assert "exports/tiny-int8.yaml:5:10: 'context' is 600 tokens: the AnsNet has 512 positions" in ran.err


SIZED = "{name: middle, max_package: 370kB, exports: [tiny-int8]}"
MIDDLE = "{name: middle, params: 270k, exports: [tiny-int8, tiny-fp32]}"


def test_a_package_is_counted_with_the_tokenizer_that_it_holds(project, colbuild):
    """The bound by the vocabulary alone, of 144 bytes an entry, refused this size."""
    replace_in(project / SPEC, MIDDLE, SIZED)
    loaded = load_family(project / SPEC)
    chain = make_plan(loaded, open_workspace(loaded)).chain
    assert colbuild("lock", SPEC).code == 0
    replace_in(project / SPEC, "{name: least, params: 200k}", "{name: least, params: 210k}")
    (project / ".tiny" / "ansnet").rename(project / ".tiny" / "gone")
    # The lock's shapes do not hold, and the files are gone; but it still says how large the tokenizer is.
    again = make_plan(load_family(project / SPEC), open_workspace(loaded)).chain
    assert again.desnets[0].member.structure.shape == chain.desnets[0].member.structure.shape
    assert again.tokenizer == chain.tokenizer is not None


def test_a_context_that_is_not_given_is_what_the_model_has(project, colbuild):
    replace_in(project / "exports" / "tiny-int8.yaml", "context: 512", "")
    loaded = load_family(project / SPEC)
    plan = make_plan(loaded, open_workspace(loaded))
    contexts = {step.params["profile"]["context"] for step in plan.graph.steps if step.op == "export"}
    assert contexts == {512}
    assert colbuild("lock", SPEC).code == 0
    assert "lock: up to date" in colbuild("plan", SPEC).out, "the lock holds what was written"


@pytest.mark.parametrize("command", ["plan", "lock", "build"])
def test_a_token_that_texts_cannot_begin_with_is_told_at_its_line(project, colbuild, command):
    replace_in(project / SPEC, "data:\n", "data:\n  begin: <s>\n")
    ran = colbuild(command, SPEC)
    assert ran.code == EXIT_SPEC_ERROR
    assert f"{SPEC}:13:10: 'begin': the tokenizer has no token '<s>'" in ran.err
    assert "its special tokens are <|endoftext|>" in ran.err
    replace_in(project / SPEC, "begin: <s>", "begin: none")
    assert colbuild("plan", SPEC).code == 0


def test_values_that_are_hardly_meant_are_warnings(project, colbuild):
    replace_in(project / "recipes" / "recover.yaml", "lr: 1e-4", "lr: 1e9")
    ran = colbuild("plan", SPEC)
    assert ran.code == 0
    assert "warning: recipes/recover.yaml:" in ran.out
    assert "'lr' is 1e+09, which is unusual: the usual range is at most 0.1" in ran.out


def test_options_that_are_hardly_meant_are_warnings(monkeypatch, capsys):
    monkeypatch.setattr("colbuild.machine", lambda: Resources(2, 10**10))
    build_options.options_of(None, False, 0, 64, "8", None, None, False)
    told = capsys.readouterr().err
    assert "--cores 64: this machine has 2" in told
    assert "--memory is 8 B, less than any step needs: steps run one at a time; did you mean 8GB?" in told
    build_options.options_of(None, False, 0, 2, "100GB", None, None, False)
    assert "--memory is 100.0 GB: this machine has 10.0 GB" in capsys.readouterr().err
    build_options.options_of(None, False, 0, 1, "8GB", None, None, False)
    warn_of_threads([1, 2, None])
    assert capsys.readouterr().err == ""
    warn_of_threads([3])
    assert "3 threads: this machine has 2 cores" in capsys.readouterr().err

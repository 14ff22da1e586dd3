"""How much text a family has and asks for, before any of it is read."""

from __future__ import annotations

import gzip

import pytest

from colbuild.fetch.texts.text_size import TextSize, text_size
from colbuild.plan.changes.states import plan_steps
from colbuild.plan.checks.text_amounts import known_texts, text_bytes, text_problems
from colbuild.plan.drawing.build_graph import build_graph
from colbuild.plan.shapes.chain import resolve_chain
from colbuild.store import open_store
from tests.plan.families import ANSNET, DISTILL, RECOVER, VERSIONS, load

ONE = "  - {name: phone, params: 88M}\n"
FILE = "  train: {source: ./corpus.txt}\n"
INT4 = "precision: int4\n"
SMALL = "order: {tokens: 1k}\ndefaults: {interpolate: {tokens: 1k}}\n"
TINY = "order: {tokens: 1k}\ndefaults: {interpolate: {tokens: 40}}\n"


def judged(root, size=None, meta=None, built=False, **parts):
    """(errors, warnings) of a family, each as "place: message"."""
    loaded = load(root / "project", **{"desnets": ONE, "data": FILE, "extra": SMALL, **parts})
    graph = build_graph(loaded.family, resolve_chain(loaded, ANSNET), VERSIONS)
    steps = plan_steps(
        graph, family="fam", store=open_store(root / "store"), places=loaded.places, source_digest=lambda uri: "a" * 64
    )
    if built:
        steps = tuple(replaced(plan) for plan in steps)
    texts = known_texts(steps, loaded, lambda uri, params: size, lambda digest: meta)
    found = text_problems(graph, steps, texts, loaded)
    return tuple([f"{problem.place}: {problem.message}" for problem in side] for side in found), texts


def replaced(plan):
    """A corpus that is in the store."""
    from dataclasses import replace

    return replace(plan, output="c" * 64) if plan.step.op == "corpus" else plan


def packed(train, heldout=20_000):
    sides = {"train": train, "heldout": heldout}
    return {"splits": {name: {"documents": 7, "parts": 7, "tokens": n, "bytes": 4 * n} for name, n in sides.items()}}


def test_more_tokens_than_a_file_has_bytes_is_an_error_at_the_line_that_asks(tmp_path):
    (errors, warnings), _ = judged(tmp_path, size=(50_000, False), extra=TINY)
    assert errors == [
        "specs/family.yaml:8: 'tokens' needs 79,872 tokens: ./corpus.txt has at most 50,000 bytes of text, and a token "
        "stands for at least one"
    ]
    assert warnings == []


def test_more_tokens_than_usual_text_has_is_a_warning(tmp_path):
    (errors, warnings), _ = judged(tmp_path, size=(200_000, False))
    assert errors == []
    assert warnings == [
        "specs/family.yaml:8: 'tokens' needs 79,872 tokens: the train split of ./corpus.txt probably has about 49k, "
        "and the build fails if it has no more"
    ]
    assert judged(tmp_path, size=(600_000, False))[0] == ([], [])


@pytest.mark.parametrize("size", [(50_000, False), (200_000, False)])
def test_text_that_may_be_read_again_is_enough(tmp_path, size):
    assert judged(tmp_path, size=size, distill=DISTILL + "epochs: allow\n", extra=TINY)[0] == ([], [])


def test_a_corpus_in_the_store_is_counted(tmp_path):
    for tokens, told in ((79_000, 1), (79_873, 0)):
        (errors, warnings), _ = judged(tmp_path, meta=packed(tokens), built=True)
        assert (len(errors), warnings) == (told, [])
    assert (
        "'tokens' needs 79,872 tokens, and the train split of ./corpus.txt has 79,000"
        in judged(tmp_path, meta=packed(79_000), built=True)[0][0][0]
    )


@pytest.mark.parametrize(
    ("parts", "place"),
    [
        ({"extra": "order: {tokens: 60k}\n"}, "specs/family.yaml:14: 'tokens' needs 60,000"),
        (
            {
                "desnets": "  - {name: phone, params: 88M, exports: [phone-int8]}\n",
                "profile": INT4 + "calibration: 60k\n",
            },
            "exports/phone-int8.yaml:2: 'calibration' needs 60,000",
        ),
        (
            {"desnets": "  - {name: phone, params: 88M, recover: {recipe: recipes/recover.yaml}}\n"},
            "recipes/recover.yaml:1: 'tokens' needs 1,998,848",
        ),
        (
            {
                "anchors": "    - {name: a100, shape: {layers: 24, ffn: 1280}, init: {checkpoint: ./s, tokens: 60k}}\n"
                "    - {name: a76, params: 76M}\n"
            },
            "specs/family.yaml:10: 'tokens' needs 60,000",
        ),
    ],
    ids=["order", "calibration", "recover", "align"],
)
def test_everybody_who_reads_the_text_is_asked(tmp_path, parts, place):
    parts = {"distill": DISTILL + "epochs: allow\n", "recover": RECOVER, **parts}
    (errors, _), _ = judged(tmp_path, size=(50_000, False), **parts)
    assert [error for error in errors if error.startswith(place)] == errors != []
    (errors, _), _ = judged(tmp_path, meta=packed(50_000), built=True, **parts)
    assert [error for error in errors if error.startswith(place)] == errors != []


def test_a_rounded_models_training_reads_the_text_again(tmp_path):
    quantised = {
        "desnets": "  - {name: p, params: 88M, exports: [phone-int8]}\n",
        "profile": INT4 + "recover: quantised\n",
    }
    assert judged(tmp_path, size=(50_000, False), distill=DISTILL + "epochs: allow\n", **quantised)[0][0] == []


def test_a_compressed_file_has_more_text_than_bytes(tmp_path):
    assert judged(tmp_path, size=(90_000, True), extra=TINY)[0] == ([], [])
    (errors, warnings), texts = judged(tmp_path, size=(20_000, True), extra=TINY)
    assert (errors, len(warnings)) == ([], 1)
    assert texts["corpus train"].most is None


def test_a_limit_is_what_there_is_at_most(tmp_path):
    limited = "  train: {source: ./corpus.txt, limit: 50kB}\n"
    for size in (None, (10**9, False), (10**6, True)):
        (errors, _), _ = judged(tmp_path, size=size, data=limited)
        assert len(errors) == 1
    assert judged(tmp_path, size=None)[0] == ([], []), "nothing is known of a source that is not here"


def test_generated_text_has_as_many_tokens_as_were_asked_for(tmp_path):
    data = "  train: {{generate: {{tokens: {0}}}}}\n"
    assert judged(tmp_path, data=data.format("82k"))[0] == ([], [])
    (errors, warnings), _ = judged(tmp_path, data=data.format("60k"))
    assert (errors, len(warnings)) == ([], 1)


def test_a_measurement_on_less_than_was_written_is_a_warning_and_on_less_than_the_default_none(tmp_path):
    data = FILE + "  eval: {tokens: 30k}\n"
    (errors, warnings), _ = judged(tmp_path, meta=packed(10**6), built=True, data=data)
    assert errors == []
    assert len(warnings) == 1
    assert "so fewer are read" in warnings[0]
    assert judged(tmp_path, meta=packed(10**6, heldout=100), built=True, extra=TINY)[0] == ([], [])


def test_fewer_held_out_tokens_than_mixtures_shall_be_chosen_on_are_a_warning(tmp_path):
    (errors, warnings), _ = judged(tmp_path, meta=packed(10**6, heldout=900), built=True)
    assert errors == []
    assert warnings == [
        "specs/family.yaml:15: 'tokens' needs 1,000 tokens, and the heldout split of ./corpus.txt has 900, so fewer are read"
    ]
    (errors, warnings), _ = judged(tmp_path, size=(180_000, False), distill=DISTILL + "epochs: allow\n")
    assert (errors, len(warnings)) == ([], 1)
    assert (
        "the heldout split of ./corpus.txt probably has about 900, and fewer are read if it has no more" in warnings[0]
    )


def test_where_nothing_is_held_out_mixtures_are_chosen_on_training_text(tmp_path):
    data = "  train: {source: ./corpus.txt, heldout: 0}\n  eval: {split: all}\n"
    (errors, warnings), _ = judged(tmp_path, meta=packed(79_873, 0), built=True, data=data)
    assert errors == []
    assert warnings == [
        "specs/family.yaml:5: mixtures are chosen on text that anchors are trained on: of one that knows it by heart too much "
        "is taken"
    ]


def test_with_all_of_the_text_trained_on_a_choice_has_no_other(tmp_path):
    data = "  train: {source: ./corpus.txt, split: all}\n"
    (errors, warnings), _ = judged(tmp_path, meta=packed(79_873), built=True, data=data)
    assert (errors, len(warnings)) == ([], 1)
    assert "text that anchors are trained on" in warnings[0]
    given = "  - {name: phone, params: 88M, interpolate: {method: subset}}\n"
    assert judged(tmp_path, meta=packed(79_873), built=True, data=data, desnets=given)[0] == ([], [])


def test_nothing_to_measure_on_is_an_error_at_its_line(tmp_path):
    data = "  train: {source: ./corpus.txt, heldout: 0}\n"
    for built in (False, True):
        (errors, _), _ = judged(tmp_path, size=(10**9, False), data=data, built=built, meta=packed(10**9, 0))
        assert errors == ["specs/family.yaml:5: 'heldout' is 0, so there are no documents for evaluation"]
    (errors, _), _ = judged(tmp_path, size=(10**9, False), data=f"{data}  eval: {{split: all}}\n")
    assert errors == []


def test_what_is_in_the_store_asks_for_nothing(tmp_path):
    loaded = load(tmp_path / "project", desnets=ONE)
    graph = build_graph(loaded.family, resolve_chain(loaded, ANSNET), VERSIONS)
    assert text_problems(graph, (), {}, loaded) == ([], [])


# -- sizes ------------------------------------------------------------------------------------------------------------


def test_the_size_of_a_file_and_of_a_folder(tmp_path):
    def size(uri):
        return text_size(uri, "text", (), root=tmp_path, downloads=tmp_path / "downloads")

    (tmp_path / "data/more").mkdir(parents=True)
    (tmp_path / "data/a.txt").write_text("12345")
    (tmp_path / "data/more/b.txt").write_text("123")
    (tmp_path / "data/.hidden").write_text("1")
    assert size("./data/a.txt") == TextSize(5, packed=False)
    assert size("./data") == TextSize(8, packed=False)
    (tmp_path / "data/c.txt").write_bytes(gzip.compress(b"text"))
    assert size("./data").packed, "told by its first bytes, whatever its name"
    assert size("./absent") is None
    assert size("hf://datasets/a/b@main") is None


def test_the_time_and_disk_of_a_corpus_follow_from_its_file(tmp_path):
    _, texts = judged(tmp_path, size=(50_000, False))
    assert text_bytes(texts) == {"corpus train": 50_000}
    assert texts["corpus train"].told == "./corpus.txt: 50 kB, about 12k tokens"
    _, texts = judged(tmp_path, meta=packed(50_000), built=True)
    assert text_bytes(texts) == {"corpus train": 280_000}
    assert texts["corpus train"].told == "./corpus.txt: 280 kB, 14 documents, 70k tokens"

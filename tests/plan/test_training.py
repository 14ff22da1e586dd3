"""What trainings are told: lessons that are kept once, and sub-shapes that are trained only for a DesNet made of them."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from colbuild.arch import forward_flops, parameters
from colbuild.plan.changes.states import result_of
from colbuild.plan.shapes.route import distillation_flops
from colbuild.plan.steps.interpolate import FILLED_CANDIDATES, NESTED_SCORINGS, SCORINGS
from colbuild.plan.steps.teach import LESSON
from tests.plan.built import world
from tests.plan.families import ANCHORS, ANSNET, DISTILL, RECOVER, chain, graph
from tests.plan.test_estimate import estimated

CACHED = DISTILL + "teacher: cached\n"
ABOVE = "  - {name: big, params: 120M}\n"
BETWEEN = "  - {name: phone, params: 88M}\n"
BELOW = "  - {name: tiny, params: 60M}\n"
LAST = ANCHORS + "    - {name: a50, params: 50M}\n"
TRAINED = 39 * 2048  # 80k tokens in whole steps of 8 x 256


def steps(root, **parts):
    return {step.id: step for step in graph(root, **parts).steps}


# -- lessons ----------------------------------------------------------------------------------------------------------


def test_each_teachers_lessons_are_written_before_the_student_that_reads_them(tmp_path):
    built = steps(tmp_path, distill=CACHED)
    ids = list(built)
    assert ids[3:7] == ["teach ansnet", "distill a100", "teach a100", "distill a76"]
    assert built["teach ansnet"].inputs == {"teacher": "order ansnet", "corpus": "corpus train"}
    assert built["distill a100"].inputs == {
        "teacher": "order ansnet",
        "corpus": "corpus train",
        "lessons": "teach ansnet",
    }
    assert built["distill a76"].inputs["lessons"] == "teach a100"
    assert "lessons" not in built["recover kiosk"].inputs
    assert built["teach ansnet"].settings == {"checkpoint_every": 300.0}


def test_lessons_are_decided_by_the_text_and_the_teacher_and_nothing_of_how_they_are_learned(tmp_path):
    parts = "documents: apart\nseed: 5\nteacher_cache: {type: top_k}\n"
    built = steps(tmp_path, distill=CACHED + parts)
    assert built["teach ansnet"].params == {
        "split": "train",
        "seed": 5,
        "sequence": 256,
        "windows": TRAINED // 256,
        "documents": "apart",
        "precision": "bf16",
        "temperature": 1.0,
        "type": "top_k",
    }


def test_without_a_cached_teacher_nothing_is_taught_beforehand(tmp_path):
    assert not [step for step in graph(tmp_path).steps if step.op == "teach" or "lessons" in step.inputs]


def test_trainings_that_ask_the_same_of_a_teacher_share_its_lessons(tmp_path):
    shared = (
        "  - {name: phone, params: 88M, recover: {recipe: recipes/distill.yaml, tokens: 80k, optimizer: {lr: 1e-5}}}\n"
    )
    built = steps(tmp_path, distill=CACHED, desnets=shared)
    assert built["recover phone"].inputs["lessons"] == built["distill a76"].inputs["lessons"] == "teach a100"
    assert [step for step in built if step.startswith("teach")] == ["teach ansnet", "teach a100"]


def test_batches_of_another_size_share_lessons_as_long_as_they_read_the_same_sequences(tmp_path):
    anchors = ANCHORS.replace("76M}", "76M, batch: 4, tokens: 80k}")
    before, after = (steps(tmp_path, distill=CACHED, anchors=text)["teach a100"].params for text in (ANCHORS, anchors))
    assert before == after


def test_other_lessons_of_the_same_teacher_are_called_by_who_reads_them(tmp_path):
    built = steps(tmp_path, distill=CACHED, recover=RECOVER + "teacher: cached\n")
    assert [step for step in built if step.startswith("teach")] == [
        "teach ansnet",
        "teach a100",
        "teach a100 for kiosk",
    ]
    assert built["recover kiosk"].inputs["lessons"] == "teach a100 for kiosk"
    assert result_of(built["teach a100 for kiosk"]) == "a100's lessons for kiosk"
    assert result_of(built["teach ansnet"]) == "the AnsNet's lessons"


def test_every_value_of_lessons_leads_to_where_it_was_asked_for(tmp_path):
    origins = graph(tmp_path, distill=CACHED).origins["teach a100"]
    recipe = ("anchors", 1, "recipe")
    assert origins["seed"] == (*recipe, "seed")
    assert origins["windows"] == (*recipe, "tokens")
    assert origins["temperature"] == (*recipe, "loss", "temperature")
    assert origins["type"] == (*recipe, "teacher_cache", "type")
    assert origins["split"] == ("data", "train", "split")


def test_a_cached_distillation_runs_the_student_alone_and_its_lessons_the_teacher(tmp_path):
    family = chain(tmp_path)
    teacher, student = (forward_flops(model.structure, 256) for model in (family.ansnet, family.anchors[0]))
    found = estimated(world(tmp_path), distill=CACHED).steps
    assert found["teach ansnet"].flops == TRAINED * teacher
    assert found["distill a100"].flops == distillation_flops(TRAINED, 0, student)
    online = estimated(world(tmp_path)).steps["distill a100"]
    assert online.flops == found["teach ansnet"].flops + found["distill a100"].flops
    assert found["teach ansnet"].disk == LESSON * TRAINED
    assert found["teach ansnet"].memory < found["distill a100"].memory < online.memory


def test_another_precision_of_lessons_is_no_comparison(tmp_path):
    place = world(tmp_path)
    place.build(distill=CACHED)
    assert estimated(place, distill=CACHED + "seed: 4\n").steps["teach ansnet"].runs
    assert not estimated(place, distill=CACHED + "precision: fp32\n").steps["teach ansnet"].runs


def test_the_ansnet_reads_a_text_once_for_all_who_share_its_lessons(tmp_path):
    """Two DesNets above the first anchor recover by what the AnsNet said when that was distilled."""
    recovered = ", recover: {recipe: recipes/distill.yaml, tokens: 80k}}"
    desnets = "".join(f"  - {{name: d{size}, params: {size}M{recovered}\n" for size in (110, 120))
    online = estimated(world(tmp_path), desnets=desnets).reads
    cached = estimated(world(tmp_path), desnets=desnets, distill=CACHED).reads
    assert (online.tokens, online.times) == (3 * TRAINED, 3)
    assert (cached.tokens, cached.times) == (TRAINED, 1)
    assert online.flops - cached.flops == 2 * TRAINED * forward_flops(ANSNET, 256)


def test_distilling_directly_is_granted_the_same_lessons(tmp_path):
    online, cached = (estimated(world(tmp_path), distill=recipe).reads for recipe in (DISTILL, CACHED))
    assert online.direct_tokens == cached.direct_tokens == (TRAINED,) * 3
    assert online.direct_flops - cached.direct_flops == 2 * TRAINED * forward_flops(ANSNET, 256)


def test_the_route_does_not_depend_on_whether_a_teacher_is_cached(tmp_path):
    assert chain(tmp_path).route == chain(tmp_path, distill=CACHED).route


# -- elastic ----------------------------------------------------------------------------------------------------------


def elastic(form):
    return f"{DISTILL}elastic: {{form: {form}, share: 0.25}}\n"


@pytest.mark.parametrize(
    ("form", "desnets", "trained"),
    [
        ("anchor", ABOVE, set()),
        ("anchor", BETWEEN, {"distill a100"}),
        ("anchor", BELOW, {"distill a76"}),
        ("segment", ABOVE, {"distill a100"}),
        ("segment", BETWEEN, {"distill a76"}),
        ("segment", BELOW, {"distill a50"}),
        ("segment", ABOVE + BELOW, {"distill a100", "distill a50"}),
    ],
)
def test_sub_shapes_are_trained_only_for_a_desnet_that_is_made_of_them(tmp_path, form, desnets, trained):
    built = steps(tmp_path, distill=elastic(form), desnets=desnets + "  - {name: last, params: 50M}\n", anchors=LAST)
    told = {step for step, one in built.items() if "elastic" in one.params.get("recipe", {})}
    assert told == trained
    assert all(built[step].params["recipe"]["elastic"] == {"form": form, "share": 0.25} for step in told)
    assert {step for step, one in built.items() if "interval" in one.params} == (told if form == "anchor" else set())


def test_a_training_without_sub_shapes_is_the_plain_one(tmp_path):
    desnets = "  - {name: same, params: 76M}\n"
    plain, asked = (steps(tmp_path, distill=recipe, desnets=desnets) for recipe in (DISTILL, elastic("segment")))
    assert {step: one.params for step, one in plain.items()} == {step: one.params for step, one in asked.items()}


def test_an_elastic_anchor_knows_the_shape_of_the_next_one(tmp_path):
    below = chain(tmp_path).anchors[1].structure.shape
    assert steps(tmp_path, distill=elastic("anchor"))["distill a100"].params["interval"] == asdict(below)


def test_the_lower_end_of_an_interval_leads_to_the_recipe_that_asks_for_it(tmp_path):
    origins = graph(tmp_path, distill=elastic("anchor")).origins["distill a100"]
    assert origins["interval"] == ("anchors", 0, "recipe", "elastic")


def test_an_elastic_step_computes_the_mean_of_what_passes_through_it(tmp_path):
    family = chain(tmp_path, desnets=BETWEEN)
    top, large, small = (forward_flops(one.structure, 256) for one in (family.ansnet, *family.anchors))
    anchor = estimated(world(tmp_path), distill=elastic("anchor"), desnets=BETWEEN).steps
    assert anchor["distill a100"].flops == distillation_flops(TRAINED, top, (large + small) // 2)
    segment = estimated(world(tmp_path), distill=elastic("segment"), desnets=BETWEEN).steps
    # A quarter lies in the middle, of the rest a sixteenth passes through the larger end.
    mean = small + round((0.25 / 2 + 0.75 / 16) * (large - small))
    assert segment["distill a76"].flops == distillation_flops(TRAINED, large, mean)


def test_a_segment_keeps_and_trains_the_larger_model_too(tmp_path):
    plain = estimated(world(tmp_path), desnets=BETWEEN).steps["distill a76"]
    segment = estimated(world(tmp_path), distill=elastic("segment"), desnets=BETWEEN).steps["distill a76"]
    larger = parameters(chain(tmp_path, desnets=BETWEEN).anchors[0].structure)
    assert segment.disk == plain.disk + 2 * larger
    assert segment.memory > plain.memory
    anchor = estimated(world(tmp_path), distill=elastic("anchor"), desnets=BETWEEN).steps["distill a100"]
    assert anchor.disk == estimated(world(tmp_path), desnets=BETWEEN).steps["distill a100"].disk


def test_another_fill_is_searched_on_a_line(tmp_path):
    filled = BETWEEN.replace("params: 88M", "params: 88M, interpolate: {method: global_alpha, fill: zero}")
    found = {
        desnets: estimated(world(tmp_path), desnets=desnets).steps["interpolate phone"] for desnets in (BETWEEN, filled)
    }
    assert found[filled].flops * SCORINGS["group_alpha"].windows(8) == found[BETWEEN].flops * FILLED_CANDIDATES * 8


def test_interpolation_scores_the_nested_student_too(tmp_path):
    place = world(tmp_path)
    plain = estimated(place, desnets=BETWEEN).steps["interpolate phone"]
    segment = estimated(place, distill=elastic("segment"), desnets=BETWEEN).steps["interpolate phone"]
    plainly = SCORINGS["group_alpha"]
    more = plainly.plus(NESTED_SCORINGS["group_alpha"])
    assert segment.flops * plainly.windows(8) == plain.flops * more.windows(8)
    assert segment.memory > plain.memory
    place.build(distill=elastic("segment"), desnets=BETWEEN)
    slower = [replace(one, built_at=one.built_at + (one.op == "interpolate")) for one in place.store.records()]
    again = estimated(place, records=lambda: slower, desnets=BETWEEN).steps["interpolate phone"]
    assert again.seconds == pytest.approx(12.5 * plain.flops / segment.flops)


def test_elastic_students_read_the_same_lessons_as_plain_ones(tmp_path):
    plain, segment = (
        steps(tmp_path, distill=recipe + "teacher: cached\n", desnets=BETWEEN)["teach a100"].params
        for recipe in (DISTILL, elastic("segment"))
    )
    assert plain == segment


# -- text of the student's own ----------------------------------------------------------------------------------------


def test_text_of_the_students_own_is_in_the_key_only_where_it_is_asked_for(tmp_path):
    plain = steps(tmp_path / "plain")["distill a100"]
    own = steps(tmp_path / "own", distill=DISTILL + "on_policy: {share: 0.25}\n")["distill a100"]
    assert "on_policy" not in plain.params["recipe"]
    assert own.params["recipe"] == {
        **plain.params["recipe"],
        "on_policy": {"share": 0.25, "every": 16, "prompt": 64},
    }
    assert own.inputs == plain.inputs


def test_answers_need_the_chat_template_and_nothing_else_does(tmp_path):
    chat = "on_policy: {prompt: chat}\n"
    built = steps(tmp_path, distill=DISTILL + chat, recover=RECOVER + chat)
    for step, teacher in (("distill a100", "order ansnet"), ("distill a76", "distill a100")):
        assert built[step].inputs["chat"] == built[step].inputs["teacher"] == teacher
        # A changed template trains again; the teacher's weights alone are read beside it.
        assert set(built[step].parts["chat"]) == {"tokenizer", "chat"}
        assert set(built[step].parts["teacher"]) == {"weights"}
        assert set(built[step].parts["chat"].values()) == {"source ansnet"}
    assert "chat" in built["recover kiosk"].inputs


def test_writing_is_counted_in_flops_time_and_memory(tmp_path):
    student = chain(tmp_path).anchors[0].structure
    plain, own = (
        estimated(world(tmp_path / name), distill=DISTILL + text).steps["distill a100"]
        for name, text in (("plain", ""), ("own", "on_policy: {share: 0.5, every: 64}\n"))
    )
    writing = TRAINED // 2 * forward_flops(student, 256)
    assert own.flops == plain.flops + writing
    # A FLOP of writing takes longer than one of training.
    assert own.seconds / plain.seconds == pytest.approx((plain.flops + 2 * writing) / plain.flops)
    assert own.memory > plain.memory

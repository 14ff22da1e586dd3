"""A name selects what makes it and all that this needs, and nothing else."""

from __future__ import annotations

import networkx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colbuild.errors import EXIT_FAILED
from colbuild.plan.drawing.build_graph import digraph
from colbuild.plan.drawing.target import Target, UnknownNameError, find_step, parse_target, restrict, select
from tests.plan.families import graph

CHAIN = {"source ansnet", "corpus train", "order ansnet", "distill a100", "distill a76"}
EXPORTED = "{source: ./ansnet, exports: [gateway]}"


@pytest.fixture(scope="module")
def fam(tmp_path_factory):
    return graph(tmp_path_factory.mktemp("fam"), ansnet=EXPORTED)


def chosen(fam, *texts):
    return set(select(fam, [parse_target(text) for text in texts]))


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("distill a100", "distill a100"),
        ("  distill   a100 ", "distill a100"),
        ("a100", "distill a100"),
        ("ansnet", "source ansnet"),
        ("phone", "interpolate phone"),
        ("kiosk", "recover kiosk"),
        ("watch", "distill a76"),
        ("watch/phone-int8", "export watch/phone-int8"),
        ("train", "corpus train"),
        ("order", "order ansnet"),
    ],
)
def test_a_step_is_found_by_its_id_and_by_what_it_makes(fam, name, step):
    assert find_step(fam, name).id == step


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("wach", "there is no step or model 'wach' in this family", "did you mean 'watch'?"),
        ("distil a100", "there is no step or model 'distil a100' in this family", "did you mean 'distill a100'?"),
        ("watch/phone-int4", "there is no step or model 'watch/phone-int4' in this family", "did you mean 'watch/phone-int8'?"),
        ("distill", "'distill' could be any of 'distill a100', 'distill a76'", "use a name from this family"),
        (
            "zzz",
            "there is no step or model 'zzz' in this family",
            "models: 'ansnet', 'a100', 'a76', 'phone', 'kiosk', 'watch'; 'colbuild graph' shows every step",
        ),
        ("dust", "'dust' is not built: no DesNet needs it", "'colbuild plan' lists them"),
        ("", "the name of a step or model is missing", None),
    ],
)  # fmt: skip
def test_a_wrong_name_is_explained(fam, name, message, hint):
    with pytest.raises(UnknownNameError) as caught:
        find_step(fam, name, unbuilt=["dust"])
    assert caught.value.message == message
    assert hint is None or caught.value.hint == hint
    assert caught.value.exit_code == EXIT_FAILED


def test_a_wrong_target_is_explained_whatever_is_written_around_it(fam):
    with pytest.raises(UnknownNameError, match="'wach'"):
        chosen(fam, "phone", "+wach+")


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("watch", Target("watch")),
        ("+watch", Target("watch", above=True)),
        ("watch+", Target("watch", below=True)),
        (" +watch+ ", Target("watch", above=True, below=True)),
        ("+", Target("", above=True, below=True)),
    ],
)
def test_plus_signs_are_read(text, target):
    assert parse_target(text) == target


# -- selection --------------------------------------------------------------------------------------------------------


def test_a_desnet_selects_what_makes_measures_and_packages_it_and_all_they_need(fam):
    assert chosen(fam, "phone") == CHAIN | {"interpolate phone", "evaluate phone", "export phone/phone-int8"}


def test_an_anchor_selects_the_chain_down_to_it(fam):
    assert chosen(fam, "a100") == CHAIN - {"distill a76"} | {"evaluate a100"}


def test_a_desnet_that_equals_an_anchor_selects_its_own_package(fam):
    assert chosen(fam, "watch") == CHAIN | {"evaluate a76", "export watch/phone-int8"}


def test_a_package_selects_itself_without_the_measurement(fam):
    assert chosen(fam, "phone/phone-int8") == CHAIN | {"interpolate phone", "export phone/phone-int8"}


def test_a_step_selects_what_it_needs(fam):
    assert chosen(fam, "recover kiosk") == CHAIN | {"interpolate kiosk", "recover kiosk"}


def test_several_targets_select_what_each_does(fam):
    assert chosen(fam, "phone", "watch/phone-int8") == chosen(fam, "phone") | chosen(fam, "watch/phone-int8")


def test_plus_behind_adds_all_that_is_made_of_it_with_what_that_needs(fam):
    everything = {step.id for step in fam.steps}
    assert chosen(fam, "a100+") == everything - {"evaluate ansnet", "export ansnet/gateway"}
    assert chosen(fam, "a76+") == chosen(fam, "a100+") - {"evaluate a100"}
    assert chosen(fam, "phone+") == chosen(fam, "phone")
    assert chosen(fam, "ansnet+") == everything


def test_plus_before_also_measures_and_packages_what_it_comes_from(fam):
    added = {"evaluate ansnet", "export ansnet/gateway", "evaluate a100", "evaluate a76"}
    assert chosen(fam, "+phone") == chosen(fam, "phone") | added | {"export watch/phone-int8"}
    assert chosen(fam, "+a100") == chosen(fam, "a100") | {"evaluate ansnet", "export ansnet/gateway"}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_selection_can_be_built_and_plus_signs_only_add(fam, data):
    name = data.draw(st.sampled_from([*fam.models, *(step.id for step in fam.steps)]))
    edges = digraph(fam.steps)
    plain = chosen(fam, name)
    for text in (name, f"+{name}", f"{name}+", f"+{name}+"):
        ids = chosen(fam, text)
        assert plain <= ids
        assert all(networkx.ancestors(edges, step) <= ids for step in ids)
    assert chosen(fam, f"+{name}+") >= chosen(fam, f"+{name}") | chosen(fam, f"{name}+")


# -- restriction ------------------------------------------------------------------------------------------------------


def test_a_restricted_graph_knows_nothing_of_what_is_left(fam):
    part = restrict(fam, chosen(fam, "watch"))
    assert [step.id for step in part.steps] == [step.id for step in fam.steps if step.id in chosen(fam, "watch")]
    assert set(part.origins) == chosen(fam, "watch")
    assert part.models.keys() >= {"ansnet", "a100", "a76", "watch"}
    assert not part.models.keys() & {"phone", "kiosk"}
    assert part.metrics == {"a76": "evaluate a76", "watch": "evaluate a76"}
    assert part.packages == {("watch", "phone-int8"): "export watch/phone-int8"}


def test_restricting_to_everything_changes_nothing(fam):
    assert restrict(fam, {step.id for step in fam.steps}) == fam

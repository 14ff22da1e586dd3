"""Which of several values holds, and where it is said to come from."""

from __future__ import annotations

from pathlib import Path

from colbuild.spec import Place, Places, load_family
from colbuild.spec.model.family import ChainRules, Interpolate
from colbuild.spec.model.recipe import Loss, Recipe, Schedule
from tests.spec.projects import FAMILY, family, load, project


def line(loaded, *path):
    return str(loaded.places.nearest(path))


def test_built_in_values_hold_where_nothing_is_written(tmp_path):
    loaded = load(tmp_path)
    recipe = loaded.family.anchors[0].recipe
    assert recipe.schedule == Schedule()
    assert recipe.batch == Recipe(tokens=recipe.tokens, sequence=recipe.sequence).batch
    assert loaded.family.desnets[0].interpolate == Interpolate()
    assert loaded.family.desnets[0].recover is None


def test_what_stands_nearer_to_an_item_wins(tmp_path):
    text = FAMILY + "defaults: {tokens: 1k, seed: 1, batch: 1, precision: fp32}\n"
    loaded = load(tmp_path, specs__family=text)
    large, small = (anchor.recipe for anchor in loaded.family.anchors)
    spec, recipe = "specs/family.yaml", "recipes/distill.yaml"
    # the item, the chain, the recipe, the defaults
    assert (small.tokens, line(loaded, "anchors", 1, "recipe", "tokens")) == (10_000, f"{spec}:12")
    assert (large.tokens, line(loaded, "anchors", 0, "recipe", "tokens")) == (50_000, f"{spec}:9")
    assert (large.seed, line(loaded, "anchors", 0, "recipe", "seed")) == (3, f"{recipe}:2")
    assert (large.batch, line(loaded, "anchors", 0, "recipe", "batch")) == (1, f"{spec}:17")
    # mappings merge, lists are replaced
    assert (small.loss.temperature, line(loaded, "anchors", 1, "recipe", "loss", "temperature")) == (4.0, f"{spec}:12")
    assert (small.loss.kd_weight, line(loaded, "anchors", 1, "recipe", "loss", "kd_weight")) == (0.5, f"{recipe}:5")
    assert (large.loss.temperature, line(loaded, "anchors", 0, "recipe", "loss", "temperature")) == (2.0, f"{recipe}:4")
    assert large.optimizer.betas == (0.8, 0.9)


def test_an_anchors_own_recipe_replaces_the_chains_and_wins_over_values_beside_it(tmp_path):
    text = family("params: 2M", "params: 2M, recipe: recipes/own.yaml, seed: 9")
    loaded = load(tmp_path, specs__family=text, recipes__own="tokens: 7k\nseed: 8\n")
    recipe = loaded.family.anchors[0].recipe
    assert (recipe.tokens, recipe.seed) == (7000, 9)
    assert recipe.loss.temperature == 1.0  # nothing of the chain's recipe
    assert line(loaded, "anchors", 0, "recipe") == "specs/family.yaml:11"


def test_a_recipe_extends_another(tmp_path):
    loaded = load(
        tmp_path,
        recipes__distill="extends: recipes/base.yaml\nloss: {kd_weight: 0.7}\noptimizer: {betas: [0.1, 0.2]}\n",
        recipes__base="seed: 5\nloss: {temperature: 3, kd_weight: 0.6}\noptimizer:\n  lr: 0.1\n  betas: [0.3, 0.4]\n",
    )
    recipe = loaded.family.anchors[0].recipe
    assert (recipe.seed, recipe.loss.temperature, recipe.loss.kd_weight) == (5, 3.0, 0.7)
    assert (recipe.optimizer.lr, recipe.optimizer.betas) == (0.1, (0.1, 0.2))
    assert line(loaded, "anchors", 0, "recipe", "loss", "temperature") == "recipes/base.yaml:2"
    assert line(loaded, "anchors", 0, "recipe", "loss", "kd_weight") == "recipes/distill.yaml:2"
    assert line(loaded, "anchors", 0, "recipe", "optimizer", "lr") == "recipes/base.yaml:4"


def test_a_key_of_some_types_may_stand_in_another_file_than_its_type(tmp_path):
    loaded = load(
        tmp_path,
        recipes__distill="extends: recipes/base.yaml\nloss: {skew: 0.3}\nschedule: {decay: 0.4}\n",
        recipes__base="loss: {type: skew_rkl}\nschedule: {type: wsd}\n",
    )
    recipe = loaded.family.anchors[0].recipe
    assert (recipe.loss.type, recipe.loss.skew) == ("skew_rkl", 0.3)
    assert (recipe.schedule.type, recipe.schedule.decay) == ("wsd", 0.4)
    assert line(loaded, "anchors", 0, "recipe", "loss", "skew") == "recipes/distill.yaml:2"


def test_a_key_of_some_types_has_its_default_there_and_null_takes_it_away(tmp_path):
    text = family("loss: {temperature: 4}", "loss: {type: reverse_kl, skew: null}")
    loaded = load(
        tmp_path, specs__family=text, recipes__distill="loss: {type: skew_kl, skew: 0.3}\nschedule: {type: wsd}\n"
    )
    large, small = (anchor.recipe for anchor in loaded.family.anchors)
    assert (large.loss.skew, small.loss.skew) == (0.3, None)
    assert (large.schedule.decay, Loss(type="skew_rkl").skew, Loss().skew) == (0.2, 0.1, None)


DEFAULTS = """\
defaults:
  seed: 1
  exports: [phone-int8]
  interpolate: {method: subset, tokens: 2k}
  recover: {recipe: recipes/recover.yaml, tokens: 3k}
"""


def test_defaults_reach_every_desnet_that_does_not_say_otherwise(tmp_path):
    loaded = load(tmp_path, specs__family=FAMILY + DEFAULTS, recipes__recover="tokens: 9k\nbatch: 2\n")
    watch = loaded.family.desnets[1]
    assert [profile.name for profile in watch.exports] == ["phone-int8"]
    assert watch.interpolate == Interpolate(method="subset", tokens=2000)
    assert watch.recover is not None
    # beside `recipe:` wins over the recipe, also in the defaults
    assert (watch.recover.tokens, watch.recover.batch, watch.recover.seed) == (3000, 2, 1)
    assert line(loaded, "desnets", 1, "recover", "tokens") == "specs/family.yaml:21"
    assert line(loaded, "desnets", 1, "recover", "batch") == "recipes/recover.yaml:2"
    assert line(loaded, "desnets", 1, "exports", 0) == "specs/family.yaml:19"


def test_an_item_overrides_and_declines_defaults(tmp_path):
    own = "shape: {layers: 2}\n    exports: []\n    interpolate: {method: expand}\n    recover: {tokens: 4k}"
    text = family("shape: {layers: 2}", own).replace("exports: [phone-int8]", "recover: null") + DEFAULTS
    loaded = load(tmp_path, specs__family=text, recipes__recover="batch: 2\n")
    phone, watch = loaded.family.desnets
    assert phone.recover is None
    assert watch.exports == ()
    assert watch.interpolate == Interpolate(method="expand", tokens=2000)
    assert watch.recover is not None
    assert (watch.recover.tokens, watch.recover.batch) == (4000, 2)


def test_rules_of_the_chain_have_defaults_and_places(tmp_path):
    assert load(tmp_path).family.chain == ChainRules(max_gap=2.5, route="cheapest")
    loaded = load(tmp_path, specs__family=family("  tokens: 50k\n", "  max_gap: 3\n  route: stepwise\n"))
    assert loaded.family.chain == ChainRules(max_gap=3.0, route="stepwise")
    assert line(loaded, "chain", "route") == "specs/family.yaml:10"


def test_evaluation_measures_the_held_out_part_of_the_training_text_by_default(tmp_path):
    data = load(tmp_path).family.data
    assert data.eval.source == data.train.source
    assert data.eval.limit == data.train.limit == 1_000_000
    assert (data.train.split, data.eval.split) == ("train", "heldout")


def test_evaluation_on_another_text_takes_nothing_from_the_training_text(tmp_path):
    text = family("limit: 1MB}", "limit: 1MB}\n  eval: {source: ./other.txt, tokens: 2k}")
    data = load(tmp_path, specs__family=text).family.data
    assert (data.eval.source, data.eval.limit, data.eval.tokens) == ("./other.txt", None, 2000)


def test_a_profile_is_called_as_its_file_and_its_values_are_placed_there(tmp_path):
    loaded = load(tmp_path)
    (profile,) = loaded.family.desnets[0].exports
    assert (profile.name, profile.precision, profile.block) == ("phone-int8", "int8", 64)
    assert line(loaded, "desnets", 0, "exports", 0, "block") == "exports/phone-int8.yaml:2"
    assert line(loaded, "desnets", 0, "exports", 0, "context") == "specs/family.yaml:14"


def test_the_nearest_place_is_that_of_what_a_value_lies_in(tmp_path):
    loaded = load(tmp_path)
    assert line(loaded, "anchors", 0, "recipe", "schedule", "warmup") == "specs/family.yaml:8"
    assert line(loaded, "desnets", 1, "interpolate", "method") == "specs/family.yaml:15"
    assert line(loaded, "desnets", 1, "shape", "layers") == "specs/family.yaml:16"
    assert line(loaded, "data", "train", "text") == "specs/family.yaml:6"
    assert line(loaded, "anchors") == "specs/family.yaml:7"
    assert line(loaded, "nothing", "of", "this") == "specs/family.yaml:1"
    assert Places({}).nearest(("a",)) is None
    place = loaded.places.nearest(("anchors", 1, "params"))
    assert place == Place("specs/family.yaml", 12, 26)
    assert place is not None
    assert place.source[place.column - 1 :].startswith("1M")


def test_the_root_is_the_parent_of_specs_or_the_files_own_folder(tmp_path, monkeypatch):
    path = project(tmp_path)
    assert load(tmp_path).root == tmp_path
    beside = tmp_path / "family.yaml"
    beside.write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    loaded = load_family(Path("family.yaml"))
    assert (loaded.root, loaded.path) == (tmp_path, beside)
    assert line(loaded, "name") == "family.yaml:2"

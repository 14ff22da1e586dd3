"""Each kind of mistake: where it is said to be, what is wrong, what to do."""

from __future__ import annotations

import pytest

from colbuild.errors import SpecError
from colbuild.spec import load_family
from tests.spec.projects import FAMILY, FILES, PROFILE, RECIPE, family, load, problems, project

SPEC = "specs/family.yaml"
KEYS_OF_A_DESNET = "known keys: name, params, shape, max_package, interpolate, recover, exports"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("name: tiny", "name: tiny\n§anchors: []", "unknown key 'anchors' in the file"),
        (
            "loss: {temperature: 4}",
            "loss: {§temprature: 4}",
            "unknown key 'temprature' in 'loss' = did you mean 'temperature'?",
        ),
        ("  tokens: 50k", "  §Tokens: 50k", "unknown key 'Tokens' in 'chain' = did you mean 'tokens'?"),
        (
            "params: 1.5M,",
            "§max_size: 40MB, params: 1.5M,",
            f"unknown key 'max_size' in item 1 of 'desnets' = {KEYS_OF_A_DESNET}",
        ),
        (
            "- {name: phone, params: 1.5M,",
            "- §{name: phone, params: 1.5M, max_package: 40MB,",
            "'phone' has both 'params' and 'max_package' = keep one of the two",
        ),
        (
            "- name: watch\n    shape: {layers: 2}",
            "- §name: watch\n    max_package: 40MB",
            "'watch' has a 'max_package' but no 'exports': the size of a package depends on its device = name its device",
        ),
        (
            "  anchors:\n    - {name: a2, params: 2M}\n    - {name: a1, params: 1M, tokens: 10k, loss: {temperature: 4}}\n",
            "  anchors: §automatic\n",
            "'anchors' must be a list, or auto, not 'automatic' = write anchors: auto",
        ),
        ("apiVersion: colbuild/v1\n", "§", "'apiVersion' is missing in the file = start with"),
        (
            "colbuild/v1",
            "§colbuild/v9",
            "'apiVersion' cannot be 'colbuild/v9': it can only be colbuild/v1 = write 'colbuild/v1'",
        ),
        ("{source: ./corpus.jsonl, ", "§{", "'source' is missing"),
        ("./corpus.jsonl", "§corpus.jsonl", "'source': 'corpus.jsonl' is not a source = a path starts"),
        ("50k", "§50K", "'tokens': '50K' is not a count: unknown unit 'K' = did you mean 50k?"),
        ("1MB", "§1mb", "'limit': '1mb' is not a size: unknown unit 'mb' = did you mean 1MB?"),
        (
            "tokens: 50k",
            "checkpoint_every: §5m",
            "'checkpoint_every': '5m' is not a duration: unknown unit 'm' = did you mean 5min?",
        ),
        (
            "tokens: 50k",
            "checkpoint_every: §300",
            "'checkpoint_every': 300 is not a duration: it has no unit = did you mean 300s?",
        ),
        ("tokens: 50k", "checkpoint_every: §0s", "'checkpoint_every' must be more than 0, not '0s'"),
        ("50k", "§0", "'tokens' must be more than 0, not 0"),
        ("tokens: 50k", "max_gap: §1", "'max_gap' must be more than 1, not 1"),
        (
            "tokens: 50k",
            "route: §cheap",
            "'route' cannot be 'cheap': it can be cheapest, stepwise = did you mean cheapest?",
        ),
        ("tokens: 50k", "§tokens:", "'tokens' must be a number, not nothing = leave the key out, or give it a value"),
        ("50k", "§[1]", "'tokens' must be a number, not a list"),
        ("temperature: 4", "temperature: §hot", "'temperature' must be a number, not 'hot'"),
        ("temperature: 4", "temperature: §.inf", "'temperature' must be a finite number, not .inf"),
        ("temperature: 4", "temperature: §0", "'temperature' must be more than 0, not 0"),
        ("{temperature: 4}", "§3", "'loss' must be a mapping of keys to values, not 3"),
        ("{layers: 2}", "{layers: §2.5}", "'layers' must be a whole number, not 2.5"),
        ("{layers: 2}", "{layers: §true}", "'layers' must be a whole number, not true"),
        ("name: tiny", "name: §12", "'name' must be text, not 12 = quote it: \"12\""),
        ("name: tiny", "name: §a/b", "'name': 'a/b' is not a valid name: names are also folder names"),
        ("name: tiny", "name: §..", "'name': '..' is not a valid name"),
        ("name: tiny", f"name: §{'x' * 65}", "'name' is too long: at most 64 characters"),
        ("name: watch", "name: §phone", f"the name 'phone' is taken = by a DesNet at {SPEC}:14"),
        ("name: watch", "name: §A1", "the name 'A1' is taken: 'a1' is the same folder on some systems"),
        ("name: watch", "name: §AnsNet", "a DesNet cannot be called 'AnsNet'"),
        (
            "{name: a2, params: 2M",
            "§{name: a2, params: 2M, shape: {layers: 2}",
            "'a2' has both 'params' and 'shape' = keep one",
        ),
        (
            "name: watch\n    shape: {layers: 2}\n",
            "§name: watch\n",
            "'watch' has neither 'params' nor 'shape' = give its size",
        ),
        ("[phone-int8]", "§phone-int8", "'exports' must be a list, not 'phone-int8' = write a list: ["),
        (
            "[phone-int8]",
            "[§exports/phone-int8.yaml]",
            "item 1 of 'exports': 'exports/phone-int8.yaml' is not a valid name: names are also folder names, "
            "without paths and spaces = did you mean 'phone-int8'?",
        ),
        (
            "[phone-int8]",
            "[§phone-int4]",
            "there is no device profile 'phone-int4' (exports/phone-int4.yaml) = did you mean 'phone-int8'? "
            "device profiles here: phone-int8",
        ),
        ("[phone-int8]", "[phone-int8, §phone-int8]", "the profile 'phone-int8' is listed twice"),
        (
            "recipes/distill.yaml",
            "§recipes/distil.yaml",
            "there is no recipe 'recipes/distil.yaml' = did you mean 'recipes/distill.yaml'? recipes here: "
            "recipes/distill.yaml",
        ),
        ("recipes/distill.yaml", "§../distill.yaml", "'recipe': '../distill.yaml' is not a path inside"),
        ("recipes/distill.yaml", "§/etc/passwd", "'recipe': '/etc/passwd' is not a path inside"),
        ("recipes/distill.yaml", "§distill", "'recipe': 'distill' is not a YAML file = write the whole"),
        ("recipes/distill.yaml", "§exports", "'recipe': 'exports' is not a YAML file"),
        (
            "shape: {layers: 2}",
            "params: 1M\n    recover: §recipes/distill.yaml",
            "'recover' must be a mapping of keys to values, not 'recipes/distill.yaml' = write {recipe: "
            "recipes/distill.yaml}",
        ),
        ("params: 2M", "params: 100,§000", "unknown key '000' in item 1 of 'anchors' = write 100_000"),
    ],
)
def test_a_mistake_in_the_family(tmp_path, old, new, expected):
    """The sign § marks where the mistake must be said to be."""
    text = family(old, new)
    before = text[: text.index("§")].split("\n")
    (only,) = problems(tmp_path, specs__family=text.replace("§", ""))
    assert only.startswith(f"{SPEC}:{len(before)}:{len(before[-1]) + 1}: {expected}")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("seed", "sead", "recipes/distill.yaml:2:1: unknown key 'sead' in the file = did you mean 'seed'?"),
        ("seed: 3", "seed: -3", "recipes/distill.yaml:2:7: 'seed' must be at least 0, not -3"),
        ("seed: 3", "seed: 4294967296", "recipes/distill.yaml:2:7: 'seed' must be less than 4294967296"),
        ("seed: 3", "seed: '3'", "recipes/distill.yaml:2:7: 'seed' must be a whole number, not '3'"),
        ("[0.8, 0.9]", "[0.8]", "recipes/distill.yaml:6:30: 'betas' has too few values: number 2 is missing"),
        ("[0.8, 0.9]", "[0.8, 0.9, 1]", "recipes/distill.yaml:6:30: 'betas' is too long: at most 2 items"),
        ("[0.8, 0.9]", "[0.8, 1.0]", "recipes/distill.yaml:6:36: item 2 of 'betas' must be less than 1, not 1.0"),
        (
            "tokens: 1M",
            "precision: fp16",
            "recipes/distill.yaml:1:12: 'precision' cannot be 'fp16': it can be bf16, fp32",
        ),
        (
            "kd_weight: 0.5",
            "kd_weight: 0\n  ce_weight: 0",
            "recipes/distill.yaml:4:3: 'kd_weight' and 'ce_weight' are both 0, so the loss is empty",
        ),
        (
            "kd_weight: 0.5",
            "skew: 0.2",
            "recipes/distill.yaml:5:9: 'skew' belongs to skew_kl and skew_rkl, not to forward_kl = remove it; "
            "if a parent recipe sets it, write skew: null",
        ),
        (
            "kd_weight: 0.5",
            "type: jsd\n  skew: 0.2",
            "recipes/distill.yaml:6:9: 'skew' belongs to skew_kl and skew_rkl, not to jsd",
        ),
        (
            "kd_weight: 0.5",
            "type: skew_kl\n  skew: 1",
            "recipes/distill.yaml:6:9: 'skew' must be less than 1, not 1",
        ),
        (
            "kd_weight: 0.5",
            "type: kl",
            "recipes/distill.yaml:5:9: 'type' cannot be 'kl': it can be forward_kl, reverse_kl, skew_kl, skew_rkl, jsd",
        ),
        (
            "tokens: 1M",
            "schedule: {decay: 0.3}",
            "recipes/distill.yaml:1:19: 'decay' belongs to wsd, not to cosine",
        ),
        (
            "tokens: 1M",
            "schedule: {type: wsd, decay: 0}",
            "recipes/distill.yaml:1:30: 'decay' must be more than 0, not 0",
        ),
        (
            "tokens: 1M",
            "micro_batch: all",
            "recipes/distill.yaml:1:14: 'micro_batch' must be auto or a number of sequences, not 'all' = write",
        ),
        (
            "tokens: 1M",
            "micro_batch: 0",
            "recipes/distill.yaml:1:14: 'micro_batch' must be auto or a number of sequences",
        ),
        ("tokens: 1M", "micro_batch: true", "recipes/distill.yaml:1:14: 'micro_batch' must be auto or a number"),
        (
            "tokens: 1M",
            "teacher: cache",
            "recipes/distill.yaml:1:10: 'teacher' cannot be 'cache': it can be online, cached = did you mean cached?",
        ),
        (
            "tokens: 1M",
            "teacher_cache: {type: topk}",
            "recipes/distill.yaml:1:23: 'type' cannot be 'topk': it can be sampled, top_k = did you mean top_k?",
        ),
        (
            "tokens: 1M",
            "elastic: {form: segments}",
            "recipes/distill.yaml:1:17: 'form' cannot be 'segments': it can be anchor, segment = did you mean segment?",
        ),
        ("tokens: 1M", "elastic: {share: 1}", "recipes/distill.yaml:1:18: 'share' must be less than 1, not 1"),
        (
            "tokens: 1M",
            "elastic: {froms: anchor}",
            "recipes/distill.yaml:1:11: unknown key 'froms' in 'elastic' = did you mean 'form'?",
        ),
        (
            "tokens: 1M",
            "track: [tensorbord]",
            "recipes/distill.yaml:1:9: item 1 of 'track' cannot be 'tensorbord': it can be tensorboard, wandb, mlflow = did",
        ),
        (
            "tokens: 1M",
            "track: wandb",
            "recipes/distill.yaml:1:8: 'track' must be a list, not 'wandb' = write a list: [wandb]",
        ),
        ("tokens: 1M", "recipe: x.yaml", "recipes/distill.yaml:1:1: unknown key 'recipe' in the file = known keys"),
        (
            "tokens: 1M",
            "extends: recipes/distill.yaml",
            "recipes/distill.yaml:1:10: recipes extend each other in a cycle: recipes/distill.yaml -> ",
        ),
        (
            "tokens: 1M",
            "extends: base.yaml",
            "recipes/distill.yaml:1:10: there is no recipe 'base.yaml' = recipes here",
        ),
    ],
)
def test_a_mistake_in_a_recipe(tmp_path, old, new, expected):
    assert RECIPE.count(old) == 1
    (only,) = problems(tmp_path, recipes__distill=RECIPE.replace(old, new))
    assert only.startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "precision: int7",
            "exports/phone-int8.yaml:1:12: 'precision' cannot be 'int7': it can be fp32, fp16, int8, int4, int4-mixed",
        ),
        ("block: 33", "exports/phone-int8.yaml:1:8: 'block' cannot be 33: it can be 16, 32, 64, 128"),
        ("name: x", "exports/phone-int8.yaml:1:1: unknown key 'name' in the file"),
        ("limits: {max_package: 4mb}", "exports/phone-int8.yaml:1:23: 'max_package': '4mb' is not a size"),
        (
            "?precision: int8\n",
            "exports/phone-int8.yaml:1:1: unknown key '?precision' in the file = did you mean 'precision'?",
        ),
        ("", "exports/phone-int8.yaml:1:1: the file is empty = it may start with 'format: onnx'"),
    ],
)
def test_a_mistake_in_a_profile(tmp_path, text, expected):
    (only,) = problems(tmp_path, exports__phone_int8=text)
    assert only.startswith(expected)


def test_weights_that_only_together_are_wrong_are_found_after_merging(tmp_path):
    (only,) = problems(
        tmp_path,
        specs__family=family("loss: {temperature: 4}", "loss: {ce_weight: 0}"),
        recipes__distill=RECIPE.replace("kd_weight: 0.5", "kd_weight: 0"),
    )
    assert "'kd_weight' and 'ce_weight' are both 0" in only
    assert only.startswith(SPEC)


def test_a_key_of_some_types_is_told_once_it_is_known_which_type_holds(tmp_path):
    (only,) = problems(
        tmp_path,
        specs__family=family("loss: {temperature: 4}", "loss: {type: reverse_kl}"),
        recipes__distill=RECIPE.replace("kd_weight: 0.5", "type: skew_kl\n  skew: 0.3"),
    )
    assert only.startswith("recipes/distill.yaml:6:9: 'skew' belongs to skew_kl and skew_rkl, not to reverse_kl")


CACHED = RECIPE.replace("tokens: 1M", "teacher: cached")


@pytest.mark.parametrize("loss", ["reverse_kl", "skew_kl", "skew_rkl", "jsd"])
def test_a_loss_that_a_cached_teacher_cannot_give_is_refused_with_the_reason(tmp_path, loss):
    (only,) = problems(tmp_path, recipes__distill=CACHED.replace("kd_weight: 0.5", f"type: {loss}"))
    assert only == (
        f"recipes/distill.yaml:5:9: 'type' cannot be {loss} with teacher: cached: a sample of the teacher's distribution is "
        "an unbiased estimate of the forward KL only; the others read the teacher's probability of what the student finds "
        "likely, which is not kept = write type: forward_kl, or teacher: online"
    )


def test_all_that_a_cached_teacher_cannot_give_is_told_at_once(tmp_path):
    text = CACHED.replace("kd_weight: 0.5", "kd_weight: 0\n  hidden_weight: 0.2\n  type: jsd")
    kd_weight, hidden, kind = problems(tmp_path, recipes__distill=text)
    assert kd_weight.startswith(
        "recipes/distill.yaml:5:14: 'kd_weight' is 0, and with teacher: cached the student learns nothing else"
    )
    assert kd_weight.endswith("= write teacher: online")
    assert hidden == (
        "recipes/distill.yaml:6:18: 'hidden_weight' must be 0 with teacher: cached: a teacher's hidden states are not stored = "
        "remove it, or write teacher: online; if a parent recipe sets it, write hidden_weight: null"
    )
    assert kind.startswith("recipes/distill.yaml:7:9: 'type' cannot be jsd")


def test_what_excludes_a_cached_teacher_is_found_after_merging(tmp_path):
    text = family("loss: {temperature: 4}", "teacher: cached, loss: {type: jsd}")
    (only,) = problems(tmp_path, specs__family=text)
    assert only.startswith(f"{SPEC}:12:73: 'type' cannot be jsd with teacher: cached")


@pytest.mark.parametrize("loss", ["hidden_weight: 0", "hidden_weight: null", "hidden_weight: 0.0"])
def test_a_cached_teacher_goes_with_the_forward_kl_and_no_hidden_states(tmp_path, loss):
    text = CACHED.replace("kd_weight: 0.5", loss)
    assert load(tmp_path, recipes__distill=text).family.anchors[0].recipe.teacher == "cached"


@pytest.mark.parametrize("form", ["anchor", "segment"])
def test_a_cached_teacher_goes_with_elastic_steps(tmp_path, form):
    recipe = load(tmp_path, recipes__distill=f"{CACHED}elastic: {{form: {form}}}\n").family.anchors[0].recipe
    assert recipe.elastic is not None


def test_a_value_that_excludes_another_counts_only_once_files_are_merged(tmp_path):
    loaded = load(
        tmp_path,
        recipes__distill="extends: recipes/base.yaml\nteacher: online\nbatch: 16\n",
        recipes__base="teacher: cached\nloss: {type: jsd}\nmicro_batch: 12\n",
    )
    assert loaded.family.anchors[0].recipe.micro_batch == 12


ELASTIC = RECIPE + "elastic: {form: anchor}\n"


def test_a_recovery_has_no_interval_to_be_elastic_in(tmp_path):
    text = family("shape: {layers: 2}", "shape: {layers: 2}\n    recover: {recipe: recipes/distill.yaml}")
    (only,) = problems(tmp_path, specs__family=text, recipes__distill=ELASTIC)
    assert only == (
        "recipes/distill.yaml:7:10: 'elastic' is for distillations: no anchor lies below 'watch' that its recovery could "
        "reach down to = remove it; if a parent recipe sets it, write elastic: null"
    )


def test_a_recovery_that_extends_an_elastic_recipe_declines_with_null(tmp_path):
    text = family("shape: {layers: 2}", "shape: {layers: 2}\n    recover: {recipe: recipes/recover.yaml}")
    recover = "extends: recipes/distill.yaml\nelastic: null\n"
    loaded = load(tmp_path, specs__family=text, recipes__distill=ELASTIC, recipes__recover=recover).family
    assert loaded.desnets[1].recover is not None
    assert loaded.desnets[1].recover.elastic is None
    assert loaded.anchors[0].recipe.elastic is not None


def test_a_circle_of_recipes_is_told_where_it_closes(tmp_path):
    (only,) = problems(
        tmp_path,
        recipes__distill="extends: ./recipes/a.yaml",
        recipes__a="extends: recipes/b.yaml",
        recipes__b="extends: recipes/distill.yaml",
    )
    assert only.startswith(
        "recipes/b.yaml:1:10: recipes extend each other in a cycle: "
        "recipes/distill.yaml -> recipes/a.yaml -> recipes/b.yaml -> recipes/distill.yaml"
    )


def test_a_recipe_that_several_items_use_is_read_once(tmp_path):
    text = family("params: 2M", "params: 2M, recipe: recipes/distill.yaml")
    assert len(problems(tmp_path, specs__family=text, recipes__distill="tokens: x\nseed: y\n")) == 2


def test_unused_recipes_and_defaults_are_checked_too(tmp_path):
    text = FAMILY + "defaults:\n  exports: [none]\n  recover: {recipe: recipes/none.yaml, tokens: 1m}\n"
    text = text.replace("- name: watch", "- name: watch\n    exports: []\n    recover: null")
    found = problems(tmp_path, specs__family=text)
    assert [problem.split(": ")[0] for problem in found] == [f"{SPEC}:20:13", f"{SPEC}:21:21", f"{SPEC}:21:48"]


def test_a_recipe_behind_a_link_out_of_the_project_is_refused(tmp_path):
    outside = tmp_path / "outside.yaml"
    outside.write_text("tokens: 1M\n")
    path = project(tmp_path / "project", recipes__distill=None)
    (tmp_path / "project/recipes/distill.yaml").symlink_to(outside)
    with pytest.raises(SpecError, match="is outside the project"):
        load_family(path)


def test_a_folder_in_place_of_a_recipe_is_told(tmp_path):
    (tmp_path / "recipes/distill.yaml").mkdir(parents=True)
    (only,) = problems(tmp_path, recipes__distill=None)
    assert only.startswith(f"{SPEC}:8:11: the recipe 'recipes/distill.yaml' cannot be read: Is a directory")


def test_no_recipes_at_all(tmp_path):
    (only,) = problems(tmp_path, recipes__distill=None)
    assert only == f"{SPEC}:8:11: there is no recipe 'recipes/distill.yaml' = recipes/ holds no YAML files"


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_family(tmp_path, text):
    (only,) = problems(tmp_path, specs__family=text)
    assert only == f"{SPEC}:1:1: the file is empty = it may start with 'apiVersion: colbuild/v1'"


def test_a_family_that_is_no_mapping(tmp_path):
    assert problems(tmp_path, specs__family="- a\n- b\n") == [
        f"{SPEC}:1:1: the file must be a mapping of keys to values, not a list"
    ]
    (only,) = problems(tmp_path, specs__family="name:tiny\n")
    assert only.endswith("= write 'key: value', with a space after the ':'")


def test_everything_that_is_missing_is_one_problem(tmp_path):
    assert problems(tmp_path, specs__family="name: x\n") == [
        f"{SPEC}:1:1: 'apiVersion', 'ansnet', 'data', 'chain' and 'desnets' are missing in the file"
        " = start with 'apiVersion: colbuild/v1'"
    ]


def test_empty_lists(tmp_path):
    text = FAMILY[: FAMILY.index("  anchors:")] + "  anchors: []\ndesnets: []\n"
    assert problems(tmp_path, specs__family=text) == [
        f"{SPEC}:10:12: 'anchors' is empty = write at least one",
        f"{SPEC}:11:10: 'desnets' is empty = write at least one",
    ]


def test_mistakes_of_syntax_in_one_file_do_not_hide_those_of_another(tmp_path):
    found = problems(tmp_path, specs__family=family("50k", "50K"), recipes__distill="a: [", exports__phone_int8="b: 'x")
    assert [problem.split(": ")[0] for problem in found] == [
        "exports/phone-int8.yaml:1:4",
        "recipes/distill.yaml:1:4",
        f"{SPEC}:9:11",
    ]


def test_a_file_that_is_not_there_suggests_those_that_are(tmp_path, monkeypatch):
    path = project(tmp_path)
    for wrong in (path.with_name("famly.yaml"), tmp_path / "family.yaml", path.parent):
        with pytest.raises(SpecError) as caught:
            load_family(wrong)
        assert str(wrong) in caught.value.message
        assert caught.value.hint == f"did you mean {path}?"
    with pytest.raises(SpecError) as caught:
        load_family(tmp_path / "nowhere/family.yaml")
    assert caught.value.hint == "name the family's file, by default specs/family.yaml"


@pytest.mark.parametrize("name", ["\0", "x" * 5000, "specs/family.yaml/x"])
def test_a_path_that_cannot_be_is_a_spec_error(tmp_path, name):
    project(tmp_path)
    with pytest.raises(SpecError):
        load_family(tmp_path / name)


def test_the_valid_project_is_valid(tmp_path):
    assert load(tmp_path).family.name == "tiny"
    assert PROFILE in FILES.values()

"""Resolves the written form: reads files, fills in defaults, and keeps the place of every value.

::

    built-in < defaults: < recipe < item          what stands nearer to an item wins; what is written beside
                                                  `recipe:` wins over what that recipe says
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

from colbuild.spec.model.bridge import BridgeForm
from colbuild.spec.model.family import ChainRules
from colbuild.spec.model.recipe import Recipe
from colbuild.spec.project.project_files import Project
from colbuild.spec.text.nodes import Entry, Fields, Items, Node, Scalar, is_null, merge
from colbuild.spec.text.places import Place

_TRAINING = tuple(Recipe.model_fields)
_TEXT = ("source", "generate", "sha256", "files", "format", "text", "limit", "heldout")


def resolve(project: Project, written: Fields) -> Fields:
    """The resolved family as a tree. Files that cannot be read are noted in the project, and left out."""
    defaults = _fields(written.get("defaults")) or Fields({}, written.place)
    entries = {key: entry for key, entry in written.entries.items() if key in ("name", "order")}
    resolved = Fields({"order": Entry(written.place, Fields({}, written.place)), **entries}, written.place)
    for key, node in (
        ("ansnet", _ansnet(project, written.get("ansnet"))),
        ("data", _data(written.get("data"))),
        ("chain", _chain(written.get("chain"))),
        ("bridge", _bridge(project, written.get("chain"), defaults)),
        ("anchors", _anchors(project, written.get("chain"), defaults)),
        ("automatic", _automatic(project, written.get("chain"), defaults)),
        ("desnets", _desnets(project, written.get("desnets"), defaults)),
    ):
        if node is not None:
            entry = written.entries.get(key) or written.entries.get("chain")
            resolved = resolved.with_entry(key, node, entry.key if entry else None)
    return resolved


def _ansnet(project: Project, node: Node | None) -> Node | None:
    fields = _fields(node)
    return node if fields is None else _with_profiles(project, fields, fields.get("exports"))


def _data(node: Node | None) -> Node | None:
    """What `eval` leaves out is train's, as long as it names no text of its own."""
    fields = _fields(node)
    train = _fields(fields.get("train")) if fields else None
    if fields is None or train is None:
        return node
    place = train.place
    own = _fields(fields.get("eval")) or Fields({}, place)
    if is_null(own.get("source")) and is_null(own.get("generate")):
        own = merge(train.only(*_TEXT), own.without("source").without("generate"))
    entry = fields.entries.get("eval")
    return fields.with_entry("eval", own, entry.key if entry else fields.entries["train"].key)


def _chain(node: Node | None) -> Node | None:
    """What `chain` says besides its anchors and their recipe."""
    chain = _fields(node)
    return chain.only(*ChainRules.model_fields) if chain else None


def _anchors(project: Project, node: Node | None, defaults: Fields) -> Node | None:
    chain = _fields(node)
    if chain is None:
        return None
    anchors = chain.get("anchors")
    resolved = [
        anchor.only("name", "params", "shape", "init").with_entry(
            "recipe", *_training(project, anchor.place, defaults, chain, anchor)
        )
        for anchor in _each(anchors)
    ]
    # A chain's recipe is read even if no anchor uses it: its mistakes are mistakes.
    project.recipe(chain.get("recipe"))
    return Items(tuple(resolved), anchors.place if anchors else chain.place)


def _bridge(project: Project, node: Node | None, defaults: Fields) -> Node | None:
    """The bridge, with the recipe that it is trained by: its own, or else the chain's."""
    chain = _fields(node)
    bridge = _fields(chain.get("bridge")) if chain else None
    if chain is None or bridge is None:
        return None
    fields = bridge.only(*BridgeForm.model_fields, "params", "shape")
    return fields.with_entry("recipe", *_training(project, bridge.place, defaults, chain, bridge))


def _automatic(project: Project, node: Node | None, defaults: Fields) -> Node | None:
    """The recipe of anchors that colbuild places itself."""
    chain = _fields(node)
    anchors = chain.get("anchors") if chain else None
    if chain is None or not isinstance(anchors, Scalar):
        return None
    recipe, place = _training(project, anchors.place, defaults, chain)
    return Fields({"recipe": Entry(place, recipe)}, anchors.place)


def _desnets(project: Project, node: Node | None, defaults: Fields) -> Node | None:
    general = _fields(defaults.get("recover"))
    if general:
        project.recipe(general.get("recipe"))
    for name in _each_item(defaults.get("exports")):
        project.profile(name)
    resolved = []
    for desnet in _each(node):
        fields = desnet.only("name", "params", "shape", "max_package")
        layers = [
            layer for layer in (_fields(defaults.get("interpolate")), _fields(desnet.get("interpolate"))) if layer
        ]
        fields = fields.with_entry("interpolate", reduce(merge, layers, Fields({}, desnet.place)))
        own = desnet.entries.get("recover")
        scopes = [scope for scope in (general, _fields(own.value) if own else None) if scope]
        if scopes and not (own and is_null(own.value)):
            fields = fields.with_entry("recover", *_training(project, desnet.place, defaults, *scopes))
        fields = _with_profiles(project, fields, desnet.get("exports") or defaults.get("exports"))
        resolved.append(fields)
    return Items(tuple(resolved), node.place) if node else None


def _training(project: Project, place: Place, defaults: Fields, *scopes: Fields) -> tuple[Fields, Place]:
    """The recipe of an item, as written in scopes from the farthest to the nearest, and the place that chose it.

    Each scope may name a recipe file and give values beside it. The nearest file replaces the others; values of all
    scopes are merged, the nearest winning, each scope's over its file's.
    """
    named = [scope for scope in scopes if not is_null(scope.get("recipe"))]
    layers = [defaults.only(*_TRAINING)]
    for scope in scopes:
        if named and scope is named[-1]:
            recipe = project.recipe(scope.get("recipe"))
            layers += [recipe] if recipe else []
        layers.append(scope.only(*_TRAINING))
    chosen = named[-1].get("recipe") if named else None
    place = chosen.place if chosen else place
    merged = reduce(merge, layers)
    return Fields(merged.entries, place), place


def _with_profiles(project: Project, fields: Fields, exports: Node | None) -> Fields:
    if not isinstance(exports, Items):
        return fields.without("exports")
    profiles = [project.profile(name) for name in exports.items]
    return fields.with_entry("exports", Items(tuple(found for found in profiles if found), exports.place))


def _fields(node: Node | None) -> Fields | None:
    return node if isinstance(node, Fields) else None


def _each(node: Node | None) -> Iterator[Fields]:
    return (item for item in _each_item(node) if isinstance(item, Fields))


def _each_item(node: Node | None) -> Iterator[Node]:
    return iter(node.items if isinstance(node, Items) else ())

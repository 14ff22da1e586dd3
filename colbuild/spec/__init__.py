"""What the user writes: YAML files read with the place of every value, validated, every default filled in."""

from __future__ import annotations

from colbuild.spec.project.load import LoadedFamily, load_family
from colbuild.spec.text.places import Place, Places
from colbuild.spec.text.problems import Problem, spec_error

__all__ = ["LoadedFamily", "Place", "Places", "Problem", "load_family", "spec_error"]

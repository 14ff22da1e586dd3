"""What the user writes: YAML files read with the place of every value, validated, every default filled in.

`text` reads YAML and tells mistakes, `model` says what may be written, `sources` how a source is named, `project` which files
belong together. The room may import `arch` and
the modules at the root.
"""

from __future__ import annotations

from colbuild.spec.project.load import LoadedFamily, load_family
from colbuild.spec.text.places import Place, Places
from colbuild.spec.text.problems import Problem, spec_error

__all__ = ["LoadedFamily", "Place", "Places", "Problem", "load_family", "spec_error"]

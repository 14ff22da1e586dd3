"""colbuild: a declarative build system for families of language models."""

__version__ = "0.1.0"

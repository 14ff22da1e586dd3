"""Environment variables that must be set before torch is imported."""

from __future__ import annotations

import os

from colbuild.process_memory import keep_pages


def prepare_process() -> None:
    """Settings for this process that change speed and noise, not results; what the user has set stays."""
    keep_pages()
    # Threads that wait by spinning starve those of another build on the same cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # Libraries that draw progress bars of their own would draw over ours.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

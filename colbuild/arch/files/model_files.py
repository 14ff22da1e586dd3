"""Names of the files beside a model's weights: its tokenizer, its chat templates, its licence."""

from __future__ import annotations

from typing import Final

TOKENIZER: Final = "tokenizer.json"
SETTINGS: Final = "tokenizer_config.json"
"""The tokenizer's settings."""

TOKENIZER_FILES: Final = (
    TOKENIZER,
    SETTINGS,
    "special_tokens_map.json",
    "added_tokens.json",
    "beginning.json",
)
CHAT_TEMPLATE: Final = "chat_template.jinja"
NAMED_TEMPLATES: Final = "additional_chat_templates"
CHAT_FILES: Final = (CHAT_TEMPLATE, f"{NAMED_TEMPLATES}/*.jinja")
LICENCES: Final = (
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
    "LICENCE",
    "LICENCE.md",
    "LICENCE.txt",
    "NOTICE",
    "NOTICE.md",
    "NOTICE.txt",
    "USE_POLICY.md",
)
"""Files in which a model's licence may stand, and what it asks to be handed on with it."""

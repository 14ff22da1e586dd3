"""Limits on input from outside: bytes, seconds, depths and counts. The message of each refusal has the limit.

A bound is far above whatever honest files need, and far below what a machine has. It is no setting: a file beyond one of
these is damaged, or made to harm.
"""

from __future__ import annotations

from typing import Final

JSON_BYTES: Final = 256_000_000
"""Of a JSON file: the largest honest ones are tokenizers of some 35 MB."""
JSON_NODES: Final = 8_000_000
"""Of values in JSON, by its commas and brackets: each takes some 100 bytes in memory; a tokenizer has some 2,000,000."""

SPEC_BYTES: Final = 1_000_000
"""Of a family's, recipe's or profile's file."""
SPEC_DEPTH: Final = 40
"""Of levels in such a file."""
SPEC_NODES: Final = 100_000
"""Of values in such a file, those of its aliases counted each time."""
SPEC_ITEMS: Final = 1_000
"""Of values in one list, or keys in one mapping, of such a file."""
SPEC_PROFILES: Final = 10_000
"""Of exports of a family, over all its members."""
SPEC_EXTENDS: Final = 32
"""Of recipes that extend one another in a row."""
SPEC_PROBLEMS: Final = 100
"""Of mistakes that one message tells; after ten times as many no more are looked for."""

WEIGHTS_HEADER: Final = 100_000_000
"""Of the header of a model's weights: the bound of safetensors; that of a GGUF file holds a vocabulary of some 10 MB."""
HEADER_FACTS: Final = 65_536
"""Of facts in the header of a GGUF file: honest ones have some 50."""
HEADER_TENSORS: Final = 262_144
"""Of tensors in a GGUF file: 4,096 layers with 64 each."""
HEADER_NESTING: Final = 8
"""Of arrays in arrays in the header of a GGUF file: none is known that has any."""
DIMENSIONS: Final = 8
"""Of a tensor: those of language models have at most two."""
LAYERS: Final = 4096
"""Of a model."""
ROWS: Final = 1 << 24
"""Of a vocabulary."""

DOCUMENT_CHARACTERS: Final = 1 << 25
"""Of a record of a corpus, a line of JSON or a value of a table, which takes up to thirty times its bytes in memory. Plain text
is cut into documents that are much smaller."""
ARTICLE_CHARACTERS: Final = 4_000_000
"""Of a page of a wiki: MediaWiki itself keeps 2 MB at most."""
NAMESPACES: Final = 10_000
"""Of a wiki: honest ones have some 30."""
XML_TOKEN: Final = 16_000_000
"""Bytes of a tag or name in XML."""
COLUMN_NAMES: Final = 1_000_000
"""Characters of the first line of CSV, which names the columns."""
TEXT_RATIO: Final = 1_000
"""How many times its own size a compressed text may unpack to: gzip itself reaches 1,030 with a single letter."""
TEXT_SPARE: Final = 256_000_000
"""Bytes that a compressed text may unpack to beyond that ratio."""

PACKED_FILES: Final = 10_000
"""Of files in a packed package, or in its manifest: an honest one has some ten."""
PACKED_RATIO: Final = 200
"""Of what a packed file unpacks to, by its own bytes; weights hardly shrink, a tokenizer to a fifth."""
PACKED_SPARE: Final = 64_000_000
"""Bytes that a packed file may unpack to beyond that ratio."""
PACKED_WINDOW: Final = 1 << 27
"""Bytes of a decompressor's window: as much as zstandard takes by itself."""
MANIFEST_BYTES: Final = 16_000_000
"""Of a package's manifest: an honest one has some 10 kB."""

PAGE_BYTES: Final = 16_000_000
"""Of a page of a package index, or of links; the largest honest ones have some 5 MB."""

LISTING_BYTES: Final = 64_000_000
"""Of a hub's list of the files of a repository; 100,000 files take some 30 MB."""

ANSWER_BYTES: Final = 4_000_000
"""Of any other answer of a server, such as one that leads elsewhere, or a registry's."""

UNDECLARED_BYTES: Final = 8_000_000_000
"""Of a file whose server does not say how large it is; of others, the size that is said counts."""

SLOW_SECONDS: Final = 60.0
"""After this long without `SLOW_BYTES` more, a transfer counts as stalled."""

SLOW_BYTES: Final = 60_000
"""A line of 1 kB/s would need eleven days for 1 GB."""

SILENT_SECONDS: Final = 600.0
"""After this long without any progress, a download is given up, whatever it waits for."""

REDIRECTS: Final = 10
"""From one address to the next."""

ARCHIVES: Final = 8
"""Archives of one version of a project that are looked into."""

UNPACKED_RATIO: Final = 100
"""How many times its own size a compressed archive may unpack to; text and weights reach 10."""

UNPACKED_BYTES: Final = 256_000_000
"""What any archive may unpack to, however small it is."""

MEMBERS: Final = 200_000
"""Files in an archive, or in a listing of a hub."""

HEADER_BYTES: Final = 16_000_000
"""Of one header of an archive: the list of a zip file's members, or an extended header of a tar file."""

XZ_BYTES: Final = 256_000_000
"""Memory that unpacking xz may take; its strongest level takes 65 MB."""

REMOTE_ANSWER_BYTES: Final = 20_000_000
"""Of one answer of a remote cache; a list of files may have 16 MiB, and blocks of a file have 4."""

REGISTRY_SECONDS: Final = 120.0
"""A registry may be silent, while it takes in a file or otherwise."""

PIP_SETTINGS_BYTES: Final = 1_000_000
"""Of one configuration file of pip."""

JSON_DEPTH: Final = 64
"""Of what files of a store and of a remote cache hold; honest ones are some 8 deep."""
ONNX_FIELDS: Final = 2_000_000
"""Of an ONNX file besides its weights: an honest one has some ten thousand."""
ONNX_DEPTH: Final = 60
"""Of messages in messages in an ONNX file: graphs in nodes in graphs."""
PACKAGE_MEMORY: Final = 2_000_000_000
"""Bytes that a package may need beyond its model, while it is tried."""
PACKAGE_SECONDS: Final = 10.0
"""Until a package's graph is loaded or has computed its next tokens, besides the time for its size."""
PACKAGE_BYTES_A_SECOND: Final = 5_000_000
"""Of a model that a slow machine reads or computes."""
TEMPLATE_BYTES: Final = 1_000_000
"""Of a chat template, and of what it writes: the largest honest ones have some 20 kB."""
TEMPLATE_STEPS: Final = 200_000
"""Calls and turns of loops while a chat template is rendered."""
TEMPLATE_SECONDS: Final = 10.0
"""Of a chat template that is tried before it is packaged."""
TEMPLATE_MEMORY: Final = 500_000_000
"""Bytes that a chat template may need while it is tried."""
SAMPLE_TOKENS: Final = 4096
"""Of a manifest's sample generation: honest ones have some 30."""

GIT_SECONDS: Final = 300.0
"""Of a run of git, which reads a few files of a repository."""

REVISION_BYTES: Final = 100_000_000
"""Of all YAML files of a project at a git revision."""
TOKENIZER_SECONDS: Final = 10.0
"""Until a tokenizer from outside is loaded, and until it has cut some texts, besides the time for its size."""
TOKENIZER_BYTES_A_SECOND: Final = 1_000_000
"""Of a tokenizer.json on a slow machine."""
TOKENIZER_MEMORY: Final = 1_000_000_000
"""Bytes that a tokenizer may need while it is tried."""
TOKENIZER_TIMES: Final = 40
"""How many times its file's size besides; honest ones need some 15."""
MARK_BYTES: Final = 4_000
"""Of the mark of a store, which has 17."""

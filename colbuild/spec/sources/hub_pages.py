"""Converts addresses and short names of the Hugging Face Hub to sources."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote

DATASETS: Final = "datasets/"
"""Stands before a dataset's name, in pages' addresses and in sources."""

_VIEWS: Final = ("tree", "blob", "resolve", "raw")
"""What stands between a repository's name and a revision in the addresses of the hub's pages."""

WITHOUT_OWNER: Final = {
    **dict.fromkeys(("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"), "openai-community"),
    "distilgpt2": "distilbert",
    "wikitext": "Salesforce",
    "c4": "allenai",
    "openwebtext": "Skylion007",
    "ag_news": "fancyzhx",
    "imdb": "stanfordnlp",
    "bookcorpus": "bookcorpus",
}
"""Repositories of the hub that are known by a name without their owner's."""


def with_owner(name: str) -> str | None:
    """A repository's whole name, where it is known without its owner's."""
    owner = WITHOUT_OWNER.get(name.strip("/"))
    return None if owner is None else f"{owner}/{name.strip('/')}"


def page_of_hub(path: str) -> str | None:
    """The revision and file in the path of one of the hub's pages, as they follow a repository's name in a source.

    Args:
        path: What follows the repository's name, such as "tree/main" or "blob/main/x.gguf"; None is returned for any other.
    """
    view, _, rest = path.strip("/").partition("/")
    if view not in _VIEWS or not rest:
        return None
    parts = unquote(rest).split("/")
    count = 3 if len(parts) > 2 and parts[0] == "refs" and parts[1] in ("pr", "convert") else 1
    revision, file = "/".join(parts[:count]), "/".join(parts[count:])
    # What a page shows of a folder is no file.
    return f"@{revision}" + (f"/{file}" if file and view != "tree" else "")

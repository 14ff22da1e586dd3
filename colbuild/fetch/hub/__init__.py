"""The reader of `hf://`: a repository of the Hugging Face Hub, or one file of it, at one commit.

The hub's own client does the work, and its cache stands for the hub where there is no network.
It may import what `colbuild.fetch` may, and how `colbuild.fetch.index` shows an address; nothing of texts.
"""

"""Answers of a remote behind http(s), with a limit on their size: a server may send a whole file for a part."""

from __future__ import annotations

from typing import Any

import aiohttp

from colbuild.bounds import REMOTE_ANSWER_BYTES
from colbuild.units import format_bytes


class _Bounded(aiohttp.ClientResponse):
    async def read(self) -> bytes:
        """The content. Raises ValueError where it is too long."""
        blocks, size = [], 0
        async for block in self.content.iter_any():
            size += len(block)
            if size > REMOTE_ANSWER_BYTES:
                self.close()
                raise ValueError(f"it sends more than {format_bytes(REMOTE_ANSWER_BYTES)}, the limit of one request")
            blocks.append(block)
        return b"".join(blocks)


async def bounded_client(**settings: Any) -> aiohttp.ClientSession:
    """A client with the settings of fsspec and of its user, whose answers have a bound, also unpacked."""
    headers = {**(settings.pop("headers", None) or {}), "Accept-Encoding": "identity"}
    return aiohttp.ClientSession(**settings, headers=headers, response_class=_Bounded, auto_decompress=False)

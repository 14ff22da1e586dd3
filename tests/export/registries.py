"""An OCI registry on 127.0.0.1 that speaks just enough of the distribution protocol to be pushed to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.ops.source.servers import Quiet, serving


@dataclass
class Registry:
    """What was pushed.

    Attributes:
        blobs: Digest -> bytes.
        manifests: Tag -> bytes.
        refusal: (status, message) that every write is answered with; None takes them.
        sent: Digests of the blobs that were sent, in their order.
    """

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    refusal: tuple[int, str] | None = None
    sent: list[str] = field(default_factory=list)

    def manifest(self, tag: str) -> dict[str, Any]:
        return json.loads(self.manifests[tag])

    @contextmanager
    def serve(self) -> Iterator[str]:
        """Serves until the block ends; gives host and port."""
        registry = self

        class Answer(Quiet):
            def do_HEAD(self) -> None:  # noqa: N802
                self.send(200 if self.path.rpartition("/")[2] in registry.blobs else 404)

            def do_GET(self) -> None:  # noqa: N802
                name = self.path.rpartition("/")[2]
                found = registry.manifests.get(name) if "/manifests/" in self.path else registry.blobs.get(name)
                self.send(404 if found is None else 200, found or b"")

            def do_POST(self) -> None:  # noqa: N802
                if registry.refusal is not None:
                    status, message = registry.refusal
                    self.send(status, json.dumps({"errors": [{"code": "DENIED", "message": message}]}).encode())
                    return
                self.send(202, headers={"Location": f"{self.path}one-session"})

            def do_PUT(self) -> None:  # noqa: N802
                body = self.rfile.read(int(self.headers["Content-Length"]))
                digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
                address = urlsplit(self.path)
                if "/manifests/" in address.path:
                    registry.manifests[address.path.rpartition("/")[2]] = body
                    layers = [*json.loads(body)["layers"], json.loads(body)["config"]]
                    known = all(layer["digest"] in registry.blobs for layer in layers)
                    self.send(201 if known else 400, headers={"Docker-Content-Digest": digest})
                    return
                if parse_qs(address.query)["digest"] != [digest]:
                    self.send(400)
                    return
                registry.blobs[digest] = body
                registry.sent.append(digest)
                self.send(201)

        with serving(Answer) as address:
            yield address.removeprefix("http://")

"""Small servers on 127.0.0.1: a package index and a model hub, each speaking just enough of its protocol."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@contextmanager
def serving(answer: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serves until the block ends; gives the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), answer)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class Quiet(BaseHTTPRequestHandler):
    """A handler that logs nothing and can send a body."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Nothing."""

    def send(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@dataclass
class Index:
    """A package index. `files` maps file names to contents; `digests` overrides what it says of one."""

    project: str
    files: dict[str, bytes]
    digests: dict[str, str] = field(default_factory=dict)
    login: tuple[str, str] | None = None
    cut_off: bool = False
    hang: threading.Event | None = None
    requests: list[str] = field(default_factory=list)

    @contextmanager
    def serve(self) -> Iterator[str]:
        """Serves until the block ends; gives the index URL."""
        index = self

        class Answer(Quiet):
            def do_GET(self) -> None:
                index.requests.append(self.path)
                if index.login is not None:
                    expected = base64.b64encode(":".join(index.login).encode()).decode()
                    if self.headers.get("Authorization") != f"Basic {expected}":
                        self.send(401, b"who are you?", {"WWW-Authenticate": "Basic"})
                        return
                path = unquote(urlsplit(self.path).path)
                if path == f"/simple/{index.project}/":
                    self.send(200, index.page().encode(), {"Content-Type": "text/html"})
                elif (name := path.removeprefix("/files/")) in index.files:
                    self.send_file(index.files[name])
                else:
                    self.send(404)

            def send_file(self, content: bytes) -> None:
                if index.hang is not None:
                    index.hang.wait(10)
                if index.cut_off:
                    self.send(200, content[: len(content) // 2], {"Content-Length": str(len(content))})
                    self.close_connection = True
                    return
                self.send(200, content)

        with serving(Answer) as address:
            yield f"{address}/simple/"

    def page(self) -> str:
        """The project's page."""
        links = []
        for name, content in self.files.items():
            digest = self.digests.get(name, hashlib.sha256(content).hexdigest())
            links.append(f'<a href="../../files/{name}#sha256={digest}">{name}</a>')
        return f"<!DOCTYPE html><html><body>{' '.join(links)}</body></html>"


@dataclass
class Hub:
    """A model hub with one repository. Files over `large` bytes are redirected to another path, as LFS files are."""

    repo: str
    files: dict[str, bytes]
    kind: str = "model"
    commit: str = "a" * 40
    revisions: tuple[str, ...] = ("main", "v1")
    token: str | None = None
    gated: bool = False
    large: int = 1000
    requests: list[str] = field(default_factory=list)

    @contextmanager
    def serve(self) -> Iterator[str]:
        """Serves until the block ends; gives the endpoint."""
        hub = self
        web = f"/{hub.repo}" if hub.kind == "model" else f"/datasets/{hub.repo}"

        class Answer(Quiet):
            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                path = unquote(urlsplit(self.path).path)
                hub.requests.append(f"{self.command} {path}")
                if path.startswith("/large/"):
                    self.send(200, hub.files[path.removeprefix("/large/")])
                elif path.startswith(f"/api/{hub.kind}s/{hub.repo}/revision/"):
                    self.look(path.rsplit("/revision/", 1)[1])
                elif path.startswith(f"/api/{hub.kind}s/{hub.repo}/tree/"):
                    self.list(path.rsplit("/tree/", 1)[1])
                elif path.startswith(f"{web}/resolve/"):
                    revision, _, name = path.removeprefix(f"{web}/resolve/").partition("/")
                    self.resolve(revision, name)
                else:
                    # The real hub says so of every repository that a stranger may not see.
                    self.send(401, b"{}", {"X-Error-Code": "RepoNotFound"})

            def admitted(self, revision: str) -> bool:
                if hub.token is not None and self.headers.get("Authorization") != f"Bearer {hub.token}":
                    self.send(401, b"{}", {"X-Error-Code": "GatedRepo" if hub.gated else "RepoNotFound"})
                elif revision not in (*hub.revisions, hub.commit):
                    self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
                else:
                    return True
                return False

            def look(self, revision: str) -> None:
                if self.admitted(revision):
                    siblings = [{"rfilename": name, "size": len(content)} for name, content in hub.files.items()]
                    info = {"id": hub.repo, "sha": hub.commit, "siblings": siblings, "private": False, "tags": []}
                    self.send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

            def list(self, revision: str) -> None:
                if self.admitted(revision):
                    files = [
                        {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                        for name, content in hub.files.items()
                    ]
                    self.send(200, json.dumps(files).encode(), {"Content-Type": "application/json"})

            def resolve(self, revision: str, name: str) -> None:
                if not self.admitted(revision):
                    return
                if name not in hub.files:
                    self.send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": hub.commit})
                    return
                content = hub.files[name]
                digest = hashlib.sha256(content).hexdigest()
                headers = {"X-Repo-Commit": hub.commit, "ETag": f'"{digest[:40]}"'}
                if len(content) > hub.large:
                    linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
                    # Another host, as a CDN is: the client looks at the headers of its own host only.
                    elsewhere = f"http://localhost:{self.headers['Host'].rsplit(':', 1)[1]}/large/{name}"
                    self.send(302, b"", {**headers, **linked, "Location": elsewhere})
                    return
                self.send(200, content, headers)

        with serving(Answer) as address:
            yield address

"""A stand-in for a hub on 127.0.0.1: the requests that huggingface_hub makes to download a repository.

Repositories are plain data; each test says what goes wrong (`Repository.gated`, `Hub.cut`, ...) and reads
afterwards what was asked for (`Hub.requests`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

_INFO = re.compile(r"/api/models/(?P<name>[^/]+/[^/]+?)(/revision/(?P<revision>.+))?")
_TREE = re.compile(r"/api/models/(?P<name>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)")
_FILE = re.compile(r"/(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
_STORE = re.compile(r"/store/(?P<commit>\w+)/(?P<file>.+)")


@dataclass
class Repository:
    """One commit of a repository; `files` may be exchanged by a test, which makes another commit."""

    files: dict[str, bytes]
    branches: tuple[str, ...] = ("main",)
    token: str | None = None
    """The token without which it does not exist."""
    gated: bool = False

    @property
    def commit(self) -> str:
        digest = hashlib.sha1()
        for name, content in sorted(self.files.items()):
            digest.update(f"{name} {len(content)} ".encode() + content)
        return digest.hexdigest()


@dataclass(frozen=True)
class Request:
    """What a client asked for."""

    method: str
    path: str
    range: str | None
    status: int


@dataclass
class Hub:
    """The server's state."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    cut: dict[str, list[int]] = field(default_factory=dict)
    """For a file: after how many bytes its next downloads break off."""
    failing: int | None = None
    """A status that every request gets."""
    requests: list[Request] = field(default_factory=list)

    def downloads(self) -> list[str]:
        """The files whose content was sent, as often as it was."""
        sent = [request for request in self.requests if request.method == "GET" and request.status < 300]
        direct = [match["file"] for request in sent if (match := _FILE.fullmatch(request.path))]
        stored = [match["file"] for request in sent if (match := _STORE.fullmatch(request.path))]
        return direct + stored


@contextmanager
def hub_server(**repositories: Repository) -> Iterator[Hub]:
    """Serve repositories, named with `__` for the slash, until the end of the block."""
    hub = Hub(repositories={name.replace("__", "/"): repo for name, repo in repositories.items()})

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if self.state.failing is not None:
            self._send(self.state.failing, b"")
        elif match := _STORE.fullmatch(path):
            self._store(match["commit"], match["file"])
        elif match := _TREE.fullmatch(path) or _INFO.fullmatch(path) or _FILE.fullmatch(path):
            self._repository(match)
        else:
            self._send(404, b"")

    def _repository(self, match: re.Match[str]) -> None:
        repository = self.state.repositories.get(match["name"])
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        revision = match["revision"] or "main"
        if repository is None or (repository.token and repository.token != token):
            self._send(404 if token else 401, b"", {"X-Error-Code": "RepoNotFound"})
        elif repository.gated and match.re is not _INFO:
            self._send(403 if token else 401, b"", {"X-Error-Code": "GatedRepo"})
        elif revision not in (*repository.branches, repository.commit):
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif match.re is _FILE:
            self._file(repository, match["file"])
        else:
            self._json(_info(match["name"], repository) if match.re is _INFO else _tree(repository))

    def _file(self, repository: Repository, name: str) -> None:
        """As on the real hub, weights lie in a store on another host; the answer says where."""
        headers = {"X-Repo-Commit": repository.commit}
        content = repository.files.get(name)
        if content is None:
            self._send(404, b"", {**headers, "X-Error-Code": "EntryNotFound"})
        elif name.endswith(".safetensors"):
            store = self.state.url.replace("127.0.0.1", "localhost")
            headers["Location"] = f"{store}/store/{repository.commit}/{name}"
            headers |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{_etag(content)}"'}
            self._send(302, b"", headers)
        else:
            self._send(200, content, {**headers, "ETag": f'"{_etag(content)}"'})

    def _store(self, commit: str, name: str) -> None:
        if "Authorization" in self.headers:
            self._send(400, b"the token was sent to another host")
            return
        repository = next(repo for repo in self.state.repositories.values() if repo.commit == commit)
        content, start, headers = repository.files[name], 0, {"Accept-Ranges": "bytes"}
        if asked := self.headers.get("Range"):
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        cuts = self.state.cut.get(name)
        self._send(206 if asked else 200, content[start:], headers, cuts.pop(0) if cuts else None)

    def _json(self, data: object) -> None:
        self._send(200, json.dumps(data).encode(), {"Content-Type": "application/json"})

    def _send(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: int | None = None
    ) -> None:
        """Answer; with `cut`, promise the whole body, send so many bytes of it and hang up."""
        self.state.requests.append(
            Request(self.command, unquote(urlsplit(self.path).path), self.headers.get("Range"), status)
        )
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body if cut is None else body[:cut])
        self.close_connection = cut is not None


def _info(name: str, repository: Repository) -> dict[str, object]:
    siblings = [{"rfilename": file, "size": len(content)} for file, content in repository.files.items()]
    return {"id": name, "modelId": name, "sha": repository.commit, "siblings": siblings}


def _tree(repository: Repository) -> list[dict[str, object]]:
    return [
        {"type": "file", "path": file, "size": len(content), "oid": _etag(content)}
        for file, content in repository.files.items()
    ]


def _etag(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

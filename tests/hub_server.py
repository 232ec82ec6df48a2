"""A small server on loopback that speaks Hugging Face's protocol of uploads and downloads, as far as it is needed."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlparse

TOKEN = "hf_ours"


class HubServer(ThreadingHTTPServer):
    """Repositories as lists of commits, and the large files, by their hashes, apart."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, Any]] = {}  # name: {"private": bool, "commits": {sha: {path: bytes}}}
        self.large: dict[str, bytes] = {}
        self.messages: list[str] = []
        self.asked: list[str] = []  # every request, in order

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def files(self, name: str, revision: str = "main") -> tuple[str, dict[str, bytes]]:
        commits = self.repositories[name]["commits"]
        sha = list(commits)[-1] if revision == "main" else revision
        return sha, commits[sha]


@contextmanager
def hub_server() -> Iterator[HubServer]:
    with HubServer() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


class Handler(BaseHTTPRequestHandler):
    """One request; the patterns are in the order in which an upload, then a download, asks for them."""

    server: HubServer
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        path = unquote(urlparse(self.path).path)
        self.server.asked.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        for method, pattern, action in ROUTES:
            if self.command in method and (match := re.fullmatch(pattern, path)):
                name = match.groupdict().get("name")
                if name is not None and name not in self.server.repositories:
                    return self.send({"error": "Repository not found"}, 404, **{"X-Error-Code": "RepoNotFound"})
                private = name is not None and self.server.repositories[name]["private"]
                if (private or "POST" in method) and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    return self.send({"error": "Invalid username or password."}, 401)
                return action(self, body, **match.groupdict())
        return self.send({"error": f"no such route: {self.command} {path}"}, 501)

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def send(self, content: Any, status: int = 200, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    # ---- upload

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = "/".join(filter(None, [asked.get("organization"), asked["name"]]))
        if name in self.server.repositories:
            there = {"error": "You already created this model repo", "url": f"{self.server.endpoint}/{name}"}
            return self.send(there, 409)
        first = hashlib.sha1(name.encode()).hexdigest()
        private = asked.get("visibility") == "private" or bool(asked.get("private"))  # of newer and of older clients
        self.server.repositories[name] = {"private": private, "commits": {first: {}}}
        return self.send({"url": f"{self.server.endpoint}/{name}", "name": name, "id": name})

    def validate(self, body: bytes) -> None:
        self.send({"errors": [], "warnings": []})

    def preupload(self, body: bytes, name: str, revision: str) -> None:
        def mode(path: str) -> str:
            return "lfs" if path.endswith(".safetensors") else "regular"

        files = [file["path"] for file in json.loads(body)["files"]]
        self.send({"files": [{"path": path, "uploadMode": mode(path), "shouldIgnore": False} for path in files]})

    def batch(self, body: bytes, name: str) -> None:
        def place(oid: str) -> dict[str, Any]:
            return {"upload": {"href": f"{self.server.endpoint}/lfs/{oid}"}}

        objects = json.loads(body)["objects"]
        self.send({"transfer": "basic", "objects": [{**thing, "actions": place(thing["oid"])} for thing in objects]})

    def put(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.large[oid] = body
        self.send({})

    def commit(self, body: bytes, name: str, revision: str) -> None:
        _, before = self.server.files(name, revision)
        files = dict(before)
        for line in body.splitlines():
            kind, value = (entry := json.loads(line))["key"], entry["value"]
            if kind == "header":
                self.server.messages.append(value["summary"])
            elif kind == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif kind == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
            elif kind == "deletedFile":
                del files[value["path"]]
        commits = self.server.repositories[name]["commits"]
        sha = hashlib.sha1(body + str(len(commits)).encode()).hexdigest()
        commits[sha] = files
        url = f"{self.server.endpoint}/{name}/commit/{sha}"
        self.send({"success": True, "commitUrl": url, "commitOid": sha, "hookOutput": ""})

    # ---- download

    def info(self, body: bytes, name: str, revision: str | None = None) -> None:
        sha, files = self.server.files(name, revision or "main")
        siblings = [{"rfilename": path, "size": len(data)} for path, data in files.items()]
        self.send({"id": name, "sha": sha, "siblings": siblings, "tags": []})

    def tree(self, body: bytes, name: str, revision: str) -> None:
        _, files = self.server.files(name, revision)
        oids = {path: hashlib.sha1(data).hexdigest() for path, data in files.items()}
        self.send([{"type": "file", "path": p, "size": len(data), "oid": oids[p]} for p, data in files.items()])

    def resolve(self, body: bytes, name: str, revision: str, path: str) -> None:
        sha, files = self.server.files(name, revision)
        if path not in files:
            return self.send({"error": "Entry not found"}, 404, **{"X-Error-Code": "EntryNotFound"})
        etag = hashlib.sha256(files[path]).hexdigest()
        return self.send(files[path], ETag=f'"{etag}"', **{"X-Repo-Commit": sha})


NAME, REVISION = r"(?P<name>[\w.-]+/[\w.-]+)", r"(?P<revision>[\w.-]+)"
ROUTES = (
    (("POST",), "/api/repos/create", Handler.create),
    (("POST",), "/api/validate-yaml", Handler.validate),
    (("POST",), f"/api/models/{NAME}/preupload/{REVISION}", Handler.preupload),
    (("POST",), rf"/{NAME}\.git/info/lfs/objects/batch", Handler.batch),
    (("PUT",), "/lfs/(?P<oid>[0-9a-f]{64})", Handler.put),
    (("POST",), f"/api/models/{NAME}/commit/{REVISION}", Handler.commit),
    (("GET",), f"/api/models/{NAME}(/revision/{REVISION})?", Handler.info),
    (("GET",), f"/api/models/{NAME}/tree/{REVISION}", Handler.tree),
    (("GET", "HEAD"), f"/{NAME}/resolve/{REVISION}/(?P<path>.+)", Handler.resolve),
)

"""A small Hugging Face Hub on this machine: the protocol as the real client speaks it.

Two servers, as there: the Hub itself, and a store ("CDN") under a host name of its own, to which
large files are redirected and which must never see a token. Repositories hold commits, branches and
tags; they can be private or gated. `fail` makes answers go wrong, and `log` holds what was asked.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

MAIN = "main"


@dataclass
class Repository:
    """Commits by name, each a dict of files; branches and tags point to them."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes | None], branch: str = MAIN) -> str:
        """Add files (None removes one) to a branch, and return the new commit."""
        tree = dict(self.commits.get(self.branches.get(branch, ""), {}))
        for path, data in files.items():
            tree.pop(path, None) if data is None else tree.__setitem__(path, data)
        told = repr((sorted(tree.items()), branch, len(self.commits)))
        name = hashlib.sha1(told.encode()).hexdigest()
        self.commits[name], self.branches[branch] = tree, name
        return name

    def find(self, revision: str) -> str | None:
        """Return the commit that a branch, tag or commit is."""
        revision = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        name = self.branches.get(revision) or self.tags.get(revision) or revision
        return name if name in self.commits else None


@dataclass
class Request:
    """What came in."""

    method: str
    path: str
    headers: dict[str, str]
    status: int = 0

    @property
    def range(self) -> str | None:
        """Return the bytes asked for, "bytes=10-" for example."""
        return self.headers.get("range")


@dataclass
class Fault:
    """What goes wrong with the answers to some requests.

    Attributes:
        match: pattern searched for in "METHOD /path".
        times: for so many requests, then no more.
        status: answered instead of the right thing.
        cut: bytes of the body after which the connection ends; the headers promise all.
        pause: seconds before the answer, or in its middle where there is a `cut` of None.
        change: turns the right body into a wrong one.
    """

    match: str
    times: int = 1
    status: int | None = None
    cut: int | None = None
    pause: float = 0.0
    change: Callable[[bytes], bytes] | None = None


class Hub:
    """The two servers, running in threads until `close`."""

    def __init__(self, token: str = "hf_good") -> None:
        self.token = token
        self.repositories: dict[str, Repository] = {}
        self.moved: dict[str, str] = {}
        self.objects: dict[str, bytes] = {}
        self.log: list[Request] = []
        self.faults: list[Fault] = []
        self.front = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, _HubRequest))
        self.store = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, _StoreRequest))
        self.url = f"http://127.0.0.1:{self.front.server_port}"
        self.store_url = f"http://localhost:{self.store.server_port}"
        for server in (self.front, self.store):
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def add(self, name: str, files: dict[str, bytes | None], **about: Any) -> str:
        """Make a repository with one commit, and return that commit."""
        self.repositories[name] = Repository(**about)
        return self.repositories[name].commit(files)

    def fail(self, match: str, **about: Any) -> Fault:
        """Have the next matching answers go wrong; see `Fault`."""
        self.faults.append(Fault(match, **about))
        return self.faults[-1]

    def asked(self, match: str) -> list[Request]:
        """Return the requests so far whose "METHOD /path" holds the pattern."""
        return [one for one in self.log if re.search(match, f"{one.method} {one.path}")]

    def forget(self) -> None:
        """Drop all repositories, faults and what was logged."""
        for kept in (self.repositories, self.moved, self.objects, self.log, self.faults):
            kept.clear()  # type: ignore[attr-defined]

    def close(self) -> None:
        """Stop both servers."""
        for server in (self.front, self.store):
            server.shutdown()
            server.server_close()


def is_large(path: str) -> bool:
    """Return whether a file is kept in the store and not in the repository itself."""
    return path.endswith((".safetensors", ".bin", ".png"))


def blob_name(data: bytes) -> str:
    """Return the name git gives to a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _handler(hub: Hub, kind: type[_Answer]) -> type[_Answer]:
    return type(kind.__name__, (kind,), {"hub": hub})


class _Answer(BaseHTTPRequestHandler):
    """What both servers have in common: logging, faults, sending."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        self.route, self.query = unquote(parts.path), parse_qs(parts.query)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.request_log = Request(self.command, self.route, headers)
        self.hub.log.append(self.request_log)
        self.fault = next(
            (
                one
                for one in self.hub.faults
                if one.times > 0 and re.search(one.match, f"{self.command} {self.route}")
            ),
            None,
        )
        if self.fault is not None:
            self.fault.times -= 1
            if self.fault.pause and self.fault.cut is None:
                threading.Event().wait(self.fault.pause)
            if self.fault.status is not None:
                return self.send(self.fault.status, b"trouble")
        self.answer()

    do_GET = do_HEAD = do_POST = do_PUT = _serve

    def answer(self) -> None:
        """Answer `self.command` on `self.route`."""
        raise NotImplementedError

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send an answer, as wrong as the fault of this request has it."""
        fault = self.fault
        if fault is not None and fault.change is not None and status < 300:
            body = fault.change(body)
        self.request_log.status = status
        try:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key.replace("_", "-"), value)
            if "Content_Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            if fault is not None and fault.cut is not None and status < 300:
                self.wfile.write(body[: fault.cut])
                self.wfile.flush()
                if fault.pause:
                    threading.Event().wait(fault.pause)
                self.close_connection = True
                self.connection.shutdown(2)
            else:
                self.wfile.write(body)
        except OSError:  # the client has gone
            self.close_connection = True

    def send_json(self, value: object, status: int = 200) -> None:
        """Send a value as JSON."""
        self.send(status, json.dumps(value).encode(), Content_Type="application/json")

    def send_file(self, data: bytes, **headers: str) -> None:
        """Send a file, or the part of it that is asked for."""
        headers |= {"Accept_Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if wanted is None:
            return self.send(200, data, **headers)
        first, last = int(wanted[1]), int(wanted[2] or len(data) - 1)
        if first >= len(data):
            return self.send(416, **{"Content_Range": f"bytes */{len(data)}"})
        headers["Content_Range"] = f"bytes {first}-{last}/{len(data)}"
        self.send(206, data[first : last + 1], **headers)


class _StoreRequest(_Answer):
    """The store: large files by their digest, to anyone who knows it."""

    def answer(self) -> None:
        name = self.route.rpartition("/")[2]
        if "authorization" in self.request_log.headers:
            return self.send(400, b"a token must not come here")
        if self.command == "PUT":
            self.hub.objects[name] = self.body
            return self.send(200)
        data = self.hub.objects.get(name)
        self.send(404) if data is None else self.send_file(data, ETag=f'"{name}"')


class _HubRequest(_Answer):
    """The Hub: repositories, and what can be asked about them."""

    def answer(self) -> None:
        for pattern, method in _ROUTES:
            found = re.fullmatch(pattern, f"{self.command} {self.route}")
            if found is not None:
                return method(self, **found.groupdict())
        self.send(404, b"no such page")

    # -- who may what -----------------------------------------------------------------------------

    def is_owner(self) -> bool:
        """Return whether the right token came along."""
        return self.headers.get("Authorization") == f"Bearer {self.hub.token}"

    def refuse(self, status: int, code: str, message: str) -> None:
        """Send an error as the Hub does, its reason in the headers."""
        body = json.dumps({"error": message}).encode()
        self.send(status, body, X_Error_Code=code, X_Error_Message=message)

    def repository(self, name: str, *, contents: bool = False) -> Repository | None:
        """Return a repository that may be seen; None after a refusal was sent."""
        found = self.hub.repositories.get(name)
        sent = self.headers.get("Authorization")
        if sent is not None and not self.is_owner():
            self.refuse(401, "", "Invalid credentials in Authorization header")
        elif found is None or (found.private and not self.is_owner()):
            status = 404 if self.is_owner() else 401
            self.refuse(status, "RepoNotFound", "Repository not found")
        elif found.gated and contents and not self.is_owner():
            message = f"Access to model {name} is restricted. You must be authenticated."
            self.refuse(401 if sent is None else 403, "GatedRepo", message)
        else:
            return found
        return None

    def commit_of(self, found: Repository, revision: str) -> str | None:
        """Return a commit; None after a refusal was sent."""
        commit = found.find(unquote(revision))
        if commit is None:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    # -- reading ----------------------------------------------------------------------------------

    def resolve(self, name: str, revision: str, path: str) -> None:
        """Send a file, or where it is: /owner/name/resolve/revision/path."""
        if name in self.hub.moved:
            to = f"/{self.hub.moved[name]}/resolve/{revision}/{path}"
            return self.send(307, Location=to)
        found = self.repository(name, contents=True)
        commit = found and self.commit_of(found, revision)
        if not found or not commit:
            return None
        data = found.commits[commit].get(path)
        if data is None:
            body, message = b"Entry not found", "Entry not found"
            return self.send(
                404, body, X_Error_Code="EntryNotFound", X_Error_Message=message,
                X_Repo_Commit=commit,
            )  # fmt: skip
        if not is_large(path):
            return self.send_file(data, ETag=f'"{blob_name(data)}"', X_Repo_Commit=commit)
        digest = hashlib.sha256(data).hexdigest()
        self.hub.objects[digest] = data
        self.send(
            302, Location=f"{self.hub.store_url}/store/{digest}", X_Repo_Commit=commit,
            X_Linked_Etag=f'"{digest}"', X_Linked_Size=str(len(data)), ETag=f'"{digest}"',
        )  # fmt: skip

    def info(self, name: str, revision: str | None = None) -> None:
        """Send what is known of a repository."""
        found = self.repository(name)
        commit = found and self.commit_of(found, revision or MAIN)
        if found and commit:
            files = [{"rfilename": path} for path in sorted(found.commits[commit])]
            self.send_json(
                {
                    "_id": "0", "id": name, "modelId": name, "sha": commit, "siblings": files,
                    "private": found.private, "gated": found.gated, "tags": [], "downloads": 0,
                }
            )  # fmt: skip

    def tree(self, name: str, revision: str, path: str | None = None) -> None:
        """Send the files of a commit."""
        found = self.repository(name, contents=True)
        commit = found and self.commit_of(found, revision)
        if not found or not commit:
            return
        entries = []
        for file, data in sorted(found.commits[commit].items()):
            entry: dict[str, Any] = {"type": "file", "path": file, "size": len(data)}
            entry["oid"] = blob_name(data)
            if is_large(file):
                digest = hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 134}
            entries.append(entry)
        self.send_json(entries)

    def refs(self, name: str) -> None:
        """Send branches and tags."""
        found = self.repository(name)
        if found:
            kinds = {"branches": ("heads", found.branches), "tags": ("tags", found.tags)}
            told = {
                kind: [
                    {"name": one, "ref": f"refs/{folder}/{one}", "targetCommit": commit}
                    for one, commit in names.items()
                ]
                for kind, (folder, names) in kinds.items()
            }
            self.send_json(told | {"converts": []})

    # -- writing ----------------------------------------------------------------------------------

    def may_write(self) -> bool:
        """Return whether the right token came along; refuse where it did not."""
        if not self.is_owner():
            self.refuse(401, "", "Invalid username or password.")
        return self.is_owner()

    def create(self) -> None:
        """Make a repository."""
        if not self.may_write():
            return
        asked = json.loads(self.body)
        if not isinstance(asked.get("private", False), bool):
            return self.send_json({"error": '"private" must be a boolean'}, 400)
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        url = f"{self.hub.url}/{name}"
        if name in self.hub.repositories:
            return self.send_json({"error": "You already created this model", "url": url}, 409)
        private = asked.get("private") or asked.get("visibility") == "private"
        self.hub.add(name, {".gitattributes": b"*.safetensors filter=lfs\n"}, private=bool(private))
        self.send_json({"url": url, "name": name, "id": "0"})

    def branch(self, name: str, branch: str) -> None:
        """Make a branch at the head of main."""
        found = self.may_write() and self.repository(name)
        if found and branch in found.branches:
            self.send_json({"error": "Reference already exists"}, 409)
        elif found:
            found.branches[branch] = found.branches[MAIN]
            self.send_json({})

    def preupload(self, name: str, revision: str) -> None:
        """Say which files go to the store."""
        found = self.may_write() and self.repository(name)
        commit = found and self.commit_of(found, revision)
        if found and commit:
            asked = [one["path"] for one in json.loads(self.body)["files"]]
            told = [
                {"path": one, "uploadMode": "lfs" if is_large(one) else "regular",
                 "shouldIgnore": False, "oid": None}
                for one in asked
            ]  # fmt: skip
            self.send_json({"files": told, "commitOid": commit})

    def batch(self, name: str) -> None:
        """Say where large files are to be put."""
        if not (self.may_write() and self.repository(name)):
            return
        objects = []
        for one in json.loads(self.body)["objects"]:
            href = f"{self.hub.store_url}/store/{one['oid']}"
            known = one["oid"] in self.hub.objects
            objects.append(one | ({} if known else {"actions": {"upload": {"href": href}}}))
        self.send_json({"transfer": "basic", "objects": objects})

    def commit(self, name: str, revision: str) -> None:
        """Add a commit of files that come along or are in the store."""
        found = self.may_write() and self.repository(name)
        if not found or not self.commit_of(found, revision):
            return
        files: dict[str, bytes | None] = {}
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        oid = found.commit(files, unquote(revision))
        url = f"{self.hub.url}/{name}/commit/{oid}"
        told = {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""}
        if "create_pr" in self.query:
            told["pullRequestUrl"] = f"{self.hub.url}/{name}/discussions/1"
        self.send_json(told)

    def check_card(self) -> None:
        """Say whether the front matter of a README.md is right."""
        content = json.loads(self.body)["content"]
        good = content.startswith("---\n") and "license:" in content
        errors = [] if good else [{"message": "no license"}]
        self.send_json({"errors": errors, "warnings": []}, 200 if good else 400)

    def whoami(self) -> None:
        """Say who has the token."""
        if self.may_write():
            self.send_json({"type": "user", "name": "me", "orgs": [], "auth": {}})


_NAME = r"(?P<name>[\w.-]+/[\w.-]+)"
_ROUTES: list[tuple[str, Callable[..., None]]] = [
    (rf"(?:GET|HEAD) /{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _HubRequest.resolve),
    (rf"GET /api/models/{_NAME}", _HubRequest.info),
    (rf"GET /api/models/{_NAME}/revision/(?P<revision>.+)", _HubRequest.info),
    (rf"GET /api/models/{_NAME}/tree/(?P<revision>[^/]+)(?:/(?P<path>.*))?", _HubRequest.tree),
    (rf"GET /api/models/{_NAME}/refs", _HubRequest.refs),
    (r"POST /api/repos/create", _HubRequest.create),
    (rf"POST /api/models/{_NAME}/branch/(?P<branch>.+)", _HubRequest.branch),
    (rf"POST /api/models/{_NAME}/preupload/(?P<revision>.+)", _HubRequest.preupload),
    (rf"POST /{_NAME}\.git/info/lfs/objects/batch", _HubRequest.batch),
    (rf"POST /api/models/{_NAME}/commit/(?P<revision>.+)", _HubRequest.commit),
    (r"POST /api/validate-yaml", _HubRequest.check_card),
    (r"GET /api/whoami-v2", _HubRequest.whoami),
]


def wait_until(done: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Return whether something comes true in time."""
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        threading.Event().wait(0.01)
    return done()

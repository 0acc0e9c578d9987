"""A server that speaks as much of Kubernetes' protocol as kubectl needs here, over fake_kubectl.Cluster's objects."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.launchers.fake_kubectl import RESOURCES, Cluster
from tests.launchers.strict import errors

VERSIONS = {"jobset.x-k8s.io": "v1alpha2", "trainer.kubeflow.org": "v1alpha1", "": "v1"}
PATH = re.compile(r"/(?:api|apis/([^/]+))/(v\w+)/namespaces/([^/]+)/(\w+)(?:/([^/]+))?(/log)?")
VERBS = ["create", "delete", "get", "list", "patch"]


def kinds(group: str) -> dict[str, str]:
    """Plural -> kind, of a group."""
    split = {kind: resource.partition(".") for kind, resource in RESOURCES.items()}
    return {plural: kind for kind, (plural, _, found) in split.items() if found == group}


def base(group: str) -> str:
    return f"apis/{group}/{VERSIONS[group]}" if group else "api/v1"


def status(code: int, reason: str, message: str) -> tuple[int, dict[str, Any]]:
    head = {"kind": "Status", "apiVersion": "v1", "metadata": {}}
    return code, {**head, "status": "Failure", "reason": reason, "message": message, "code": code}


def discovery(path: str) -> dict[str, Any] | None:
    """What is there at all."""
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        versions = [(group, {"groupVersion": f"{group}/{VERSIONS[group]}", "version": VERSIONS[group]})
                    for group in VERSIONS if group]  # fmt: skip
        groups = [{"name": group, "versions": [v], "preferredVersion": v} for group, v in versions]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    if path == "/openapi/v3":
        return {"paths": {base(group): {"serverRelativeURL": f"/openapi/v3/{base(group)}"} for group in VERSIONS}}
    for group, version in VERSIONS.items():
        if path == f"/{base(group)}":
            found = [{"name": plural, "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": VERBS}
                     for plural, kind in kinds(group).items()]  # fmt: skip
            full = f"{group}/{version}" if group else version
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": full, "resources": found}
        if path == f"/openapi/v3/{base(group)}":
            return {"openapi": "3.0.0", "info": {"title": "t", "version": "1"}, "paths": _validating(group)}
    return None


def _validating(group: str) -> dict[str, Any]:
    """That the server itself checks fields: else kubectl would, and ask for more."""
    parameter = {"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}
    found = {}
    for plural, kind in kinds(group).items():
        named = {"group": group, "version": VERSIONS[group], "kind": kind}
        patch = {"parameters": [parameter], "x-kubernetes-group-version-kind": named, "responses": {}}
        found[f"/{base(group)}/namespaces/{{namespace}}/{plural}/{{name}}"] = {"patch": patch}
    return found


class ApiServer:
    """Serves until it is closed. Unknown fields are errors only where a request asks for that."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.requests = cluster, list[str]()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                outer.requests.append(f"{self.command} {self.path}")
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                code, found = outer.answer(self.command, self.path, body)
                text = found.encode() if isinstance(found, str) else json.dumps(found).encode()
                self.send_response(code)
                self.send_header("Content-Type", "text/plain" if isinstance(found, str) else "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_DELETE = do_PATCH = answer

            def log_message(self, *words: Any) -> None:
                """Nowhere."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, verb: str, url: str, body: bytes) -> tuple[int, dict[str, Any] | str]:
        """Code and body of an answer."""
        split = urlsplit(url)
        query = {key: values[0] for key, values in parse_qs(split.query).items()}
        match = PATH.fullmatch(split.path)
        if match is None:
            found = discovery(split.path)
            return (200, found) if found is not None else status(404, "NotFound", "the server could not find it")
        group, _, namespace, plural, name, log = match.groups()
        resource = f"{plural}.{group}" if group else plural
        if verb == "POST":
            return self.create(resource, namespace, json.loads(body), query)
        if name is None:
            items = self.cluster.all(resource, namespace, query.get("labelSelector", ""))
            return 200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}
        path = self.cluster.path(resource, namespace, name)
        if log:
            return (200, path.with_suffix(".log").read_text())
        if not path.exists():
            return status(404, "NotFound", f'{resource} "{name}" not found')
        if verb == "DELETE":
            path.unlink()
            return 200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        return 200, json.loads(path.read_text())

    def create(
        self, resource: str, namespace: str, found: dict[str, Any], query: dict[str, str]
    ) -> tuple[int, dict[str, Any]]:
        name = found["metadata"]["name"]
        if self.cluster.path(resource, namespace, name).exists():
            return status(409, "AlreadyExists", f'{resource} "{name}" already exists')
        if query.get("fieldValidation") == "Strict" and (wrong := errors(found)):
            return status(400, "BadRequest", f"strict decoding error: {wrong}")
        self.cluster.put(found)
        return 201, found

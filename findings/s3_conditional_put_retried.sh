#!/usr/bin/env bash
# boto3 1.44.8: `put_object(..., IfNoneMatch="*")` may raise PreconditionFailed (412) although it is this very call that
# has created the object. The server writes, its answer is lost, botocore sends the request again by itself, and the
# second one meets what the first has written. Both retry modes do it; with one attempt the error is the lost connection
# and not 412. Who takes a 412 for "somebody else was first" (locks, markers, manifests) waits for an owner that does not
# exist: compare what is there with what was written.
#
# Seen 2026-11-30, boto3 1.44.8, botocore 1.44.8, Linux x86-64, Python 3.11:
#   standard: PreconditionFailed after 2 requests, stored: b'mine'
#   legacy: PreconditionFailed after 2 requests, stored: b'mine'
#   one attempt: ConnectionClosedError after 1 requests, stored: b'mine'
set -euo pipefail
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
"${PYTHON:-python3}" -m venv "$here/venv"
"$here/venv/bin/pip" install --quiet boto3==1.44.8 botocore==1.44.8
cat > "$here/put.py" <<'PY'
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
from botocore.config import Config

stored, requests = {}, []


class Handler(BaseHTTPRequestHandler):
    """Keeps objects; the answer to the first write of each is lost."""

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        requests.append(self.path)
        if self.path in stored:
            assert self.headers["If-None-Match"] == "*"
            answer = b"<Error><Code>PreconditionFailed</Code><Message>exists</Message></Error>"
            self.send_response(412)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
        else:
            stored[self.path] = body
            self.close_connection = True

    def log_message(self, *given):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
found = {}
for name, retries in {
    "standard": {"mode": "standard"},
    "legacy": {"mode": "legacy"},
    "one attempt": {"total_max_attempts": 1},
}.items():
    requests.clear()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{server.server_port}",
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        config=Config(
            retries=retries, s3={"addressing_style": "path"}, request_checksum_calculation="when_required"
        ),
    )
    key = name.replace(" ", "-")
    try:
        client.put_object(Bucket="bucket", Key=key, Body=b"mine", IfNoneMatch="*")
        kind = "no error"
    except Exception as error:
        kind = (getattr(error, "response", None) or {}).get("Error", {}).get("Code") or type(error).__name__
    found[name] = kind, len(requests), stored[f"/bucket/{key}"]
    print(f"{name}: {kind} after {len(requests)} requests, stored: {stored[f'/bucket/{key}']}")
assert found == {
    "standard": ("PreconditionFailed", 2, b"mine"),
    "legacy": ("PreconditionFailed", 2, b"mine"),
    "one attempt": ("ConnectionClosedError", 1, b"mine"),
}, found
print("as seen")
PY
"$here/venv/bin/python" "$here/put.py"

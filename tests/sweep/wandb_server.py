"""As much of a wandb server as a mirrored run talks to: who asks, how far a run is, and rows by their offset."""

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "0" * 40


class WandbServer(ThreadingHTTPServer):
    """Keeps, by run id, what was asked of it and the history's rows; `refuse` answers rows with "400 Bad Request"."""

    daemon_threads = True
    refuse = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.created: dict[str, dict[str, Any]] = {}
        self.history: dict[str, list[dict[str, Any]]] = {}
        self.ended: dict[str, int] = {}
        self.rows_received = 0

    def handle_error(self, *request: object) -> None:
        """A client that was killed is what the tests are about."""

    def graphql(self, query: str, variables: dict[str, Any]) -> Any:
        match re.search(r"(?:query|mutation)\s+(\w+)", query).group(1):  # type: ignore[union-attr]
            case "Viewer":
                return {"viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}
            case "RunResumeStatus":
                return {"model": {"id": "p", "name": "p", "entity": _ENTITY, "bucket": self._bucket(variables["name"])}}
            case "UpsertBucket":
                given = {key: value for key, value in variables.items() if value is not None}
                self.created[variables["name"]] = self.created.get(variables["name"], {}) | given
                self.history.setdefault(variables["name"], [])
                bucket = self._bucket(variables["name"]) | {"project": {"id": "p", "name": "p", "entity": _ENTITY}}
                return {"upsertBucket": {"bucket": bucket, "inserted": True}}
            case "CreateRunFiles":
                files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in variables["files"]]
                return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        return None

    def file_stream(self, run_id: str, sent: dict[str, Any]) -> None:
        if rows := sent.get("files", {}).get("wandb-history.jsonl"):
            assert rows["offset"] <= len(self.history[run_id])
            content = [json.loads(line) for line in rows["content"]]
            self.history[run_id][rows["offset"] : rows["offset"] + len(content)] = content
            self.rows_received += len(content)
        if sent.get("complete"):
            self.ended[run_id] = sent["exitcode"]

    def _bucket(self, run_id: str) -> Any:
        if run_id not in self.history:
            return None
        rows = self.history[run_id]
        return {
            "id": "b",
            "name": run_id,
            "displayName": run_id,
            "config": "{}",
            "summaryMetrics": "{}",
            "historyLineCount": len(rows),
            "eventsLineCount": 0,
            "logLineCount": 0,
            "historyTail": json.dumps([json.dumps(row) for row in rows[-1:]]),
            "eventsTail": "[]",
            "tags": [],
            "wandbConfig": '{"t": {}}',
        }


_ENTITY = {"id": "e", "name": "me"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WandbServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        answer: Any = {}
        status = 200
        if self.path.startswith("/graphql"):
            asked = json.loads(body)
            answer = {"data": self.server.graphql(asked["query"], asked.get("variables") or {})}
        elif stream := re.match(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
            status = 400 if self.server.refuse else 200
            if not self.server.refuse:
                self.server.file_stream(stream.group(1), json.loads(body))
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST

    def log_message(self, *arguments: object) -> None:
        """Nothing: the tests say what matters."""


@contextmanager
def wandb_server() -> Iterator[WandbServer]:
    with WandbServer() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()

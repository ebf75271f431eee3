"""As much of a wandb server as wandb's client needs to log in, create and resume runs, stream rows by their offset and ask for
the last step; and to read runs back: all of a project with configuration and summary, and the sampled history of one."""

import gzip
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "0" * 40


class WandbServer(ThreadingHTTPServer):
    """Keeps, by run id, what was asked of it and the history's rows.

    Attributes:
        fault: None, or what it does: "refuse" rows (400), be "down" (drop every connection), "hang" (accept them and not answer
            until there is no fault), or be "slow" (take a second for every batch of rows).
        conflicts: steps that arrived for a line of the history that holds another step.
        rows_received: how often a row has arrived.
    """

    daemon_threads = True
    fault: str | None = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.created: dict[str, dict[str, Any]] = {}
        self.history: dict[str, list[dict[str, Any]]] = {}
        self.summaries: dict[str, dict[str, Any]] = {}
        self.ended: dict[str, int] = {}
        self.conflicts: list[tuple[str, int]] = []
        self.rows_received = 0

    def handle_error(self, *request: object) -> None:
        """A client that was killed is what the tests are about."""

    def graphql(self, query: str, variables: dict[str, Any]) -> Any:
        match re.search(r"(?:query|mutation)\s+(\w+)", query).group(1):  # type: ignore[union-attr]
            case "Viewer" | "GetDefaultEntity" | "GetViewer":
                return {"viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}
            case "RunResumeStatus":
                return {"model": {"id": "p", "name": "p", "entity": _ENTITY, "bucket": self._bucket(variables["name"])}}
            case "UpsertBucket":
                given = {key: value for key, value in variables.items() if value is not None}
                self.created[variables["name"]] = self.created.get(variables["name"], {}) | given
                self.history.setdefault(variables["name"], [])
                bucket = self._bucket(variables["name"]) | {"project": {"id": "p", "name": "p", "entity": _ENTITY}}
                return {"upsertBucket": {"bucket": bucket, "inserted": True}}
            case "Run":
                nodes = [edge["node"] for edge in self._project(variables)["runs"]["edges"]]
                return {"project": {"run": next(node for node in nodes if node["id"] == variables["name"])}}
            case "RunHistoryKeys":
                steps = [row["_step"] for row in self.history[variables["name"]]]
                return {"project": {"run": {"historyKeys": {"lastStep": max(steps, default=-1)}}}}
            case "CreateRunFiles":
                files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in variables["files"]]
                return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
            case "Runs":
                return {"project": self._project(variables)}
            case "RunSampledHistory":
                keys = json.loads(variables["specs"][0])["keys"]
                rows = [row for row in self.history[variables["name"]] if set(keys) <= set(row)]
                return {"project": {"run": {"sampledHistory": [[{key: row[key] for key in keys} for row in rows]]}}}
        return None

    def file_stream(self, run_id: str, sent: dict[str, Any]) -> None:
        if rows := sent.get("files", {}).get("wandb-history.jsonl"):
            content, history, start = [json.loads(line) for line in rows["content"]], self.history[run_id], rows["offset"]
            assert start <= len(history)
            both = zip(history[start:], content, strict=False)
            self.conflicts += [(run_id, new["_step"]) for old, new in both if old["_step"] != new["_step"]]
            history[start : start + len(content)] = content
            self.rows_received += len(content)
        for line in sent.get("files", {}).get("wandb-summary.json", {}).get("content", []):
            self.summaries[run_id] = json.loads(line)
        if sent.get("complete"):
            self.ended[run_id] = sent["exitcode"]

    def _project(self, variables: dict[str, Any]) -> Any:
        """The runs of the project and group that are asked for, all on one page; None if there is no such project."""
        wanted = json.loads(variables.get("filters", "{}"))
        own = {name: run for name, run in self.created.items() if run["project"] == variables["project"]}
        nodes = [
            {
                "id": name,
                "projectId": "1",
                "name": name,
                "displayName": run["displayName"],
                "state": {None: "running", 0: "finished"}.get(self.ended.get(name), "failed"),
                "group": run.get("groupName"),
                "config": run["config"],
                "summaryMetrics": json.dumps(self.summaries.get(name, {})),
                "historyLineCount": len(self.history[name]),
            }
            for name, run in own.items()
            if wanted.get("group") in (None, run.get("groupName"))
        ]
        page = {
            "edges": [{"node": node, "cursor": "c"} for node in nodes],
            "pageInfo": {"endCursor": None, "hasNextPage": False},
        }
        return {"internalId": "1", "runCount": len(nodes), "readOnly": False, "runs": page} if own else None

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
        while self.server.fault == "hang":
            time.sleep(0.1)
        if self.server.fault == "down":
            self.close_connection = True
            return
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        answer: Any = {}
        status = 200
        if self.path.startswith("/graphql"):
            asked = json.loads(body)
            answer = {"data": self.server.graphql(asked["query"], asked.get("variables") or {})}
        elif stream := re.match(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
            if self.server.fault == "slow":
                time.sleep(1)
            status = 400 if self.server.fault == "refuse" else 200
            if status == 200:
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

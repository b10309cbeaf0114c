"""A hub that takes uploads of small files: what `hf upload` asks for, and nothing else.

Usage: hub.py FOLDER. Prints its address, and writes the files of each commit into FOLDER.
"""

import base64
import json
import pathlib
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FOLDER = pathlib.Path(sys.argv[1])
COMMIT = "1" * 40


class Hub(BaseHTTPRequestHandler):
    def do_GET(self):
        if "/revision/" in self.path or self.path.startswith("/api/models/"):
            self.answer({"id": "me/my-model-8bit", "sha": COMMIT, "siblings": []})
        elif self.path == "/api/whoami-v2":
            self.answer({"name": "me", "type": "user", "orgs": []})
        else:
            self.answer({"error": f"no {self.path}"}, 404)

    def do_POST(self):
        if self.headers.get("Authorization") != "Bearer hf_secret":
            return self.answer({"error": "who are you?"}, 401)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/repos/create":
            self.answer({"url": f"http://{self.headers['Host']}/me/my-model-8bit", "id": "me/my-model-8bit"})
        elif "/preupload/" in self.path:
            files = [file["path"] for file in json.loads(body)["files"]]
            regular = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in files]
            self.answer({"files": regular})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    path = FOLDER / line["value"]["path"]
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(base64.b64decode(line["value"]["content"]))
            url = f"http://{self.headers['Host']}/me/my-model-8bit/commit/{COMMIT}"
            self.answer({"success": True, "commitUrl": url, "commitOid": COMMIT})
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        else:
            self.answer({"error": f"no {self.path}"}, 404)

    def answer(self, value, status=200):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
print(f"http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()

"""A stand-in for the object store behind gs://: its JSON interface over HTTP on this machine.

What the real clients (gcsfs, google-cloud-storage, TensorStore) send is answered from a table in
memory, so that whole runs, processes and all, can live in a bucket. A flat store: names with
slashes, objects that appear whole, each with a generation; what is written is remembered in order.
"""

import base64
import hashlib
import itertools
import json
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

Answer = tuple[int, dict[str, str], bytes]


class Bucket:
    """All buckets of the server in one: `bucket/name` -> (bytes, generation)."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.objects: dict[str, tuple[bytes, int]] = {}
        self.written: list[str] = []
        self.refused: str = ""  # a pattern: writes of matching names fail with 403
        self.uploads: dict[str, tuple[str, bytearray]] = {}
        self.counter = itertools.count(1)

    def names(self, under: str = "") -> list[str]:
        with self.lock:
            return sorted(name for name in self.objects if name.startswith(under))

    def read(self, name: str) -> bytes:
        return self.objects[name][0]

    def put(self, name: str, data: bytes, wanted: Mapping[str, str]) -> Answer:
        with self.lock:
            if self.refused and re.search(self.refused, name):
                return _json(403, {"error": {"code": 403, "message": "no right to write here"}})
            if not self._agrees(name, wanted):
                return _json(412, {"error": {"code": 412, "message": "another generation"}})
            self.objects[name] = (data, next(self.counter))
            self.written.append(name)
            return _json(200, self.about(name))

    def delete(self, name: str) -> Answer:
        with self.lock:
            if self.objects.pop(name, None) is None:
                return _missing(name)
            return 204, {}, b""

    def about(self, name: str) -> dict[str, str]:
        data, generation = self.objects[name]
        bucket, _, inside = name.partition("/")
        return {
            "kind": "storage#object", "bucket": bucket, "name": inside, "size": str(len(data)),
            "generation": str(generation), "metageneration": "1", "id": f"{name}/{generation}",
            "updated": "2026-01-01T00:00:00.000Z", "timeCreated": "2026-01-01T00:00:00.000Z",
            "etag": str(generation), "contentType": "application/octet-stream",
            "md5Hash": base64.b64encode(hashlib.md5(data).digest()).decode(),
        }  # fmt: skip

    def listed(self, bucket: str, query: Mapping[str, str]) -> Answer:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        items, prefixes = [], set()
        with self.lock:
            for name in sorted(self.objects):
                inside = name.removeprefix(bucket + "/")
                if not name.startswith(f"{bucket}/{prefix}") or not (
                    query.get("startOffset", "") <= inside
                    and ("endOffset" not in query or inside < query["endOffset"])
                ):
                    continue
                rest = inside[len(prefix) :]
                if delimiter and delimiter in rest:
                    prefixes.add(prefix + rest.split(delimiter)[0] + delimiter)
                else:
                    items.append(self.about(name))
        return _json(200, {"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)})

    def _agrees(self, name: str, wanted: Mapping[str, str]) -> bool:
        generation = self.objects[name][1] if name in self.objects else 0
        same = wanted.get("ifGenerationMatch")
        return same is None or int(same) == generation

    def media(self, name: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        if name not in self.objects:
            return _missing(name)
        data, generation = self.objects[name]
        if query.get("ifGenerationNotMatch") == str(generation):
            return 304, {}, b""
        about = {"x-goog-generation": str(generation), "ETag": str(generation)}
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", headers.get("Range", ""))
        if asked is None:
            return 200, about, data
        if not asked[1]:
            start, stop = max(0, len(data) - int(asked[2])), len(data)
        else:
            start, stop = int(asked[1]), int(asked[2]) + 1 if asked[2] else len(data)
        if start >= len(data):
            return 416, {}, b""
        part = data[start:stop]
        about["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{len(data)}"
        return 206, about, part


def _json(code: int, value: object) -> Answer:
    return code, {"Content-Type": "application/json"}, json.dumps(value).encode()


def _missing(name: str) -> Answer:
    return _json(404, {"error": {"code": 404, "message": f"No such object: {name}"}})


def _parts(body: bytes, kind: str) -> list[bytes]:
    """The parts of a multipart message, each with its own headers cut off."""
    found = re.search(r"boundary=[\"']?([^\"';]+)", kind)
    assert found is not None, kind
    pieces = body.split(b"--" + found[1].encode())[1:-1]
    return [
        piece.split(b"\r\n\r\n" if b"\r\n\r\n" in piece else b"\n\n", 1)[1].removesuffix(b"\n")
        .removesuffix(b"\r") for piece in pieces
    ]  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bucket: Bucket

    def _serve(self) -> None:
        body = self._body()
        code, headers, data = self._answer(self.command, self.path, self.headers, body)
        self.send_response(code)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_DELETE = _serve

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        parts = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if parts.path.startswith("/batch/"):
            return self._batch(headers, body)
        if parts.path.startswith("/upload/"):
            bucket = parts.path.split("/b/")[1].split("/")[0]
            return self._upload(method, unquote(bucket), query, headers, body)
        match = re.fullmatch(r"(?:/download)?/storage/v1/b/([^/]+)(?:/o(?:/(.+))?)?", parts.path)
        if match is None:
            return _json(404, {"error": {"code": 404, "message": f"{method} {target}"}})
        bucket = unquote(match[1])
        if match[2] is None:
            if parts.path.endswith("/o"):
                return self.bucket.listed(bucket, query)
            return _json(200, {"kind": "storage#bucket", "id": bucket, "name": bucket})
        copied = re.fullmatch(r"(.+)/(rewriteTo|copyTo)/b/([^/]+)/o/(.+)", match[2])
        if copied:
            source = f"{bucket}/{unquote(copied[1])}"
            if source not in self.bucket.objects:
                return _missing(source)
            data = self.bucket.read(source)
            self.bucket.put(f"{unquote(copied[3])}/{unquote(copied[4])}", data, query)
            return _json(200, {"done": True, "objectSize": str(len(data))})
        name = f"{bucket}/{unquote(match[2])}"
        if method == "DELETE":
            return self.bucket.delete(name)
        if query.get("alt") == "media":
            return self.bucket.media(name, query, headers)
        if name not in self.bucket.objects:
            return _missing(name)
        return _json(200, self.bucket.about(name))

    def _upload(
        self, method: str, bucket: str, query: Mapping[str, str], headers: Mapping[str, str],
        body: bytes,
    ) -> Answer:  # fmt: skip
        uploads = self.bucket.uploads
        match query.get("uploadType"), "upload_id" in query:
            case _, True:
                name, data = uploads[query["upload_id"]]
                data += body
                if headers["Content-Range"].endswith("/*"):
                    return 308, {"Range": f"bytes=0-{len(data) - 1}"}, b""
                return self.bucket.put(name, bytes(data), query)
            case "media", _:
                return self.bucket.put(f"{bucket}/{query['name']}", body, query)
            case "multipart", _:
                head, data = _parts(body, headers["Content-Type"])
                return self.bucket.put(f"{bucket}/{json.loads(head)['name']}", data, query)
            case "resumable", _:
                session = str(next(self.bucket.counter))
                named = query.get("name") or json.loads(body)["name"]
                uploads[session] = (f"{bucket}/{named}", bytearray())
                host = headers["Host"]
                return 200, {
                    "Location": f"http://{host}/upload/storage/v1/b/{bucket}/o?uploadType="
                    f"resumable&upload_id={session}"
                }, b""
        return _json(400, {"error": {"code": 400, "message": f"{method} {query}"}})

    def _batch(self, headers: Mapping[str, str], body: bytes) -> Answer:
        answers = []
        for part in _parts(body, headers["Content-Type"]):
            method, target = part.decode().split()[:2]
            code, _, data = self._answer(method, target, {}, b"")
            answers.append(
                f"--mark\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 {code} -\r\n"
                f"Content-Length: {len(data)}\r\n\r\n{data.decode()}\r\n"
            )
        text = "".join(answers) + "--mark--\r\n"
        return 200, {"Content-Type": "multipart/mixed; boundary=mark"}, text.encode()

    def log_message(self, format: str, *args: object) -> None:
        """Nobody listens."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client may hang up; any other failure is a defect of this file."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serving() -> Iterator[tuple[Bucket, dict[str, str]]]:
    """The store, and the environment in which gs:// leads to it."""
    bucket = Bucket()
    handler = type("Handler", (_Handler,), {"bucket": bucket})
    server = _Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield bucket, {
            "STORAGE_EMULATOR_HOST": url, "TENSORSTORE_GCS_HTTP_URL": url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none", "FSSPEC_GCS_TOKEN": "anon",
            "NO_GCE_CHECK": "true", "EPATH_USE_TF": "false",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # it asks over gRPC
        }  # fmt: skip
    finally:
        server.shutdown()
        server.server_close()

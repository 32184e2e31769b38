"""A model hub on this machine and a proxy before it, for tests: as much of the protocol as huggingface_hub needs.

HEAD and GET of /{repo}/resolve/{revision}/{file}, with ETag, X-Repo-Commit, X-Linked-Etag and X-Linked-Size,
ranges, and a redirect to a second port that plays the CDN. Faults are set per file or for the whole hub.
"""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """files: content by "owner/name/path". requests: (method, path, headers) as they came; side: those that
    huggingface_hub makes for itself, once a day.

    altered: content sent in place of the announced one. denied: answer 401 or 403 by repository.
    drop: close the connection after so many bytes of each answer. broken: status of every GET of content.
    pace: seconds between two pieces of an answer. gate: while it is not set, answers stop after their first piece.
    busy: how many GETs are answered with 429 first; retry_after: what those say. bare: send no length and no hash, and
    close behind the content, as HTTP/1.0 does. version: the ETag of plain web files, told and asked for by If-Range.
    ranges: whether ranges are honoured. plain: answer like any web server. redirect: send content by the CDN.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    altered: dict[str, bytes] = field(default_factory=dict)
    denied: dict[str, int] = field(default_factory=dict)
    drop: int | None = None
    broken: int | None = None
    pace: float = 0.0
    piece: int = 1 << 16
    ranges: bool = True
    plain: bool = False
    redirect: bool = False
    busy: int = 0
    retry_after: str = "1"
    bare: bool = False
    version: str = ""
    gate: threading.Event = field(default_factory=threading.Event)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    side: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def __enter__(self) -> Hub:
        self.gate.set()
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), _handler(self)) for _ in range(2)]
        for server in self._servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        self.url, self.cdn = (f"http://127.0.0.1:{s.server_port}" for s in self._servers)
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def count(self, method: str) -> int:
        """How many requests of this method came."""
        return sum(m == method for m, _, _ in self.requests)


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            log = hub.side if self.path.startswith("/api/") else hub.requests
            log.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
            at_cdn = self.path.startswith("/cdn/")
            repo, _, rest = self.path.removeprefix("/cdn").lstrip("/").partition("/resolve/")
            if not rest:  # a plain web address
                repo, _, file = repo.rpartition("/")
            else:
                file = rest.partition("/")[2]
            if not at_cdn and (status := hub.denied.get(repo)):
                return self.refuse(status, "GatedRepo")
            if (content := hub.files.get(f"{repo}/{file}")) is None:
                return self.refuse(404, "EntryNotFound")
            headers = {
                "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
                "X-Repo-Commit": COMMIT,
                "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
                "X-Linked-Size": str(len(content)),
                "Accept-Ranges": "bytes",
            }
            if hub.plain:  # a proxy's page, not a hub
                headers = {}
            if hub.version:
                headers = {"ETag": hub.version}
            if self.command == "GET" and hub.busy:
                hub.busy -= 1
                return self.reply(429, {"Retry-After": hub.retry_after}, b"")
            if self.command == "GET" and hub.broken:
                return self.refuse(hub.broken, "")
            if hub.redirect and not at_cdn:
                return self.reply(302, headers | {"Location": f"{hub.cdn}/cdn{self.path}"}, b"")
            content = hub.altered.get(f"{repo}/{file}", content)
            start, status = 0, 200
            same = self.headers.get("If-Range", hub.version) == hub.version
            if hub.ranges and same and (asked := self.headers.get("Range")):
                start = int(asked.removeprefix("bytes=").split("-")[0])
                if start >= len(content):
                    return self.refuse(416, "")
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                status = 206
            self.reply(status, headers, content[start:])

        def refuse(self, status: int, code: str) -> None:
            self.reply(status, {"X-Error-Code": code, "X-Repo-Commit": COMMIT}, b"")

        def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            told = {"Connection": "close"} if hub.bare else headers | {"Content-Length": str(len(body))}
            for key, value in told.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            body = body if hub.drop is None else body[: hub.drop]
            try:
                for at in range(0, len(body), hub.piece):
                    self.wfile.write(body[at : at + hub.piece])
                    time.sleep(hub.pace)
                    hub.gate.wait()
            except OSError:
                self.close_connection = True
            if hub.drop is not None or hub.bare:
                self.close_connection = True

    return Handler


@dataclass
class Proxy:
    """An HTTP proxy on this machine, as HTTP_PROXY names one. asked: (method, host) as they came, with the proxy's own
    credentials that were shown.

    refuses: the status of every answer, from the proxy itself. page: what it answers in place of any content, as a
    log-in page does; head: whether it answers HEAD with it as well. alters: replace this byte string by that of the
    same length. drop: end each answer's body after so many bytes. strips: headers that it does not hand on.
    whole: asks for the whole file whatever range was wanted. piece, pace: bytes and the seconds between two of them.
    """

    refuses: int | None = None
    page: bytes | None = None
    head: bool = True
    alters: tuple[bytes, bytes] = (b"", b"")
    drop: int | None = None
    strips: tuple[str, ...] = ()
    whole: bool = False
    piece: int = 1 << 16
    pace: float = 0.0
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""

    def __enter__(self) -> Proxy:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _proxy_handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _proxy_handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            place = urlsplit(self.path)
            proxy.asked.append((self.command, place.netloc, self.headers.get("Proxy-Authorization")))
            if proxy.refuses:
                return self.reply(proxy.refuses, [], b"the proxy refuses")
            if proxy.page is not None and (self.command == "GET" or proxy.head):
                told = [("Content-Type", "text/html"), ("Content-Length", str(len(proxy.page)))]
                return self.reply(200, told, proxy.page)
            onward = HTTPConnection(place.netloc)
            dropped = {"proxy-authorization", "proxy-connection", *({"range"} if proxy.whole else ())}
            sent = {k: v for k, v in self.headers.items() if k.lower() not in dropped}
            onward.request(self.command, place.path, headers=sent)
            came = onward.getresponse()
            body = came.read().replace(*proxy.alters) if proxy.alters[0] else came.read()
            self.reply(came.status, [(k, v) for k, v in came.getheaders() if k not in proxy.strips], body)
            onward.close()

        def reply(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response(status)
            for key, value in headers:
                self.send_header(key, value)
            self.end_headers()
            self.close_connection = True
            if self.command == "HEAD":
                return
            body = body if proxy.drop is None else body[: proxy.drop]
            try:
                for at in range(0, len(body), proxy.piece):
                    self.wfile.write(body[at : at + proxy.piece])
                    time.sleep(proxy.pace)
            except OSError:
                pass

    return Handler

"""A server on this machine, and published files of a size for tests."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mmvanilla import ARCHS, Arch
from mmvanilla.checkpoints.zoo import PUBLISHED, PublishedFile
from tests.helpers import DATA

TINY5 = dict(dims=(16, 32, 64, 128), strides=(2, 2, 2))


class Mirror:
    """Serves a dict of contents by path over HTTP, and remembers what it was asked for."""

    def __init__(self):
        self.files, self.requests, self.cut = {}, [], set()
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                path = self.path.lstrip("/")
                mirror.requests.append(path)
                if path not in mirror.files:
                    self.send_error(404)
                    return
                content = mirror.files[path]
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if path in mirror.cut else content)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(timeout=10)


def add_small_names():
    """Published files of a size for tests: ``tiny``, a classifier, and ``tiny-act4``."""
    ARCHS["tiny"] = Arch(**TINY5)
    PUBLISHED["tiny"] = PublishedFile("tiny5.official.pth", "tiny")
    PUBLISHED["tiny-act4"] = PublishedFile("tiny5_act4.pth", "tiny", act_num=4)


@pytest.fixture
def mirror(monkeypatch, tmp_path):
    before = dict(ARCHS), dict(PUBLISHED)
    add_small_names()
    mirror = Mirror()
    mirror.files["tiny5.official.pth"] = (DATA / "tiny5.official.pth").read_bytes()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("MMVANILLA_ZOO", mirror.url)
    monkeypatch.setenv("no_proxy", "*")
    yield mirror
    mirror.close()
    for table, content in zip((ARCHS, PUBLISHED), before, strict=True):
        table.clear()
        table.update(content)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "torch" / "hub" / "checkpoints"

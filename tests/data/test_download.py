"""Downloads end as the right file or as none, whatever the server does.  All on localhost."""

import hashlib
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mcunc.data import download
from mcunc.data.download import Archive, cache_folder, digest, fetch

CONTENT = bytes(range(256)) * 40
MD5 = hashlib.md5(CONTENT).hexdigest()
HALF = len(CONTENT) // 2
ROOT = Path(__file__).parents[2]


class Server(ThreadingHTTPServer):
    """Serves `content`; `ranges`: knows ranges; `stop`: breaks off after so many bytes, once.

    With `pause` half of the content is sent, and the rest once that event is set.
    """

    content, ranges, stop, length, status, pause = CONTENT, True, None, True, None, None

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = []
        self.url = f"http://127.0.0.1:{self.server_port}/data.tgz"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.asked.append(asked)
        if server.status is not None:
            return self.send_error(server.status)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        body = server.content
        if server.ranges and start:
            if start >= len(body):
                return self.send_error(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/*")
            body = body[start:]
        else:
            self.send_response(200)
        if server.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.stop is not None:
            body, server.stop = body[: server.stop], None
        if server.pause is not None and not server.pause.is_set():
            self.wfile.write(body[: len(body) // 2])
            server.pause.wait(30)
            return
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Where the file goes; the environment names no other folders."""
    monkeypatch.setenv("MCUNC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MCUNC_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache" / "data.tgz"


def there(folder):
    """Names of the files, but for the empty ones that only hold a lock."""
    return [file.name for file in folder.iterdir() if file.suffix != ".lock"]


def assert_whole(path):
    assert path.read_bytes() == CONTENT
    assert there(path.parent) == [path.name]


@pytest.mark.parametrize("length", [True, False])
def test_a_file_is_fetched(server, path, length):
    server.length = length
    assert fetch(server.url, MD5, path) == path
    assert_whole(path)
    assert server.asked == [None]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_is_resumed(server, path, ranges):
    """Where the server knows ranges what is here is not sent again."""
    server.ranges = ranges
    for stop in (HALF, 1000):
        server.stop = stop
        with pytest.raises(
            OSError, match=rf"broke off after \d+ of {len(CONTENT)} bytes; try again"
        ):
            fetch(server.url, MD5, path)
    assert not path.exists()
    fetch(server.url, MD5, path)
    assert_whole(path)
    here = HALF + 1000 if ranges else 1000
    assert server.asked == [None, f"bytes={HALF}-", f"bytes={here}-"]


def test_a_break_that_no_length_tells_is_found_by_the_hash(server, path):
    server.length, server.stop = False, HALF
    with pytest.raises(OSError, match="has MD5"):
        fetch(server.url, MD5, path)
    assert not there(path.parent)


@pytest.mark.parametrize("size", [HALF, len(CONTENT) + 4])
def test_what_was_here_and_is_wrong_is_discarded(server, path, size):
    """Of a range past the end the server says 416."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name("data.tgz.part").write_bytes(b"?" * size)
    with pytest.raises(OSError, match=r"has MD5|416"):
        fetch(server.url, MD5, path)
    assert not there(path.parent)
    fetch(server.url, MD5, path)
    assert_whole(path)


def test_a_wrong_file_is_discarded(server, path):
    server.content = CONTENT[::-1]
    wrong = hashlib.md5(server.content).hexdigest()
    with pytest.raises(OSError, match=f"has MD5 {wrong}, expected {MD5}; discarded"):
        fetch(server.url, MD5, path)
    assert not there(path.parent)


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_refusal_is_an_oserror(server, path, status):
    server.status = status
    with pytest.raises(OSError, match=str(status)):
        fetch(server.url, MD5, path)
    assert not path.exists()


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nab",
    ],
)
def test_an_answer_that_is_no_http_is_an_oserror(path, answer):
    """http.client has errors of its own that are no OSErrors."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def reply():
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=reply)
        thread.start()
        with pytest.raises(OSError, match=r"broke off|MD5|closed connection"):
            fetch(f"http://127.0.0.1:{listening.getsockname()[1]}/data.tgz", MD5, path)
        thread.join()
    assert not path.exists()


SIMULTANEOUS = """
import sys, time
from pathlib import Path
from mcunc.data import download

download.CHUNK = 10_240
time.sleep(max(0, float(sys.argv[4]) - time.time()))  # all start at once
download.fetch(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
"""


def test_simultaneous_downloads_are_one(server, path):
    """Four processes; the first of them downloads, the others find its file."""
    command = [sys.executable, "-c", SIMULTANEOUS, server.url, MD5, str(path)]
    start = str(time.time() + 1.5)
    loaders = [subprocess.Popen([*command, start], cwd=ROOT) for _ in range(4)]
    assert [loader.wait(60) for loader in loaders] == [0] * 4
    assert server.asked == [None]
    assert_whole(path)


def test_the_download_of_a_process_that_was_killed_is_made_by_one_that_waited(server, path):
    """The lock of the dead does not outlive them."""
    content = 40 * CONTENT  # more than Python keeps in a buffer
    server.content, md5, half = content, hashlib.md5(content).hexdigest(), len(content) // 2
    server.pause = threading.Event()  # half is sent, the rest never comes
    command = [sys.executable, "-c", SIMULTANEOUS, server.url, md5, str(path), "0"]
    with subprocess.Popen(command, cwd=ROOT) as first:
        part, end = path.with_name("data.tgz.part"), time.monotonic() + 30
        while not (part.exists() and part.stat().st_size == half) and time.monotonic() < end:
            time.sleep(0.01)
        second = threading.Thread(target=fetch, args=(server.url, md5, path))
        second.start()
        first.kill()
    server.pause.set()
    second.join(30)
    assert path.read_bytes() == content
    assert server.asked == [None, f"bytes={half}-"]


def test_threads_share_a_download_too(server, path):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: fetch(server.url, MD5, path), range(8)))
    assert found == [path] * 8
    assert server.asked == [None]
    assert_whole(path)


def test_large_files_come_in_blocks(server, path, monkeypatch):
    monkeypatch.setattr(download, "CHUNK", 100)
    fetch(server.url, MD5, path)
    assert_whole(path)


# Where files are looked for -------------------------------------------------------------------


def test_the_given_folder_comes_before_the_cache_and_the_first_name_before_the_second(
    path, tmp_path, monkeypatch
):
    cache, given = path.parent, tmp_path / "given"
    for folder in (cache, given):
        folder.mkdir()
        (folder / "second.tgz").touch()
    (cache / "first.zip").touch()
    names = ["first", "second"]
    assert Archive("toy", names, []).path() == cache / "first.zip"
    monkeypatch.setenv("MCUNC_DATA", str(given))
    assert Archive("toy", names, []).path() == given / "second.tgz"
    (given / "first.zip").touch()
    assert Archive("toy", names, []).path() == given / "first.zip"
    monkeypatch.setenv("MCUNC_DATA", "")  # as if not set, and not the working folder
    monkeypatch.chdir(given)
    assert Archive("toy", names, []).path() == cache / "first.zip"


def test_the_given_folder_may_be_the_archive_or_the_folder_itself(path, tmp_path, monkeypatch):
    (tmp_path / "set" / "train").mkdir(parents=True)
    (tmp_path / "other.tar.gz").touch()
    for folder, name, expected in [
        ("set", "set/train", "set"), (".", "set/train", "set"), ("set", "set", "set"),
        ("other.tar.gz", "other", "other.tar.gz"), (".", "other", "other.tar.gz"),
    ]:  # fmt: skip
        monkeypatch.setenv("MCUNC_DATA", str(tmp_path / folder))
        assert Archive("toy", [name]).find() == tmp_path / expected
    for folder, name in [("set", "other"), (".", "set/test"), ("set", "train/x")]:
        monkeypatch.setenv("MCUNC_DATA", str(tmp_path / folder))
        assert Archive("toy", [name]).find() is None
    (tmp_path / "set.tgz").touch()
    monkeypatch.setenv("MCUNC_DATA", str(tmp_path / "set"))
    assert Archive("toy", ["set/train"]).find() == tmp_path / "set"
    monkeypatch.chdir(tmp_path / "set")
    monkeypatch.setenv("MCUNC_DATA", ".")
    assert Archive("toy", ["set/train"]).find() == tmp_path / "set"


def test_the_cache_is_in_the_home_folder_unless_said_otherwise(monkeypatch, tmp_path):
    monkeypatch.setenv("MCUNC_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("MCUNC_CACHE", "")
    monkeypatch.setattr(download.Path, "home", lambda: tmp_path / "home")
    assert cache_folder() == tmp_path / "home" / ".cache" / "mcunc"


def test_a_missing_file_is_downloaded_once(server, path):
    assert Archive("toy", ["data"], [(server.url, MD5)]).path() == path
    assert Archive("toy", ["data"], [(server.url, MD5)]).path() == path
    assert server.asked == [None]
    assert_whole(path)


def test_the_second_source_stands_in_for_the_first(server, path):
    """The first sends something else: its bytes are never given out."""
    with Server() as wrong:
        wrong.content = b"something else"
        thread = threading.Thread(target=wrong.serve_forever, args=(0.01,))
        thread.start()
        sources = [(wrong.url, MD5), (server.url, MD5)]
        assert Archive("toy", ["data"], sources).path() == path
        wrong.shutdown()
        thread.join()
    assert_whole(path)
    assert wrong.asked == server.asked == [None]


def test_no_server_and_no_file_says_what_to_do(path, tmp_path, monkeypatch):
    """Nothing listens on port 9 of this machine."""
    monkeypatch.setenv("MCUNC_DATA", str(tmp_path / "given"))
    sources = [(f"http://127.0.0.1:9/{name}", MD5) for name in ("data.tgz", "other.tgz")]
    with pytest.raises(FileNotFoundError) as info:
        Archive("toy", ["data", "other/inner"], sources).path()
    message = str(info.value)
    for piece in (
        "none of data, other/inner (a folder, or an archive .tgz, .tar.gz",
        str(tmp_path / "given"),
        str(path.parent),
        "MCUNC_DATA",
    ):
        assert piece in message
    assert all(url in message for url, _ in sources)


def test_a_cache_that_cannot_be_written_is_named(server, path, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MCUNC_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(FileNotFoundError, match=r"file.cache.*MCUNC_DATA"):
        Archive("toy", ["data"], [(server.url, MD5)]).path()


def test_digests_are_the_published_ones(tmp_path):
    """Of "abc": RFC 1321, A.5, and FIPS 180-4's example."""
    file = tmp_path / "abc"
    file.write_bytes(b"abc")
    assert digest(file, "md5") == "900150983cd24fb0d6963f7d28e17f72"
    assert digest(file) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("terminal", [True, False])
def test_the_progress_bar_is_for_terminals_only(server, path, terminal, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    fetch(server.url, MD5, path)
    captured = capsys.readouterr()
    assert ("data.tgz" in captured.err) == terminal
    assert captured.out == ""

from __future__ import annotations

import functools
import hashlib
import http.server
import shutil
import threading

import pytest
from micraframe_paper.download import CACHE, RemoteFile, Terms, downloads, fetch, root_of

from micraframe.errors import ConfigError, DataError

TERMS = Terms("little-set", "CC BY 9.9", "Doe, J. The set. 2020.", "https://example.org/little-set")
NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing listens there


class Handler(http.server.SimpleHTTPRequestHandler):
    requests: list[str]

    def log_message(self, *_):
        self.requests.append(self.path)


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Serve a folder on this machine; return it, its address, and the list of requests."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv(CACHE, str(tmp_path / "downloads"))
    folder = tmp_path / "served"
    folder.mkdir()
    handler = type("Logging", (Handler,), {"requests": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}", handler.requests
    server.shutdown()
    thread.join()
    server.server_close()


def sha256(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_files_in_the_users_folder_are_found_by_any_of_their_names(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("a.gz", "b/plain"):
        (tmp_path / name).write_text("x")
    files = [
        RemoteFile("a.gz", f"{NOWHERE}/a.gz"),
        RemoteFile("b.gz", f"{NOWHERE}/b.gz", other_names=("b.txt", "b/plain")),
    ]
    assert fetch(files, tmp_path, TERMS) == (tmp_path / "a.gz", tmp_path / "b/plain")


def test_a_users_folder_that_lacks_a_file_is_an_error_and_nothing_is_requested(served, tmp_path):
    folder, address, requests = served
    (folder / "a").write_text("x")
    with pytest.raises(DataError, match="found no a; get the data from https://example.org/little-set and set root"):
        fetch([RemoteFile("a", f"{address}/a")], tmp_path, TERMS)
    assert requests == []


def test_a_download_shows_licence_and_citation_and_happens_once(served, capsys):
    folder, address, requests = served
    (folder / "a").write_bytes(b"content")
    files = [RemoteFile("sub/a", f"{address}/a", sha256(b"content"))]
    (path,) = fetch(files, None, TERMS)
    assert path == downloads() / "little-set/sub/a"
    assert path.read_bytes() == b"content"
    shown = capsys.readouterr().err
    assert TERMS.licence in shown
    assert TERMS.citation in shown
    assert fetch(files, None, TERMS) == (path,)
    assert capsys.readouterr().err == ""
    assert requests == ["/a"]


def test_the_licence_is_shown_before_the_first_request(served, capsys):
    with pytest.raises(DataError):
        fetch([RemoteFile("a", f"{NOWHERE}/a")], None, TERMS)
    assert TERMS.licence in capsys.readouterr().err


def test_a_wrong_checksum_leaves_no_file(served):
    folder, address, _ = served
    (folder / "a").write_bytes(b"other content")
    with pytest.raises(DataError, match=f"{address}/a: cannot be downloaded .*hash.*set root"):
        fetch([RemoteFile("a", f"{address}/a", sha256(b"content"))], None, TERMS)
    assert not (downloads() / "little-set/a").exists()


@pytest.mark.parametrize("archive", [False, True])
def test_without_a_network_the_error_says_where_to_get_the_data(served, archive):
    with pytest.raises(DataError, match="cannot be downloaded .* get the data from https://example.org/little-set"):
        fetch([RemoteFile("a", f"{NOWHERE}/a.zip", archive=archive)], None, TERMS)
    assert not [path for path in (downloads() / "little-set").glob("*") if path.name != "a"]


@pytest.mark.parametrize(("kind", "suffix"), [("zip", ".zip"), ("gztar", ".tar.gz")])
def test_a_broken_archive_leaves_nothing(served, tmp_path, kind, suffix):
    folder, address, _ = served
    (tmp_path / "content").mkdir()
    (tmp_path / "content/a").write_bytes(bytes(1000))
    shutil.make_archive(str(folder / "all"), kind, tmp_path / "content")
    whole = (folder / f"all{suffix}").read_bytes()
    (folder / f"all{suffix}").write_bytes(whole[:-30] if kind == "gztar" else whole[:10] + bytes(20) + whole[30:])
    with pytest.raises(DataError, match="cannot be downloaded"):
        fetch([RemoteFile("a", f"{address}/all{suffix}", archive=True)], None, TERMS)
    assert not list((downloads() / "little-set").iterdir())


def test_a_missing_page_is_an_error(served):
    _, address, _ = served
    with pytest.raises(DataError, match=r"cannot be downloaded \(404"):
        fetch([RemoteFile("a", f"{address}/a")], None, TERMS)


@pytest.mark.parametrize(("kind", "suffix"), [("zip", ".zip"), ("gztar", ".tar.gz")])
def test_an_archive_is_requested_once_and_unpacked(served, tmp_path, kind, suffix):
    folder, address, requests = served
    content = tmp_path / "content/set"
    (content / "images").mkdir(parents=True)
    for name in ("table", "images/1.png"):
        (content / name).write_text(name)
    made = shutil.make_archive(str(folder / "all"), kind, content.parent)
    checksum = sha256((folder / f"all{suffix}").read_bytes())
    assert made.endswith(suffix)
    files = [
        RemoteFile(f"set/{name}", f"{address}/all{suffix}", checksum, archive=True) for name in ("table", "images")
    ]
    table, images = fetch(files, None, TERMS)
    assert table.read_text() == "table"
    assert (images / "1.png").read_text() == "images/1.png"
    assert requests == [f"/all{suffix}"]
    assert [path.name for path in (downloads() / "little-set").iterdir()] == ["set"]
    with pytest.raises(DataError, match=r"expected set/none in this archive, found none"):
        fetch([RemoteFile("set/none", f"{address}/all{suffix}", archive=True)], None, TERMS)


def test_root_of_expands_the_data_folder(monkeypatch, tmp_path):
    assert root_of("") is None
    monkeypatch.setenv("MICRAFRAME_DATA", str(tmp_path))
    assert root_of("$MICRAFRAME_DATA/mnist") == tmp_path / "mnist"
    monkeypatch.delenv("MICRAFRAME_DATA")
    with pytest.raises(ConfigError, match="not set"):
        root_of("$MICRAFRAME_DATA/mnist")

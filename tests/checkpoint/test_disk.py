"""Files by descriptor: every byte at its offset, every failure named, with and without the calls of POSIX."""

import contextlib
import ctypes
import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.faults import fault
from support.files import not_hanging
from w8a16.checkpoint.container import disk
from w8a16.errors import ResourceError

POSITIONED = ["preadv", "pwrite"]


@pytest.fixture(params=["positioned", "by seeking"])
def _calls(request, monkeypatch):
    """Once more as on Windows, where a descriptor has to be moved to the place."""
    if request.param == "by seeking":
        for name in POSITIONED:
            monkeypatch.delattr(os, name, raising=False)


@pytest.fixture
def file(tmp_path):
    """A file of the numbers 0 to 999, four bytes each."""
    path = tmp_path / "file"
    path.write_bytes(numbers(1000))
    return path


def numbers(count):
    return bytes((ctypes.c_uint32 * count)(*range(count)))


def write(path, *pieces):
    fd = disk.create(path)
    for offset, content in pieces:
        disk.write_at(fd, memoryview(content), offset, path)
    disk.finish(fd, path)


def read(path, size, offset):
    buffer = memoryview(bytearray(size))
    fd = disk.open_source(path)
    try:
        disk.read_at(fd, buffer, offset, path)
    finally:
        disk.discard(fd)
    return bytes(buffer)


def is_closed(fd):
    with pytest.raises(OSError) as caught:
        os.fstat(fd)
    return caught.value.errno == errno.EBADF


@pytest.mark.usefixtures("_calls")
def test_pieces_in_any_order(tmp_path):
    write(tmp_path / "file", (5, b"world"), (0, b"hello"), (12, b"!"), (3, b""))
    assert (tmp_path / "file").read_bytes() == b"helloworld\0\0!"
    assert read(tmp_path / "file", 5, 5) == b"world"
    assert read(tmp_path / "file", 0, 99) == b""


@pytest.mark.usefixtures("_calls")
def test_views_of_any_format_count_in_bytes(tmp_path):
    values = memoryview((ctypes.c_uint32 * 1000)(*range(1000)))
    write(tmp_path / "file", (4, values), (0, values[:1]))
    assert (tmp_path / "file").read_bytes() == numbers(1) + numbers(1000)
    back = (ctypes.c_uint32 * 1000)()
    fd = disk.open_source(tmp_path / "file")
    disk.read_at(fd, memoryview(back), 4, tmp_path / "file")
    disk.discard(fd)
    assert bytes(back) == numbers(1000)


@pytest.mark.usefixtures("_calls")
def test_many_threads_on_one_descriptor(tmp_path):
    path, size, count = tmp_path / "file", 4096, 64
    blocks = [bytes([number]) * size for number in range(count)]
    fd = disk.create(path)
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(disk.write_at, fd, memoryview(b), n * size, path) for n, b in enumerate(blocks)]
        assert [job.result() for job in jobs] == [None] * count
        buffers = [memoryview(bytearray(size)) for _ in blocks]
        jobs = [pool.submit(disk.read_at, fd, b, n * size, path) for n, b in enumerate(buffers)]
        assert [job.result() for job in jobs] == [None] * count
    disk.finish(fd, path)
    assert path.read_bytes() == b"".join(blocks)
    assert [bytes(buffer) for buffer in buffers] == blocks


@pytest.mark.usefixtures("_calls")
def test_a_file_that_ends_before(file):
    with pytest.raises(ResourceError) as caught:
        read(file, 100, 3950)
    assert str(caught.value) == (
        f"{file}: expected 100 bytes at offset 3950, read 50; was the file changed meanwhile?"
    )


def test_a_file_that_is_cut_while_it_is_read(file):
    fd = disk.open_source(file)
    os.truncate(file, 2000)
    with pytest.raises(
        ResourceError, match="expected 4000 bytes at offset 0, read 2000; was the file changed"
    ):
        disk.read_at(fd, memoryview(bytearray(4000)), 0, file)
    disk.discard(fd)


@pytest.mark.parametrize("most", [1, 7, 1000])
def test_short_reads_and_writes_are_continued(tmp_path, monkeypatch, most):
    """A signal, a network file system, or more than 2 GiB at once."""
    preadv, pwrite = os.preadv, os.pwrite
    monkeypatch.setattr(os, "preadv", lambda fd, views, offset: preadv(fd, [views[0][:most]], offset))
    monkeypatch.setattr(os, "pwrite", lambda fd, view, offset: pwrite(fd, view[:most], offset))
    write(tmp_path / "file", (3, numbers(500)))
    assert read(tmp_path / "file", 2000, 3) == numbers(500)


def test_blocks_beyond_the_limit_of_one_call(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "_MOST_AT_ONCE", 64)
    sizes = []
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, view, at: sizes.append(len(view)) or pwrite(fd, view, at))
    write(tmp_path / "file", (0, numbers(40)))
    assert sizes == [64, 64, 32]
    assert read(tmp_path / "file", 160, 0) == numbers(40)


def test_a_write_without_progress_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "pwrite", lambda fd, view, offset: 0)
    with not_hanging(), pytest.raises(ResourceError, match="file: wrote 0 of 4 bytes at offset 9"):
        write(tmp_path / "file", (9, b"four"))


@pytest.mark.parametrize("kind", ["folder", "fifo", "device", "missing", "link to nowhere"])
def test_what_is_no_file_is_not_opened(tmp_path, kind):
    path = tmp_path / "source"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "link to nowhere":
        path.symlink_to("nowhere")
    with not_hanging(), pytest.raises(ResourceError) as caught:
        disk.open_source(path)
    missing = kind in ("missing", "link to nowhere")
    assert str(caught.value) == f"{path}: {'no such file' if missing else 'not a regular file'}"


def test_a_link_to_a_file_is_read(file):
    """As in the cache of a hub, where every file is one."""
    link = file.with_name("link")
    link.symlink_to(file)
    assert read(link, 8, 4) == numbers(3)[4:]


def test_names_are_escaped(tmp_path):
    with pytest.raises(ResourceError) as caught:
        disk.open_source(tmp_path / "a\x1b[31m")
    assert str(caught.value) == f"{tmp_path}/a\\x1b[31m: no such file"


def test_a_file_that_exists_is_never_opened_for_writing(file):
    with pytest.raises(ResourceError, match="file: File exists"):
        disk.create(file)
    file.with_name("link").symlink_to("nowhere")
    with pytest.raises(ResourceError, match="link: File exists"):
        disk.create(file.with_name("link"))
    assert file.read_bytes() == numbers(1000)
    assert not file.with_name("nowhere").exists()


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_modes_follow_the_umask(tmp_path, file, umask):
    file.chmod(0o755)
    before = os.umask(umask)
    try:
        write(tmp_path / "written")
        disk.copy_file(file, tmp_path / "copied")
        disk.make_folder(tmp_path / "outer" / "inner")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path != file}
    files, folders = 0o666 & ~umask, 0o777 & ~umask
    assert modes == {"written": files, "copied": files, "outer": folders, "inner": folders}


@pytest.mark.parametrize("name", ["fsync", "close"])
def test_sync_and_close_are_fatal_and_the_descriptor_is_closed(tmp_path, name):
    path = tmp_path / "file"
    fd = disk.create(path)
    with fault(name, 1), pytest.raises(ResourceError) as caught:
        disk.finish(fd, path)
    assert str(caught.value) == f"{path}: Input/output error"
    assert is_closed(fd)


def test_an_interrupt_while_syncing_closes_too(tmp_path, monkeypatch):
    fd = disk.create(tmp_path / "file")

    def interrupted(fd):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        disk.finish(fd, tmp_path / "file")
    assert is_closed(fd)


@pytest.mark.parametrize("size", [0, 1, disk._BLOCK - 1, disk._BLOCK, 2 * disk._BLOCK + 5])
def test_a_copy_has_the_same_bytes(tmp_path, size):
    content = os.urandom(size)
    (tmp_path / "source").write_bytes(content)
    assert disk.copy_file(tmp_path / "source", tmp_path / "copy") == size
    assert (tmp_path / "copy").read_bytes() == content


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="counts descriptors in /proc")
@pytest.mark.parametrize("name", ["preadv", "pwrite", "fsync", "open", "close", "fstat"])
def test_a_copy_leaks_no_descriptor(tmp_path, file, name):
    before = len(os.listdir("/proc/self/fd"))
    for at in (1, 2):
        (tmp_path / "copy").unlink(missing_ok=True)
        with fault(name, at), contextlib.suppress(ResourceError):
            disk.copy_file(file, tmp_path / "copy")
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_folder_without_sync(tmp_path):
    """Some network file systems sync files only, and say so; any other complaint counts."""
    with fault("fsync", 1, errno.EINVAL):
        disk.sync_folder(tmp_path)
    with fault("fsync", 1, errno.EIO), pytest.raises(ResourceError, match=f"{tmp_path}: Input/output error"):
        disk.sync_folder(tmp_path)
    with pytest.raises(ResourceError, match="gone: no such file"):
        disk.sync_folder(tmp_path / "gone")


def test_starting_to_write_is_a_hint_that_never_fails(tmp_path, monkeypatch):
    path = tmp_path / "file"
    fd = disk.create(path)
    disk.write_at(fd, memoryview(b"x" * 10_000), 0, path)
    disk.start_writing(fd, 0, 10_000)
    disk.start_writing(fd, 1 << 40, 1)  # nothing is there
    disk.start_writing(-1, 0, 1)
    monkeypatch.setattr(disk, "_sync_file_range", lambda: None)
    disk.start_writing(fd, 0, 10_000)
    disk.finish(fd, path)
    assert path.read_bytes() == b"x" * 10_000

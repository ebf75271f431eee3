"""The compiled kernels' cache: what is damaged is built again, what others may have written is never loaded."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sweep.cache import cache_folder
from sweep.train.engine.kernels import FLAGS, NoKernels, _build, kernels

NOBODY = 65534
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away, and mount")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("library") / "kernels.so"
    path.write_bytes(_build("g++", [*FLAGS, "-O1"]))
    return path


class Cache:
    """An empty cache, and a compiler that is quick, because it copies `library`, and counts how often it is asked."""

    def __init__(self, path: Path, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self.folder, self.log = path / "cache", path / "cache" / "isosweep", path / "builds"
        compiler = path / "compiler"
        compiler.write_text(f'#!/bin/sh\necho >> {self.log}\nfor last; do :; done\nexec cp {library} "$last"\n')
        compiler.chmod(0o700)
        monkeypatch.setenv("XDG_CACHE_HOME", str(self.home))
        monkeypatch.setenv("CXX", str(compiler))
        self.home.mkdir()

    @property
    def file(self) -> Path:
        (file,) = self.folder.glob("kernels-*.so")
        return file

    def builds(self) -> int:
        """How often a new process that needs the kernels has to compile."""
        self.log.write_text("")
        kernels.cache_clear()
        assert kernels().sum_of_squares_fp32(b"", 0) == 0
        return len(self.log.read_text().splitlines())


@pytest.fixture
def cache(tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cache]:
    yield Cache(tmp_path, library, monkeypatch)
    monkeypatch.undo()
    kernels.cache_clear()


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def garble(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[5000] ^= 1
    file.write_bytes(content)


def link(file: Path) -> None:
    file.symlink_to(file.rename(file.with_name("elsewhere")))


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


DAMAGE: list[Callable[[Path], object]] = [
    lambda file: os.truncate(file, 0), cut, garble, link, pipe,
    lambda file: file.write_bytes(b"garbage"),
    lambda file: file.chmod(0o622),
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("umask", [0o022, 0o002])
def test_a_damaged_library_is_built_again(damage: Callable[[Path], object], umask: int, cache: Cache) -> None:
    before = os.umask(umask)
    try:
        assert [cache.builds(), cache.builds()] == [1, 0]
        damage(cache.file)
        assert [cache.builds(), cache.builds()] == [1, 0]
    finally:
        os.umask(before)
    assert cache.folder.stat().st_mode & 0o777 == 0o700


@ROOT_ONLY
def test_what_another_user_owns_is_not_loaded(cache: Cache) -> None:
    cache.builds()
    os.chown(cache.file, NOBODY, NOBODY)
    assert [cache.builds(), cache.builds()] == [1, 0]
    os.chown(cache.folder, NOBODY, NOBODY)
    assert [cache.builds(), cache.builds()] == [1, 1]
    assert cache_folder() is None


def test_a_folder_that_others_may_write_is_closed(cache: Cache) -> None:
    cache.folder.mkdir()
    cache.folder.chmod(0o777)
    assert [cache.builds(), cache.builds()] == [1, 0]
    assert cache.folder.stat().st_mode & 0o777 == 0o700


def test_without_a_folder_each_process_builds(cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    other = cache.home / "other"
    other.mkdir()
    cache.folder.symlink_to(other)
    assert [cache.builds(), cache.builds()] == [1, 1]
    cache.folder.unlink()
    cache.folder.write_text("a file")
    assert [cache.builds(), cache.builds()] == [1, 1]
    assert not list(other.iterdir())
    assert all("each process builds and measures anew" in line for line in caplog.messages)


def test_a_library_that_cannot_be_replaced(cache: Cache) -> None:
    cache.builds()
    name = cache.file
    name.unlink()
    name.mkdir()
    assert cache.builds() == 1


def test_a_relative_cache_is_no_cache(cache: Cache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As the XDG specification has it; the working directory may be anybody's."""
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert cache_folder() == tmp_path / ".cache/isosweep"
    monkeypatch.setenv("HOME", str(tmp_path / "builds/none"))  # below a file: it cannot be made
    assert [cache.builds(), cache.builds()] == [1, 1]


@ROOT_ONLY
def test_file_systems_that_are_read_only_or_execute_nothing(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec", "none", cache.home], capture_output=True).returncode:
        pytest.skip("mounting is not allowed")
    try:
        assert [cache.builds(), cache.builds()] == [1, 0]
        temporary = cache.home / "temporary"
        temporary.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(temporary))
        with pytest.raises(NoKernels, match="cannot be loaded"):
            cache.builds()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # which lets libraries be executed
        assert [cache.builds(), cache.builds()] == [1, 0]
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache.home))
        monkeypatch.setattr("tempfile.tempdir", None)
        cache.file.unlink()
        subprocess.run(["mount", "-o", "remount,bind,ro", cache.home], check=True)
        assert [cache.builds(), cache.builds()] == [1, 1]
    finally:
        subprocess.run(["umount", "--lazy", cache.home], check=True)


def test_without_a_compiler_there_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    kernels.cache_clear()
    try:
        with pytest.raises(NoKernels, match="no-such-compiler: No such file"):
            kernels()
        monkeypatch.setenv("CXX", "false")
        with pytest.raises(NoKernels, match="false refuses"):
            kernels()
        assert not list(tmp_path.rglob("*.so"))
    finally:
        monkeypatch.undo()
        kernels.cache_clear()

"""Files that appear whole or not at all."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import pytest

from aicr_ext import files
from aicr_ext.files import appearing, appearing_together, atomic_write, is_temporary


class Unlucky:
    """Stands in for the file being written: takes some bytes, then fails."""

    def __init__(self, file: io.BufferedWriter, error: BaseException) -> None:
        self.file, self.error = file, error

    def __enter__(self) -> Unlucky:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, data: bytes) -> None:
        self.file.write(data[: len(data) // 2])
        self.file.flush()
        raise self.error


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("existing", [None, b"precious"])
def test_interrupted_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException], existing: bytes | None
) -> None:
    error = kind(28, "No space left on device")
    path = tmp_path / "a.aicr"
    if existing:
        path.write_bytes(existing)
    halves = []

    def unlucky_open(name: Path, mode: str) -> Unlucky:
        halves.append(name)
        return Unlucky(open(name, mode), error)

    monkeypatch.setattr(files, "open", unlucky_open, raising=False)
    with pytest.raises(kind) as caught:
        atomic_write(path, b"0123456789")
    assert halves
    assert path not in halves
    assert list(tmp_path.iterdir()) == ([path] if existing else [])
    if existing:
        assert path.read_bytes() == existing
    if isinstance(error, OSError):
        assert caught.value.filename == str(path)


def test_failed_rename_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.aicr"
    path.write_bytes(b"precious")

    def refuse(*names: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError):
        atomic_write(path, b"new")
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == {path: b"precious"}


def test_atomic_write_replaces_follows_links_and_keeps_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a"
    atomic_write(path, b"one")
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~current_umask()
    path.chmod(0o600)
    link = tmp_path / "link"
    link.symlink_to(path)
    atomic_write(link, b"two")
    assert link.is_symlink()
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "link"]


def test_atomic_write_to_pipe_folder_and_nowhere(tmp_path: Path) -> None:
    atomic_write("/dev/null", b"gone")
    with pytest.raises(IsADirectoryError):
        atomic_write(tmp_path, b"x")
    with pytest.raises(FileNotFoundError) as caught:
        atomic_write(tmp_path / "missing" / "a", b"x")
    assert caught.value.filename == str(tmp_path / "missing" / "a")


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_block_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(temporary: Path, file: Path) -> None:
        file.write_text("half")
        assert is_temporary(temporary)
        assert temporary.parent == tmp_path
        raise RuntimeError("in the middle")

    (tmp_path / "a").write_text("precious")
    with pytest.raises(RuntimeError, match="in the middle"), appearing(tmp_path / "a") as temporary:
        fail(temporary, temporary)
    with pytest.raises(RuntimeError, match="in the middle"), appearing_together(tmp_path) as folder:
        fail(folder, folder / "b")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "precious"}
    assert not is_temporary(tmp_path / "a")


def test_an_error_about_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, appearing(tmp_path / "a"):
        (tmp_path / "missing").read_bytes()
    assert caught.value.filename == str(tmp_path / "missing")


def test_files_move_together(tmp_path: Path) -> None:
    with appearing_together(tmp_path / "new") as folder:
        for name in ("2", "1"):
            (folder / name).write_text(name)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["1", "2"]


def test_pipes_and_folders_are_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with appearing(pipe) as target:
        assert target == pipe
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    with pytest.raises(IsADirectoryError) as caught, appearing(tmp_path):
        raise AssertionError("a folder is no file")
    assert caught.value.filename == str(tmp_path)
    assert list(tmp_path.iterdir()) == [pipe]

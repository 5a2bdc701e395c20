"""Parts of files: they join to the same bytes, or say which of them is wrong."""

from __future__ import annotations

import random
import shutil

import pytest

from aicr_ext.train import parts


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(random.Random(0).randbytes(2_500_001))
    return path


@pytest.mark.parametrize("size, count", [(0, 1), (1, 1), (1_000_000, 1), (1_000_001, 2), (3_000_000, 3)])
def test_parts_join_to_the_same_bytes(tmp_path, size, count):
    data = random.Random(size).randbytes(size)
    (tmp_path / "file").write_bytes(data)
    written = parts.split(tmp_path / "file", tmp_path / "out", 1)
    assert [p.name for p in written] == [f"file.part-{i:03}" for i in range(count)] + ["file.parts.json"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(p.name for p in written)
    assert b"".join(p.read_bytes() for p in written[:-1]) == data  # any tool can join them
    assert max(p.stat().st_size for p in written[:-1]) <= 1_000_000
    assert parts.join(tmp_path / "out", tmp_path / "again").read_bytes() == data


def test_parts_of_several_files_are_told_apart(file, tmp_path):
    (tmp_path / "state.pt").write_bytes(b"state")
    for path in (file, tmp_path / "state.pt"):
        parts.split(path, tmp_path / "out", 1)
    assert parts.join(tmp_path / "out", tmp_path / "new" / "copy", "state.pt").read_bytes() == b"state"
    assert parts.join(tmp_path / "out", tmp_path / "new" / "state.pt").read_bytes() == b"state"
    with pytest.raises(ValueError, match=r"lists of parts of state\.pt, weights\.safetensors, none of other"):
        parts.join(tmp_path / "out", tmp_path / "other")


def test_missing_foreign_and_corrupt_parts_are_named(file, tmp_path):
    out, target = tmp_path / "out", tmp_path / "joined"

    def refused(message: str) -> None:
        with pytest.raises(ValueError, match=message):
            parts.join(out, target)
        assert not list(tmp_path.glob("joined*")) + list(tmp_path.glob(".aicr-*"))

    parts.split(file, out, 1)
    shutil.copytree(out, tmp_path / "whole")
    (out / "weights.safetensors.part-001").unlink()
    refused(r"lacks 1 of 3 parts: weights\.safetensors\.part-001")
    shutil.copytree(tmp_path / "whole", out, dirs_exist_ok=True)
    (out / "weights.safetensors.part-003").write_bytes(b"more")
    refused(r"part-003: not in weights\.safetensors\.parts\.json")
    (out / "weights.safetensors.part-003").unlink()
    damaged = bytearray((out / "weights.safetensors.part-002").read_bytes())
    damaged[77] ^= 1
    (out / "weights.safetensors.part-002").write_bytes(damaged)
    refused(r"part-002: damaged, or of another cut")
    shutil.copytree(tmp_path / "whole", out, dirs_exist_ok=True)
    listing = out / "weights.safetensors.parts.json"
    text = listing.read_text()
    listing.write_text(text[:-9])
    refused(r"parts\.json: damaged listing of parts \(JSONDecodeError")
    listing.write_text(text.replace('"version": 1', '"version": 2'))
    refused("not a listing of aicr_ext parts of version 1")
    listing.unlink()
    refused(r"holds no list of parts \(NAME\.parts\.json\)")


def test_nothing_is_replaced(file, tmp_path):
    parts.split(file, tmp_path / "out", 1)
    with pytest.raises(ValueError, match=r"holds parts of weights\.safetensors already"):
        parts.split(file, tmp_path / "out", 2)
    with pytest.raises(FileExistsError, match=r"weights\.safetensors exists"):
        parts.join(tmp_path / "out", file)
    with pytest.raises(ValueError, match="part_mb must be at least"):
        parts.split(file, tmp_path / "other", 0)


def test_moving_takes_listings_first_and_keeps_both_limits(file, tmp_path):
    queue = tmp_path / "queue"
    parts.split(file, queue, 1)
    (queue / "a.txt").write_bytes(b"small")
    first = parts.move(queue, tmp_path / "one", files=3, megabytes=60)
    assert [p.name for p in first] == [
        "weights.safetensors.parts.json",
        "a.txt",
        "weights.safetensors.part-000",
    ]
    second = parts.move(queue, tmp_path / "two", files=3, megabytes=1.2)
    assert [p.name for p in second] == ["weights.safetensors.part-001"]
    third = parts.move(queue, tmp_path / "three", files=3, megabytes=1.2)
    assert [p.name for p in third] == ["weights.safetensors.part-002"]
    assert list(queue.iterdir()) == []
    assert parts.move(queue, tmp_path / "four", files=3, megabytes=1) == []
    for folder in ("two", "three"):
        shutil.copytree(tmp_path / folder, tmp_path / "one", dirs_exist_ok=True)
    assert parts.join(tmp_path / "one", tmp_path / "joined").read_bytes() == file.read_bytes()


def test_moving_never_loses_a_file(file, tmp_path):
    queue, other = tmp_path / "queue", tmp_path / "other"
    parts.split(file, queue, 1)
    before = {path.name for path in queue.iterdir()}
    (tmp_path / "link").symlink_to(queue)
    for same in (queue, tmp_path / "link"):
        with pytest.raises(ValueError, match="is the folder to move from"):
            parts.move(queue, same, files=9, megabytes=60)
    other.mkdir()
    (other / "weights.safetensors.part-001").write_text("mine")
    with pytest.raises(FileExistsError, match="part-001 exists"):
        parts.move(queue, other, files=9, megabytes=60)
    assert (other / "weights.safetensors.part-001").read_text() == "mine"
    (other / "weights.safetensors.part-001").unlink()
    left, moved = ({path.name for path in folder.iterdir()} for folder in (queue, other))
    assert left | moved == before
    assert not left & moved


def test_the_command(file, tmp_path, capsys):
    parts.main(["split", str(file), str(tmp_path / "out"), "--part-mb", "1.5"])
    assert len(capsys.readouterr().out.splitlines()) == 3
    parts.main(["move", str(tmp_path / "out"), str(tmp_path / "in"), "--files", "3", "--total-mb", "60"])
    parts.main(["join", str(tmp_path / "in"), str(tmp_path / "joined")])
    assert (tmp_path / "joined").read_bytes() == file.read_bytes()
    with pytest.raises(SystemExit) as stop:
        parts.main(["join", str(tmp_path / "out"), str(tmp_path / "third")])
    assert stop.value.code == 1
    assert "error: " in capsys.readouterr().err

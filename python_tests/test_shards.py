"""Shards: fair samples of photographs in tar files of limited size, that load as the photographs do."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import smooth
from PIL import Image

from aicr_ext.train import pack as command
from aicr_ext.train import shards
from aicr_ext.train.data import load_images


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """Twelve small JPEGs that stay as they are, and two PNGs that do not, one below a folder."""
    folder = tmp_path_factory.mktemp("photographs")
    for i in range(12):
        smooth(90 + i, 80).rotate(90 * (i % 4), expand=True).save(folder / f"{i:02}.jpg", quality=80)
    (folder / "below").mkdir()
    smooth(100, 70).save(folder / "below" / "flat.png")
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((160, 160)).save(folder / "08.png")
    smooth(20, 20).save(folder / "small.png")
    (folder / "notes.txt").write_text("not a picture")
    return folder


def pack(photographs: Path, out: Path, **options) -> shards.Packed:
    return shards.pack(photographs, out, **{"minimum_side": 64, **options})


def rewrite(path: Path, change) -> None:
    """Passes the members of a tar file, name to bytes, through ``change``."""
    with tarfile.open(path) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}
    change(members)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))


def test_shards_load_as_the_photographs_do(photographs, tmp_path):
    packed = pack(photographs, tmp_path / "out", shard_mb=0.06, quality=95)
    assert (packed.kept, packed.coded, packed.left_out) == (12, 2, 1)
    assert len(packed.shards) > 1
    plain, loaded = load_images(photographs, 64), load_images(tmp_path / "out", 64)
    assert [i.shape for i in plain] == [i.shape for i in loaded]
    errors = [float((a.float() - b.float()).square().mean()) for a, b in zip(plain, loaded, strict=True)]
    assert sum(error == 0 for error in errors) == 12
    assert 0 < max(errors) < 16  # above 36 dB
    assert len(load_images(tmp_path / "out" / "shard-000.tar", 64)) < len(loaded)


def test_a_folder_may_hold_both(photographs, tmp_path):
    packed = pack(photographs, tmp_path / "data" / "shards")
    smooth(128, 96).save(tmp_path / "data" / "aa.png")
    (tmp_path / "data" / ".aicr-0.part").mkdir()
    (tmp_path / "data" / ".aicr-0.part" / "shard-000.tar").write_bytes(b"half")
    assert len(packed.shards) == 1
    sizes = [tuple(image.shape) for image in load_images(tmp_path / "data", 64)]
    assert len(sizes) == 15
    assert sizes[13:] == [(3, 96, 128), (3, 70, 100)]  # by name: aa.png, below/flat.png


def test_the_limit_counts_the_whole_file(photographs, tmp_path):
    for megabytes in (0.07, 0.0614, 0.06):
        out = tmp_path / str(megabytes)
        sizes = [path.stat().st_size for path in pack(photographs, out, shard_mb=megabytes).shards]
        assert len(sizes) > 1
        assert max(sizes) <= megabytes * 1e6
    with tarfile.open(tmp_path / "0.07" / "shard-000.tar") as tar:
        names = tar.getnames()
    assert names[0] == "manifest.json"
    assert names[1:] != sorted(names[1:])  # a sample, not the beginning of the folder


def test_same_input_same_bytes(photographs, tmp_path):
    first, again, other = (
        pack(photographs, tmp_path / name, shard_mb=0.06, seed=seed).shards
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in again]
    assert [p.read_bytes() for p in first] != [p.read_bytes() for p in other]
    anew = pack(tmp_path / "first", tmp_path / "anew", shard_mb=1)
    assert (anew.kept, anew.coded) == (14, 0)


def test_names_that_meet_are_told_apart(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        smooth(64, 64).save(tmp_path / folder / "a.jpg", quality=80)
        pack(tmp_path / folder, tmp_path / "packed" / folder)
    pack(tmp_path / "packed", tmp_path / "out")
    assert [p.name for p in shards.find_pictures(tmp_path / "out")] == ["a.jpg", "a.jpg.jpg"]


def test_a_jpeg_is_coded_again_only_where_that_saves_much(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    (tmp_path / "in").mkdir()
    Image.fromarray(noise).save(tmp_path / "in" / "a.jpg", quality=95, subsampling="4:4:4")
    assert pack(tmp_path / "in", tmp_path / "same", quality=95).kept == 1
    assert pack(tmp_path / "in", tmp_path / "less", quality=50).coded == 1


@pytest.mark.parametrize(
    "options, message",
    [
        ({"quality": 0}, "quality must be 1 to 100, got 0"),
        ({"shard_mb": 0}, "shard_mb must be above 0"),
        ({"shard_mb": 0.011}, r"needs a shard of 0\.0\d MB alone, above 0\.01 MB"),
        ({"minimum_side": 999}, "no picture of at least 999 pixels"),
    ],
)
def test_bad_options_are_named(photographs, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        pack(photographs, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_shards_are_not_replaced_or_mixed(photographs, tmp_path):
    (first, *_) = pack(photographs, tmp_path).shards
    before = first.read_bytes()
    with pytest.raises(ValueError, match=r"holds shard-000\.tar already"):
        pack(photographs, tmp_path, seed=1)
    assert first.read_bytes() == before


def test_a_failure_leaves_nothing(photographs, tmp_path, monkeypatch):
    def fail(path, members):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(shards, "_write", fail)
    with pytest.raises(OSError, match="disk full"):
        pack(photographs, tmp_path)
    assert list(tmp_path.iterdir()) == []


def drop(members):
    members.popitem()


def add(members):
    members["extra.jpg"] = b"extra"


def swap(members):
    first, second = list(members)[1:3]
    members[first], members[second] = members[second], members[first]


def flip(members):
    name, data = members.popitem()
    members[name] = data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


def forget(members):
    del members["manifest.json"]


def foreign(members):
    manifest = json.loads(members["manifest.json"]) | {"version": 2}
    members["manifest.json"] = json.dumps(manifest).encode()


def garble(members):
    members["manifest.json"] = members["manifest.json"][:-5]


@pytest.mark.parametrize(
    "change, message",
    [
        (drop, r"damaged shard: .* is in its manifest and not in it"),
        (add, r"extra\.jpg is not in its manifest"),
        (swap, r"is not what its manifest says"),
        (flip, r"is not what its manifest says"),
        (forget, r"no shard: it holds no manifest\.json"),
        (foreign, "not an aicr_ext shard of version 1"),
        (garble, r"damaged shard \(JSONDecodeError"),
    ],
)
def test_a_shard_that_was_changed_is_refused(photographs, tmp_path, change, message):
    (path, *_) = pack(photographs, tmp_path).shards
    rewrite(path, change)
    with pytest.raises(ValueError, match=rf"shard-000\.tar: .*{message}|shard-000\.tar: {message}"):
        load_images(tmp_path, 64)


def test_a_shard_that_was_cut_off_is_refused(photographs, tmp_path):
    (path, *_) = pack(photographs, tmp_path).shards
    path.write_bytes(path.read_bytes()[:30000])
    with pytest.raises(ValueError, match=r"shard-000\.tar: damaged shard"):
        load_images(tmp_path, 64)


def test_bad_sources_are_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere' does not exist: expected a folder of photographs or shards"):
        load_images(tmp_path / "nowhere")
    (tmp_path / "file.txt").write_text("text")
    with pytest.raises(ValueError, match=r"file\.txt' is no folder and no \.tar file"):
        load_images(tmp_path / "file.txt")
    (tmp_path / "broken.png").write_text("text")
    with pytest.raises(ValueError, match=r"broken\.png: no picture in one of the formats PNG"):
        load_images(tmp_path)
    smooth(300, 300).save(tmp_path / "broken.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "broken.png").read_bytes()[:4000])
    with pytest.raises(ValueError, match=r"broken\.png: damaged picture"):
        load_images(tmp_path)
    Image.new("I;16", (300, 300), 1000).save(tmp_path / "broken.png")
    with pytest.raises(ValueError, match=r"broken\.png: more than 8 bits per channel"):
        load_images(tmp_path)


def test_the_command_reports_what_it_did(photographs, tmp_path, capsys):
    arguments = [str(photographs), str(tmp_path / "out"), "--minimum-side", "64"]
    command.main([*arguments, "--shard-mb", "0.06"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{tmp_path}/out/shard-000.tar: 0.")
    assert lines[-1] == "12 pictures as they were, 2 coded again, 1 left out as too small"
    with pytest.raises(SystemExit) as stop:
        command.main(arguments)
    assert stop.value.code == 1
    assert "error:" in capsys.readouterr().err
    assert torch.equal(load_images(tmp_path / "out", 64)[0], load_images(photographs, 64)[0])

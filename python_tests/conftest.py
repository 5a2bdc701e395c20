"""Settings for all tests, and what several of them begin with."""

import pytest
import torch
from pictures import smooth
from seeds import SEED
from training import TINY, TONED

import aicr_ext
from aicr_ext.model.config import CONFIGS

# The pictures of the tests are too small for several threads to help, and on a busy machine threads that wait
# for one another make them many times slower. Tests about threads set their own number.
torch.set_num_threads(1)
# Tests on a GPU compare float32, and torch lets cuDNN round the factors of its products to TF32, which has 10 bits.
torch.backends.cudnn.allow_tf32 = False
torch.backends.cuda.matmul.allow_tf32 = False


def pytest_report_header() -> str:
    return f"AICR_TEST_SEED={SEED}"


@pytest.fixture
def photographs(tmp_path):
    """A folder with three small pictures."""
    folder = tmp_path / "data"
    folder.mkdir()
    for i, angle in enumerate((0, 90, 180)):
        smooth(96 + 8 * i, 80).rotate(angle, expand=True).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def tiny(monkeypatch):
    """The name of a network that trains in milliseconds; its runs draw no picture, which would take longer."""
    monkeypatch.setitem(CONFIGS, TINY.name, TINY)
    monkeypatch.setattr("aicr_ext.train.loop.draw", lambda logs, out: None)
    return TINY.name


@pytest.fixture
def toned(monkeypatch):
    """The same with a linear shortcut and a tone field."""
    monkeypatch.setitem(CONFIGS, TONED.name, TONED)
    monkeypatch.setattr("aicr_ext.train.loop.draw", lambda logs, out: None)
    return TONED.name


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with ``photo.png`` in it."""
    monkeypatch.chdir(tmp_path)
    smooth().save("photo.png")
    return tmp_path


@pytest.fixture(scope="session")
def compressed():
    """``photo.png`` at quality 32, as the library compresses it."""
    return aicr_ext.compress(smooth(), quality=32)

"""Settings for all tests, and what several of them train."""

import pytest
import torch
from pictures import smooth
from training import TINY, TONED

from aicr_ext.model.config import CONFIGS

# The pictures of the tests are too small for several threads to help, and on a busy machine threads that wait
# for one another make them many times slower. Tests about threads set their own number.
torch.set_num_threads(1)


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

"""What a run needs from processor, GPU and operating system."""

from __future__ import annotations

import signal
import threading

import torch

__all__ = ["Signals", "prepare_gpu"]


class Signals:
    """While entered, the first Ctrl-C or SIGTERM only sets ``came``; a second one acts as usual."""

    def __init__(self) -> None:
        self.came = False
        self._usual: dict[int, object] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            for number in (signal.SIGINT, signal.SIGTERM):
                self._usual[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        while self._usual:
            signal.signal(*self._usual.popitem())

    def _note(self, *_: object) -> None:
        self.came = True
        self.__exit__()


def prepare_gpu() -> None:
    """Settings of this process for training on CUDA: TF32 where float32 is left, and measured choices by cuDNN."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True

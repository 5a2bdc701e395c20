"""Synthetic degradation of clean pictures, given as text and the same in every run.

Where damage falls depends on the seed and the picture's name, never on the order of pictures or on how many there
are. Gaussian noise is NumPy's, with the seed itself for every picture, as tests of denoisers have it.
"""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import torch

from aicr_ext.degradations import KINDS, RawNoise, random_degradation

from .text import check_options, parse_call

__all__ = ["Synthetic"]

#: Any combination of kinds, as in training.
_RANDOM = "random"


class Synthetic:
    """One way to damage pictures: ``Synthetic("gaussian_noise:sigma=25")(picture, name)``.

    Accepted: the kinds of :mod:`aicr_ext.degradations` with their parameters as options, drawn at random where none
    is given; ``gaussian_noise:sigma=S`` with S of 255; ``raw_noise:gain=1|2|4|8``; ``random``, a random combination.
    Each takes ``seed=N`` (default 0).

    Raises:
        ValueError: an unknown kind or option, or a value that the kind does not take.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.fixed = None
        try:
            self.kind, options = parse_call(text)
            self._prepare(options)
        except (TypeError, ValueError) as error:
            raise ValueError(f"degradation {text!r}: {error}") from None

    def _prepare(self, options: dict[str, object]) -> None:
        if self.kind not in (*KINDS, _RANDOM):
            raise ValueError(f"expected one of {', '.join((*KINDS, _RANDOM))}")
        self.seed = options.pop("seed", 0)
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be a whole number from 0, got {self.seed!r}")
        if self.kind == "gaussian_noise":
            check_options(options, ("sigma", "seed"))
            self.sigma = options.get("sigma", 25)
            if isinstance(self.sigma, bool) or not isinstance(self.sigma, (int, float)) or not 0 <= self.sigma < 1e4:
                raise ValueError(f"sigma must be a number from 0, of 255, got {self.sigma!r}")
        elif self.kind == _RANDOM:
            check_options(options, ("seed",))
        elif self.kind == "raw_noise" and "gain" in options:
            check_options(options, ("gain", "seed"))
            self.fixed = RawNoise.for_gain(options["gain"])
        elif options:
            cls = KINDS[self.kind]
            check_options(options, (*(field.name for field in dataclasses.fields(cls)), "seed"))
            self.fixed = cls(**options)

    def __call__(self, clean: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The damaged picture twice: (H, W, 3) uint8 as a file holds it, and float32 as it was before that.

        The second is scaled to [0, 1] and, for Gaussian noise, reaches beyond it.
        """
        if self.kind == "gaussian_noise":
            # The legacy stream, because NumPy promises that it never changes.
            noise = np.random.RandomState(self.seed).standard_normal(clean.shape)
            exact = clean + self.sigma * noise
            return np.clip(np.round(exact), 0, 255).astype(np.uint8), (exact / 255).astype(np.float32)
        digest = hashlib.sha256(f"{self.seed} {name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
        image = torch.from_numpy(clean.copy()).permute(2, 0, 1).float().div_(255)
        if self.kind == _RANDOM:
            image, _ = random_degradation(image, generator)
        else:
            image = (self.fixed or KINDS[self.kind].sample(generator))(image, generator)
        exact = image.permute(1, 2, 0).contiguous().numpy()
        return np.round(exact * 255).astype(np.uint8), exact

"""Several degradations on one picture, in the order in which light and file meet them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from .base import check_generator, check_image, check_number
from .draw import uniform
from .registry import KINDS, kind_named

__all__ = ["PROBABILITIES", "STAGES", "Compose", "random_degradation", "replay"]

#: What can happen to a picture, first to last; of one stage at most one kind happens. Haze is in the air behind rain
#: and snow, blur is made by the lens, darkness and noise by the sensor after it, and JPEG when all is over.
STAGES: tuple[tuple[str, ...], ...] = (
    ("haze",),
    ("rain", "snow"),
    ("motion_blur", "defocus"),
    ("low_light",),
    ("raw_noise", "gaussian_noise"),
    ("jpeg",),
)

#: How likely each kind is in :func:`random_degradation`.
PROBABILITIES: Mapping[str, float] = MappingProxyType(
    {
        "haze": 0.2,
        "rain": 0.2,
        "snow": 0.2,
        "motion_blur": 0.1,
        "defocus": 0.1,
        "low_light": 0.15,
        "raw_noise": 0.25,
        "gaussian_noise": 0.25,
        "jpeg": 0.3,
    }
)

#: One applied degradation: ``kind``, ``seed`` and ``parameters``, all of which JSON can hold.
Step = dict[str, object]

# PyTorch's generator for CPUs uses no more than 32 bits of a seed.
_SEEDS = 1 << 32


@dataclass(frozen=True)
class Compose:
    """A random selection of kinds, each with random parameters, in physical order.

    ``probabilities`` gives the probability of each kind; those not named do not happen. Kinds of one stage
    (:data:`STAGES`) exclude each other, so their probabilities add up to at most 1.

    Raises:
        ValueError: an unknown kind, a probability outside [0, 1], or stages that add up to more.
    """

    probabilities: Mapping[str, float] = field(default_factory=lambda: PROBABILITIES)

    def __post_init__(self) -> None:
        # A copy, so that a later change of the caller's has no effect; a plain one, so that workers can be sent it.
        object.__setattr__(self, "probabilities", dict(self.probabilities))
        for kind, probability in self.probabilities.items():
            kind_named(kind)
            check_number(f"probability of {kind}", probability, 0, 1)
        for stage in STAGES:
            total = sum(self.probabilities.get(kind, 0) for kind in stage)
            if total > 1 + 1e-9:
                raise ValueError(
                    f"probabilities: {' and '.join(stage)} exclude each other, so theirs add up to at most 1, "
                    f"got {total:g}"
                )

    @torch.no_grad()
    def __call__(self, image: Tensor, generator: torch.Generator) -> tuple[Tensor, list[Step]]:
        """Degrade ``image`` as :meth:`Degradation.__call__` does; also return what was applied, in order.

        Nothing may have been applied: the record is then empty and the picture a copy.
        """
        check_image(image)
        check_generator(generator)
        record = []
        for stage in STAGES:
            luck = uniform(generator, 0, 1)
            for kind in stage:
                luck -= self.probabilities.get(kind, 0)
                if luck < 0:
                    parameters = KINDS[kind].sample(generator).parameters
                    record.append({"kind": kind, "seed": _draw_seed(generator), "parameters": parameters})
                    break
        return replay(image, record, device=generator.device), record


def random_degradation(
    image: Tensor,
    generator: torch.Generator,
    kinds: Iterable[str] | Mapping[str, float] | None = None,
) -> tuple[Tensor, list[Step]]:
    """A random combination of degradations and the record of it.

    Args:
        image: float32 (3, H, W) or (B, 3, H, W) in [0, 1]; a batch shares kinds and parameters.
        generator: source of all randomness.
        kinds: names of the kinds to choose from, with their usual :data:`PROBABILITIES`, or a mapping from names to
            probabilities; all kinds by default.

    Returns:
        The degraded picture, and a list of steps ``{"kind", "seed", "parameters"}`` from which :func:`replay`
        makes the same picture again.

    Raises:
        TypeError, ValueError: as :class:`Compose` and :meth:`Degradation.__call__`.
    """
    if kinds is None:
        kinds = PROBABILITIES
    elif isinstance(kinds, str):
        raise TypeError(f"kinds: expected several names or a mapping, got the text {kinds!r}; use [{kinds!r}]")
    elif not isinstance(kinds, Mapping):
        kinds = {kind_named(kind).kind: PROBABILITIES[kind] for kind in kinds}
    return Compose(kinds)(image, generator)


@torch.no_grad()
def replay(image: Tensor, record: Sequence[Step], *, device: torch.device | str = "cpu") -> Tensor:
    """Apply a record again, for example one read from a log: on the same picture, the same result.

    Args:
        image: as in :meth:`Degradation.__call__`.
        record: steps from :func:`random_degradation` or :class:`Compose`.
        device: where the random numbers are drawn; that of the generator of the record.

    Raises:
        TypeError, ValueError: as :meth:`Degradation.__call__`; a step that is none.
    """
    check_image(image)
    batch = image.clone() if image.ndim == 4 else image.clone()[None]
    for step in record:
        try:
            kind, seed, parameters = step["kind"], step["seed"], step["parameters"]
        except (KeyError, TypeError):
            raise ValueError(f"record: expected steps with kind, seed and parameters, got {step!r}") from None
        own = torch.Generator(device).manual_seed(seed)
        batch = kind_named(kind)(**parameters).apply(batch, own)
    return batch if image.ndim == 4 else batch[0]


def _draw_seed(generator: torch.Generator) -> int:
    return int(torch.randint(_SEEDS, (), generator=generator, device=generator.device))

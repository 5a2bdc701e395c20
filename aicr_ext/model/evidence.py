"""What a picture shows of its own noise, before anything is learned."""

from __future__ import annotations

import torch
from torch import Tensor

from aicr_ext.model.rows import over_rows

__all__ = ["LOCAL", "WHOLE", "noise_evidence"]

#: Resolutions at which it is looked for.
_SCALES = 3
#: Of the places of a picture, ordered by what they show, those at these shares.
_SHARES = (0.02, 0.1, 0.3, 0.6)
# Of powers: noise of standard deviation 1/255 is about 1.5, what rounding to 8 bits leaves 0.13.
_UNIT, _FLOOR = 1e5, 0.1

#: Numbers of each place, and of the whole picture.
LOCAL = 3 * _SCALES
WHOLE = LOCAL * len(_SHARES)


def noise_evidence(x: Tensor) -> tuple[Tensor, Tensor]:
    """Power of a picture's finest diagonal differences: at each place, and where there is least of it.

    Of each colour, of the pixels and of their means over 2 x 2 and 4 x 4, the diagonal coefficient of Haar's wavelets.
    Pictures have little there and noise has as much as anywhere, at least in the flattest places, from which its
    strength is therefore told (Donoho and Johnstone 1994 take the median coefficient; here the shares are several, and
    what they mean is learned).

    Args:
        x: (B, 3, H, W), sides multiples of 16.

    Returns:
        Half the logarithm of the mean power of every 16 x 16 pixels, (B, 9, H/16, W/16): finest first, red, green,
        blue; and the values that 2, 10, 30 and 60 % of the places do not exceed, (B, 36, 1, 1).
    """
    local = over_rows(_local_evidence, x)
    ordered = local.flatten(2).sort(2).values
    whole = [ordered[:, :, int(share * (ordered.shape[2] - 1))] for share in _SHARES]
    return local, torch.cat(whole, 1)[:, :, None, None]


def _local_evidence(x: Tensor) -> Tensor:
    powers, mean = [], x.float()
    for scale in range(_SCALES):
        top, bottom = mean[:, :, ::2], mean[:, :, 1::2]
        left, right = (top - bottom)[..., ::2], (top - bottom)[..., 1::2]
        power = (0.5 * (left - right)).square()
        rows = power.unflatten(2, (-1, 8 >> scale)).mean(3)
        powers.append(rows.unflatten(3, (-1, 8 >> scale)).mean(4))
        both = top + bottom
        mean = 0.25 * (both[..., ::2] + both[..., 1::2])
    return 0.5 * torch.log(_UNIT * torch.cat(powers, 1) + _FLOOR)

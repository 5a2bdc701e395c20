"""How much of photographs the first principal components keep: ``python -m benchmarks.components FOLDER``.

The linear shortcut of aicr-t starts from these components of 16x16 RGB patches; their number is the width of the
latent. The table gives the PSNR of rebuilding the patches from the first N of 768, without quantisation.
"""

from __future__ import annotations

import argparse
import math

from aicr_ext.train.data import load_images, patch_statistics, principal_components

from .timing import print_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", help="photographs")
    parser.add_argument("--counts", type=int, nargs="+", default=[64, 96, 128, 160, 192, 224, 256])
    args = parser.parse_args()
    _, _, deviation = principal_components(*patch_statistics(load_images(args.folder), seed=0), 768)
    energy = deviation.double().square()
    print_table(
        [
            {
                "components": count,
                "PSNR dB": -10 * math.log10(float(energy[count:].sum()) / 768),
                "variance kept %": 100 * float(energy[:count].sum() / energy.sum()),
            }
            for count in args.counts
        ]
    )


if __name__ == "__main__":
    main()

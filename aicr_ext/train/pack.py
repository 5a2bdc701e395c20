"""``python -m aicr_ext.train.pack``: packs photographs into tar files of limited size for ``aicr_ext.train``."""

from __future__ import annotations

import argparse

from aicr_ext.train.shards import MINIMUM_SIDE, pack


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m aicr_ext.train.pack", description=__doc__)
    parser.add_argument("photographs", help="folder of photographs or of shards, or one shard")
    parser.add_argument("out", help="folder for shard-000.tar, shard-001.tar, ...")
    parser.add_argument("--shard-mb", type=float, default=40, help="most megabytes of a shard (default: %(default)s)")
    parser.add_argument("--quality", type=int, default=95, help="of JPEGs that are made (default: %(default)s)")
    parser.add_argument(
        "--minimum-side", type=int, default=MINIMUM_SIDE, help="leave out smaller pictures (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order (default: %(default)s)")
    args = parser.parse_args(argv)
    try:
        packed = pack(args.photographs, args.out, args.shard_mb, args.quality, args.minimum_side, args.seed)
    except (ValueError, OSError) as error:
        parser.exit(1, f"{parser.prog}: error: {error}\n")
    for path in packed.shards:
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    print(f"{packed.kept} pictures as they were, {packed.coded} coded again, {packed.left_out} left out as too small")


if __name__ == "__main__":
    main()

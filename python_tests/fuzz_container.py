"""Fuzz target of the file format, by coverage of its parser: files of a tiny network, changed, are typed errors.

``make fuzz`` runs it; the arguments are libFuzzer's, the first folder is given the undamaged files to begin with.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import atheris
import torch
from file_cases import tiny_files, with_crc

from aicr_ext import api
from aicr_ext.codec import container
from aicr_ext.codec.latents import decode_latents


def mutate(originals: list[bytes], data: bytes, max_size: int, seed: int) -> bytes:
    """libFuzzer's change of ``data`` or, as often, of a whole file: those it keeps are soon too short to hold latents.

    Every other time the checksum is put right, so that it does not have the last word.
    """
    changed = bytes(atheris.Mutate(originals[seed // 4 % len(originals)] if seed & 1 else data, max_size))
    return with_crc(changed[:-4]) if seed & 2 else changed


def main(argv: list[str]) -> None:
    torch.set_num_threads(1)
    folders = [Path(word) for word in argv[1:] if not word.startswith("-")]
    # In place; the import hook of atheris does not see the modules of an editable install.
    parser = (container.read_info, container.unpack, container._split, container._read_varint)
    for function in (*parser, api.decompress, decode_latents):
        atheris.instrument_func(function)
    with tiny_files() as files:
        originals = list(files.pictures)
        if folders and folders[0].is_dir():
            for number, data in enumerate(originals):
                (folders[0] / f"file-{number}").write_bytes(data)
        atheris.Setup(argv, lambda data: files.check(data) and None, custom_mutator=partial(mutate, originals))
        atheris.Fuzz()  # does not come back


if __name__ == "__main__":
    main(sys.argv)

"""Every error this package raises on purpose, apart from ``TypeError`` and ``ValueError`` for arguments.

``AicrError`` is the common parent. A file that cannot be decoded raises a :class:`BitstreamError`; which of
its children says what was wrong. All of them are also ``ValueError``, so ``except ValueError`` catches bad
arguments and bad files alike.
"""

from __future__ import annotations

__all__ = [
    "AicrError",
    "BitstreamError",
    "ChecksumError",
    "EvaluationError",
    "FormatError",
    "ImageFormatError",
    "ImageTooLargeError",
    "MissingPackageError",
    "ModelMismatchError",
    "NativeLibraryError",
    "TruncatedError",
    "UnsupportedVersionError",
    "first_line",
]


class AicrError(Exception):
    """Parent of the errors below."""


class BitstreamError(AicrError, ValueError):
    """The bytes are not a picture this package can decode."""


class FormatError(BitstreamError):
    """Not an AICR file, or a header field outside its allowed range."""


class UnsupportedVersionError(BitstreamError):
    """Written by a newer format version than this package reads."""


class TruncatedError(BitstreamError):
    """The file ends before its sections do, or goes on after them."""


class ChecksumError(BitstreamError):
    """The bytes, or the symbols decoded from them, do not match their checksum."""


class ModelMismatchError(BitstreamError):
    """The file was made with a model, or with weights, other than those at hand."""


class ImageTooLargeError(BitstreamError):
    """The header names more pixels than the caller allows (``max_pixels``)."""


class ImageFormatError(AicrError, ValueError):
    """An image file that cannot be taken as it is (alpha channel, 16 bits per channel, not an image)."""


class NativeLibraryError(AicrError, RuntimeError):
    """A compiled part of the package is needed but could not be loaded; the message says why."""


class MissingPackageError(AicrError, ImportError):
    """A package that only some functions need is not installed; the message says how to get it."""


class EvaluationError(AicrError, RuntimeError):
    """A codec or restorer failed while it was measured; the message says which, and on what picture."""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, for a message of one line; its type where it has no text."""
    return (str(error) or type(error).__name__).splitlines()[0]

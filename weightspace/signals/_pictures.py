"""Pictures in files, opened by the decoders of a few formats and no others."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np

FORMATS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
}
"""Formats that are read, and the endings of their names. Pillow knows others, some of which start programs."""
SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
MOST_PIXELS = 1 << 26
"""The largest picture that is read, in pixels."""
_WITH_FRAMES = ("PNG", "WEBP", "GIF", "TIFF")


def pictures(folder: Path) -> list[Path]:
    """List the pictures of a folder, sorted; hidden files do not count."""
    files = (file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith("."))
    return sorted(file for file in files if file.is_file())


def warn_of_others(path: Path, folders: Iterable[Path]) -> None:
    """Warn of the files in class folders that are no pictures by their names, and are passed over.

    Args:
        path: the folder of the whole set, for the message.
        folders: the class folders.
    """
    others = [
        file
        for folder in folders
        for file in sorted(folder.iterdir())
        if file.is_file() and file.suffix.lower() not in SUFFIXES and not file.name.startswith(".")
    ]
    if others:
        shown = ", ".join(repr(file.relative_to(path).as_posix()) for file in others[:3])
        warnings.warn(
            f"{path}: {len(others)} files are passed over, as their names do not end in {', '.join(SUFFIXES)}: {shown}"
            f"{', ...' if len(others) > 3 else ''}; convert them, or take them out of the class folders",
            UserWarning,
            stacklevel=3,
        )


def read_picture(file: Path, size: tuple[int, int] | None) -> np.ndarray:
    """Read a picture as it is shown, upright: uint8 ``[height, width]`` if it is grey, else ``[height, width, 3]``.

    Args:
        file: the file; its content decides the format.
        size: height and width to resize to, with bicubic interpolation.

    Raises:
        ValueError: for another format, a damaged file, an animation, more than 8 bits a channel, or more than 67
            million pixels.
    """
    from PIL import Image, ImageOps  # no other function of this room needs it

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(file, formats=tuple(FORMATS))
        with image:
            mode = image.mode
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels, more than {MOST_PIXELS}")
            if image.format in _WITH_FRAMES and (frames := getattr(image, "n_frames", 1)) > 1:
                raise ValueError(f"{frames} pictures in one file; save each in a file of its own")
            shown = ImageOps.exif_transpose(image)
            picture = shown.convert("L" if mode in ("1", "L", "LA") else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{file}: expected a picture ({', '.join(FORMATS)}), got {error}") from error
    except Exception as error:  # a damaged file makes a decoder raise nearly anything
        raise ValueError(f"{file}: expected a picture ({', '.join(FORMATS)}), got {error!r}") from error
    if mode.startswith(("I", "F")):
        raise ValueError(f"{file}: expected 8 bits a channel, got mode {mode}; convert the image first")
    if size is not None and picture.size != (size[1], size[0]):
        picture = picture.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(picture)

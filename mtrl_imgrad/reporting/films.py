"""Films: frames with captions, side by side, encoded as MP4 or GIF by the ending of the file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from mtrl_imgrad.errors import ArgumentError, MissingDependencyError
from mtrl_imgrad.reporting.atomic_files import make_folder, write_whole
from mtrl_imgrad.validation import Positive, checked

FORMATS = ("mp4", "gif")
GREEN = (34, 136, 51)
Frame = npt.NDArray[np.uint8]


def caption(image: Frame, left: str, right: str = "", *, done: bool = False) -> Frame:
    """An image ``[H, W, 3]`` below a line of text, ``[H + line, W, 3]``; green, with a frame, where ``done``."""
    height, width, _ = image.shape
    size = max(10, width // 18)
    bar = size + 6 + size % 2  # an even height, as video encoders want
    canvas = Image.new("RGB", (width, height + bar), GREEN if done else (255, 255, 255))
    canvas.paste(Image.fromarray(image), (0, bar))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size)
    ink = (255, 255, 255) if done else (26, 26, 26)
    draw.text((4, bar // 2), left, ink, font, anchor="lm")
    draw.text((width - 4, bar // 2), right, ink, font, anchor="rm")
    if done:
        draw.rectangle((0, 0, width - 1, height + bar - 1), outline=GREEN, width=3)
    return np.asarray(canvas)


def tile(images: Sequence[Frame]) -> Frame:
    """Images of one size in rows of up to five, white where there is none."""
    columns = min(len(images), 5)
    rows = -(-len(images) // columns)
    height, width, _ = images[0].shape
    grid = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        grid[row * height : (row + 1) * height, column * width : (column + 1) * width] = image
    return grid


@checked
def check_film_path(path: Path) -> None:
    """Refuse a file that `save_film` could not write, before there is anything to write.

    Raises:
        ArgumentError: if the path ends neither in ``.mp4`` nor in ``.gif``.
        MissingDependencyError: if the encoder is not installed.
    """
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise ArgumentError(f"out must end in .mp4 or .gif, got {str(path)!r}")
    try:
        import imageio.v3  # noqa: F401

        if suffix == "mp4":
            import imageio_ffmpeg  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(f"films need imageio and imageio-ffmpeg: pip install 'mtrl-imgrad[video]' "
                                     f"({error})") from error  # fmt: skip


@checked
def save_film(path: str | os.PathLike[str], frames: Sequence[Frame], fps: Positive) -> Path:
    """Write frames as a film, whole or not at all.

    Args:
        path: ends in ``.mp4`` (H.264, plays in browsers) or ``.gif`` (repeats for ever); folders are made.
        frames: uint8 ``[H, W, 3]``, all of one size, H and W even for MP4.
        fps: frames a second.

    Returns:
        The path.

    Raises:
        ArgumentError: if there is no frame, or the path ends otherwise or in a folder that cannot be made.
        CheckpointError: if the file cannot be written.
        MissingDependencyError: if the encoder is not installed.
    """
    path = Path(path)
    check_film_path(path)
    if not len(frames):
        raise ArgumentError("frames must hold at least one frame, got none")
    import imageio.v3 as iio

    make_folder("path", path.parent)
    if path.suffix.lower() == ".gif":
        options: dict[str, Any] = {"plugin": "pillow", "duration": 1000 / fps, "loop": 0}
    else:
        options = {"plugin": "FFMPEG", "fps": fps, "codec": "libx264", "macro_block_size": 2}
    film: Any = iio.imwrite("<bytes>", frames, extension=path.suffix.lower(), **options)
    write_whole(path, lambda file: file.write(film))
    return path

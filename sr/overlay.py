"""A picture of a finding for people: the key slice in a bone window with outline, box, label and notice."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from inference.findings import Analysis, Finding
from inference.volume import Volume
from sr import headers
from sr.report import label

#: Lowest and highest HU shown: bone, with the soft tissue just visible.
BONE_WINDOW = (-300.0, 1500.0)
#: Shortest side of the picture in pixels: small matrices are enlarged so that the text can be read.
SHORTEST_SIDE = 512
#: Narrow enough to read at a glance, bright enough on bone; RGB.
OUTLINE, BOX, TEXT = (255, 80, 60), (255, 200, 0), (255, 255, 255)


def render(volume: Volume, analysis: Analysis, finding: Finding | None) -> np.ndarray:
    """Return the key slice of a finding, or the middle slice of a negative answer: (rows, columns, 3) uint8 RGB."""
    index = finding.key_slice if finding else volume.array.shape[0] // 2
    height, width = _size(volume)
    grey = Image.fromarray(_windowed(volume, analysis, index)).resize((width, height), Image.Resampling.BILINEAR)
    picture = np.array(grey.convert("RGB"))
    if finding is not None:
        picture[_outline(_mask(analysis, finding, index), height, width)] = OUTLINE
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    if finding is not None:
        _draw_box(draw, finding, volume, (height, width))
        _write(draw, (8, 6), label(finding), BOX)
    else:
        _write(draw, (8, 6), f"No {analysis.target.meaning.lower()} found", TEXT)
    _write(draw, (8, 28), headers.caution(analysis), TEXT)
    notice = textwrap.wrap(analysis.model.notice or "Not for primary diagnosis.", width // 9)
    _write(draw, (8, height - 6 - 20 * len(notice)), "\n".join(notice), TEXT)
    result: np.ndarray = np.array(image)
    return result


def save_png(array: np.ndarray, path: Path) -> None:
    """Write an RGB picture, (rows, columns, 3) uint8."""
    Image.fromarray(array).save(path, format="PNG")


def _size(volume: Volume) -> tuple[int, int]:
    """Pixels of the picture with square pixels in millimetres, whatever the spacing of rows and columns."""
    _, rows, columns = volume.array.shape
    _, row, column = volume.spacing
    scale = SHORTEST_SIDE / min(rows * row, columns * column)
    return round(rows * row * scale), round(columns * column * scale)


def _windowed(volume: Volume, analysis: Analysis, index: int) -> np.ndarray:
    low, high = BONE_WINDOW
    plane = volume.array[index]
    if volume.headers[index].get("Modality") != "CT":
        low, high = (float(x) for x in np.percentile(plane, (1, 99)))  # only CT has absolute values
    scaled: np.ndarray = np.clip((plane - low) / max(high - low, 1e-6), 0, 1) * 255
    return scaled.astype(np.uint8)


def _mask(analysis: Analysis, finding: Finding, index: int) -> np.ndarray:
    masks = [mask.array[index] for mask in analysis.masks if mask.tracking_id == finding.tracking_id]
    merged: np.ndarray = np.any(masks, axis=0) if masks else np.zeros((1, 1), bool)
    return merged


def _outline(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the border of an enlarged mask, two pixels wide, (height, width) bool."""
    large = np.array(Image.fromarray(mask.astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST)) > 0
    inner = large.copy()
    for axis in (0, 1):
        for shift in (-2, 2):
            inner &= np.roll(large, shift, axis)
    border: np.ndarray = large & ~inner
    return border


def _draw_box(draw: ImageDraw.ImageDraw, finding: Finding, volume: Volume, size: tuple[int, int]) -> None:
    down, right = size[0] / volume.array.shape[1], size[1] / volume.array.shape[2]
    (_, top, left), (_, bottom, far) = finding.box
    draw.rectangle((left * right, top * down, far * right, bottom * down), outline=BOX, width=2)


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, colour: tuple[int, int, int]) -> None:
    # A dark rim keeps white text readable on bone.
    draw.text(place, text, fill=colour, font=ImageFont.load_default(size=16), stroke_width=2, stroke_fill=(0, 0, 0))

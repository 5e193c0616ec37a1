"""A grey volume in a file that ITK reads, such as NIfTI or MetaImage; whole, or refused."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import SimpleITK

from inference.datasets.labelled import UnusableData

#: git-annex and Git LFS leave a text of this form where a file was not fetched.
_POINTERS = (b"/annex/objects/", b"version https://git-lfs")


def read(path: Path) -> SimpleITK.Image:
    """Read one volume as it is stored; ITK works in LPS, in mm.

    Raises UnusableData for a file that is absent, damaged, only a pointer to the real one, or no volume of one value
    per voxel.
    """
    _refuse_pointer(path)
    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:  # whatever ITK dislikes: absent, no NIfTI, no orthonormal axes
        lines = str(error).strip().splitlines()
        raise UnusableData(f"{path}: not a readable image; fetch it again ({lines[-1]})") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        size = " x ".join(str(n) for n in image.GetSize())
        raise UnusableData(f"{path}: {size} voxels of {image.GetNumberOfComponentsPerPixel()} value(s), not a volume")
    if image.HasMetaDataKey("vox_offset"):
        _refuse_truncated(path, image)
    return image


def _refuse_pointer(path: Path) -> None:
    """Where git-annex did not fetch a file, there is a dead link or a line of text."""
    pointer = path.is_symlink() and not path.exists()
    if path.is_file():
        with path.open("rb") as file:
            pointer = file.read(100).startswith(_POINTERS)
    if pointer:
        raise UnusableData(f"{path}: only a pointer to the image; fetch it with `git annex get` (or `git lfs pull`)")


def _refuse_truncated(path: Path, image: SimpleITK.Image) -> None:
    """ITK fills a truncated NIfTI up with zeros and says nothing; other formats it refuses."""
    voxels = math.prod(image.GetSize()) * int(image.GetMetaData("bitpix")) // 8
    expected = int(float(image.GetMetaData("vox_offset"))) + voxels
    if (found := _length(path)) < expected:
        raise UnusableData(f"{path}: truncated, {found} of {expected} bytes are readable; fetch it again")


def _length(path: Path) -> int:
    """Bytes of the file, uncompressed; 0 where it cannot be uncompressed to its end."""
    if path.suffix != ".gz":
        return path.stat().st_size
    try:
        with gzip.open(path) as file:
            return sum(len(block) for block in iter(lambda: file.read(2**20), b""))
    except (OSError, EOFError, zlib.error):
        return 0

"""Results of another program as DICOM: a series, a mask in NIfTI and findings in JSON (docs/standalone.md)."""

from __future__ import annotations

import hashlib
import importlib.metadata
import socket
import uuid
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydicom.errors import InvalidDicomError
from pydicom.filereader import dcmread

from inference.findings import Analysis, Code, Finding, Mask, ModelIdentity
from inference.volume import Volume, read_volume
from sr import codes
from sr.run import Run

#: Of a voxel: how far the corners of a mask may be from those of the series; NIfTI holds 7 digits.
_TOLERANCE = 0.1


class UnusableInput(ValueError):
    """The mask or the findings do not fit the series; the message names the file and the problem."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Segment(_Table):
    """One value of the mask."""

    value: int = Field(ge=1)
    label: str
    #: What it is, as a key of config/codes.toml.
    kind: str
    #: `id` of the finding that it shows.
    finding: str | None = None


class Seen(_Table):
    """One finding; where it is follows from its segment."""

    id: str
    code: str
    site: str
    level: str | None = None
    probability: float = Field(ge=0, le=1)
    uncertainty: float | None = None


class Model(_Table):
    """Who found it; see inference.findings.ModelIdentity."""

    name: str
    version: str
    sha256: str = ""
    manufacturer: str
    trained_on: str
    notice: str


class Findings(_Table):
    """The document."""

    model: Model
    #: The question and the region, as keys of config/codes.toml.
    target: str
    site: str
    case_probability: float = Field(ge=0, le=1)
    threshold: float = Field(default=0.5, ge=0, le=1)
    segments: tuple[Segment, ...]
    findings: tuple[Seen, ...]
    quality: tuple[str, ...] = ()


def read(series: Path, mask: Path, findings: Path) -> tuple[Volume, Analysis, Run]:
    """Read the three inputs. Raises UnusableInput, and UnusableSeries for the images."""
    volume = read_volume(_images(series))
    try:
        document = Findings.model_validate_json(findings.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UnusableInput(f"{findings}: {where}: {first['msg']}") from error
    labels = on_grid(mask, volume)
    unnamed = set(np.unique(labels)) - {0, *(segment.value for segment in document.segments)}
    if unnamed:
        raise UnusableInput(f"{mask}: value(s) {sorted(int(x) for x in unnamed)} are no segment of {findings}")
    digest = hashlib.sha256(findings.read_bytes() + mask.read_bytes()).hexdigest()
    return volume, _analysis(document, labels, findings), _run(volume, document, digest)


def on_grid(path: Path, volume: Volume) -> np.ndarray:
    """Return the values of a NIfTI mask as an array in the shape of the volume.

    Axes are put in the order of the volume by where they lie in the patient, never by their names, and nothing is
    resampled. Raises UnusableInput if the mask has another grid.
    """
    import SimpleITK  # heavy, and only needed here

    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        raise UnusableInput(f"{path} cannot be read as an image") from error
    array: np.ndarray = SimpleITK.GetArrayFromImage(image)
    if array.ndim != 3 or not np.array_equal(array, np.rint(array)):
        raise UnusableInput(f"{path} is no three-dimensional mask of whole numbers")
    axes = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes[:, ::-1], image.GetOrigin()  # index (z, y, x) to LPS mm, as ITK has it
    to_volume = np.linalg.inv(volume.affine) @ affine
    order = np.abs(to_volume[:3, :3]).argmax(axis=1)
    if sorted(order) != [0, 1, 2] or tuple(array.shape[n] for n in order) != volume.array.shape:
        raise UnusableInput(f"{path}: shape {array.shape} is another grid than the {volume.array.shape} of the series")
    turned = [axis for axis in range(3) if to_volume[axis, order[axis]] < 0]
    expected = np.zeros((3, 4))
    for axis in range(3):
        expected[axis, order[axis]] = -1 if axis in turned else 1
        expected[axis, 3] = volume.array.shape[axis] - 1 if axis in turned else 0
    corners = np.array([[*(np.array(x) * (np.array(array.shape) - 1)), 1] for x in np.ndindex(2, 2, 2)])
    off = np.abs(corners @ (to_volume[:3] - expected).T).max()
    if off > _TOLERANCE:
        raise UnusableInput(f"{path} lies up to {off:.1f} voxels away from the series")
    return np.flip(array.transpose(order), tuple(turned)).astype(int)


def _images(folder: Path) -> list[Path]:
    """The images of a folder, which must be of one series; other files are passed over."""
    found: dict[str, list[Path]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            header = dcmread(path, specific_tags=["SeriesInstanceUID", "Rows"], stop_before_pixels=True)
        except InvalidDicomError:
            continue
        if "Rows" in header:
            found.setdefault(str(header.SeriesInstanceUID), []).append(path)
    if len(found) != 1:
        raise UnusableInput(f"{folder} holds the images of {len(found)} series instead of one")
    return next(iter(found.values()))


def _analysis(document: Findings, labels: np.ndarray, source: Path) -> Analysis:
    masks = tuple(
        Mask(label=one.label, array=labels == one.value, kind=_code(one.kind, source), tracking_id=one.finding)
        for one in document.segments
    )
    return Analysis(
        pipeline="external",
        state="done",
        reason="",
        model=ModelIdentity(**document.model.model_dump()),
        target=_code(document.target, source),
        site=_code(document.site, source),
        case_probability=document.case_probability,
        threshold=document.threshold,
        findings=tuple(_finding(seen, masks, source) for seen in document.findings),
        masks=masks,
        quality=document.quality,
    )


def _finding(seen: Seen, masks: tuple[Mask, ...], source: Path) -> Finding:
    shown = [mask.array for mask in masks if mask.tracking_id == seen.id]
    inside = np.logical_or.reduce(shown) if shown else np.zeros((1, 1, 1), bool)
    if not inside.any():
        raise UnusableInput(f"{source}: finding {seen.id} has no segment with a voxel in it")
    where = np.argwhere(inside)
    (s0, r0, c0), (s1, r1, c1) = where.min(0).tolist(), (where.max(0) + 1).tolist()
    return Finding(
        tracking_id=seen.id,
        code=_code(seen.code, source),
        site=_code(seen.site, source),
        level=seen.level,
        probability=seen.probability,
        raw_probability=seen.probability,
        uncertainty=seen.uncertainty,
        box=((s0, r0, c0), (s1, r1, c1)),
        key_slice=int(inside.sum((1, 2)).argmax()),
    )


def _code(key: str, source: Path) -> Code:
    if key not in codes.table():
        raise UnusableInput(f"{source}: {key!r} is no key of {codes.TABLE}")
    return codes.table()[key]


def _run(volume: Volume, document: Findings, digest: str) -> Run:
    return Run(
        pipeline="external",
        weights_sha256=document.model.sha256,
        configuration_sha256=digest,
        code_version=importlib.metadata.version("dicomnode-spine"),
        source_uids=tuple(dict.fromkeys(str(header.SOPInstanceUID) for header in volume.headers)),
        created=datetime.now(UTC),
        device_uid=f"2.25.{uuid.uuid5(uuid.NAMESPACE_DNS, socket.gethostname()).int}",
    )

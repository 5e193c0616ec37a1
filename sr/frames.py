"""Frames that lie on the source images: what highdicom is given to draw on, and the references back to the originals.

highdicom knows single-frame images; a frame of a larger file gets a stand-in with a UID of its own, and every
reference to it is turned into one to the file and the frame afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from pydicom import Dataset

from inference.volume import Volume
from sr import headers


def obstacle(volume: Volume) -> str:
    """Say why nothing can be placed in the patient by these images, or return nothing."""
    frames = {str(header.get("FrameOfReferenceUID") or "") for header in volume.headers}
    if len(frames) > 1:
        return "no segmentation: the source images have more than one Frame of Reference"
    return "" if frames != {""} else "no segmentation: the source images have no Frame of Reference"


def sources(volume: Volume) -> list[Dataset]:
    """Return one single-frame stand-in per slice, with the geometry of that slice."""
    result = [headers.image_stand_in(volume, index) for index in range(len(volume.headers))]
    for index, source in enumerate(result):
        source.SOPInstanceUID = f"2.25.{index + 1}"  # frames of one file need names of their own for a moment
    return result


def origins(volume: Volume) -> np.ndarray:
    """Return the centre of the first voxel of every slice by its own header: (slices, 3) LPS mm."""
    places = zip(volume.headers, volume.frames, strict=True)
    rows = [headers.geometry(header, frame, "ImagePositionPatient") for header, frame in places]
    return np.array([[float(x) for x in row] for row in rows])


def organize(dataset: Dataset, uid: str) -> None:
    """Give the dimensions a UID of ours (PS3.3 C.7.6.17): highdicom's differs from one attempt to the next."""
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid


def restore_references(dataset: Dataset, volume: Volume, stand_ins: Sequence[Dataset]) -> None:
    """Turn references to stand-ins into references to the real images, and to frames where frames are meant."""
    real = zip(volume.headers, volume.frames, strict=True)
    originals = {item.SOPInstanceUID: (header, frame) for item, (header, frame) in zip(stand_ins, real, strict=True)}
    for groups in dataset.get("PerFrameFunctionalGroupsSequence", ()):
        for derivation in groups.DerivationImageSequence:
            for item in derivation.SourceImageSequence:
                _point(item, originals, with_frame=True)
    for parent in (dataset, *dataset.get("ReferencedSeriesSequence", ())):
        for keyword in {"SourceImageSequence", "ReferencedInstanceSequence"} & {x.keyword for x in parent}:
            for item in parent[keyword].value:
                _point(item, originals)
            # The frames of one file are one instance.
            unique = {item.ReferencedSOPInstanceUID: item for item in parent[keyword].value}
            parent[keyword].value = list(unique.values())


def restore_graphic_references(dataset: Dataset, volume: Volume, stand_ins: Mapping[int, Dataset]) -> None:
    """The same for a presentation state, where every list of images names the frames of a file in one item."""
    originals = {item.SOPInstanceUID: (volume.headers[n], volume.frames[n]) for n, item in stand_ins.items()}
    for parent in _parents_of_images(dataset):
        merged: dict[str, Dataset] = {}
        for item in parent.ReferencedImageSequence:
            header, frame = originals[item.ReferencedSOPInstanceUID]
            one = merged.setdefault(header.SOPInstanceUID, _reference(header))
            if frame is not None:
                one.ReferencedFrameNumber = sorted({*_numbers(one), frame})
        parent.ReferencedImageSequence = list(merged.values())


def _parents_of_images(dataset: Dataset) -> Iterator[Dataset]:
    for keyword in ("ReferencedSeriesSequence", "GraphicAnnotationSequence", "DisplayedAreaSelectionSequence",
                    "SoftcopyVOILUTSequence"):  # fmt: skip
        yield from (item for item in dataset.get(keyword, ()) if "ReferencedImageSequence" in item)


def _reference(header: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    return item


def _numbers(item: Dataset) -> list[int]:
    value = item.get("ReferencedFrameNumber")
    return [] if value is None else [int(x) for x in np.atleast_1d(value)]


def _point(item: Dataset, originals: Mapping[str, tuple[Dataset, int | None]], *, with_frame: bool = False) -> None:
    if item.ReferencedSOPInstanceUID not in originals:
        return  # highdicom shares items between sequences: this one is done
    header, frame = originals[item.ReferencedSOPInstanceUID]
    item.ReferencedSOPClassUID = header.SOPClassUID
    item.ReferencedSOPInstanceUID = header.SOPInstanceUID
    if with_frame and frame is not None:
        item.ReferencedFrameNumber = frame

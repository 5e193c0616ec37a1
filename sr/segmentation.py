"""The Segmentation object: one binary segment per mask, aligned with the source images."""

from __future__ import annotations

import highdicom as hd
import numpy as np
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from inference.findings import Analysis, Mask
from inference.volume import Volume
from sr import codes, frames, headers
from sr.run import Kind, Run, derived_uid

#: Colours that stay apart on grey images, RGB; the first ones are for the most important segments. Enough for three
#: findings and seven vertebrae, so that none of these looks like a finding.
_COLOURS = (
    (230, 60, 50), (250, 180, 40), (70, 190, 90), (60, 150, 230), (170, 90, 220),
    (40, 200, 200), (240, 130, 190), (170, 220, 60), (90, 100, 240), (170, 110, 60),
)  # fmt: skip

_TYPES = {
    Kind.SEG: hd.seg.SegmentationTypeValues.BINARY,
    Kind.LABELMAP: hd.seg.SegmentationTypeValues.LABELMAP,
}
_SERIES_NUMBERS = {Kind.SEG: 9001, Kind.LABELMAP: 9008}


def masks(analysis: Analysis) -> tuple[Mask, ...]:
    """Return the masks that become segments, in order of segment number: those with a voxel in them."""
    return tuple(mask for mask in analysis.masks if mask.array.any())


def tracking_uid(run: Run, tracking_id: str) -> str:
    """Return the Tracking UID that segment and report share for one finding."""
    return derived_uid(run, "tracking", tracking_id)


def write(volume: Volume, analysis: Analysis, run: Run) -> Dataset | None:
    """Return a BINARY Segmentation (PS3.3 A.51), or None when there is nothing to segment.

    Only frames with voxels in them are kept; each names the source image, or frame, it was drawn on, and takes
    its position from there, so tilted and unevenly rounded series keep their true geometry.
    """
    segments = masks(analysis)
    if not segments or frames.obstacle(volume):
        return None
    pixels = np.stack([mask.array for mask in segments], axis=-1)
    return encode(volume, analysis, run, kind=Kind.SEG, pixels=pixels)


def encode(volume: Volume, analysis: Analysis, run: Run, *, kind: Kind, pixels: np.ndarray) -> Dataset:
    """Return the segments as an object of one kind: BINARY of (slices, rows, columns, segments), or LABELMAP.

    The pixels of a label map are (slices, rows, columns) segment numbers, 0 outside of all.
    """
    made_by = headers.equipment(run, analysis.model)
    sources = frames.sources(volume)
    notice = analysis.model.notice
    dataset: Dataset = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=pixels,
        segmentation_type=_TYPES[kind],
        segment_descriptions=[_describe(n, mask, analysis, run) for n, mask in enumerate(masks(analysis), start=1)],
        series_instance_uid=derived_uid(run, kind, "series"),
        series_number=_SERIES_NUMBERS[kind],
        sop_instance_uid=derived_uid(run, kind),
        instance_number=1,
        **made_by.arguments,
        content_label="FINDINGS",
        content_description=headers.short(f"{headers.caution(analysis)} {analysis.target.meaning}. {notice}"),
        series_description=headers.short(f"AI segmentation. {notice}"),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        omit_empty_frames=True,
    )
    frames.organize(dataset, derived_uid(run, kind, "dimensions"))
    frames.restore_references(dataset, volume, sources)
    headers.finish(dataset, volume.headers[0], run, made_by)
    return dataset


def _describe(number: int, mask: Mask, analysis: Analysis, run: Run) -> hd.seg.SegmentDescription:
    finding = next((x for x in analysis.findings if x.tracking_id == mask.tracking_id), None)
    abnormal = finding is not None or mask.kind == analysis.target
    model = analysis.model
    tracking_id = mask.tracking_id or f"segment-{number}"
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=mask.label[:64],
        segmented_property_category=codes.concept("abnormal_structure" if abnormal else "anatomical_structure"),
        segmented_property_type=codes.concept(mask.kind),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=model.name,
            version=model.version,
            family=codes.concept("artificial_intelligence"),
            source=model.manufacturer,
            parameters={"weights_sha256": model.sha256},
        ),
        tracking_id=tracking_id,
        tracking_uid=tracking_uid(run, tracking_id),
        anatomic_regions=[codes.concept(finding.site if finding else analysis.site)] if abnormal else None,
        display_color=hd.color.CIELabColor.from_rgb(*_COLOURS[(number - 1) % len(_COLOURS)]),
    )

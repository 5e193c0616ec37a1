"""The Segmentation object: one binary segment per mask, aligned with the source images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import highdicom as hd
import numpy as np
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from inference.findings import Analysis, Mask
from inference.volume import Volume
from sr import codes, headers
from sr.run import Kind, Run, derived_uid

#: Colours that stay apart on grey images, RGB; the first ones are for the most important segments.
_COLOURS = ((230, 60, 50), (250, 180, 40), (70, 190, 90), (60, 150, 230), (170, 90, 220), (40, 200, 200))


def masks(analysis: Analysis) -> tuple[Mask, ...]:
    """Return the masks that become segments, in order of segment number: those with a voxel in them."""
    return tuple(mask for mask in analysis.masks if mask.array.any())


def obstacle(volume: Volume) -> str:
    """Say why no Segmentation can be made of these images, or return nothing."""
    if not volume.headers[0].get("FrameOfReferenceUID"):
        return "no segmentation: the source images have no Frame of Reference"
    return ""


def tracking_uid(run: Run, tracking_id: str) -> str:
    """Return the Tracking UID that segment and report share for one finding."""
    return derived_uid(run, "tracking", tracking_id)


def write(volume: Volume, analysis: Analysis, run: Run) -> Dataset | None:
    """Return a BINARY Segmentation (PS3.3 A.51), or None when there is nothing to segment.

    Only frames with voxels in them are kept; each names the source image, or frame, it was drawn on, and takes
    its position from there, so tilted and unevenly rounded series keep their true geometry.
    """
    segments = masks(analysis)
    if not segments or obstacle(volume):
        return None
    made_by = headers.equipment(run, analysis.model)
    sources = [headers.image_stand_in(volume, index) for index in range(len(volume.headers))]
    for index, source in enumerate(sources):
        source.SOPInstanceUID = f"2.25.{index + 1}"  # frames of one file need names of their own for a moment
    notice = analysis.model.notice
    dataset: Dataset = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=np.stack([mask.array for mask in segments], axis=-1),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_describe(n, mask, analysis, run) for n, mask in enumerate(segments, start=1)],
        series_instance_uid=derived_uid(run, Kind.SEG, "series"),
        series_number=9001,
        sop_instance_uid=derived_uid(run, Kind.SEG),
        instance_number=1,
        manufacturer=made_by.manufacturer,
        manufacturer_model_name=made_by.model_name,
        software_versions=made_by.software_version,
        device_serial_number=made_by.serial_number,
        content_label="FINDINGS",
        content_description=headers.short(f"{analysis.target.meaning}. {notice}"),
        series_description=headers.short(f"AI segmentation. {notice}"),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        omit_empty_frames=True,
    )
    organization = derived_uid(run, Kind.SEG, "dimensions")
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization
    _restore_references(dataset, dict(zip((x.SOPInstanceUID for x in sources), _originals(volume), strict=True)))
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


def _originals(volume: Volume) -> Sequence[tuple[Dataset, int | None]]:
    return list(zip(volume.headers, volume.frames, strict=True))


def _restore_references(dataset: Dataset, originals: Mapping[str, tuple[Dataset, int | None]]) -> None:
    """Turn references to stand-ins into references to the real images, and to frames where frames are meant."""
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        for derivation in groups.DerivationImageSequence:
            for item in derivation.SourceImageSequence:
                _point(item, originals, with_frame=True)
    for parent in (dataset, *dataset.ReferencedSeriesSequence):
        for keyword in {"SourceImageSequence", "ReferencedInstanceSequence"} & {x.keyword for x in parent}:
            for item in parent[keyword].value:
                _point(item, originals)
            # The frames of one file are one instance.
            unique = {item.ReferencedSOPInstanceUID: item for item in parent[keyword].value}
            parent[keyword].value = list(unique.values())


def _point(item: Dataset, originals: Mapping[str, tuple[Dataset, int | None]], *, with_frame: bool = False) -> None:
    if item.ReferencedSOPInstanceUID not in originals:
        return  # highdicom shares items between sequences: this one is done
    header, frame = originals[item.ReferencedSOPInstanceUID]
    item.ReferencedSOPClassUID = header.SOPClassUID
    item.ReferencedSOPInstanceUID = header.SOPInstanceUID
    if with_frame and frame is not None:
        item.ReferencedFrameNumber = frame

"""The presentation state: boxes and labels that a viewer draws over the source images themselves."""

from __future__ import annotations

from collections.abc import Mapping

import highdicom as hd
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from inference.findings import Analysis, Finding
from inference.volume import Volume
from sr import frames, headers, overlay, segmentation
from sr.report import corners, label
from sr.run import Kind, Run, derived_uid

_LAYER = "FINDINGS"


def write(volume: Volume, analysis: Analysis, run: Run) -> Dataset | None:
    """Return a Grayscale Softcopy Presentation State (PS3.3 A.33.1), or None for a negative answer.

    Every slice that a finding reaches shows its box and label. The windows are those of the key images on CT;
    elsewhere the viewer chooses.
    """
    reached = sorted({n for finding in analysis.findings for n in _slices(finding)})
    if not reached:
        return None
    made_by = headers.equipment(run, analysis.model)
    everything = frames.sources(volume)
    stand_ins = {n: _grey(volume, n, everything[n]) for n in reached}
    layer = hd.pr.GraphicLayer(_LAYER, order=1, description="AI findings", display_color=None)
    dataset: Dataset = hd.pr.GrayscaleSoftcopyPresentationState(
        referenced_images=list(stand_ins.values()),
        series_instance_uid=derived_uid(run, Kind.GSPS, "series"),
        series_number=9004,
        sop_instance_uid=derived_uid(run, Kind.GSPS),
        instance_number=1,
        **made_by.arguments,
        content_label=_LAYER,
        content_description=headers.short(f"{headers.caution(analysis)} AI findings. {analysis.model.notice}"),
        graphic_annotations=[
            _annotation(finding, n, stand_ins, layer, run) for finding in analysis.findings for n in _slices(finding)
        ],
        graphic_layers=[layer],
        voi_lut_transformations=_window(volume),
        series_description=headers.short(f"AI findings, not for diagnosis. {analysis.model.notice}"),
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    for area in dataset.DisplayedAreaSelectionSequence:
        # highdicom takes pixels for square; with their true size nothing is shown out of shape.
        del area.PresentationPixelAspectRatio
        area.PresentationPixelSpacing = stand_ins[reached[0]].PixelSpacing
    frames.restore_graphic_references(dataset, volume, stand_ins)
    dataset.BodyPartExamined = headers.body_part(volume.headers[0])
    headers.finish(dataset, volume.headers[0], run, made_by)
    dataset.PresentationCreationDate, dataset.PresentationCreationTime = dataset.ContentDate, dataset.ContentTime
    del dataset.ContentDate, dataset.ContentTime  # a presentation state has those of its creation instead
    return dataset


def _slices(finding: Finding) -> range:
    return range(finding.box[0][0], finding.box[1][0])


def _grey(volume: Volume, index: int, stand_in: Dataset) -> Dataset:
    """Add what a presentation state takes over from its images: how stored values become HU (PS3.3 C.11.1)."""
    stand_in.SamplesPerPixel = 1
    for keyword in ("RescaleIntercept", "RescaleSlope", "RescaleType"):
        value = headers.geometry(volume.headers[index], volume.frames[index], keyword)
        if value is not None:
            setattr(stand_in, keyword, value)
    return stand_in


def _annotation(
    finding: Finding, index: int, stand_ins: Mapping[int, Dataset], layer: hd.pr.GraphicLayer, run: Run
) -> hd.pr.GraphicAnnotation:
    tracking = {
        "tracking_id": finding.tracking_id,
        "tracking_uid": segmentation.tracking_uid(run, finding.tracking_id),
    }
    points = corners(finding)
    pixels = hd.pr.AnnotationUnitsValues.PIXEL
    return hd.pr.GraphicAnnotation(
        referenced_images=[stand_ins[index]],
        graphic_layer=layer,
        graphic_objects=[hd.pr.GraphicObject(hd.pr.GraphicTypeValues.POLYLINE, points, pixels, **tracking)],
        text_objects=[
            hd.pr.TextObject(
                label(finding),
                pixels,
                anchor_point=(float(points[1][0]), float(points[1][1])),
                anchor_point_visible=False,
                **tracking,
            )
        ],
    )


def _window(volume: Volume) -> list[hd.pr.SoftcopyVOILUTTransformation] | None:
    if volume.headers[0].get("Modality") != "CT":
        return None
    low, high = overlay.BONE_WINDOW
    return [hd.pr.SoftcopyVOILUTTransformation(window_center=(low + high) / 2, window_width=high - low)]

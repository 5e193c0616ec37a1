"""The parametric map: where the network looked, as floating point values on the source images. For research."""

from __future__ import annotations

import highdicom as hd
import numpy as np
from pydicom import Dataset
from pydicom.sr.codedict import codes as standard
from pydicom.uid import ExplicitVRLittleEndian

from inference.findings import Analysis
from inference.volume import Volume
from sr import codes, frames, headers
from sr.run import Kind, Run, derived_uid


def write(volume: Volume, analysis: Analysis, run: Run) -> Dataset | None:
    """Return a Parametric Map (PS3.3 A.75) of the heat map, or None where the analysis has none.

    One frame for each source image, in the order of the volume, which is along the normal of the slices: viewers
    lay frames over images by their number and ignore where they say they are.
    """
    if analysis.heat_map is None or frames.obstacle(volume):
        return None
    made_by = headers.equipment(run, analysis.model)
    sources = frames.sources(volume)
    notice = analysis.model.notice
    dataset: Dataset = hd.pm.ParametricMap(
        source_images=sources,
        pixel_array=analysis.heat_map.astype(np.float32),
        series_instance_uid=derived_uid(run, Kind.PMAP, "series"),
        series_number=9006,
        sop_instance_uid=derived_uid(run, Kind.PMAP),
        instance_number=1,
        **made_by.arguments,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[
            hd.pm.RealWorldValueMapping(
                lut_label="GRADCAM",
                lut_explanation="Share of the highest value in the same image",
                unit=standard.UCUM.NoUnits,
                value_range=(0.0, 1.0),
                slope=1.0,
                intercept=0.0,
                quantity_definition=codes.concept("gradcam"),
            )
        ],
        voi_lut_transformations=[hd.VOILUTTransformation(window_center=0.5, window_width=1.0)],
        content_label="HEATMAP",
        content_description=headers.short(f"{headers.caution(analysis)} Where the network looked. {notice}"),
        series_description=headers.short(f"AI heat map, not for diagnosis. {notice}"),
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    frames.organize(dataset, derived_uid(run, Kind.PMAP, "dimensions"))
    _complete(dataset, analysis)
    _order(dataset, volume)
    frames.restore_references(dataset, volume, sources)
    dataset.BodyPartExamined = headers.body_part(volume.headers[0])
    headers.finish(dataset, volume.headers[0], run, made_by)
    return dataset


def _complete(dataset: Dataset, analysis: Analysis) -> None:
    """Add what highdicom leaves out and readers rely on; dcmqi ends without a message where the anatomy is missing."""
    anatomy = Dataset()
    anatomy.AnatomicRegionSequence = [codes.concept(analysis.site)]
    anatomy.FrameLaterality = "U"
    dataset.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [anatomy]
    dataset.ContentCreatorName = None


def _order(dataset: Dataset, volume: Volume) -> None:
    """Put the frames in the order of the volume's slices; highdicom has sorted them its own way."""
    groups = list(dataset.PerFrameFunctionalGroupsSequence)
    written = np.array([[float(x) for x in g.PlanePositionSequence[0].ImagePositionPatient] for g in groups])
    distance = np.linalg.norm(frames.origins(volume)[:, None] - written[None], axis=2)
    order = distance.argmin(axis=1)
    if len(set(order)) < len(groups):
        raise ValueError("two slices at one position")
    pixels = np.frombuffer(dataset.FloatPixelData, np.float32).reshape(len(groups), -1)
    dataset.PerFrameFunctionalGroupsSequence = [groups[n] for n in order]
    dataset.FloatPixelData = pixels[order].tobytes()

"""Key images: what a PACS shows that understands nothing else."""

from dataclasses import replace

import numpy as np

from sr import overlay
from sr.results import write_results
from tests.sources import analysis_of, ct_headers, run_for, volume_of


def written(analysis, volume, headers):
    return [x.dataset for x in write_results(volume, analysis, run_for(headers), ("SC",))]


def test_every_finding_has_one_picture_and_the_most_probable_comes_first():
    headers = ct_headers()
    volume = volume_of(headers)
    analysis = analysis_of(volume)
    minor = replace(analysis.findings[0], tracking_id="minor", probability=0.6)
    images = written(replace(analysis, findings=(minor, *analysis.findings)), volume, headers)
    assert [image.InstanceNumber for image in images] == [1, 2]
    assert len({image.SeriesInstanceUID for image in images}) == 1
    assert len({image.SOPInstanceUID for image in images}) == 2
    assert np.array_equal(images[0].pixel_array, overlay.render(volume, analysis, analysis.findings[0]))


def test_the_picture_is_marked_as_not_for_diagnosis():
    headers = ct_headers()
    volume = volume_of(headers)
    (image,) = written(analysis_of(volume), volume, headers)
    assert image.SeriesDescription.startswith("AI key images, not for diagnosis. Research use only")
    assert image.PhotometricInterpretation == "RGB"


def test_a_negative_answer_has_no_picture():
    headers = ct_headers()
    volume = volume_of(headers)
    assert written(analysis_of(volume, positive=False), volume, headers) == []

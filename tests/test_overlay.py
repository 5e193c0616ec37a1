"""Pictures for people: the right slice, the right place, square millimetres, and the notice."""

from dataclasses import replace

import numpy as np
from PIL import Image

from sr import overlay
from tests.sources import analysis_of, ct_headers, volume_of

VOLUME = volume_of(ct_headers())
ANALYSIS = analysis_of(VOLUME)
FINDING = ANALYSIS.findings[0]


def where(picture, colour):
    """Return first and last row and column of a colour, as fractions of the picture."""
    rows, columns = np.nonzero((picture == colour).all(axis=-1))
    height, width = picture.shape[:2]
    return rows.min() / height, rows.max() / height, columns.min() / width, columns.max() / width


def test_the_box_is_drawn_where_the_finding_is():
    picture = overlay.render(VOLUME, ANALYSIS, FINDING)
    picture[:40] = 0  # the label has the colour of the box
    rows, columns = VOLUME.array.shape[1:]
    expected = (10 / rows, 22 / rows, 12 / columns, 30 / columns)
    assert np.allclose(where(picture, overlay.BOX), expected, atol=0.01)


def test_the_outline_follows_the_mask_on_the_key_slice():
    array = np.zeros(VOLUME.array.shape, bool)
    array[4, 14:20, 16:26] = True
    analysis = replace(ANALYSIS, masks=(replace(ANALYSIS.masks[0], array=array),))
    rows, columns = VOLUME.array.shape[1:]
    expected = (14 / rows, 20 / rows, 16 / columns, 26 / columns)
    found = where(overlay.render(VOLUME, analysis, FINDING), overlay.OUTLINE)
    assert np.allclose(found, expected, atol=0.01)


def test_pixels_are_square_in_millimetres():
    height, width, channels = overlay.render(VOLUME, ANALYSIS, FINDING).shape
    _, rows, columns = VOLUME.array.shape
    assert channels == 3
    assert np.isclose(height / width, (rows * 0.5) / (columns * 0.75), atol=0.01)
    assert min(height, width) == overlay.SHORTEST_SIDE


def test_a_negative_answer_shows_the_middle_slice_without_any_mark():
    array = VOLUME.array.copy()
    array[6] = 1500.0  # white in the bone window, the middle of 12 slices
    picture = overlay.render(replace(VOLUME, array=array), analysis_of(VOLUME, positive=False), None)
    assert not (picture == overlay.OUTLINE).all(axis=-1).any()
    assert not (picture == overlay.BOX).all(axis=-1).any()
    assert np.median(picture) == 255


def test_the_notice_is_part_of_the_picture():
    with_notice = overlay.render(VOLUME, ANALYSIS, FINDING)
    other = replace(ANALYSIS, model=replace(ANALYSIS.model, notice="Something else."))
    difference = with_notice != overlay.render(VOLUME, other, FINDING)
    assert difference[-40:].any() and not difference[:-40].any()


def test_an_answer_with_limits_says_so_in_the_picture():
    whole, limited = (replace(ANALYSIS, quality=quality) for quality in ((), ("one slice is missing",)))
    for finding in (FINDING, None):
        plain, marked = (overlay.render(VOLUME, one, finding) for one in (whole, limited))
        changed = np.flatnonzero((plain != marked).any(axis=(1, 2)))
        assert 28 <= changed.min() <= changed.max() < 56, "one line below the label"


def test_a_long_notice_is_wrapped_and_not_cut_off():
    text = "Research use only. " * 12
    analysis = replace(ANALYSIS, model=replace(ANALYSIS.model, notice=text.strip()))
    picture = overlay.render(VOLUME, analysis, FINDING)
    written = (picture == 255).all(axis=-1).any(axis=0)
    assert written.any() and not written[-8:].any()


def test_magnetic_resonance_is_windowed_by_its_own_values():
    headers = ct_headers(patient={"Modality": "MR"})
    volume = replace(volume_of(headers), array=volume_of(headers).array / 1000)
    picture = overlay.render(volume, ANALYSIS, None)
    assert picture[100:400].min() == 0 and picture[100:400].max() == 255


def test_a_saved_picture_is_the_same_picture(tmp_path):
    picture = overlay.render(VOLUME, ANALYSIS, FINDING)
    overlay.save_png(picture, tmp_path / "a.png")
    assert np.array_equal(np.array(Image.open(tmp_path / "a.png")), picture)

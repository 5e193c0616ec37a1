"""The contrast of MR series by their timing, and by their words where the timing is per frame."""

from __future__ import annotations

import pytest

from dicomnode.contrast import contrast
from tests.studies import series, study


def found(**header: object) -> str | None:
    """The contrast of an MR series with these attributes."""
    (one,) = study(series(Modality="MR", **header)).series
    return contrast(one)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"RepetitionTime": 500.0, "EchoTime": 10.0}, "T1"),
        ({"RepetitionTime": 2000.0, "EchoTime": 9.0, "InversionTime": 860.0}, "T1"),  # T1 FLAIR
        ({"RepetitionTime": 3500.0, "EchoTime": 100.0}, "T2"),
        ({"RepetitionTime": 3500.0, "EchoTime": 100.0, "InversionTime": 0.0}, "T2"),
        ({"RepetitionTime": 4000.0, "EchoTime": 40.0, "InversionTime": 220.0}, "STIR"),
        ({"RepetitionTime": 3500.0, "EchoTime": 90.0, "ScanOptions": ["PFP", "FS"]}, "STIR"),
        ({"RepetitionTime": 3500.0, "EchoTime": 90.0, "SeriesDescription": "t2_tse_fs_sag"}, "STIR"),
        ({"RepetitionTime": 3500.0, "EchoTime": 90.0, "SeriesDescription": "T2 DIXON WATER"}, "STIR"),
        ({"RepetitionTime": 3500.0, "EchoTime": 90.0, "SeriesDescription": "T2 DIXON IN PHASE"}, "T2"),
        ({"RepetitionTime": 550.0, "EchoTime": 10.0, "SeriesDescription": "T1 FS post"}, None),
        ({"RepetitionTime": 2500.0, "EchoTime": 20.0}, None),  # proton density
        ({"RepetitionTime": 550.0, "EchoTime": 80.0}, None),
        ({"RepetitionTime": 30.0, "EchoTime": 4.0, "ScanningSequence": "GR"}, None),
        ({"RepetitionTime": 8000.0, "EchoTime": 100.0, "InversionTime": 2400.0}, "T2"),  # nulls fluid of the brain only
    ],
)
def test_times_decide(header, expected):
    assert found(**header) == expected


def test_times_count_more_than_words():
    assert found(RepetitionTime=500.0, EchoTime=10.0, SeriesDescription="sag T2") == "T1"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("SAG T1 TSE", "T1"),
        ("sag_t2_tse", "T2"),
        ("T2 STIR SAG", "STIR"),
        ("t2_tirm_sag", "STIR"),
        ("SAG T2 FAT SAT", "STIR"),
        ("T2 SPAIR", "STIR"),
        ("localizer", None),
        ("FAST SAG", None),
    ],
)
def test_words_decide_where_there_are_no_times(words, expected):
    assert found(SeriesDescription=words) == expected
    assert found(ProtocolName=words) == expected


def test_nothing_known_is_no_contrast():
    assert found() is None


@pytest.mark.parametrize("damaged", ["fast", [500.0, 600.0]])
def test_a_damaged_time_is_no_time(damaged):
    assert found(RepetitionTime=damaged, EchoTime=10.0, SeriesDescription="T2") == "T2"

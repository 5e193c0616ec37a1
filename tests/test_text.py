from pydicom import Dataset

from sr.results import write_not_analysed, write_results
from sr.text import render
from tests.sources import analysis_of, ct_headers, run_for, volume_of


def positive():
    headers = ct_headers()
    volume = volume_of(headers)
    return write_results(volume, analysis_of(volume), run_for(headers))[1].dataset


def test_a_report_is_readable_line_by_line():
    lines = render(positive()).splitlines()
    assert lines[0] == "Imaging Measurement Report (complete, preliminary, unverified)"
    for expected in (
        "      Finding Site: C5 vertebra",
        "      Volume: 0.324 cm3",
        "      Probability: 93.0 %",
        "      Image Region: polyline 12, 10, 30, 10, 30, 22, 12, 22, 12, 10",
        "        Source: 1.2.826.0.1.3680043.10.1.1.1.5",
        "    Fracture: Present",
        "    Comment: Research use only. Trained on generated phantoms.",
    ):
        assert expected in lines


def test_the_patient_is_not_named():
    text = render(positive())
    assert "Doe" not in text and "P-1" not in text


def test_a_study_that_was_not_analysed_says_why():
    headers = ct_headers(2)
    result = write_not_analysed(headers, outcome="failed", reason="out of memory", looked_at=(), run=run_for(headers))
    assert "    Comment: Analysis failed: out of memory\n" in render(result.dataset)


def test_a_report_of_others_with_holes_in_it_does_not_stop_the_reader():
    document, number, image, code = (Dataset() for _ in range(4))
    number.ValueType, number.MeasuredValueSequence = "NUM", []
    image.ValueType = "IMAGE"
    code.ValueType, code.ConceptCodeSequence = "CODE", []
    document.ContentSequence = [number, image, code]
    assert render(document).splitlines()[1:] == ["  num: not measured", "  image: no instance", "  code"]

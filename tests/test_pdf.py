"""The PDF says what the report says, the same way each time."""

from sr import pdf, text
from sr.results import write_results
from tests.sources import MODEL, analysis_of, ct_headers, run_for, volume_of


def written(kinds=("SR", "PDF"), **changes):
    volume = volume_of(ct_headers())
    made = write_results(volume, analysis_of(volume, **changes), run_for(volume.headers), kinds)
    return {result.kind: result.dataset for result in made}


def test_it_is_a_pdf_of_the_length_it_says():
    document = written()["PDF"]
    assert document.EncapsulatedDocument[:5] == b"%PDF-"
    assert document.EncapsulatedDocument[: document.EncapsulatedDocumentLength].rstrip().endswith(b"%%EOF")
    assert len(document.EncapsulatedDocument) % 2 == 0


def test_its_pages_are_the_statements_of_the_report():
    made = written()
    statements = text.render(made["SR"])
    assert MODEL.notice in statements
    pages = made["PDF"].EncapsulatedDocument[: made["PDF"].EncapsulatedDocumentLength]
    assert pages == pdf.render(statements)
    assert pages != pdf.render(statements.replace("93", "39"))


def test_the_same_text_gives_the_same_bytes():
    assert pdf.render("one\ntwo") == pdf.render("one\ntwo")
    assert written()["PDF"].EncapsulatedDocument == written()["PDF"].EncapsulatedDocument


def test_the_patient_stands_in_the_header_and_not_on_the_page():
    made = written()
    assert made["PDF"].PatientName == "Doe^Jane"
    assert "Doe" not in text.render(made["SR"])


def test_long_reports_take_several_pages():
    assert pdf.render("line\n" * 200).count(b"/Type /Page ") == 3


def test_characters_without_a_glyph_are_question_marks_and_dollars_are_no_formulas():
    assert b"%PDF" in pdf.render("頸椎 $x^2$")


def test_it_can_be_had_without_the_report():
    assert list(written(("PDF",))) == ["PDF"]

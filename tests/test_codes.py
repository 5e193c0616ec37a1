import tomllib

import pytest
from pydicom.sr.codedict import codes as standard
from pydicom.sr.coding import Code as StandardCode

from inference.findings import Code
from sr import codes

ENTRIES = tomllib.loads(codes.TABLE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("key", [key for key, entry in ENTRIES.items() if entry["grade"] == "D"])
def test_codes_graded_d_stand_in_the_standard(key):
    entry = ENTRIES[key]
    scheme = getattr(standard, entry["scheme"])
    assert StandardCode(entry["value"], entry["scheme"], "") in scheme
    meanings = {code.meaning.lower() for code in scheme.concepts.values() if code.value == entry["value"]}
    assert entry["meaning"].lower() in meanings


def test_every_entry_has_a_grade_and_nothing_unknown():
    for key, entry in ENTRIES.items():
        assert set(entry) == {"scheme", "value", "meaning", "grade"}, key
        assert entry["grade"] in ("D", "R", "1", "own"), key
        assert (entry["grade"] == "own") == entry["scheme"].startswith("99"), key
        assert len(entry["value"]) <= 16 and len(entry["meaning"]) <= 64, key


def test_no_code_stands_twice():
    pairs = [(entry["scheme"], entry["value"]) for entry in ENTRIES.values()]
    assert len(pairs) == len(set(pairs))


def test_every_level_of_the_neck_and_back_has_a_code_of_its_own():
    levels = [f"C{i}" for i in range(1, 8)] + [f"T{i}" for i in range(1, 13)] + [f"L{i}" for i in range(1, 6)]
    assert [codes.table()[level].meaning for level in levels] == [f"{level} vertebra" for level in levels]


def test_codes_that_nobody_defines_are_unknown():
    assert codes.known("SCT", "72704001")  # configured
    assert codes.known("DCM", "126000")  # in the standard
    assert not codes.known("SCT", "1")
    assert not codes.known("99LOCAL", "72704001")


def test_a_concept_is_written_as_it_is_configured():
    item = codes.concept("C5")
    assert (item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning) == ("36978003", "SCT", "C5 vertebra")
    assert codes.concept(Code(scheme="SCT", value="1", meaning="x")).CodeValue == "1"


def test_units_carry_the_name_the_standard_gives_them():
    assert codes.unit("cm3").CodeMeaning == "cubic centimeter"
    assert codes.unit("[hnsf'U]").CodingSchemeDesignator == "UCUM"

"""What IHE AI Results (Rev. 1.3) asks of an Evidence Creator: one run, every object, the same names everywhere."""

from dataclasses import replace

import numpy as np
import pytest
from pydicom import Dataset

from sr.results import Kind, write_results
from tests.sources import MODEL, analysis_of, ct_headers, run_for, volume_of

HEADERS = ct_headers()
VOLUME = volume_of(HEADERS)
RUN = run_for(HEADERS)
KINDS = [kind for kind in Kind if kind != Kind.REJECT]
OBJECTS = {
    result.kind: result.dataset
    for result in write_results(
        VOLUME, replace(analysis_of(VOLUME), heat_map=np.zeros(VOLUME.array.shape, np.float32)), RUN, KINDS
    )
}
REPORTS = (Kind.SR, Kind.CSR)


def tree(item: Dataset):
    for child in item.get("ContentSequence", ()):
        yield child
        yield from tree(child)


def named(document: Dataset, value: str) -> list[Dataset]:
    return [x for x in tree(document) if "ConceptNameCodeSequence" in x and
            x.ConceptNameCodeSequence[0].CodeValue == value]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_algorithm_is_in_the_contributing_equipment_of_every_object(kind):
    ours = [x for x in OBJECTS[kind].ContributingEquipmentSequence if "DeviceUID" in x]
    assert [x.PurposeOfReferenceCodeSequence[0].CodeValue for x in ours] == ["109102"]
    found = [(x.Manufacturer, x.ManufacturerModelName, x.SoftwareVersions, x.DeviceUID) for x in ours]
    assert found == [(MODEL.manufacturer, MODEL.name, MODEL.version, RUN.device_uid)]


@pytest.mark.parametrize("kind", REPORTS)
def test_the_observer_and_the_algorithm_of_each_group_are_the_same_device(kind):
    document = OBJECTS[kind]
    assert [x.UID for x in named(document, "121012")] == [RUN.device_uid]
    for value, expected in (("121014", MODEL.manufacturer), ("121015", MODEL.name)):
        assert {x.TextValue for x in named(document, value)} == {expected}
    for value, expected in (("111001", MODEL.name), ("111003", MODEL.version), ("122405", MODEL.manufacturer)):
        assert [x.TextValue for x in named(document, value)] == [expected] * 2


@pytest.mark.parametrize("kind", [Kind.SEG, Kind.LABELMAP])
def test_the_algorithm_of_each_segment_has_the_same_names(kind):
    algorithms = [x.SegmentationAlgorithmIdentificationSequence[0] for x in OBJECTS[kind].SegmentSequence
                  if x.SegmentNumber]  # fmt: skip
    assert [(x.AlgorithmSource, x.AlgorithmName, x.AlgorithmVersion) for x in algorithms] == [
        (MODEL.manufacturer, MODEL.name, MODEL.version)
    ]
    assert algorithms[0].AlgorithmFamilyCodeSequence[0].CodeValue == "123110"


def test_a_finding_has_one_tracking_identifier_in_all_objects():
    found = {
        *(x.UID for kind in REPORTS for x in named(OBJECTS[kind], "112040")),
        *(
            x.TrackingUID
            for kind in (Kind.SEG, Kind.LABELMAP)
            for x in OBJECTS[kind].SegmentSequence
            if x.SegmentNumber
        ),
        *(x.GraphicObjectSequence[0].TrackingUID for x in OBJECTS[Kind.GSPS].GraphicAnnotationSequence),
    }
    assert len(found) == 1
    assert {x.TextValue for x in named(OBJECTS[Kind.SR], "112039")} == {"fracture-1"}


@pytest.mark.parametrize("kind", [*REPORTS, Kind.KOS])
def test_the_evidence_lists_everything_that_the_tree_references(kind):
    document = OBJECTS[kind]
    listed = {
        item.ReferencedSOPInstanceUID
        for study in document.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    used = {x.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for x in tree(document) if "ReferencedSOPSequence" in x}
    assert used
    assert used <= listed


@pytest.mark.parametrize("kind", REPORTS)
def test_the_procedure_reported_is_the_imaging_and_not_the_algorithm(kind):
    (procedure,) = named(OBJECTS[kind], "121058")
    assert procedure.ConceptCodeSequence[0].CodingSchemeDesignator == "LN"
    assert procedure.ConceptCodeSequence[0].CodeMeaning == "CT unspecified body region"


def test_enhanced_equipment_is_complete_in_segmentations_and_maps():
    for kind in (Kind.SEG, Kind.LABELMAP, Kind.PMAP):
        made = OBJECTS[kind]
        assert all((made.Manufacturer, made.ManufacturerModelName, made.DeviceSerialNumber, made.SoftwareVersions))


def test_pictures_come_only_in_addition_to_what_a_machine_can_read():
    order = list(OBJECTS)
    assert order.index(Kind.SEG) < order.index(Kind.SR) < order.index(Kind.SC) < order.index(Kind.KOS)


def test_every_object_is_a_series_of_its_own_in_the_study_of_the_images():
    assert len({x.SeriesInstanceUID for x in OBJECTS.values()}) == len(OBJECTS)
    assert len({x.SeriesNumber for x in OBJECTS.values()}) == len(OBJECTS)
    assert {x.StudyInstanceUID for x in OBJECTS.values()} == {HEADERS[0].StudyInstanceUID}
    assert {x.AccessionNumber for x in OBJECTS.values()} == {HEADERS[0].AccessionNumber}

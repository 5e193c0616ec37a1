"""The conformance statement says what this configuration does, and the committed one is that of the manual."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from typer.testing import CliRunner

from dicomnode import cli
from dicomnode.config import CONFIG_DIR, Config, ResultKind, load
from dicomnode.conformance import OBJECTS, statement
from dicomnode.network.listen import storage_contexts
from sr.results import Kind, Reference, write_results
from tests.sources import analysis_of, ct_headers, run_for, volume_of

PAGE = Path(__file__).parents[1] / "docs" / "conformance.md"
PACS = {"name": "pacs", "ae_title": "PACS", "host": "10.0.0.5", "port": 104}


def test_the_committed_page_is_what_the_command_prints_for_the_manual():
    printed = CliRunner().invoke(cli.app, ["conformance", "--config", str(CONFIG_DIR / "dicomnode.toml")])
    assert printed.exit_code == 0
    assert PAGE.read_text() == printed.stdout, "run: dicomnode conformance --config config/dicomnode.toml"


def test_the_objects_are_those_that_are_made():
    headers = ct_headers()
    volume = volume_of(headers)
    old = Reference(sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34", sop_instance_uid="2.25.1", series_uid="2.25.2",
                    study_uid=headers[0].StudyInstanceUID)  # fmt: skip
    analysis = replace(analysis_of(volume), heat_map=np.zeros(volume.array.shape, np.float32))
    made = write_results(volume, analysis, run_for(headers, predecessors=(old,)), list(Kind))
    found = {x.kind.lower(): (str(x.dataset.SOPClassUID), x.dataset.Modality) for x in made}
    assert found == {kind: (entry.sop_class, entry.modality) for kind, entry in OBJECTS.items()}
    assert list(OBJECTS) == list(get_args(ResultKind))


def test_a_destination_lists_what_it_asked_for_and_what_it_gets_instead():
    text = statement(Config(destination=[PACS | {"results": ["sr", "kos"], "max_frames": 400}]))
    section = text.partition("### pacs: `PACS` at 10.0.0.5:104")[2].partition("\n## ")[0]
    assert "Comprehensive 3D SR" in section
    assert "Comprehensive SR (TID 1500), if the former is not accepted" in section
    assert "Key Object Selection, Of Interest" in section
    assert "Segmentation" not in section
    assert "more than 400 frames" in section


@pytest.mark.parametrize(
    ("proof", "told"),
    [
        ("commitment", "Storage Commitment Push Model SOP Class `1.2.840.10008.1.20.1`"),
        ("find", "level IMAGE"),
        ("none", "neither storage commitment nor a query"),
    ],
)
def test_a_destination_says_how_it_proves_what_it_holds(proof, told):
    assert told in statement(Config(destination=[PACS | {"proof": proof}]))


def test_a_sender_that_can_be_asked_is_listed():
    text = statement(Config(sender=[{"ae_title": "CT1", "host": "10.0.0.7", "port": 104}, {"ae_title": "CT2"}]))
    assert "Query to `CT1` at 10.0.0.7:104" in text
    assert "CT2" not in text


@pytest.mark.parametrize("value", ["MYNODE", "10.1.2.3:4004", "`CT*@10.0.0.7`"])
def test_the_network_is_that_of_the_configuration(value):
    receive = {"ae_title": "MYNODE", "host": "10.1.2.3", "port": 4004, "allow": ["CT*@10.0.0.7"]}
    assert value in statement(Config(receive=receive))


def test_a_destination_outside_the_hospital_is_named():
    assert "De-identified objects go to nobody." in statement(Config(destination=[PACS]))
    assert "De-identified objects go to pacs." in statement(Config(destination=[PACS | {"deidentify": True}]))


def test_audit_messages_are_listed_with_their_repository():
    tls = {"certificate": "a", "key": "b", "authorities": "c"}
    assert "sent to atna:6514 as syslog over TLS" in statement(Config(tls=tls, audit={"host": "atna"}))
    assert "No audit messages are written." in statement(Config(audit={"enabled": False}))


def test_every_accepted_class_is_named():
    text = statement(load(None))
    assert f"{len(storage_contexts()) - 1} Storage SOP classes" in text
    assert "CT Image Storage" in text and "Enhanced MR Image Storage" in text

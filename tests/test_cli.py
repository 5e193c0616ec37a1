"""The command line as a person or a script meets it: output, messages, exit statuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest

from dicomnode.config import CONFIG_DIR
from dicomnode.network.archive import Archive
from dicomnode.network.listen import Listener
from inference.phantom.studies import write_studies
from tests.integration.programs import DICOMNODE, Node, free_port, running, send_all
from tests.integration.test_recovery import write_series

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
COMMANDS = (
    "serve", "process", "send", "echo", "status", "instances", "retry", "acknowledge", "purge", "models", "config",
    "doctor", "phantom", "train", "evaluate",
)  # fmt: skip


def run(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(DICOMNODE), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, cwd=cwd, env=os.environ | environment
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    done = run(command, "--help")
    assert done.returncode == 0
    assert "Usage: dicomnode" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["send", "x"],
        ["process", "x"],
        ["echo", "no-address"],
        ["status", "-x"],
        ["retry"],
        ["retry", "1", "--all"],
        ["train", "knee", "--out", "out"],
        ["train", "cervical-ct-fracture", "--out", "out", "--device", "tpu"],
        ["evaluate", "knee", "--cache", "cases"],
    ],
)
def test_wrong_usage_ends_with_2(arguments):
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["process", "/no/such/path", "--out", "/tmp/out"], "/no/such/path does not exist"),
        (["send", "/no/such/path", "--to", "A@127.0.0.1:1"], "/no/such/path does not exist"),
        (["echo", "A@127.0.0.1:1"], "A@127.0.0.1:1 does not answer"),
        (["status", "--config", "/no/such.toml"], "/no/such.toml: No such file"),
        (["status"], "no node has run on"),
        (["retry", "--destination", "pacs"], "no destination 'pacs' (configured: none)"),
        (["serve", "--config", "/no/such.toml"], "/no/such.toml: No such file"),
        (["train", "cervical-ct-fracture", "--out", "out", "--data", "nonsense"], "'nonsense': write NAME:PLACE"),
        (
            ["train", "cervical-ct-fracture", "--out", "out", "--data", "rsna2022:/no/such"],
            "/no/such/train.csv: cannot",
        ),
        (["evaluate", "cervical-ct-fracture", "--cache", "cases", "--data", "phantom:odd@0+1"], "PROFILE one of easy"),
        (["evaluate", "salehinejad2021", "--cache", "cases", "--data", "phantom:odd@0+1"], "PROFILE one of easy"),
    ],
)
@pytest.mark.fault(23, "s")
def test_an_error_is_one_line_that_says_what_to_do_and_ends_with_1(tmp_path, arguments, message):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_process_answers_a_phantom_with_the_same_document_that_status_gives(tmp_path):
    manifest = json.loads((CONFIG_DIR / "models" / "cervical-ct-fracture" / "manifest.json").read_text())
    name = next(
        reference["case"] for reference in manifest["references"] if reference["fractured"]
    )  # the model finds it
    _, profile, seed = name.rsplit("-", 2)
    [study] = write_studies(tmp_path / "in", count=1, seed=int(seed), profile=profile, truth=False)
    done = run("process", study, "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    [document] = json.loads(done.stdout)["studies"]
    assert (document["study_uid"], document["state"]) == (study.name, "done")
    assert {s["pipeline"] for s in document["series"]} == {"cervical-ct-fracture", None}
    [analysis] = document["analyses"]
    assert analysis["scores"]["case"] >= analysis["scores"]["threshold"]
    [chosen] = [s["series_uid"] for s in document["series"] if s["pipeline"]]
    series = [pydicom.dcmread(path, specific_tags=["SeriesInstanceUID"]).SeriesInstanceUID for path in study.iterdir()]
    assert len(analysis["scores"]["slices"]) == series.count(chosen)
    assert analysis["findings"]
    for finding in analysis["findings"]:
        assert finding["code"] == {"scheme": "SCT", "value": "72704001", "meaning": "Fracture"}
        low, high = finding["box_mm"]
        assert all(a <= b for a, b in zip(low, high, strict=True))
    assert [r["kind"] for r in document["results"]] == ["SEG", "SR", *["SC"] * len(analysis["findings"])]
    assert all(pydicom.dcmread(r["path"]).SOPInstanceUID == r["sop_uid"] for r in document["results"])
    again = json.loads(run("process", study, "--out", tmp_path / "again", "--json").stdout)
    assert [r["sop_uid"] for r in again["studies"][0]["results"]] == [r["sop_uid"] for r in document["results"]]


def test_process_leaves_out_what_is_no_dicom_and_says_so(tmp_path):
    files = write_series(tmp_path / "in", slices=3)
    (tmp_path / "in" / "notes.txt").write_text("not DICOM")
    (tmp_path / "in" / "cut.dcm").write_bytes(files[0].read_bytes()[:-100])
    done = run("process", tmp_path / "in", "--out", tmp_path / "out", "--json")
    assert done.returncode == 0
    assert "notes.txt: not a readable DICOM object" in done.stderr
    assert "cut.dcm: truncated" in done.stderr
    assert json.loads(done.stdout)["studies"][0]["state"] == "not_applicable"


def test_process_ends_with_1_when_an_analysis_fails_and_still_writes_the_report(tmp_path):
    files = write_series(tmp_path / "in", body_part="CSPINE")
    done = run("process", tmp_path / "in", "--out", tmp_path / "out", "--json", DICOMNODE_FAULT="inference:raise")
    assert done.returncode == 1
    [document] = json.loads(done.stdout)["studies"]
    assert document["state"] == "failed"
    assert pydicom.dcmread(document["results"][0]["path"]).Modality == "SR"
    assert files


def test_several_studies_are_answered_each_for_itself(tmp_path):
    for number in (1, 2):
        write_series(tmp_path / "in", study=str(number), slices=2)
    done = run("process", tmp_path / "in", "--out", tmp_path / "out", "--json")
    assert [s["study_uid"] for s in json.loads(done.stdout)["studies"]] == ["1.2.3.1", "1.2.3.2"]


def test_send_and_echo_reach_an_archive_and_say_what_was_refused(tmp_path):
    archive = Archive(tmp_path / "archive", "ARCHIVE")
    listener = Listener(archive, host="127.0.0.1", port=0)
    write_series(tmp_path / "in", slices=5)
    there = f"ARCHIVE@127.0.0.1:{listener.port}"
    sent, echoed = run("send", tmp_path / "in", "--to", there), run("echo", there)
    wrong = run("echo", f"OTHER@127.0.0.1:{listener.port}")
    listener.stop()
    assert (sent.returncode, sent.stdout.strip()) == (0, "5 of 5 sent")
    assert len(archive.stored) == 5
    assert echoed.returncode == 0
    assert "answered in" in echoed.stdout
    assert wrong.returncode == 1
    assert "rejected the association" in wrong.stderr


@pytest.mark.fault(26, "s")
def test_a_running_node_can_be_asked_and_told(tmp_path):
    files = write_series(tmp_path / "in", slices=3)
    with running(Node(tmp_path / "node")) as node:
        send_all(files, node.address)
        node.answer("1.2.3.1")
        listing, one, unknown = node.run("status"), node.run("status", "1", "--json"), node.run("status", "9")
        assert "not_applicable" in listing.stdout
        assert json.loads(one.stdout)["studies"][0]["id"] == 1
        assert (unknown.returncode, "no study 9" in unknown.stderr) == (1, True)
        assert len(node.run("instances").stdout.split()) == 3
        assert len(node.digests()) == 3
        assert "0 failed task(s)" in node.run("retry", "1").stdout
        assert "0 failed task(s)" in node.run("retry", "--all").stdout
        second = run("serve", "--config", node.config)
        assert second.returncode == 1
        assert "is in use by another node" in second.stderr
        assert node.stop() == 0


@pytest.mark.fault(23, "s")
def test_a_port_that_is_taken_is_said_before_anything_starts(tmp_path):
    with running(Node(tmp_path / "one")) as first:
        other = Node(tmp_path / "two", port=first.address.port)
        done = run("serve", "--config", other.config)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{first.address.port}" in done.stderr


def test_a_killed_part_of_the_node_is_started_again(tmp_path):
    with running(Node(tmp_path / "node")) as node:
        children = subprocess.run(
            ["pgrep", "-P", str(node.process.pid)], capture_output=True, text=True, check=True
        ).stdout.split()
        assert len(children) >= 4
        for child in children:
            os.kill(int(child), signal.SIGKILL)
        files = write_series(tmp_path / "in", slices=3)
        from tests.integration.programs import wait_for

        wait_for("the receiver to be back", lambda: node.log.read_text().count("listening") == 2)
        send_all(files, node.address)
        assert node.answer("1.2.3.1")["state"] == "not_applicable"


def test_config_show_prints_what_is_in_force_and_check_says_that_it_can_be_used():
    shown = run("config", "show", DICOMNODE_RECEIVE__PORT="10400")
    assert json.loads(shown.stdout)["receive"]["port"] == 10400
    assert run("config", "check").returncode == 0
    wrong = run("config", "check", DICOMNODE_RECEIVE__PORT="0")
    assert wrong.returncode == 1
    assert "receive.port" in wrong.stderr


def test_models_verifies_and_names_what_would_run():
    listed = json.loads(run("models", "--json").stdout)
    assert len(listed["cervical-ct-fracture"]["sha256"]) == 64
    assert "phantoms" in listed["cervical-ct-fracture"]["trained_on"]


def test_doctor_proves_every_decoder_and_names_what_is_missing(tmp_path):
    done = run("doctor", cwd=tmp_path, DICOMNODE_RECEIVE__PORT=str(free_port()), DICOMNODE_WEB__PORT=str(free_port()))
    assert done.stdout.count("decoder ") == 12
    assert done.returncode == 1
    assert [line for line in done.stdout.splitlines() if line.startswith("FIX")] == [
        "FIX  destinations: none configured: results stay in the data directory"
    ]


def test_doctor_says_that_a_destination_does_not_answer(tmp_path):
    destination = '[{"name":"pacs","ae_title":"PACS","host":"127.0.0.1","port":1}]'
    done = run("doctor", cwd=tmp_path, DICOMNODE_DESTINATION=destination)
    assert "FIX  destination pacs: PACS@127.0.0.1:1 does not answer" in done.stdout


def test_phantom_writes_studies_and_their_truth_beside_them(tmp_path):
    done = run("phantom", "cervical-ct", "--out", tmp_path, "--seed", "950000", "--truth")
    assert done.returncode == 0
    [truth] = (tmp_path / "truth").glob("*.json")
    assert (tmp_path / truth.stem).is_dir()
    maps = {f"{truth.stem}.vertebrae.nii.gz", f"{truth.stem}.fractures.nii.gz"}
    assert {path.name for path in (tmp_path / "truth").iterdir()} == {truth.name} | maps
    assert run("phantom", "knee", "--out", tmp_path).returncode == 2


def test_small_commands_do_not_wait_for_torch():
    code = "import sys; sys.argv = ['dicomnode', 'echo', 'A@127.0.0.1:1']; from dicomnode.cli import main\n"
    code += "try: main()\nexcept SystemExit: sys.exit('torch' in sys.modules or 'highdicom' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0

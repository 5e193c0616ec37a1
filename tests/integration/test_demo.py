"""The demo, run as a new user runs it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pydicom
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "demo-output"
REAL_CT = ROOT.parent / "shared" / "data" / "ct-philips-study"


def demo(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DICOMNODE_")}
    command = [str(ROOT / "scripts" / "demo"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment, check=False)


def test_the_demo_finds_the_planted_fracture_and_leaves_its_results():
    done = demo()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fracture 1" in done.stdout
    assert "finding 1," in done.stdout
    report, segmentation = (pydicom.dcmread(OUT / name) for name in ("sr.dcm", "seg.dcm"))
    assert (report.Modality, segmentation.Modality) == ("SR", "SEG")
    truth = json.loads(next((OUT / "study" / "truth").glob("*.json")).read_text())
    assert truth["study_uid"] == report.StudyInstanceUID == segmentation.StudyInstanceUID
    assert "Fracture: Present" in (OUT / "sr.txt").read_text()
    assert len(Image.open(OUT / "overlay.png").convert("RGB").getcolors(1 << 20)) > 50


@pytest.mark.skipif(not REAL_CT.exists(), reason="the real CT study is not beside this checkout")
def test_a_real_study_of_another_region_is_answered_not_applicable():
    done = demo(REAL_CT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not_applicable" in done.stdout
    assert "Not Attempted" in (OUT / "sr.txt").read_text()


@pytest.mark.parametrize("content", [None, b"no DICOM"])
def test_a_folder_without_dicom_ends_with_a_message(tmp_path, content):
    folder = tmp_path / "study"
    if content is not None:
        folder.mkdir()
        (folder / "letter.txt").write_bytes(content)
    done = demo(folder)
    assert done.returncode == 1
    assert str(folder) in done.stderr
    assert "Traceback" not in done.stderr

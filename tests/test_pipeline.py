"""Finding a pipeline by name, refusing what is not configured, and what the package may import."""

import ast
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

import inference
from inference import pipeline
from inference.pipeline import UnknownPipeline
from inference.weights import UntrustedWeights
from tests.models import NAME, TABLE, neck_volume, write_config

PACKAGE = Path(inference.__file__).parent


def test_names_are_those_of_the_tables(tmp_path):
    config = write_config(tmp_path)
    (config / "pipelines" / "another.toml").write_text("")
    (config / "pipelines" / "notes.txt").write_text("")
    assert pipeline.names(config) == ["another", NAME]


def test_without_tables_there_are_no_names(tmp_path):
    assert pipeline.names(tmp_path) == []


@pytest.mark.parametrize("name", ["lumbar", "", "../pipelines/cervical-ct-fracture", "cervical_ct_fracture"])
def test_an_unknown_name_is_refused_with_what_there_is(name, tmp_path):
    config = write_config(tmp_path)
    for look in (pipeline.identity, pipeline.load):
        with pytest.raises(UnknownPipeline, match=f"there is {NAME}"):
            look(name, config)


def test_in_an_empty_folder_the_refusal_says_none(tmp_path):
    with pytest.raises(UnknownPipeline, match="there is none"):
        pipeline.identity(NAME, tmp_path)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("", r"the table \[model\] is missing"),
        ("[model]\ndirectory = 'models'", r"\[model\] manifest_sha256"),
        ("[model]\ndirectory = 1\nmanifest_sha256 = 2", r"\[model\] (directory|manifest_sha256)"),
        ("[model]\ndirectory = 'a'\nmanifest_sha256 = 'b'\n[levels]\ndirectory = 'c'", r"\[levels\] manifest_sha256"),
    ],
)
def test_a_table_without_a_pinned_model_is_refused_with_the_key(table, said, tmp_path):
    with pytest.raises(UnknownPipeline, match=rf"cervical-ct-fracture\.toml: {said}"):
        pipeline.load(NAME, write_config(tmp_path, table=table), "cpu")


def test_a_table_without_a_module_is_refused(tmp_path):
    config = write_config(tmp_path)
    (config / "pipelines" / f"{NAME}.toml").rename(config / "pipelines" / "no-such-module.toml")
    with pytest.raises(UnknownPipeline, match=r"no module inference\.pipelines\.no_such_module"):
        pipeline.load("no-such-module", config, "cpu")


def test_a_model_that_was_changed_after_pinning_is_refused(tmp_path):
    config = write_config(tmp_path)
    path = config / "models" / NAME / "weights.safetensors"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(UntrustedWeights):
        pipeline.load(NAME, config, "cpu")
    with pytest.raises(UntrustedWeights):
        pipeline.verify(NAME, config)


def test_the_identity_is_known_without_loading_the_weights(tmp_path):
    config = write_config(tmp_path)
    assert pipeline.verify(NAME, config) == pipeline.identity(NAME, config)
    (config / "models" / NAME / "weights.safetensors").unlink()
    assert pipeline.identity(NAME, config).version == "0.0.1"


def test_a_loaded_pipeline_names_its_model_and_analyses(tmp_path):
    config = write_config(tmp_path)
    loaded = pipeline.load(NAME, config, "cpu")
    assert (loaded.name, loaded.identity) == (NAME, pipeline.identity(NAME, config))
    assert loaded.run(neck_volume()).model == loaded.identity
    with pytest.raises(FrozenInstanceError):
        loaded.name = "another"  # type: ignore[misc]


def test_the_digest_of_the_configuration_ignores_comments_and_order_but_no_value(tmp_path):
    def digest(table: str) -> str:
        return pipeline.load(NAME, write_config(tmp_path, table=table), "cpu").configuration_sha256

    plain = digest(TABLE)
    assert len(plain) == 64
    head, output = TABLE.split("[output]")
    assert digest(f"[output]{output}\n# a comment\n{head}") == plain
    assert digest(TABLE.replace("cam_share = 0.5", "cam_share = 0.6")) != plain


def imports(path: Path) -> set[str]:
    """Return the top-level names of everything a file imports, at any depth."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


def test_the_package_knows_neither_the_node_nor_the_result_objects():
    offenders = {path.name for path in PACKAGE.rglob("*.py") if imports(path) & {"dicomnode", "sr", "highdicom"}}
    assert offenders == set()


def test_only_the_gates_the_dicom_data_sets_and_the_phantom_writers_know_dicom():
    users = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if "pydicom" in imports(path)}
    data_sets = {"datasets/axial_ct.py", "datasets/cspine.py", "datasets/rsna2024.py"}
    phantom_writers = {"phantom/dicom.py", "phantom/dose_report.py", "phantom/headers.py", "phantom/mr/dicom.py"}
    assert users == {"volume.py", "pixel_size.py", "preprocess/input_limits.py"} | data_sets | phantom_writers

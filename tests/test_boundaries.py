"""The house rules: who may import whom, what starts without torch, how long a file may be, what is never written."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(p for package in ("dicomnode", "inference", "sr", "scripts") for p in (ROOT / package).rglob("*.py"))
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def package_imports(package: str, *others: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / package).rglob("*.py")
        for name in imports(path)
        if name.split(".")[0] in others
    ]


def test_inference_knows_neither_the_node_nor_the_reports():
    assert package_imports("inference", "dicomnode", "sr", "pynetdicom", "highdicom", "sqlalchemy") == []


def test_reports_know_what_inference_found_and_nothing_of_how():
    assert package_imports("sr", "dicomnode", "torch", "pynetdicom", "sqlalchemy") == []
    used = {name for path in (ROOT / "sr").rglob("*.py") for name in imports(path) if name.startswith("inference")}
    assert used <= {"inference.codes", "inference.findings", "inference.volume"}


def test_only_the_ledger_speaks_sql():
    speakers = {line.split(":")[0] for line in package_imports("dicomnode", "sqlalchemy")}
    names = ("claims", "ledger", "ledger_clock", "ledger_retention", "owed", "schema", "settle")
    assert speakers == {f"dicomnode/{name}.py" for name in names}


@pytest.mark.parametrize(
    "module", ["dicomnode.receive", "dicomnode.roles", "dicomnode.cli", "dicomnode.supervise", "dicomnode.web.pages"]
)
def test_no_process_but_a_working_worker_pays_for_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_machine_that_only_trains_needs_torch_torchvision_numpy_and_scipy():
    files = [path for package in ("nets", "training") for path in (ROOT / "inference" / package).rglob("*.py")]
    alone = ("store", "mr_store", "phantom", "phantom_mr", "voc", "labelme")
    files += [ROOT / "inference" / "datasets" / f"{name}.py" for name in alone]
    files += [ROOT / "inference" / "evaluation" / f"{name}.py" for name in ("detection_report", "groups", "readers")]
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    others = {"pydicom", "matplotlib", "SimpleITK", "captum", "torchmetrics", "safetensors", "dicomnode"}
    code = f"import importlib, sys\nfor name in {modules}: importlib.import_module(name)\n"
    code += f"print(*({others} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_receiver_starts_without_highdicom():
    code = "import sys, dicomnode.receive; sys.exit('highdicom' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_file_is_one_idea_and_a_function_fits_on_a_page():
    long_files = [f"{p.relative_to(ROOT)}" for p in SOURCES if len(p.read_text().splitlines()) > 400]
    long_functions = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= 60
    ]
    assert long_files == []
    assert long_functions == []


def test_only_the_command_line_and_scripts_print():
    printing = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert {name for name in printing if not name.startswith("scripts/")} <= {"dicomnode/cli.py"}


def test_locks_have_a_hash_for_everything_and_name_no_host():
    for lock in (ROOT / "requirements").glob("*.lock"):
        text = lock.read_text()
        assert "://" not in text
        pins = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
        assert pins
        assert all(line.rstrip().endswith("\\") for line in pins), "a pin without a hash"


def test_what_is_declared_is_what_is_locked():
    declared = (ROOT / "pyproject.toml").read_text()
    wanted = [line for line in (ROOT / "requirements" / "runtime.in").read_text().splitlines() if line[:1].isalpha()]
    build_only = ("hatchling", "editables")
    assert [line for line in wanted if not line.startswith(build_only) and f'"{line}"' not in declared] == []


@pytest.mark.parametrize("word", ["TODO", "FIXME", "XXX"])
def test_nothing_is_left_for_later(word):
    texts = {
        name: (ROOT / name).read_text(errors="ignore") for name in TRACKED if name.endswith((".py", ".md", ".toml"))
    }
    assert [name for name, text in texts.items() if word in text and not name.endswith("test_boundaries.py")] == []

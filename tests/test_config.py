"""The configuration: the manual is true, the environment wins, and mistakes are named."""

import re
import tomllib
from typing import Any

import pytest
from pydantic import BaseModel

from dicomnode.config import CONFIG_DIR, Config, load
from dicomnode.errors import ConfigError

MANUAL = (CONFIG_DIR / "dicomnode.toml").read_text()
#: The tables that stand there as comments, as TOML.
COMMENTED = "\n".join(re.findall(r"^# (\[.*\]|\w+ = .*)$", MANUAL, re.MULTILINE))


def keys(model: type[BaseModel], prefix: str = "") -> set[str]:
    """Every key that can be set, tables in tables with a dot."""
    found = set()
    for name, field in model.model_fields.items():
        inner: Any = field.annotation
        inner = getattr(inner, "__args__", (inner,))[0]
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found |= keys(inner, f"{prefix}{name}.")
        else:
            found.add(f"{prefix}{name}")
    return found


def written(values: Any, prefix: str = "") -> set[str]:
    found = set()
    for name, value in values.items():
        value = value[0] if isinstance(value, list) and value and isinstance(value[0], dict) else value
        found |= written(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}"}
    return found


def config(tmp_path, text: str) -> Config:
    path = tmp_path / "node.toml"
    path.write_text(text)
    return load(path)


def test_the_manual_says_the_defaults():
    assert Config(**tomllib.loads(MANUAL)) == Config()


def test_the_manual_has_every_key_and_no_other():
    assert written(tomllib.loads(MANUAL)) | written(tomllib.loads(COMMENTED)) == keys(Config)


def test_the_examples_in_the_manual_can_be_used():
    example = Config(**tomllib.loads(COMMENTED))
    assert example.destination[0].results == ("seg", "sr", "sc")
    assert example.sender_for("CT1").quiet_seconds == 60
    assert example.sender_for("CT2") is None


def test_the_environment_wins_over_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("DICOMNODE_RECEIVE__PORT", "10400")
    monkeypatch.setenv("DICOMNODE_DESTINATION", '[{"name":"pacs","ae_title":"PACS","host":"h","port":104}]')
    loaded = config(tmp_path, '[receive]\nport = 11113\nae_title = "MINE"\n')
    assert (loaded.receive.port, loaded.receive.ae_title) == (10400, "MINE")
    assert loaded.destination[0].name == "pacs"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[receive]\nprot = 1\n", "unknown key 'receive.prot'"),
        ("[receive]\nport = 0\n", "receive.port = 0"),
        ("[receive]\nport = 70000\n", "receive.port = 70000"),
        ('[receive]\nae_title = "SEVENTEEN_LETTERS"\n', "receive.ae_title"),
        ('[receive]\nae_title = ""\n', "receive.ae_title"),
        ("[assembly]\nquiet_seconds = -1\n", "assembly.quiet_seconds = -1"),
        ("[inference]\nworkers = 0\n", "inference.workers = 0"),
        ("[limits]\nassociations = 301\n", "limits.associations = 301"),
        ("[retention]\nresults_days = 30\n", "results_days must not be less than inputs_days, and needs it"),
        ("[retention]\ninputs_days = 7\nresults_days = 6\n", "results_days must not be less than inputs_days"),
        ('[[destination]]\nname = "a b"\nae_title = "A"\nhost = "h"\nport = 1\n', "destination.0.name"),
        ('[[destination]]\nname = "a"\nhost = "h"\nport = 1\n', "destination.0.ae_title"),
        (2 * '[[destination]]\nname = "a"\nae_title = "A"\nhost = "h"\nport = 1\n', "the same name"),
        ("[receive\n", "not valid TOML"),
    ],
)
@pytest.mark.fault(23, "s")
def test_a_mistake_is_named_with_file_key_and_value(tmp_path, text, named):
    with pytest.raises(ConfigError) as caught:
        config(tmp_path, text)
    assert named in str(caught.value)
    assert "node.toml" in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.toml: No such file"):
        load(tmp_path / "gone.toml")


def test_every_kind_of_result_can_be_asked_for():
    from typing import get_args

    from dicomnode.config import ResultKind
    from sr.run import Kind

    assert [kind.lower() for kind in Kind] == list(get_args(ResultKind))


def test_what_is_made_is_what_destinations_want():
    tables = [{"name": name, "ae_title": "A", "host": "h", "port": 1, "results": results}
              for name, results in (("one", ["sr", "kos"]), ("two", ["sr"]))]  # fmt: skip
    assert Config(destination=tables).result_kinds == ("kos", "sr")
    assert Config().result_kinds == ("seg", "sr", "sc")
    assert Config(destination=tables).wants("kos")
    assert not Config(destination=tables).wants("seg")

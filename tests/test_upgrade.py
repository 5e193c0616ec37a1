"""A ledger of the first version, with work in it, is brought to this version at the start, and the work goes on."""
# ruff: noqa: F401, F811 - fixtures are imported by their names

from __future__ import annotations

import re
from pathlib import Path

import pytest
import sqlalchemy as sa

from dicomnode import ledger, ledger_retention, schema
from dicomnode.claims import Claims
from dicomnode.errors import ConfigError
from tests.test_ledger import DOCUMENT, deliver, lease, postgres, result, state, url

TABLES = Path(__file__).with_name("ledger-version-1.sql")
ROWS = """
INSERT INTO meta VALUES (1);
INSERT INTO study (uid, state, reason, released_because, selection, first_at, last_at, released_at, calling_ae)
    VALUES ('1.2', 'analysing', '', 'complete', '[]', 1, 2, 3, 'CT1');
INSERT INTO task (kind, study_uid, name, digest, payload, state, reason, current, attempts, next_at)
    VALUES ('infer', '1.2', 'p', 'd1', '{"x": 1}', 'ready', '', 1, 0, 3);
"""


def make_first_version(url: str) -> None:
    """What the first version would leave behind: a study that waits for its analysis."""
    engine = sa.create_engine(url)
    tables = TABLES.read_text()
    if engine.dialect.name == "postgresql":
        tables = re.sub(r"^    id INTEGER", "    id SERIAL", tables, flags=re.MULTILINE)
    with engine.begin() as db:
        for statement in (tables + ROWS).split(";\n"):
            if statement.strip():
                db.exec_driver_sql(statement)
    engine.dispose()


def columns(engine: sa.Engine) -> dict[str, set[tuple[str, bool]]]:
    inspector = sa.inspect(engine)
    return {
        name: {(column["name"], bool(column["nullable"])) for column in inspector.get_columns(name)}
        for name in inspector.get_table_names()
    }


@pytest.mark.fault(25, "c")
def test_the_work_in_a_ledger_of_the_first_version_goes_on_in_this_one(url):
    make_first_version(url)
    book = ledger.connect(url)
    held = lease(book)
    assert held.payload == {"x": 1}
    book.finish_analysis(held, document=DOCUMENT, results=[result()], destinations=[deliver(held)])
    sending = book.lease("deliver", "s")
    Claims(book.engine).make(sending, ["2.25.1"])
    assert len(Claims(book.engine).of(sending)) == 1
    book.finish_delivery(sending)
    assert state(book) == "done"
    assert ledger_retention.missing(book, book.study("1.2")) == 0
    book.engine.dispose()


def test_a_ledger_of_the_first_version_gets_every_table_and_column_that_a_new_one_has(url, tmp_path):
    make_first_version(url)
    old, new = schema.connect(url), schema.connect(f"sqlite:///{tmp_path}/new.sqlite")
    assert columns(old) == columns(new)
    with old.connect() as db:
        [version] = db.execute(sa.select(schema.meta.c.schema_version)).scalars()
    assert version == schema.VERSION > 1, "the first version must refuse it"
    for engine in (old, new):
        engine.dispose()


def test_a_ledger_of_a_newer_version_gets_no_tables(url):
    make_first_version(url)
    engine = sa.create_engine(url)
    with engine.begin() as db:
        db.exec_driver_sql(f"UPDATE meta SET schema_version = {schema.VERSION + 1}")
    before = columns(engine)
    with pytest.raises(ConfigError, match="schema"):
        ledger.connect(url)
    assert columns(engine) == before
    engine.dispose()

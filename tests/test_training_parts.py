"""Which cases learn and which judge: patients stay together, parts stay apart, and every part can teach something."""

from pathlib import Path

import pytest

from inference.datasets.labelled import UnusableData
from inference.datasets.store import Case, prepare
from inference.training.parts import divided, prepared, require_both_classes
from tests.cases import silent, write_case

SHARES = {"train": 0.5, "validation": 0.2, "test": 0.3}


def write_cases(cache: Path, count: int, *, of_each_patient: int = 1, fractured: bool | None = None) -> list[Case]:
    """Write small cases with seeds from 0, every other one fractured if the label is not given."""
    return [
        write_case(
            cache,
            number,
            fractured=number % 2 == 0 if fractured is None else fractured,
            slices=8,
            size=24,
            patient=f"patient {number // of_each_patient}",
        )
        for number in range(count)
    ]


def split(cache: Path, count: int) -> dict[str, list[str]]:
    parts = divided(f"phantom:standard@0+{count}", SHARES, prepare, cache=cache, progress=silent)
    return {part: [case.name for case in cases] for part, cases in parts.items()}


def test_dividing_never_parts_a_patient_and_loses_no_case(tmp_path):
    cases = write_cases(tmp_path, 90, of_each_patient=3)
    parts = split(tmp_path, 90)
    assert sorted(name for names in parts.values() for name in names) == sorted(case.name for case in cases)
    patients = [{case.patient for case in cases if case.name in names} for names in parts.values()]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 30


def test_the_parts_have_about_their_shares(tmp_path):
    write_cases(tmp_path, 200)
    sizes = {part: len(names) for part, names in split(tmp_path, 200).items()}
    assert sizes == pytest.approx({"train": 100, "validation": 40, "test": 60}, abs=20)  # 3 standard deviations


def test_more_cases_move_nobody_to_another_part(tmp_path):
    write_cases(tmp_path, 60)
    few, many = split(tmp_path, 30), split(tmp_path, 60)
    assert all(set(few[part]) < set(many[part]) for part in SHARES)


def test_several_data_sets_are_divided_as_one(tmp_path):
    write_cases(tmp_path, 60)
    texts = ["phantom:standard@0+40", "phantom:standard@40+20"]
    parts = divided(texts, SHARES, prepare, cache=tmp_path, progress=silent)
    assert {part: sorted(case.name for case in cases) for part, cases in parts.items()} == {
        part: sorted(names) for part, names in split(tmp_path, 60).items()
    }


def test_too_few_cases_to_divide_are_refused_with_the_parts_that_stay_empty(tmp_path):
    write_cases(tmp_path, 2, of_each_patient=2)
    with pytest.raises(
        UnusableData, match=r"phantom:standard@0\+2: 2 cases are too few, nothing is left for \w+, \w+$"
    ):
        split(tmp_path, 2)


def test_configured_parts_are_those_of_their_data_sets(tmp_path):
    cases = write_cases(tmp_path, 4)
    texts = {"train": "phantom:standard@0+3", "test": "phantom:standard@3+1"}
    parts = prepared(texts, prepare, cache=tmp_path, progress=silent)
    names = {part: [case.name for case in chosen] for part, chosen in parts.items()}
    assert names == {"train": [case.name for case in cases[:3]], "test": [cases[3].name]}


def test_configured_parts_that_share_a_patient_are_refused_with_one_of_them(tmp_path):
    write_cases(tmp_path, 6, of_each_patient=3)
    texts = {"train": "phantom:standard@0+2", "test": "phantom:standard@2+4"}
    with pytest.raises(UnusableData, match="train and test share 1 patients, such as patient 0"):
        prepared(texts, prepare, cache=tmp_path, progress=silent)


def test_a_configured_part_without_a_case_is_refused(tmp_path):
    write_cases(tmp_path, 1)
    texts = {"train": "phantom:standard@0+1", "test": "phantom:standard@9+0"}
    with pytest.raises(UnusableData, match=r"phantom:standard@9\+0: the part test has no case"):
        prepared(texts, prepare, cache=tmp_path, progress=silent)


@pytest.mark.parametrize(("fractured", "kind"), [(True, "free of fractures"), (False, "fractured")])
def test_a_part_of_one_class_is_refused_with_what_it_lacks(fractured, kind, tmp_path):
    both = write_cases(tmp_path / "both", 2)
    require_both_classes({"train": both, "test": both})
    one = write_cases(tmp_path / "one", 3, fractured=fractured)
    with pytest.raises(UnusableData, match=f"none of the 3 cases of the part test is {kind}"):
        require_both_classes({"train": both, "test": one})

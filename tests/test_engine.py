"""Where networks run, and in what batches."""

import pytest
import torch

from inference.engine import BATCH, choose_device, in_batches, machine

CPU = torch.device("cpu")


def test_cpu_is_always_there():
    assert choose_device("cpu") == CPU


def test_auto_takes_the_gpu_if_there_is_one():
    assert choose_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "mps", "", "CPU", "meta", "cud:0"])
def test_an_unknown_device_is_refused_with_what_there_is(name):
    with pytest.raises(ValueError, match='use "auto", "cpu" or "cuda:N"'):
        choose_device(name)


@pytest.mark.parametrize("name", ["cuda:64"])
def test_a_gpu_that_is_not_there_is_refused(name):
    with pytest.raises(ValueError, match=r"this machine has \d+ GPU"):
        choose_device(name)


def test_a_cpu_is_named_with_the_threads_that_it_gave():
    name, _, threads = machine(CPU).rpartition(", ")
    assert name.strip()
    assert threads == f"{torch.get_num_threads()} threads"


@pytest.mark.parametrize("count", [1, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH])
def test_batches_are_at_most_as_large_as_allowed_and_come_back_in_order(count):
    sizes = []

    def double(part: torch.Tensor) -> torch.Tensor:
        sizes.append(len(part))
        return part * 2

    inputs = torch.arange(count)
    assert torch.equal(in_batches(double, inputs, device=CPU), inputs * 2)
    assert max(sizes) <= BATCH
    assert sum(sizes) == count


def test_no_gradients_are_kept():
    weight = torch.ones(1, requires_grad=True)
    assert not in_batches(lambda part: part * weight, torch.ones(3), device=CPU).requires_grad

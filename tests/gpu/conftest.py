"""Devices of these tests: the CPU and a GPU if available, or the one given by `--device`."""

from collections.abc import Iterator

import pytest
import torch

DEVICES = ("cpu", "cuda")


def pytest_addoption(parser):
    parser.addoption("--device", choices=DEVICES, help="device for tests/gpu; default: both")


def pytest_generate_tests(metafunc):
    if "device" in metafunc.fixturenames:
        option = metafunc.config.getoption("--device", default=None)
        metafunc.parametrize("device", [option] if option else DEVICES, indirect=True)


@pytest.fixture
def device(request) -> Iterator[torch.device]:
    """Return a device with TF32 off, so that single precision is exact."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no GPU here: run tools/gpu.sh on a machine with one")
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    yield torch.device(request.param)
    for backend, allowed in zip(backends, before, strict=True):
        backend.allow_tf32 = allowed

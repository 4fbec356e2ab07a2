"""The device of these tests: the CPU and, where there is one, a GPU; or what `--device` names."""

from collections.abc import Iterator

import pytest
import torch

DEVICES = ("cpu", "cuda")


def pytest_addoption(parser):
    parser.addoption("--device", choices=DEVICES, help="for tests/gpu alone; both if not given")


def pytest_generate_tests(metafunc):
    if "device" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--device", default=None)
        metafunc.parametrize("device", [chosen] if chosen else DEVICES, indirect=True)


@pytest.fixture
def device(request) -> Iterator[torch.device]:
    """Return a device on which single precision is single precision: without TF32's 10 bits."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU that torch can use here: tools/gpu.sh runs these tests where one is")
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    yield torch.device(request.param)
    for backend, allowed in zip(backends, before, strict=True):
        backend.allow_tf32 = allowed

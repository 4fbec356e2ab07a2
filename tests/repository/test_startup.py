"""Start-up and exit: the packages that each command imports, lazy names, and immediate exits."""

import inspect
import pkgutil
import re
import signal
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
from PIL import Image

import foveal
from foveal import training

# Packages whose import takes tenths of a second or more, or much memory; torch takes seconds.
HEAVY = {
    "captum",
    "fastapi",
    "huggingface_hub",
    "jinja2",
    "kornia",
    "lightning",
    "matplotlib",
    "mlxtend",
    "onnx",
    "onnxruntime",
    "optuna",
    "pandas",
    "pyarrow",
    "quantus",
    "ray",
    "scipy",
    "skimage",
    "sklearn",
    "sympy",
    "timm",
    "torch",
    "torch._dynamo",
    "torch._inductor",
    "torchmetrics",
    "torchvision",
    "transformers",
}


_COMMAND_SCRIPT = """
import sys
from foveal.cli import main
try:
    main(sys.argv[2:])
finally:
    with open(sys.argv[1], "w") as file:
        print(*sys.modules, file=file)
"""


@pytest.fixture
def modules_file(tmp_path):
    """Path of the file to which `_COMMAND_SCRIPT` writes the names of imported modules."""
    return tmp_path / "modules"


@pytest.fixture
def imported_modules(modules_file):
    """Return a function that runs a command in a new process and returns the imported modules."""

    def run(*arguments):
        command = [sys.executable, "-c", _COMMAND_SCRIPT, modules_file, *arguments]
        process = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert process.returncode == 0, process.stderr[-2000:]
        return set(modules_file.read_text().split())

    return run


@pytest.fixture(scope="module")
def digit(tmp_path_factory):
    """The path of a picture of 28x28 pixels."""
    path = tmp_path_factory.mktemp("digits") / "digit.png"
    Image.fromarray(np.eye(28, dtype=np.uint8) * 255).save(path)
    return path


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["models"],
        ["models", "--json"],
        ["recipes"],
        *([name, "--help"] for name in ("train", "evaluate", "explain", "predict", "serve")),
    ],
    ids=" ".join,
)
def test_commands_that_only_print_import_nothing_heavy(arguments, imported_modules):
    names = imported_modules(*arguments)
    assert "foveal.cli" in names
    assert names & HEAVY == set()


def test_explain_imports_only_torch(digit, imported_modules):
    names = imported_modules("explain", "mnist-focus", digit)
    assert "foveal.zoo" in names
    assert names & HEAVY == {"torch", "huggingface_hub"}


def test_explain_draws_without_pyplot(digit, imported_modules, tmp_path):
    names = imported_modules("explain", "mnist-focus", digit, "--out", tmp_path)
    assert (tmp_path / "digit.png").is_file()
    assert names & HEAVY == {"torch", "huggingface_hub", "matplotlib"}
    assert "matplotlib.pyplot" not in names


def test_predict_imports_only_torch_and_arrow(digit, imported_modules, tmp_path):
    names = imported_modules("predict", "mnist-focus", digit, "--out", tmp_path / "digit.parquet")
    # Arrow imports pandas, if it is installed, to recognise its series.
    assert names & HEAVY - {"pandas"} == {"torch", "huggingface_hub", "pyarrow"}


def test_serve_imports_only_torch_and_fastapi(modules_file):
    models = ["mnist-focus", "mnist-cnn", "mnist-attention"]
    command = [sys.executable, "-c", _COMMAND_SCRIPT, modules_file, "serve", *models, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            address = re.search(r"http://\S+", server.stderr.readline()).group()
            with urllib.request.urlopen(f"{address}/healthz", timeout=300) as response:
                assert response.status == 200
            server.send_signal(signal.SIGINT)
            server.wait(timeout=60)
        finally:
            server.kill()
    names = set(modules_file.read_text().split())
    assert names & HEAVY == {"torch", "huggingface_hub", "fastapi"}


def test_the_decoding_process_does_not_import_torch():
    code = "import sys, foveal.deployment.serve.decoder; print(*sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "foveal.images.decode" in process.stdout.split()
    assert set(process.stdout.split()) & HEAVY == set()


def test_a_lazy_name_is_imported_on_first_use(tmp_path, monkeypatch):
    (tmp_path / "parcel").mkdir()
    (tmp_path / "parcel" / "__init__.py").write_text(
        "from foveal.foundation.lazy import lazy_names\n"
        "__getattr__ = lazy_names(__name__, {'Thing': 'parcel.inner', 'inner': 'parcel.inner'})\n"
    )
    (tmp_path / "parcel" / "inner.py").write_text("class Thing: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import parcel

    assert "parcel.inner" not in sys.modules
    thing = parcel.Thing
    assert vars(parcel)["Thing"] is thing
    assert parcel.inner.Thing is thing
    with pytest.raises(AttributeError, match="module 'parcel' has no attribute 'other'"):
        _ = parcel.other


@pytest.mark.parametrize("package", [foveal, training], ids=lambda package: package.__name__)
def test_no_module_hides_a_lazy_name(package):
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    for name in package.__all__:
        value = getattr(package, name)
        if inspect.ismodule(value):
            assert value.__name__.endswith(f".{name}")
        else:
            assert name not in modules


_EXIT_SCRIPT = """
import atexit, sys, threading
from foveal.cli.ending import exits_immediately

@exits_immediately
def main(arguments):
    atexit.register(print, "Python cleaned up")
    threading.Thread(target=lambda: print("a thread was joined")).start()
    {statement}

atexit.register(print, "the process went on")
main()
"""


@pytest.mark.parametrize(
    ("statement", "status"),
    [
        ("pass", 0),
        ("sys.exit()", 0),
        ("sys.exit(130)", 130),
        ("sys.exit('a reason')", 1),
        ("raise ValueError", 1),
    ],
)
def test_a_process_cleans_up_and_exits_at_once_with_its_status(statement, status):
    command = [sys.executable, "-c", _EXIT_SCRIPT.format(statement=statement)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert process.returncode == status
    assert process.stdout.splitlines() == ["a thread was joined", "Python cleaned up"]
    assert bool(process.stderr) == (statement in ("sys.exit('a reason')", "raise ValueError"))


def test_a_full_disk_on_exit_is_an_error():
    command = [sys.executable, "-m", "foveal", "recipes"]
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert process.returncode != 0
    assert "No space left" in process.stderr

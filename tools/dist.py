"""Checks of the archives of `make dist`: required files, duplicates and sizes."""

import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAX_WHEEL_BYTES = 59e6  # mostly the backbone and the zoo


def required_files() -> set[str]:
    """Return the files that a wheel must contain, as paths below the package."""
    source = ROOT / "src" / "foveal"
    weights = (path for path in (source / "zoo" / "weights").rglob("*") if path.is_file())
    recipes = {f"recipes/{path.name}" for path in (ROOT / "recipes").glob("*.yaml")}
    modules = (path for path in source.rglob("*.py"))
    return {str(path.relative_to(source)) for path in (*weights, *modules)} | recipes | {"py.typed"}


def wheel_faults(wheel: Path) -> list[str]:
    """Return the faults of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    missing = {f"foveal/{name}" for name in required_files()} - set(names)
    duplicates = [name for name, count in Counter(names).items() if count > 1]
    faults = [f"{wheel.name}: {name} is missing" for name in sorted(missing)]
    faults += [f"{wheel.name}: {name} is contained more than once" for name in duplicates]
    if wheel.stat().st_size > MAX_WHEEL_BYTES:
        size, limit = wheel.stat().st_size / 1e6, MAX_WHEEL_BYTES / 1e6
        faults.append(f"{wheel.name}: {size:.1f} MB, but expected at most {limit:g} MB")
    return faults


def sdist_faults(sdist: Path) -> list[str]:
    """Return the faults of a source distribution: repeated weights or missing build files."""
    with tarfile.open(sdist) as archive:
        names = [member.name.partition("/")[2] for member in archive if member.isfile()]
    weights = Counter(
        "/".join(Path(name).parts[-2:]) for name in names if name.endswith(".safetensors")
    )
    faults = [
        f"{sdist.name}: {name} is contained {count} times"
        for name, count in weights.items()
        if count > 1
    ]
    required = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"}
    required |= {
        f"src/foveal/{name}" for name in required_files() if not name.startswith("recipes/")
    }
    required |= {name for name in required_files() if name.startswith("recipes/")}
    return faults + [f"{sdist.name}: {name} is missing" for name in sorted(required - set(names))]


def main() -> None:
    (wheel,), (sdist,) = ((ROOT / "dist").glob(kind) for kind in ("*.whl", "*.tar.gz"))
    faults = wheel_faults(wheel) + sdist_faults(sdist)
    for path in (wheel, sdist):
        print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()

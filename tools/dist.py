"""Checks the archives of `make dist`: required files, duplicates and sizes."""

import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST = 56e6  # maximum bytes of a wheel: the backbone and the zoo


def repository() -> set[str]:
    """Return the files that a wheel must contain, as paths below the package."""
    source = ROOT / "src" / "foveal"
    weights = (path for path in (source / "zoo" / "weights").rglob("*") if path.is_file())
    recipes = {f"recipes/{path.name}" for path in (ROOT / "recipes").glob("*.yaml")}
    modules = (path for path in source.rglob("*.py"))
    return {str(path.relative_to(source)) for path in (*weights, *modules)} | recipes | {"py.typed"}


def faults_of_wheel(wheel: Path) -> list[str]:
    """Return the faults of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    missing = {f"foveal/{name}" for name in repository()} - set(names)
    twice = [name for name, count in Counter(names).items() if count > 1]
    faults = [f"{wheel.name}: {name} is missing" for name in sorted(missing)]
    faults += [f"{wheel.name}: {name} is there twice" for name in twice]
    if wheel.stat().st_size > MOST:
        faults.append(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, at most {MOST / 1e6:g}")
    return faults


def faults_of_sdist(sdist: Path) -> list[str]:
    """Return the faults of a source distribution: repeated weights or missing build files."""
    with tarfile.open(sdist) as archive:
        names = [member.name.partition("/")[2] for member in archive if member.isfile()]
    weights = Counter("/".join(Path(n).parts[-2:]) for n in names if n.endswith(".safetensors"))
    faults = [f"{sdist.name}: {name} is there {n} times" for name, n in weights.items() if n > 1]
    needed = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"}
    needed |= {f"src/foveal/{n}" for n in repository() if not n.startswith("recipes/")}
    needed |= {name for name in repository() if name.startswith("recipes/")}
    return faults + [f"{sdist.name}: {name} is missing" for name in sorted(needed - set(names))]


def main() -> None:
    (wheel,), (sdist,) = ((ROOT / "dist").glob(kind) for kind in ("*.whl", "*.tar.gz"))
    faults = faults_of_wheel(wheel) + faults_of_sdist(sdist)
    for path in (wheel, sdist):
        print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()

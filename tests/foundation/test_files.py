"""Bounded reads, hostile YAML and JSON, and atomic writes."""

import json
import os
import threading

import pytest

from foveal.foundation import files
from foveal.foundation.errors import UserError
from foveal.foundation.files import OUTPUT_MARK, make_output_folder


def test_fifo_is_rejected_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="not a regular file"):
        files.read_bytes(tmp_path / "pipe")


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/null", "/"])
def test_devices_and_folders_are_rejected(tmp_path, name):
    (tmp_path / "link").symlink_to(name)
    with pytest.raises((UserError, IsADirectoryError)):
        files.read_bytes(tmp_path / "link")


def test_file_above_the_size_limit_is_rejected(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 11)
    assert files.read_bytes(tmp_path / "file", 11) == b"x" * 11
    with pytest.raises(UserError, match="larger than 10 bytes"):
        files.read_bytes(tmp_path / "file", 10)


# The "billion laughs" attack: aliases of aliases that expand to 10^8 values.
BILLION_LAUGHS = "a: &a [1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
BAD_YAML = {
    "nested aliases": BILLION_LAUGHS,
    "one alias": "a: &a [1]\nb: *a",
    "a cycle": "&a [*a]",
    "a merged cycle": "&a {<<: *a}",
    "depth": "[" * 5_000 + "]" * 5_000,
    "depth in blocks": "".join(" " * i + "a:\n" for i in range(60)),
    "digits": "a: " + "9" * 5_000,
    "a list as a key": "{[1]: 2}",
    "an invalid date": "a: 2026-13-45",
    "a Python object": "!!python/object/apply:os.system [echo]",
    "a control character": "a: \x00",
}


@pytest.mark.parametrize("text", BAD_YAML.values(), ids=BAD_YAML)
def test_hostile_yaml_gives_a_one_line_error(text):
    with pytest.raises(UserError) as error:
        files.parse_yaml(text)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "[" * 60 + "]" * 60, "9" * 5_000, "NaN", "[Infinity]", "{", "", b"\xff"],
    ids=["open", "deep", "digits", "nan", "infinity", "cut", "empty", "bytes"],
)
def test_hostile_json_gives_a_one_line_error(text):
    with pytest.raises(UserError) as error:
        files.parse_json(text)
    assert "\n" not in str(error.value)


def test_plain_json_and_yaml_are_read(tmp_path):
    (tmp_path / "a.json").write_text('{"a": [1, 2.5, null, "é"]}', encoding="utf-8")
    (tmp_path / "a.yaml").write_text("a: [1, 2.5, null, é]", encoding="utf-8")
    expected = {"a": [1, 2.5, None, "é"]}
    assert files.read_json(tmp_path / "a.json") == files.read_yaml(tmp_path / "a.yaml") == expected


def test_interrupted_write_leaves_only_the_old_file(tmp_path):
    path = tmp_path / "card.json"
    files.write_json(path, {"a": 1})

    def write_and_interrupt():
        with files.atomic_file(path) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_interrupt()
    with pytest.raises(TypeError, match="JSON"):
        files.write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["card.json"]


def test_non_finite_numbers_are_written_as_null(tmp_path):
    path = tmp_path / "card.json"
    files.write_json(path, {"a": [float("nan"), float("-inf"), 1.5], "é": "ü"})
    assert files.read_json(path) == {"a": [None, None, 1.5], "é": "ü"}
    assert "é" in path.read_text(encoding="utf-8")


def test_full_disk_leaves_no_file(tmp_path):
    def write():
        with files.atomic_file(tmp_path / "x"), open("/dev/full", "wb", buffering=0) as device:
            device.write(b"x")

    with pytest.raises(OSError, match="space") as error:
        write()
    assert files.is_full_disk(error.value)
    assert os.listdir(tmp_path) == []


def test_concurrent_reader_never_reads_a_partial_file(tmp_path):
    path = tmp_path / "file"
    contents = {bytes([value]) * 100_000 for value in range(8)}
    files.write_bytes(path, min(contents))
    observed_contents = set()

    def write():
        for content in sorted(contents) * 5:
            files.write_bytes(path, content)

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        observed_contents.add(path.read_bytes())
    writer.join()
    assert observed_contents <= contents


def test_json_text_is_plain_ascii_without_non_finite_numbers():
    values = {"\ud800": [os.fsdecode(b"caf\xe9"), "\x1b\u202e", 1.5, None, True], "a": {"b": (1,)}}
    text = files.json_text({**values, "nan": float("nan"), "inf": [-float("inf")]})
    assert text.isascii()
    assert text.isprintable()
    assert files.parse_json(text) == {
        r"\ud800": [r"caf\xe9", "\x1b\u202e", 1.5, None, True],
        "a": {"b": [1]},
        "nan": None,
        "inf": [None],
    }


def test_new_output_folder_is_marked_and_a_non_empty_one_is_not(tmp_path):
    make_output_folder(tmp_path / "new" / "pictures")
    make_output_folder(tmp_path / "new" / "pictures")
    assert os.listdir(tmp_path / "new" / "pictures") == [OUTPUT_MARK]
    make_output_folder(tmp_path / "new")
    assert os.listdir(tmp_path / "new") == ["pictures"]

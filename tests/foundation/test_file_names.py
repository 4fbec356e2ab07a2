"""Safe and unique file names; a stem is a file name without its extension."""

import os
import unicodedata

import pytest

from foveal.foundation.file_names import file_key, safe_stem, unique_stems


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("digit", "digit"),
        ("猫 café", "猫 café"),
        ("a/b\\c", "a_b_c"),
        ('<>:"|?*', "_______"),
        ("con", "_con"),
        ("Com1.tar", "_Com1.tar"),
        ("lpt¹ ", "_lpt¹_"),
        ("console", "console"),
        (".hidden", "_hidden"),
        ("dots...", "dots_"),
        ("space ", "space_"),
        ("..", "__"),
        ("", "_"),
        ("a\nb\x1b[m", "a_nb_x1b[m"),
        (os.fsdecode(b"caf\xe9"), "caf_xe9"),
        ("cafe\u0301", "caf\u00e9"),
        ("\u202egnp", "_u202egnp"),
    ],
)
def test_safe_stem_is_a_file_name_on_every_system(name, stem):
    assert safe_stem(name) == stem
    assert safe_stem(stem) == stem


@pytest.mark.parametrize("letter", ["x", "é", "猫", "🐈"])
def test_long_name_is_cut_between_characters_and_can_be_written(tmp_path, letter):
    stem = safe_stem(letter * 300)
    assert set(stem) == {letter}
    (tmp_path / f"{stem}-12345678.png").touch()


@pytest.mark.parametrize(
    ("names", "stems"),
    [
        (["x", "x", "x-1"], ["x", "x-2", "x-1"]),
        (["x-1", "x", "x"], ["x-1", "x", "x-2"]),
        (["x", "X", "x"], ["x", "X-1", "x-2"]),
        (["a/b", "a_b", "a:b"], ["a_b", "a_b-1", "a_b-2"]),
        (["é", "e\u0301", "É"], ["é", "é-1", "É-2"]),
        (["con", "_con"], ["_con", "_con-1"]),
        (["ß", "SS"], ["ß", "SS-1"]),
    ],
)
def test_unique_stems_differ_even_on_systems_that_ignore_case(names, stems):
    assert unique_stems(names) == stems
    assert len({file_key(stem) for stem in stems}) == len(names)


def test_stems_of_existing_files_are_not_used_again():
    assert unique_stems(["x", "y"], taken=["X", "x-1"]) == ["x-2", "y"]


def test_ten_thousand_equal_names_are_numbered_in_order():
    stems = unique_stems(["x"] * 10_000)
    assert stems[:3] == ["x", "x-1", "x-2"]
    assert stems[-1] == "x-9999"


def test_names_that_differ_only_in_unicode_composition_are_one_file():
    assert file_key(unicodedata.normalize("NFD", "É")) == file_key("é")

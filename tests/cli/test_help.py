"""Command-line help and shell completion."""

import shutil
import subprocess
import sys

import pytest
import typer

from foveal import cli

GROUP = typer.main.get_command(cli.app)
# The size of one screen of a terminal.
LINES, COLUMNS = 30, 80


@pytest.mark.parametrize("name", sorted(GROUP.commands))
def test_command_help_fits_one_screen_and_has_an_example(name):
    context = GROUP.context_class(
        GROUP.commands[name], info_name=f"foveal {name}", terminal_width=COLUMNS
    )
    lines = GROUP.commands[name].get_help(context).splitlines()
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= COLUMNS
    assert any(line.strip().startswith(f"Example: foveal {name}") for line in lines)


def test_no_description_in_the_command_list_is_truncated():
    context = GROUP.context_class(GROUP, info_name="foveal", terminal_width=COLUMNS)
    text = GROUP.get_help(context)
    assert "..." not in text.split("Commands:")[1]
    assert len(text.splitlines()) <= LINES


def test_foveal_without_arguments_suggests_first_commands(capsys):
    with pytest.raises(SystemExit):
        cli.main([])
    output = "".join(capsys.readouterr())
    assert "foveal demo" in output
    assert "foveal train --data photos/" in output


@pytest.fixture
def shell(tmp_path):
    """Return a function that runs lines in bash and returns the words that they print.

    As after an installation, `foveal` is on the path.
    """
    bash = shutil.which("bash")
    assert bash, "completion is tested in bash"
    command = tmp_path / "foveal"
    command.write_text(f"#!{sys.executable}\nfrom foveal.cli import main\nmain()\n")
    command.chmod(0o755)

    def run(lines):
        script = f'PATH="{tmp_path}:$PATH"\n{lines}'
        done = subprocess.run([bash, "-c", script], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    return run


@pytest.mark.parametrize(
    ("words", "completions"),
    [("foveal ev", ["evaluate"]), ("foveal ex", ["explain", "export"]), ("foveal tr", ["train"])],
)
def test_bash_completes_commands(words, completions, shell):
    lines = (
        'eval "$(_FOVEAL_COMPLETE=source_bash foveal)"\n'
        f"COMP_WORDS=({words}) COMP_CWORD=1\n"
        "_foveal_completion foveal\n"
        'echo "${COMPREPLY[@]}"'
    )
    assert shell(lines) == completions

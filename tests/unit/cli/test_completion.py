"""``genplug completion``: the scripts, in the shells that read them."""

import subprocess
from pathlib import Path

import pytest

import genplug.cli
from genplug.cli.completion import SCRIPTS
from genplug.cli.main import COMMANDS, main
from genplug.recipes.catalog import shipped_recipes

COMPLETIONS = Path(genplug.cli.__file__).parent / "completions"
COMPLETE_IN_BASH = """\
source "$1"
shift
registered=$(complete -p genplug)
function=${registered##*-F }
function=${function% genplug}
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
"$function"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Return the script of bash as a file."""
    assert main(["completion", "bash"]) == 0
    path = tmp_path / "genplug.bash"
    path.write_text(capsys.readouterr().out)
    return path


def complete_in_bash(script: Path, *words: str) -> set[str]:
    """Return what bash offers for the last word of a command line."""
    command = ["bash", "--norc", "-c", COMPLETE_IN_BASH, "bash", str(script), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=script.parent, timeout=20)
    assert done.stderr == ""
    return set(done.stdout.split())


def test_bash_completes_commands(script: Path) -> None:
    assert complete_in_bash(script, "genplug", "") == set(COMMANDS)
    assert complete_in_bash(script, "genplug", "val") == {"validate"}


def test_bash_completes_options_of_the_command_only(script: Path) -> None:
    assert complete_in_bash(script, "genplug", "plan", "--al") == {"--allocate"}
    assert complete_in_bash(script, "genplug", "status", "--al") == set()


def test_bash_completes_allowed_values(script: Path) -> None:
    assert complete_in_bash(script, "genplug", "validate", "-o", "") == {"text", "json", "sarif", "github"}
    assert complete_in_bash(script, "genplug", "completion", "") == set(SCRIPTS)


def test_bash_completes_recipes(script: Path) -> None:
    assert complete_in_bash(script, "genplug", "init", "") == set(shipped_recipes())


def test_bash_completes_files_and_directories(script: Path) -> None:
    (script.parent / "values.yaml").touch()
    (script.parent / "vault").mkdir()
    assert complete_in_bash(script, "genplug", "validate", "--values", "va") == {"values.yaml", "vault"}
    assert complete_in_bash(script, "genplug", "run", "--cdi-dir", "va") == {"vault"}


@pytest.mark.parametrize("shell", SCRIPTS)
def test_script_of_each_shell_has_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert "docs/generate_completions.py" in text
    assert [command for command in COMMANDS if command not in text] == []


def test_unknown_shell_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["completion", "tcsh"])
    assert caught.value.code == 2
    assert "bash" in capsys.readouterr().err


@pytest.mark.shells
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("genplug val", {"validate"}),
        ("genplug validate -o ", {"text", "json", "sarif", "github"}),
        ("genplug demo nvidia-g", {"nvidia-gpu", "nvidia-gpu-shared"}),
    ],
)
def test_fish_completes_words(line: str, words: set[str], tmp_path: Path) -> None:
    program = tmp_path / "genplug"
    program.touch(mode=0o755)
    script = COMPLETIONS / SCRIPTS["fish"]
    command = ["fish", "--no-config", "-c", f"source {script}; complete --do-complete '{line}'"]
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=20)
    assert done.stderr == ""
    assert {choice.partition("\t")[0] for choice in done.stdout.splitlines()} == words


@pytest.mark.shells
def test_zsh_registers_the_completion(tmp_path: Path) -> None:
    script = COMPLETIONS / SCRIPTS["zsh"]
    commands = f'autoload -U compinit; compinit -u -d {tmp_path}/dump; eval "$(<{script})"; print $_comps[genplug]'
    done = subprocess.run(["zsh", "-f", "-c", commands], capture_output=True, text=True, check=True, timeout=20)
    assert (done.stdout, done.stderr) == ("_shtab_genplug\n", "")

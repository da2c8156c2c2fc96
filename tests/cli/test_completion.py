"""Shell completion: the shell calls `hwnas` with a variable set, and each line of the answer is a candidate."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def run(*arguments, **variables):
    command = [sys.executable, "-c", "import sys; sys.argv[0] = 'hwnas'; from hwnas.cli.main import main; main()"]
    return subprocess.run(
        [*command, *arguments], env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("words", "position", "candidates"),
    [
        ("hwnas tab", 1, ["tables"]),
        ("hwnas tables d", 2, ["diff"]),
        ("hwnas search --bud", 2, ["--budget"]),
        ("hwnas nothing-of-that-name", 1, []),
    ],
)
def test_bash_gets_the_verbs_and_options_that_fit(words, position, candidates):
    ended = run(COMP_WORDS=words, COMP_CWORD=str(position), _HWNAS_COMPLETE="complete_bash")
    assert (ended.stdout.split(), ended.returncode) == (candidates, 0), ended.stderr


def test_completion_is_installed_in_the_home_folder(tmp_path):
    # With typer's variable the option takes the shell's name; without it, the shell is that of the parent process.
    ended = run("--install-completion", "bash", HOME=str(tmp_path), _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert ended.returncode == 0, ended.stderr
    assert "_HWNAS_COMPLETE" in (tmp_path / ".bash_completions" / "hwnas.sh").read_text()
    assert "hwnas.sh" in (tmp_path / ".bashrc").read_text()

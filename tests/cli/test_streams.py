"""What is printed reaches its reader, whatever the encoding; a reader that has gone ends a verb without a word."""

from __future__ import annotations

import ast
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hwnas.cli import streams
from hwnas.errors import OutputError

ROOT = Path(__file__).parents[2]
TARGET = "amd-epyc-f25m17-2c/onnxruntime-cpu-fp32"
VERBS = [
    ["tables", "show", TARGET],
    ["tables", "diff", TARGET, "amd-epyc-f25m17-2c/onnxruntime-cpu-int8"],
    ["tables", "list"],
    ["devices", "list"],
    ["--help"],
    ["search", "--help"],
]


@pytest.fixture
def printed(hwnas_cli, monkeypatch):
    """A function that runs `hwnas` with streams of an encoding: its exit code, and the bytes of both."""

    def run(encoding, *words):
        raw = io.BytesIO(), io.BytesIO()
        for name, buffer in zip(("stdout", "stderr"), raw, strict=True):
            monkeypatch.setattr(sys, name, io.TextIOWrapper(buffer, encoding=encoding))
        ran = hwnas_cli(*words)
        sys.stdout.flush()
        return ran.code, raw[0].getvalue(), raw[1].getvalue()

    return run


CASES = [*(("cp1252", words) for words in VERBS), *((e, VERBS[0]) for e in ("latin-1", "ascii", "cp437", "utf-8"))]


@pytest.mark.parametrize(("encoding", "words"), CASES)
def test_no_verb_fails_at_printing(printed, encoding, words):
    code, out, err = printed(encoding, *words)
    assert (code, b"Traceback" in err) == (0, False), err
    assert out
    out.decode("utf-8" if encoding == "ascii" else encoding)  # typer takes ASCII for a mistake, and writes UTF-8


def test_what_the_encoding_lacks_is_escaped(printed):
    _, out, _ = printed("cp1252", "tables", "show", TARGET)
    assert b"Kendall \\u03c4 0." in out


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_json_stays_json(printed, encoding, tmp_path, monkeypatch):
    folder = tmp_path / "home" / "devices"
    folder.mkdir(parents=True)
    text = (ROOT / "devices" / "amd-epyc-f25m17-2c.toml").read_text(encoding="utf-8")
    text = text.replace('name = "amd-epyc-f25m17-2c"', 'name = "mine"').replace("Cloud", "Größe τ")
    (folder / "mine.toml").write_text(text, encoding="utf-8")
    code, out, _ = printed(encoding, "devices", "show", "mine", "--json")
    assert code == 0
    assert json.loads(out)["description"].startswith("Größe τ virtual machine")


def test_an_error_with_a_path_of_undecodable_bytes(printed):
    code, _, err = printed("utf-8", "verify", "b\udcff\u03c4")
    assert code == 2
    assert b"error: b\\udcff" in err


def test_streams_that_were_closed(monkeypatch):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    streams.take_any_text()
    print("nobody sees this")
    assert not sys.stderr.isatty()
    assert sys.stdin.read() == ""
    streams.flush()
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.close()


def run(script, words, **environment):
    """A shell that has `hwnas` as "$@"."""
    command = ["sh", "-c", script, "sh", sys.executable, "-m", "hwnas.cli.main", *words]
    return subprocess.run(
        command, capture_output=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT), **environment}
    )


@pytest.mark.skipif(os.name != "posix", reason="runs a shell")
@pytest.mark.parametrize("script", ['"$@" | head -1', '{ "$@" 2>&1; } | true', '"$@" >&- 2>&-'])
def test_a_reader_that_has_gone(script, tmp_path):
    done = run(script, ["tables", "list"], HWNAS_HOME=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_to_a_full_disk(tmp_path):
    done = run('"$@" > /dev/full', ["tables", "list"], HWNAS_HOME=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: ")
    assert b"No space left on device; " in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_what_cannot_be_flushed(monkeypatch):
    class Full(io.StringIO):
        def flush(self):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(OutputError, match="cannot write the output: No space left on device"):
        streams.flush()


def test_the_locale_of_a_bare_container(tmp_path):
    bare = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "HWNAS_HOME": str(tmp_path)}
    done = run('"$@"', ["tables", "show", TARGET], **bare)
    assert (done.returncode, done.stderr) == (0, b"")


# -- files ---------------------------------------------------------------------------------------------------


def opens_by_locale(tree):
    """Calls that read or write text and leave its encoding to the locale: their line numbers."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        given = {keyword.arg for keyword in call.keywords}
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        modes = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        modes += [k.value.value for k in call.keywords if k.arg == "mode" and isinstance(k.value, ast.Constant)]
        of_system = isinstance(call.func, ast.Attribute) and getattr(call.func.value, "id", "") == "os"
        is_open = name == "open" and not of_system and not any("b" in mode for mode in modes)
        is_child = name in {"run", "Popen", "check_output"} and not given.isdisjoint({"text", "universal_newlines"})
        if (name in {"read_text", "write_text"} or is_open or is_child) and "encoding" not in given:
            yield call.lineno


# Calls of methods that share the name with Path.open and open no file of text.
NOT_FILES = {
    "hwnas/data/decode.py",
    "hwnas/data/photographs.py",
    "hwnas/pipeline/checked.py",
    "hwnas/pipeline/plan.py",
    "hwnas/supernet/schedule.py",
}


def test_text_in_files_never_depends_on_the_locale():
    found = []
    for folder in ("hwnas", "benchmarks", "examples", "scripts"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            lines = opens_by_locale(ast.parse(path.read_text(encoding="utf-8")))
            found += [f"{name}:{line}" for line in lines if name not in NOT_FILES]
    assert found == [], "\n".join(found)

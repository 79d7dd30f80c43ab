"""Real processes: `python -m w8a16`, its exit codes, and that help needs no heavy import."""

import json
import os
import re
import subprocess
import sys

import pytest

from support.files import saved_block
from w8a16 import __version__


def process(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "w8a16", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "80"},
    )


def test_exit_codes_reach_the_shell(tmp_path):
    _, file = saved_block(tmp_path)
    done = process("inspect", file, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["parts"][0]["int8_modules"] == 3
    done = process("quantize", tmp_path, tmp_path)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == f"error: {tmp_path}: is the input itself; name a new folder\n"


def test_version(run):
    assert run("--version").out == f"w8a16 {__version__}\n"


@pytest.mark.parametrize("command", ["quantize", "inspect", "verify", "dequantize", "bench", "doctor"])
def test_help_of_commands(run, command):
    result = run(command, "--help")
    assert (result.code, result.err) == (0, "")
    assert "--json" in result.out
    assert f"Usage: w8a16 {command}" in result.out
    assert max(map(len, result.out.splitlines())) <= 80


def test_help_lists_the_commands(run):
    result = run("--help")
    assert result.code == 0
    described = ("quantize +Quantize a checkpoint of any size", "inspect +Show what a checkpoint holds")
    for words in (*described, "verify ", "dequantize ", "doctor "):
        assert re.search(words, result.out), words
    assert max(map(len, result.out.splitlines())) <= 80


def test_no_arguments_show_the_help(run):
    result = run()
    assert result.code == 2
    assert "Usage: w8a16 [OPTIONS] COMMAND" in result.out + result.err
    assert "error" not in (result.out + result.err).lower()

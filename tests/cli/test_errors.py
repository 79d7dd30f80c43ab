"""How errors look: one message and an exit code; tracebacks and JSON where they are asked for."""

import signal
import subprocess
import sys
import textwrap

import pytest

from support.files import checksums
from w8a16.checkpoint.streaming import quantizer
from w8a16.cli import quantize
from w8a16.errors import ResourceError


def test_no_traceback(run, tmp_path):
    result = run("inspect", tmp_path / "none")
    assert (result.code, result.out) == (5, "")
    assert result.err == f"error: {tmp_path}/none: no such file or folder\n"


def test_traceback_on_request(run, tmp_path):
    result = run("inspect", tmp_path / "none", "--debug")
    assert result.code == 5
    assert result.err.startswith("Traceback (most recent call last):")
    assert "in find_weights" in result.err
    assert result.err.endswith(f"error: {tmp_path}/none: no such file or folder\n")


def test_json(run, tmp_path):
    result = run("inspect", tmp_path / "none", "--json")
    assert (result.code, result.err) == (5, "")
    message = f"{tmp_path}/none: no such file or folder"
    assert result.json == {"error": {"type": "ResourceError", "message": message, "exit_code": 5}}


def test_json_of_usage_errors(run):
    result = run("inspect", "--json")
    assert (result.code, result.err) == (2, "")
    assert result.json["error"]["type"] == "UsageError"


def test_long_messages_are_not_wrapped(run, tmp_path):
    """A path that is cut in two lines cannot be copied."""
    path = tmp_path / ("x" * 200)
    assert f"error: {path}: no such file or folder\n" == run("inspect", path).err


def test_markup_in_messages_is_text(run, tmp_path):
    assert f"{tmp_path}/[red]x[/]: no such file or folder" in run("inspect", f"{tmp_path}/[red]x[/]").err


@pytest.mark.parametrize(
    "error, code, text",
    [
        (MemoryError(), 5, "out of memory"),
        (OSError(5, "Input/output error"), 5, "[Errno 5] Input/output error"),
        (ZeroDivisionError("oops"), 1, "internal error, please report it: ZeroDivisionError('oops')"),
        (ResourceError("full"), 5, "full"),
    ],
)
def test_other_exceptions(run, tmp_path, monkeypatch, error, code, text):
    from w8a16.cli import inspect

    def fail(*arguments):
        raise error

    monkeypatch.setattr(inspect, "run", fail)
    result = run("inspect", tmp_path / "x")
    assert result.code == code
    assert result.err.strip().startswith(f"error: {text}")
    assert result.out == ""


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_an_interrupt_is_said(run, tmp_path, monkeypatch, options):
    from w8a16.cli import inspect

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(inspect, "run", interrupt)
    result = run("inspect", tmp_path / "x", *options)
    assert result.code == 130
    assert "interrupted" in result.out + result.err


@pytest.mark.transformers
@pytest.mark.parametrize("when", ["planning", "writing", "copying"])
def test_interrupt_leaves_no_stage(run, bert, dst, nothing_written, monkeypatch, when):
    before = checksums(bert)
    reached = []

    def interrupt(*args, **kwargs):
        if when != "planning":
            assert len(list(dst.parent.iterdir())) == 1, "there is no stage to leave behind"
        reached.append(when)
        raise KeyboardInterrupt

    place, name = {
        "planning": (quantize, "plan_checkpoint"),
        "writing": (quantizer, "run_blocks"),
        "copying": (quantize, "copy_side_files"),
    }[when]
    monkeypatch.setattr(place, name, interrupt)
    result = run("quantize", bert, dst)
    assert reached == [when]
    assert result.code == 130
    nothing_written(before)


@pytest.mark.transformers
@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_signal_while_writing(bert, dst, nothing_written, number, code):
    """A real process with the real handlers; the signal comes when the weights are in the stage."""
    before = checksums(bert)
    script = f"""
        import os, sys
        from w8a16.cli import main, quantize

        def copy(source, stage, read):
            assert (stage / "model.safetensors").stat().st_size > 1000
            print("in the middle", flush=True)
            os.kill(os.getpid(), {int(number)})
            import time
            time.sleep(60)

        quantize.copy_side_files = copy
        sys.argv = ["w8a16", "quantize", {str(bert)!r}, {str(dst)!r}]
        main()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120
    )
    assert "in the middle" in done.stdout, done.stderr
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    nothing_written(before)


def test_without_transformers_names_tell_and_the_report_says_why(run, bert, dst, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)  # what makes `import transformers` fail
    data = run("quantize", bert, dst, "--json").json["parts"][0]
    assert data["origin"] == "names"
    assert data["why_names"] == (
        f"reading {bert} needs transformers, which is not installed: pip install 'w8a16[transformers]'"
    )

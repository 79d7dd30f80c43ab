"""`w8a16 bench`: options, errors, tables and JSON. No time is asserted."""

import subprocess
import sys

import pytest
import torch

from support.files import change_config
from w8a16.cli import bench
from w8a16.errors import UsageError
from w8a16.kernels import decide
from w8a16.study import Limits, LinearShape, timing

QUICK = ("--batch", "1,3", "--seconds", "0.01")


@pytest.fixture(autouse=True)
def few_copies(monkeypatch):
    """Two copies of each layer, and limits that are not measured each time."""
    monkeypatch.setattr("w8a16.study.speed.copies_beyond_cache", lambda weight_bytes: 2)
    monkeypatch.setattr(bench, "sample_limits", lambda: Limits(10e9, 100e9))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((), "expected a model folder or --shape OUTxIN, got neither"),
        (("x", "--shape", "8x4"), "expected a model folder or --shape OUTxIN, got both"),
        (
            ("--shape", "8"),
            "--shape: expected OUTxIN, two sizes of at least 1 such as 4096x11008, got '8'",
        ),
        (
            ("--shape", "8x4", "--shape", "0x4"),
            "--shape: expected OUTxIN, two sizes of at least 1 such as 4096x11008, got '0x4'",
        ),
        (
            ("--shape", "8x4", "--batch", "1,,2"),
            "--batch: expected batch sizes of at least 1 such as 1,8,64, got '1,,2'",
        ),
        (
            ("--shape", "8x4", "--dtype", "int8"),
            "--dtype: expected one of float32, bfloat16, float16, got 'int8'",
        ),
        (("--shape", "8x4", "--threads", "0"), "--threads: expected a number above 0, got 0"),
        (("--shape", "8x4", "--seconds", "-1"), "--seconds: expected a number above 0, got -1.0"),
        (("--shape", "8x4", "--seconds", "nan"), "--seconds: expected a number above 0, got nan"),
    ],
)
def test_usage_errors(run, arguments, message):
    result = run("bench", *arguments)
    assert (result.code, result.out, result.err) == (2, "", f"error: {message}\n")


@pytest.mark.parametrize(
    "text", ["", "x", "8x", "x8", "8x4x2", "8*4", "-8x4", "8 x 4", "8x4.0", "²x4", "1e3x4"]
)
def test_bad_shapes(text):
    with pytest.raises(UsageError, match="--shape: expected OUTxIN"):
        bench.parse_shape(text)


def test_shapes_are_out_by_in():
    assert bench.parse_shape("8x4") == LinearShape(out_features=8, in_features=4)
    assert bench.parse_shape(" 11008X4096 ") == LinearShape(11008, 4096)
    with pytest.raises(UsageError):
        bench.parse_shape("4294967296x1")


@pytest.mark.parametrize("text", ["", "0", "1,0", "1.5", "-1", "a", "1;2", "12345678"])
def test_bad_batches(text):
    with pytest.raises(UsageError, match="--batch: expected"):
        bench.parse_batches(text)


def test_batches_are_sorted():
    assert bench.parse_batches("8, 1,8,2") == [1, 2, 8]


def test_escapes_are_shown(run):
    assert "got '8x\\x1b[31m'" in run("bench", "--shape", "8x\x1b[31m").err


def test_too_large(run):
    result = run("bench", "--shape", "4x4", "--shape", "99999999x99999999", *QUICK)
    assert result.code == 5
    assert result.err.startswith("error: a layer of 99999999x99999999: needs ")
    assert result.err.endswith(" are available; name smaller shapes\n")


def test_unknown_backend(run, monkeypatch):
    monkeypatch.setenv("W8A16_BACKEND", "zebra")
    result = run("bench", "--shape", "8x4", *QUICK)
    assert result.code == 2
    assert "W8A16_BACKEND='zebra': expected one of" in result.err


def test_no_folder(run, tmp_path):
    result = run("bench", tmp_path / "none")
    assert result.code == 5
    assert result.err == f"error: {tmp_path}/none: no such folder; expected a model folder\n"


def test_no_config(run, tmp_path):
    result = run("bench", tmp_path)
    assert result.code == 3
    assert result.err == f"error: {tmp_path}: no config.json; expected a model folder\n"


def test_json_of_shapes(run):
    result = run("bench", "--shape", "8x4", "--shape", "6x4", "--shape", "8x4", *QUICK, "--json")
    assert (result.code, result.err) == (0, "")
    data = result.json
    assert set(data) == {
        *("source", "dtype", "threads", "torch", "backends", "limits", "other_programs_processors"),
        *("shapes", "kept_float", "totals", "advice"),
    }
    assert (data["source"], data["dtype"], data["torch"]) == (None, "float32", torch.__version__)
    assert data["threads"] == torch.get_num_threads()
    assert data["backends"] == [
        {"backend": d.backend, "accepted": d.accepted, "reason": d.reason} for d in decide("cpu")
    ]
    assert data["limits"] == {
        "bytes_per_second": 10e9,
        "operations_per_second": 100e9,
        "last_level_cache_bytes": timing.last_level_cache(),
    }
    first, second = data["shapes"]
    assert (first["out_features"], first["in_features"], first["bias"]) == (8, 4, False)
    assert (first["count"], first["names"], second["out_features"]) == (1, [], 6)
    assert first["slower_from_batch"] in (None, 1, 3)
    assert [m["batch"] for m in first["measurements"]] == [1, 3]
    for m in first["measurements"]:
        assert set(m) == {
            *("batch", "float", "int8", "speedup", "bytes", "operations", "bytes_per_second"),
            *("floor_seconds", "bound_by"),
        }
        for side in ("float", "int8"):
            assert set(m[side]) == {"median_seconds", "best_seconds", "samples"}
            assert 0 < m[side]["best_seconds"] <= m[side]["median_seconds"]
            assert m[side]["samples"] >= 3
        assert m["speedup"] == m["float"]["median_seconds"] / m["int8"]["median_seconds"]
        assert m["floor_seconds"] == max(m["bytes"] / 10e9, m["operations"] / 100e9)
        assert m["bound_by"] == "memory"
    assert [set(total) for total in data["totals"]] == [
        {"batch", "float_seconds", "int8_seconds", "speedup"}
    ] * 2
    assert all(isinstance(sentence, str) for sentence in data["advice"])
    assert 1 <= len(data["advice"]) <= 2


def test_tables(run):
    result = run("bench", "--shape", "8x4", "--shape", "6x4", *QUICK)
    assert (result.code, result.err) == (0, "")
    words = " ".join(result.out.split())
    chosen = next(d for d in decide("cpu") if d.accepted)
    assert f"int8 by {chosen.backend}: {chosen.reason}" in words
    assert f"float32 by torch {torch.__version__}, {torch.get_num_threads()} threads" in words
    assert "limits: read 10.0 GB/s, math 100 GFLOP/s, measured during this run" in words
    assert "8x4, ms a call" in words
    assert "6x4, ms a call" in words
    assert "batch float32 best int8 best faster GB/s floor of limit" in words
    assert "all 2 layers once, ms" in words
    assert "float32" in result.out.splitlines()[-1] or "float" in words.split(". ")[-1]
    assert max(map(len, result.out.splitlines())) <= 80


def test_why_not_the_others(run, monkeypatch):
    monkeypatch.setenv("W8A16_BACKEND", "reference")
    out = " ".join(run("bench", "--shape", "8x4", *QUICK).out.split())
    assert "int8 not by cpu-native: W8A16_BACKEND=reference asks for another one" in out
    assert "int8 by reference: runs on cpu" in out


def test_without_limits(run, monkeypatch):
    monkeypatch.setattr(bench, "sample_limits", Limits)
    result = run("bench", "--shape", "8x4", *QUICK)
    assert "limits: not measured, for that takes the native kernels" in result.out
    data = run("bench", "--shape", "8x4", *QUICK, "--json").json
    assert data["limits"]["bytes_per_second"] is None
    assert data["shapes"][0]["measurements"][0]["floor_seconds"] is None


def test_other_programs_are_told(run, monkeypatch):
    monkeypatch.setattr("w8a16.cli.bench.OtherPrograms.processors", lambda self: 0.75)
    out = run("bench", "--shape", "8x4", *QUICK).out
    assert "other programs kept 0.8 processors busy: do not trust the times" in out
    monkeypatch.setattr("w8a16.cli.bench.OtherPrograms.processors", lambda self: None)
    assert "other programs" not in run("bench", "--shape", "8x4", *QUICK).out


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtypes(run, dtype):
    data = run("bench", "--shape", "8x4", "--dtype", dtype, *QUICK, "--json").json
    assert data["dtype"] == dtype
    assert dtype in run("bench", "--shape", "8x4", "--dtype", dtype, *QUICK).out


def test_threads_are_put_back(run):
    before = torch.get_num_threads()
    assert run("bench", "--shape", "8x4", "--threads", "1", *QUICK, "--json").json["threads"] == 1
    assert torch.get_num_threads() == before


def test_help(run):
    result = run("bench", "--help")
    assert (result.code, result.err) == (0, "")
    for word in ("--shape", "--batch", "--dtype", "--threads", "--seconds", "--json"):
        assert word in result.out
    assert max(map(len, result.out.splitlines())) <= 80


@pytest.mark.transformers
def test_model_folder(run, bert):
    data = run("bench", bert, *QUICK, "--json").json
    assert (data["source"], data["dtype"]) == (str(bert), "float32")
    found = {(s["out_features"], s["in_features"]): s for s in data["shapes"]}
    assert {shape: s["count"] for shape, s in found.items()} == {(32, 32): 9, (64, 32): 2, (32, 64): 2}
    assert found[64, 32]["names"] == [
        "encoder.layer.0.intermediate.dense",
        "encoder.layer.1.intermediate.dense",
    ]
    assert found[64, 32]["bias"] is True
    expected = sum(s["count"] * s["measurements"][0]["int8"]["median_seconds"] for s in data["shapes"])
    assert data["totals"][0]["int8_seconds"] == pytest.approx(expected)


@pytest.mark.transformers
def test_model_tables(run, bert):
    result = run("bench", bert, *QUICK)
    assert "64x32 with bias, 2 layers, ms a call\nencoder.layer.*.intermediate.dense" in "\n".join(
        line.rstrip() for line in result.out.splitlines()
    )
    assert "all 13 layers once, ms" in result.out
    assert max(map(len, result.out.splitlines())) <= 80


@pytest.mark.transformers
def test_needs_no_weights(run, bert):
    (bert / "model.safetensors").unlink()
    assert run("bench", bert, *QUICK, "--json").code == 0


@pytest.mark.transformers
def test_dtype_of_the_model(run, bert):
    change_config(bert, dtype="bfloat16")
    assert run("bench", bert, *QUICK, "--json").json["dtype"] == "bfloat16"
    assert run("bench", bert, "--dtype", "float16", *QUICK, "--json").json["dtype"] == "float16"


@pytest.mark.transformers
def test_model_without_linear_layers(run, bert):
    from transformers import GPT2Config, GPT2Model

    config = GPT2Config(
        vocab_size=8, n_positions=8, n_embd=8, n_layer=1, n_head=1, architectures=["GPT2Model"]
    )
    config.save_pretrained(bert)
    assert issubclass(GPT2Model, torch.nn.Module)
    result = run("bench", bert, *QUICK)
    if result.code:  # its layers are of a class of their own
        assert result.code == 3
        assert result.err == (
            f"error: {bert}: expected a model with linear layers, but GPT2Model has none that becomes int8; "
            "name shapes with --shape\n"
        )


def test_progress_is_for_terminals_only():
    """A real process, whose standard error is a pipe."""
    command = [sys.executable, "-m", "w8a16", "bench", "--shape", "8x4", "--batch", "1", "--seconds", "0.01"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "8x4, ms a call" in done.stdout

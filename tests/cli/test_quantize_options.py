"""The options of `w8a16 quantize`, and the exit code of each mistake."""

import re

import pytest
import torch

from support.files import change_weights, checksums
from w8a16.checkpoint import open_checkpoint

pytestmark = pytest.mark.transformers
QUERY = "encoder.layer.0.attention.self.query.weight"


def converted(folder):
    return set(open_checkpoint(folder).manifest.modules)


def test_include(run, bert, dst):
    assert run("quantize", bert, dst, "--include", "*.query", "--include", "pooler").code == 0
    assert converted(dst) == {
        "encoder.layer.0.attention.self.query",
        "encoder.layer.1.attention.self.query",
        "pooler.dense",
    }


def test_exclude_wins(run, bert, dst):
    options = ("--include", "*.query", "--exclude", "encoder.layer.0", "--exclude", "pooler")
    assert run("quantize", bert, dst, *options).code == 0
    assert converted(dst) == {"encoder.layer.1.attention.self.query"}


@pytest.mark.parametrize(
    "options, text",
    [
        (("--include", "nope*"), "include: nothing in the model is named 'nope*'; there are embeddings, "),
        (
            ("--exclude", "pooler.dens"),
            "exclude: nothing in the model is named 'pooler.dens'; did you mean pooler.dense",
        ),
        (("--include", "*.LayerNorm"), "include: '*.LayerNorm' converts nothing ("),
        (
            ("--include", "embeddings", "--kinds", "linear"),
            "include: 'embeddings' converts nothing (embeddings.word_embeddings.weight: not of the kinds",
        ),
        (("--kinds", "linaer"), "kinds: expected some of linear, transposed_linear, "),
        (("--kinds", "linear", "--kinds", ""), "kinds: expected some of linear, transposed_linear, "),
        (("--include", "pooler", "--exclude", "pooler"), "both included and excluded: 'pooler'"),
        (("--on-nonfinite", "ignore"), "on_nonfinite: expected one of error, keep-float, got 'ignore'"),
    ],
)
def test_mistakes_in_options(run, bert, dst, nothing_written, options, text):
    before = checksums(bert)
    result = run("quantize", bert, dst, *options)
    assert result.code == 2
    assert result.err.lstrip().startswith(f"error: {text}")
    assert result.out.strip() == ""
    nothing_written(before)


def test_strict_lists_what_would_stay_float(run, bert, dst, nothing_written):
    with_nan(bert)
    options = ("--strict", "--on-nonfinite", "keep-float")
    result = run("quantize", bert, dst, *options)
    assert result.code == 3
    head, *lines = result.err.strip().splitlines()
    assert head == "error: strict: 1 weights would stay float:"
    assert lines[0].startswith(f"  {QUERY} [32, 32] float32: values without an int8 code: 2 of 1024 values")
    assert len(lines) == 1
    nothing_written()


def test_strict_accepts_a_model_that_is_int8_throughout(run, bert, dst):
    data = run("quantize", bert, dst, "--strict", "--json").json
    assert data["parts"][0]["plan"]["coverage"] == 1.0


@pytest.mark.parametrize(
    "options, count",
    [
        (("--kinds", "linear"), 13),
        (("--kinds", "embedding"), 3),
        (("--kinds", "embedding", "--kinds", "linear"), 16),
        (("--kinds", "linear", "--exclude", "pooler"), 12),
    ],
)
def test_kinds(run, bert, dst, options, count):
    """What was not asked for is no shortfall for --strict."""
    data = run("quantize", bert, dst, "--strict", "--json", *options).json
    rows = data["parts"][0]["plan"]["rows"]
    int8 = {row["name"] for row in rows if row["verdict"] == "int8"}
    assert {f"{path}.weight" for path in converted(dst)} == int8
    assert len(int8) == count
    asked = {options[i + 1] for i, option in enumerate(options) if option == "--kinds"}
    assert {row["kind"] for row in rows if row["verdict"] == "int8"} == asked
    kept = open_checkpoint(dst).manifest.kept_float
    assert set(kept.values()) <= {"kind_not_asked", "excluded"}
    assert len(kept) == 16 - count


def test_a_dry_run_honours_kinds(run, bert, dst):
    data = run("quantize", bert, dst, "--dry-run", "--json", "--kinds", "embedding").json
    assert sum(row["verdict"] == "int8" for row in data["parts"][0]["plan"]["rows"]) == 3


def test_strict_accepts_what_the_caller_excluded(run, bert, dst):
    assert run("quantize", bert, dst, "--strict", "--exclude", "embeddings").code == 0


def with_nan(bert):
    weight = torch.randn(32, 32)
    weight[3, 4] = torch.nan
    weight[5, 6] = torch.inf
    change_weights(bert, **{QUERY.replace(".", "__"): weight})


def test_nonfinite_weight_is_refused(run, bert, dst, nothing_written):
    with_nan(bert)
    before = checksums(bert)
    result = run("quantize", bert, dst)
    assert result.code == 3
    assert result.err.lstrip().startswith(
        f"error: {QUERY}: values without an int8 code: 2 of 1024 values are NaN or Inf, "
        "the first at [3, 4] (nan); nothing was written"
    )
    nothing_written(before)


def test_nonfinite_weight_can_stay_float(run, bert, dst):
    with_nan(bert)
    result = run("quantize", bert, dst, "--on-nonfinite", "keep-float", "--json").json
    kept = {row["name"] for row in result["parts"][0]["plan"]["rows"] if row["reason"] == "nonfinite"}
    assert kept == {QUERY}
    assert open_checkpoint(dst).manifest.kept_float[QUERY] == "nonfinite"
    assert len(converted(dst)) == 15


def test_dry_run_refuses_bad_options_and_reads_no_weights(run, bert, dst):
    assert run("quantize", bert, dst, "--dry-run", "--on-nonfinite", "ignore").code == 2
    with_nan(bert)
    assert run("quantize", bert, dst, "--dry-run").code == 0


@pytest.mark.parametrize("text", ["", "much", "-1", "1.5GB", "512 MiBs"])
def test_memory_that_is_no_size(run, bert, dst, nothing_written, text):
    result = run("quantize", bert, dst, f"--memory={text}")
    assert (result.code, result.err.strip()) == (
        2,
        f"error: --memory: expected a size such as 512MiB or 2GB, got {text!r}",
    )
    nothing_written()


def test_too_little_memory(run, bert, dst, nothing_written):
    result = run("quantize", bert, dst, "--memory", "1MB")
    assert result.code == 5
    assert re.search(r"memory: expected at least \d+ MiB for this checkpoint, got 0 MiB", result.err)
    nothing_written()


def test_nothing_to_convert(run, bert, dst, nothing_written):
    result = run(
        "quantize", bert, dst, "--exclude", "encoder", "--exclude", "embeddings", "--exclude", "pooler"
    )
    assert (result.code, result.err.strip()) == (
        3,
        f"error: {bert}: nothing would become int8 (excluded by the caller); --dry-run shows every weight",
    )
    nothing_written()


def test_by_name(run, bert, dst):
    """The classes are not asked; the same weights become int8, as rows of the same matrices."""
    data = run("quantize", bert, dst, "--by-name", "--json").json["parts"][0]
    assert (data["origin"], data["why_names"]) == ("names", "asked for")
    by_class = run("quantize", bert, dst.parent / "class", "--json").json["parts"][0]
    assert by_class["origin"] == "classes"
    names = [
        {row["name"] for row in each["plan"]["rows"] if row["verdict"] == "int8"} for each in (data, by_class)
    ]
    assert names[0] == names[1]
    assert len(names[0]) == 16


@pytest.mark.parametrize(
    "arguments, text",
    [
        (("quantize",), "Missing argument 'src'."),
        (("quantize", "a"), "Missing argument 'dst'."),
        (("quantize", "a", "b", "c"), "Got unexpected extra argument"),
        (("quantize", "a", "b", "--bogus"), "No such option: --bogus"),
        (("quantize", "a", "b", "--include"), "Option '--include' requires an argument."),
        (("bogus",), "No such command 'bogus'."),
    ],
)
def test_usage(run, arguments, text):
    result = run(*arguments)
    assert result.code == 2
    assert result.err.lower().startswith(f"error: {text}".lower())
    assert result.err.rstrip().endswith("Try 'w8a16 --help'.")
    assert result.out == ""

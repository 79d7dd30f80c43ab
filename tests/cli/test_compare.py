"""`w8a16 compare FLOAT QUANTIZED`: tables, JSON, reports, notes, and what is refused."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from support.files import change_weights
from support.pairs import tiny, write_pair
from w8a16.cli import compare as command
from w8a16.integrations import transformers_folders
from w8a16.study.compare import Comparison, compare

pytest.importorskip("transformers")
pytestmark = pytest.mark.transformers

NAMES = ("bert", "llama", "vit")


@pytest.fixture(scope="module")
def templates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    models = {
        "bert": tiny("BertModel"),
        "llama": tiny("LlamaForCausalLM", num_key_value_heads=1, tie_word_embeddings=True),
        "vit": tiny("ViTForImageClassification", image_size=16, patch_size=8),
    }
    for name, model in models.items():
        write_pair(model, folder / name, tokenizer=name != "vit")
    return folder


@pytest.fixture
def pair(templates, tmp_path):
    def copied(name):
        shutil.copytree(templates / name, tmp_path / name)
        return tmp_path / name / "float", tmp_path / name / "int8"

    return copied


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("the name of this class\nthis is a value\nthe type\nan object is of a class\n" * 2)
    return file


def damage(folder, name):
    """Put noise into a float weight, so that the int8 one is another."""
    weight = load_file(folder / "model.safetensors")[name]
    torch.manual_seed(1)
    change_weights(folder, **{name.replace(".", "__"): weight + 5 * weight.std() * torch.randn_like(weight)})


def test_tables(run, pair, text):
    result = run("compare", *pair("bert"), "--text", text)
    assert result.code == 0, result.err
    assert "BertModel: " in result.out
    assert "inputs: " in result.out
    for heading in ("int8 against float: ", "task: embedding", "outputs", "int8 layers, the largest error"):
        assert heading in result.out
    assert "(the first 10 of 16)" in result.out
    assert "encoder.layer." in result.out
    assert "note: " not in result.out
    assert max(map(len, result.out.splitlines())) <= 80


def test_the_figures_are_those_of_two_models_in_memory(run, pair, text):
    """Streaming changes nothing: not one bit of any figure."""
    floats, codes = pair("bert")
    found = run("compare", floats, codes, "--text", text, "--json").json
    opened = command.open_pair(floats, codes)
    request = command.Request(text=text, tokens=command.tokens_at_once(
        opened.skeleton, opened.output_bytes, command._activation_bytes(opened)
    ))  # fmt: skip
    inputs = command.make_inputs(opened.skeleton, (floats,), command.model_task(opened.skeleton), request)
    expected = compare(
        transformers_folders.load_float(floats), opened.load(), inputs.batches, task="embedding"
    ).to_dict()
    del found["run"]
    assert {key: found[key] for key in expected} == json.loads(json.dumps(expected))
    assert Comparison.from_dict(found).to_dict() == found
    assert found["modules"]
    assert found["samples"] == 8


@pytest.mark.parametrize("name, task", [("llama", "language"), ("vit", "classification")])
def test_the_task_follows_from_the_class(run, pair, name, task):
    result = run("compare", *pair(name), "--batches", 2, "--json")
    assert result.code == 0, result.out
    assert (result.json["task_name"], result.json["batches"]) == (task, 2)
    random = {"vit": ["pixel_values"], "llama": []}[name]
    assert result.json["run"]["random_inputs"] == random
    events = [json.loads(line) for line in result.err.splitlines()]
    assert {event["what"] for event in events} >= {"checking", "batches", "weights"}
    assert all(event["event"] == "progress" for event in events)


def test_random_inputs_are_said_loudly(run, pair):
    result = run("compare", *pair("vit"), "--batches", 1)
    flat = " ".join(result.out.split())
    assert "note: random inputs (pixel_values): they show drift, but nothing about the quality" in flat


def test_another_task(run, pair, text):
    assert run("compare", *pair("bert"), "--text", text, "--task", "any", "--json").json["task_name"] == "any"
    result = run("compare", *pair("llama"), "--task", "poetry")
    assert result.code == 2
    assert "task: expected one of language, " in result.err


def test_sensitivity_finds_a_damaged_layer(run, pair, text):
    floats, codes = pair("bert")
    name = "encoder.layer.1.intermediate.dense"
    damage(floats, f"{name}.weight")
    result = run("compare", floats, codes, "--text", text, "--sensitivity", "--json")
    assert result.code == 0, result.out
    assert result.json["blame"][0]["name"] == name
    assert len(result.json["blame"]) == 16
    (warning,) = result.json["run"]["warnings"]
    assert warning.startswith(
        f"1 int8 weight is not that of FLOAT: {name}.int8_weights: more than half a step"
    )
    shown = run("compare", floats, codes, "--text", text, "--sensitivity").out
    assert "to blame for the drift" in shown
    assert "(the first 10 of 16)" in shown


@pytest.mark.parametrize("suffix", ["html", "md", "json"])
def test_reports(run, pair, text, tmp_path, suffix):
    if suffix != "json":
        pytest.importorskip("jinja2")
        pytest.importorskip("matplotlib")
    report = tmp_path / f"report.{suffix}"
    result = run("compare", *pair("bert"), "--text", text, "--report", report)
    assert result.code == 0, result.err
    assert f"wrote {report}" in result.out.replace("\n", "")
    content = report.read_text().replace("<wbr>", "")
    assert "BertModel" in content
    assert "encoder.layer.0.attention.self.query" in content
    assert {"json": '"worst_layer": {'}.get(suffix, "The weights of one layer") in content


def test_a_report_has_the_times_of_the_layers_where_asked(run, pair, text, tmp_path):
    report = tmp_path / "report.json"
    result = run("compare", *pair("bert"), "--text", text, "--report", report, "--speed", 0.2, "--json")
    assert result.code == 0, result.err
    rows = json.loads(report.read_text())["speed"]
    assert {row["batch"] for row in rows} == {1, 16, 128}
    assert all(row["float_seconds"] > 0 and row["int8_seconds"] > 0 for row in rows)


@pytest.mark.parametrize("options", [["--speed", 1], ["--speed", -1], ["--speed", "nan"]])
def test_times_need_a_report_and_a_number(run, tmp_path, options):
    result = run("compare", tmp_path / "none", tmp_path / "none", *options)
    assert result.code == 2
    assert "--speed" in result.err


def test_a_report_has_the_notes_of_the_terminal(run, pair, tmp_path):
    floats, codes = pair("vit")
    damage(floats, "vit.encoder.layer.0.output.dense.weight")
    report = tmp_path / "report.json"
    result = run("compare", floats, codes, "--batches", 1, "--json", "--report", report)
    assert result.code == 0, result.err
    notes = json.loads(report.read_text())["notes"]
    assert notes == result.json["run"]["warnings"]
    assert [words.split(" ")[0] for words in notes] == ["1", "random"]


@pytest.mark.parametrize(
    "report, message",
    [("r.pdf", "expected a file that ends in .html, .md, .json"), ("no/r.json", "no such folder")],
)
def test_reports_that_cannot_be_written_are_refused_before_the_work(run, pair, tmp_path, report, message):
    result = run("compare", tmp_path / "none", tmp_path / "none", "--report", tmp_path / report)
    assert result.code == 2
    assert message in result.err


def test_a_missing_library_is_named_before_the_work(run, pair, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    result = run("compare", tmp_path / "none", tmp_path / "none", "--report", tmp_path / "r.html")
    assert "pip install 'w8a16[study]'" in result.err


def test_wrong_folders(run, pair, tmp_path):
    floats, codes = pair("bert")
    others = pair("llama")
    for arguments, code, message in [
        ((codes, floats), 2, "expected FLOAT first, then QUANTIZED; swap the two"),
        ((floats, floats), 2, "neither is int8"),
        ((others[0], codes), 3, "they do not belong together"),
        ((tmp_path / "none", codes), 5, "no such file"),
        ((floats, codes, "--text", tmp_path / "none"), 5, "no such file"),
        ((floats, codes, "--dataset", "imagenet"), 2, "--dataset 'imagenet': expected one of"),
        ((floats, codes, "--dataset", "digits"), 3, "BertModel takes no images; it takes text"),
        ((floats, codes, "--batches", 0), 2, "--batches: expected at least 1"),
    ]:
        result = run("compare", *arguments)
        assert (result.code, result.out) == (code, ""), arguments
        assert message in result.err, arguments


def test_nan_in_the_float_model(run, pair, text):
    floats, codes = pair("bert")
    bias = torch.zeros(32)
    bias[3] = float("nan")
    for folder in (floats, codes):
        tensors = load_file(folder / "model.safetensors")
        tensors["encoder.layer.0.output.dense.bias"] = bias
        if folder == floats:
            save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    result = run("compare", floats, codes, "--text", text)
    assert (
        result.code == 0
    )  # the bias that both run with is that of QUANTIZED, and the note says that they differ
    assert "encoder.layer.0.output.dense.bias: kept as it was, but not the same" in " ".join(
        result.out.split()
    )
    weight = load_file(floats / "model.safetensors")["pooler.dense.weight"]
    weight[0, 0] = float("nan")
    change_weights(floats, pooler__dense__weight=weight)
    result = run("compare", floats, codes, "--text", text)
    assert result.code == 3
    assert "NaN" in result.err
    assert "pooler.dense" in result.err


def test_inputs_that_the_model_cannot_take(run, pair, tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"input_ids": [[1, 2, 3]], "token_type_ids": [[9, 9, 9]]}))
    result = run("compare", *pair("bert"), "--inputs", tmp_path / "x.json")
    assert result.code == 3
    assert "cannot take batch 0" in result.err
    assert "x.json" in result.err

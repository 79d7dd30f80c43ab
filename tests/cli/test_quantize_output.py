"""`w8a16 quantize SRC DST`: what is in the new folder, and what is said about it."""

import json
import re

import pytest
import torch

import w8a16
from support.files import assert_same_model, checksums
from w8a16.convert import size
from w8a16.integrations import transformers as folders

pytestmark = pytest.mark.transformers
LINEARS = 13  # six in each of two layers, and the pooler
EMBEDDINGS = 3  # words, positions, token types


def test_the_folder_holds_the_quantized_model(run, bert, dst):
    before = checksums(bert)
    result = run("quantize", bert, dst)
    assert (result.code, result.err.strip()) == (0, "")
    assert sorted(checksums(dst)) == ["config.json", "model.safetensors"]
    expected = w8a16.quantize(folders.load_float(bert))
    assert_same_model(w8a16.load(folders.skeleton(dst), dst), expected)
    assert checksums(bert) == before


def test_nothing_but_the_folder_is_left(run, bert, dst):
    run("quantize", bert, dst)
    assert [file.name for file in dst.parent.iterdir()] == ["int8"]


def test_the_same_input_gives_the_same_bytes(run, bert, dst):
    for name in ("one", "two"):
        assert run("quantize", bert, dst.parent / name).code == 0
    assert checksums(dst.parent / "one") == checksums(dst.parent / "two")


SIDE_FILES = {
    "copied": [
        "LICENSE",
        "README.md",
        "chat_template.jinja",
        "config.json",
        "merges.txt",
        "spiece.model",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
        "1_Pooling/config.json",
    ],
    "left_out": [
        "modeling_bert.py",
        "pytorch_model.bin",
        "training_args.pt",
        "model.onnx",
        "1_Pooling/x.pkl",
    ],
}


def test_side_files(run, bert, dst):
    """Text and tokenizers are copied; code, pickles and other frameworks' weights are not, and are listed."""
    (bert / "1_Pooling").mkdir()
    for name in [*SIDE_FILES["copied"], *SIDE_FILES["left_out"]]:
        if name != "config.json":
            (bert / name).write_text(f"this is {name}")
    result = run("quantize", bert, dst, "--json").json
    for key, names in SIDE_FILES.items():
        assert sorted(result[key]) == sorted(names)
    assert sorted(checksums(dst)) == sorted([*SIDE_FILES["copied"], "model.safetensors"])
    source, written = checksums(bert), checksums(dst)
    assert {name for name in SIDE_FILES["copied"] if written[name] != source[name]} == {"config.json"}
    noted, config = (json.loads((folder / "config.json").read_text()) for folder in (dst, bert))
    assert noted.pop("quantization_config")["quant_method"] == "w8a16"  # for transformers
    assert noted == config
    told = run("quantize", bert, dst.parent / "again").out.replace("\n", " ")
    assert "copied 10 files: " in told
    assert all(name in told.partition("left out: ")[2] for name in SIDE_FILES["left_out"])


def test_shards_stay_shards(run, bert, dst):
    model = folders.load_float(bert)
    (bert / "model.safetensors").unlink()
    model.save_pretrained(bert, max_shard_size="20KB")
    before = checksums(bert)
    assert len(list(bert.glob("model-*.safetensors"))) > 2
    assert run("quantize", bert, dst).code == 0
    assert checksums(bert) == before
    assert sorted(checksums(dst)) == sorted(before)
    assert_same_model(w8a16.load(folders.skeleton(dst), dst), w8a16.quantize(model))


def test_weights_in_sub_folders_are_mentioned(run, bert, dst):
    """sentence-transformers keeps a Dense layer in 2_Dense: without it the new folder is another model."""
    (bert / "2_Dense").mkdir()
    (bert / "2_Dense" / "model.safetensors").write_bytes(b"weights")
    result = run("quantize", bert, dst, "--json").json
    assert "2_Dense/model.safetensors" in result["copied"] + result["left_out"]


def test_the_index_of_pickles_is_left_out(run, bert, dst):
    """It names files that the new folder does not have."""
    (bert / "pytorch_model.bin.index.json").write_text("{}")
    assert run("quantize", bert, dst, "--json").json["left_out"] == ["pytorch_model.bin.index.json"]


def test_json_agrees_with_the_table_and_the_file(run, bert, dst):
    table = run("quantize", bert, dst.parent / "table").out
    data = run("quantize", bert, dst, "--json").json
    assert (data["source"], data["output"]) == (str(bert), str(dst))
    assert data["bytes_written"] == (dst / "model.safetensors").stat().st_size
    rows = data["parts"][0]["plan"]["rows"]
    int8 = [row for row in rows if row["verdict"] == "int8"]
    assert (len(rows), len(int8)) == (16, LINEARS + EMBEDDINGS)
    for module, count in (("Linear", LINEARS), ("Embedding", EMBEDDINGS)):
        line = re.search(rf"int8 +{module} +(\d+) +(\S+ kB) +(\S+ kB)", table)
        assert line
        same = [row for row in int8 if row["module_type"] == module]
        before, after = (size(sum(row[key] for row in same)) for key in ("bytes_before", "bytes_after"))
        assert line.groups() == (str(count), before, after)
    total = re.search(r"total +(\d+) +(\S+ kB) +(\S+ kB)", table)
    assert total
    assert total.groups() == (
        "16",
        size(data["parts"][0]["plan"]["bytes_before"]),
        size(data["parts"][0]["plan"]["bytes_after"]),
    )
    became = f"{size(data['bytes_read'])} became {size(data['bytes_written'])} in "
    assert became in table.replace("\n", " ")


def test_json_on_both_streams(run, bert, dst):
    """The result on standard output, progress on standard error, one object a line."""
    result = run("quantize", bert, dst, "--json")
    data = json.loads(result.out)
    assert data["parts"][0]["plan"]["coverage"] > 0.8
    events = [json.loads(line) for line in result.err.splitlines()]
    assert {event["event"] for event in events} == {"progress"}
    assert events[-1]["bytes"] == events[-1]["total"] == data["bytes_read"]


def test_nothing_is_said_on_standard_error(run, bert, dst):
    assert run("quantize", bert, dst).err == ""


def test_dry_run_writes_nothing(run, bert, dst, nothing_written):
    before = checksums(bert)
    result = run("quantize", bert, dst, "--dry-run")
    assert result.code == 0
    assert "dry run: nothing was written" in result.out
    nothing_written(before)
    data = run("quantize", bert, dst, "--dry-run", "--json").json
    assert (data["output"], data["bytes_written"], data["copied"]) == (None, 0, [])
    nothing_written(before)
    written = run("quantize", bert, dst, "--json").json
    assert data["parts"][0]["plan"] == written["parts"][0]["plan"]


def test_the_manifest_names_source_and_reasons(run, bert, dst):
    run("quantize", bert, dst, "--exclude", "pooler", "--kinds", "linear")
    manifest = w8a16.checkpoint.open_checkpoint(dst).manifest
    assert manifest.source.name == "bert"
    assert manifest.kept_float["pooler.dense.weight"] == "excluded"
    assert manifest.kept_float["embeddings.word_embeddings.weight"] == "kind_not_asked"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_half_precision(run, bert, dst, dtype):
    folders.load_float(bert).to(dtype).save_pretrained(bert)
    assert run("quantize", bert, dst).code == 0
    model = w8a16.load(folders.skeleton(dst), dst)
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert model.pooler.dense.weight_dtype == dtype


def test_no_column_is_squeezed(run, bert, dst):
    """Words are not cut in pieces: every sentence can be read at the usual width of a terminal."""
    table = run("quantize", bert, dst).out.partition("wrote ")[0].splitlines()
    assert max(map(len, table)) <= 80
    for word in ("verdict", "weights", "before", "Embedding", "Linear", "channel", "quantized"):
        assert any(word in line.split() for line in table), word


def test_a_name_with_brackets_in_the_output(run, bert, dst):
    """Rich reads [red] as a colour; a path is no markup."""
    target = dst.parent / "[red]int8"
    assert run("quantize", bert, target).code == 0
    assert (target / "model.safetensors").exists()


@pytest.mark.parametrize("side", ["source", "output"])
def test_a_name_that_looks_like_a_closing_tag(run, bert, dst, side):
    source, target = bert, dst.parent / "a[/b]"
    if side == "source":
        (bert.parent / "a[").mkdir()
        source, target = bert.rename(bert.parent / "a[" / "x]"), dst
    (target.parent).mkdir(exist_ok=True)
    assert run("quantize", source, target).code == 0

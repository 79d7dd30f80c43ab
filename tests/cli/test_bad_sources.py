"""Folders that `w8a16 quantize` cannot use: a clear error, nothing written, nothing run."""

import logging
import pickle

import pytest
import torch

from support.files import change_config, change_weights, checksums

pytestmark = pytest.mark.transformers


def refused(run, src, dst, code=3):
    """Quantize a bad source; return the message after the source's name."""
    before = checksums(src) if src.is_dir() else {}
    result = run("quantize", src, dst)
    assert result.code == code, result.err
    assert result.out.strip() == ""
    assert list(dst.parent.iterdir()) == []
    assert (checksums(src) if src.is_dir() else {}) == before
    message = result.err.strip().removeprefix("error: ")
    assert message.startswith(str(src))
    return message.removeprefix(str(src)).removeprefix(": ")


def test_no_folder(run, tmp_path, dst):
    assert refused(run, tmp_path / "none", dst, 5) == "no such file or folder"
    (tmp_path / "file").write_text("x")
    assert refused(run, tmp_path / "file", dst) == "no header length in a file of 1 bytes; download it again?"


HINT = "; --by-name goes by the names and shapes of the tensors instead of the class"


def told_by_names(run, src, dst):
    """Quantize a folder whose class is not known; return the reason that the report gives for it."""
    before = checksums(src)
    told = run("quantize", src, dst).out
    assert checksums(src) == before
    data = run("quantize", src, dst.parent / "json", "--json").json["parts"][0]
    assert data["origin"] == "names"
    assert data["plan"]["coverage"] == 1.0
    assert "what each tensor is was told from its name and shape: " in " ".join(told.split())
    return data["why_names"].removeprefix(str(src))


def test_no_config(run, bert, dst):
    (bert / "config.json").unlink()
    assert told_by_names(run, bert, dst) == "there is no config.json"


def test_config_without_a_class(run, bert, dst):
    (bert / "config.json").write_bytes(b"{}")
    assert told_by_names(run, bert, dst) == "/config.json: no architectures: which model class is it?"


def test_a_file_by_itself(run, bert, dst):
    data = run("quantize", bert / "model.safetensors", dst, "--json").json
    assert data["parts"][0]["why_names"] == "a file by itself has no config"
    assert sorted(checksums(dst)) == ["model.safetensors"]


@pytest.mark.parametrize(
    "content, text",
    [
        (b"{", "/config.json: not JSON (Expecting"),
        (b"\xff", "/config.json: not JSON ("),
        (b"[" * 200_000, "/config.json: not JSON ("),
        (b"[]", "/config.json: expected a JSON object"),
    ],
)
def test_config_that_is_no_config(run, bert, dst, content, text):
    (bert / "config.json").write_bytes(content)
    assert refused(run, bert, dst).startswith(text)


def test_no_weights(run, bert, dst):
    (bert / "model.safetensors").unlink()
    assert refused(run, bert, dst) == "no model.safetensors and no model.safetensors.index.json"


class Trap:
    """Unpickling it makes a file: the proof that somebody did."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_pickle_is_never_read(run, bert, dst, tmp_path):
    sprung = tmp_path / "sprung"
    (bert / "model.safetensors").unlink()
    (bert / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(str(sprung))))
    torch.save({"weight": Trap(str(sprung))}, bert / "other.bin")
    assert refused(run, bert, dst) == (
        "no model.safetensors and no model.safetensors.index.json "
        "(found other.bin, pytorch_model.bin: pickle is never read)"
    )
    assert not sprung.exists()
    pickle.loads((bert / "pytorch_model.bin").read_bytes()).close()
    assert sprung.exists(), "the trap does not work"


def test_pickle_beside_safetensors_is_not_read_either(run, bert, dst, tmp_path):
    (bert / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(str(tmp_path / "sprung"))))
    assert run("quantize", bert, dst).code == 0
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("architecture", ["BertModel", "XModel"])
def test_code_of_the_folder_is_never_run(run, bert, dst, tmp_path, architecture):
    """Neither where its class is asked for, nor where a class of transformers is."""
    sprung = tmp_path / "sprung"
    (bert / "modeling_x.py").write_text(
        f"open({str(sprung)!r}, 'w')\nclass XModel: pass\nclass XConfig: pass\n"
    )
    auto_map = {"AutoModel": "modeling_x.XModel", "AutoConfig": "modeling_x.XConfig"}
    change_config(bert, architectures=[architecture], auto_map=auto_map)
    if architecture == "XModel":
        reason = told_by_names(run, bert, dst)
        assert reason.startswith(": architectures XModel: not a model class of transformers ")
    else:
        result = run("quantize", bert, dst, "--json")
        assert result.json["left_out"] == ["modeling_x.py"]
    assert not sprung.exists()


def test_unknown_architecture(run, bert, dst):
    change_config(bert, architectures=["ZebraModel"])
    text = told_by_names(run, bert, dst)
    assert text.startswith(": architectures ZebraModel: not a model class of transformers ")
    assert text.endswith("; code from the folder is never run")


@pytest.mark.parametrize("architectures", [["logging"], ["BertTokenizer"], ["pipeline"], 5])
def test_architecture_that_is_no_model(run, bert, dst, architectures):
    change_config(bert, architectures=architectures)
    assert "architectures" in told_by_names(run, bert, dst)


@pytest.mark.parametrize(
    "quantization, method",
    [({"quant_method": "gptq", "bits": 4}, "gptq"), ({"bits": 4}, "unknown method"), ("x", "unknown method")],
)
def test_quantized_by_another_method(run, bert, dst, quantization, method):
    change_config(bert, quantization_config=quantization)
    assert refused(run, bert, dst) == f"already quantized ({method}); expected float weights"


def test_quantized_by_us(run, bert, dst):
    assert run("quantize", bert, dst).code == 0
    again = dst.parent.parent / "again" / "int8"
    again.parent.mkdir()
    assert refused(run, dst, again) == (
        "/model.safetensors: already quantized by w8a16; expected float weights"
    )


def test_one_file_and_an_index(run, bert, dst):
    (bert / "model.safetensors.index.json").write_text("{}")
    assert refused(run, bert, dst) == (
        "holds model.safetensors, model.safetensors.index.json: choose one with weights=NAME (--weights NAME)"
    )


def test_missing_tensors(run, bert, dst):
    """transformers would fill them with random numbers, and say so in a log line only."""
    change_weights(bert, pooler__dense__weight=None, pooler__dense__bias=None)
    assert refused(run, bert, dst) == (
        f"BertModel needs 2 tensors that the folder lacks: pooler.dense.bias, pooler.dense.weight{HINT}"
    )


def test_many_missing_tensors_are_counted(run, bert, dst):
    change_config(bert, num_hidden_layers=3)
    text = refused(run, bert, dst)
    assert text.startswith("BertModel needs 16 tensors that the folder lacks: encoder.layer.2.")
    assert text.endswith(f", ... (6 more){HINT}")


def test_tensors_without_a_place(run, bert, dst):
    """Weights of a head that the class does not have would be lost."""
    change_weights(bert, classifier__weight=torch.ones(2, 32))
    text = "BertModel has no place for 1 tensors of the folder: classifier.weight"
    assert refused(run, bert, dst) == text + HINT
    assert run("quantize", bert, dst, "--by-name").code == 0


def test_other_shapes(run, bert, dst):
    change_config(bert, hidden_size=64)
    text = refused(run, bert, dst)
    assert text.startswith("BertModel needs other shapes: embeddings.LayerNorm.bias is [32], expected [64], ")


def test_impossible_config(run, bert, dst):
    change_config(bert, hidden_size=33)
    assert refused(run, bert, dst) == (
        "transformers cannot load it: "
        f"The hidden size (33) is not a multiple of the number of attention heads (2){HINT}"
    )


@pytest.mark.parametrize("fields", [{"hidden_size": "abc"}, {"vocab_size": [1]}])
def test_config_of_wrong_types(run, bert, dst, fields):
    change_config(bert, **fields)
    assert refused(run, bert, dst).startswith("transformers cannot load it: ")


def test_broken_weights(run, bert, dst):
    (bert / "model.safetensors").write_bytes(b"1234")
    assert refused(run, bert, dst) == (
        "/model.safetensors: no header length in a file of 4 bytes; download it again?"
    )


def test_transformers_is_silent(run, bert, dst):
    """It advises to train the tensors that it has made up, and prints their names as they are."""
    from transformers.utils import logging as transformers_logging

    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    before = logger.level
    transformers_logging.set_verbosity_warning()
    try:
        change_weights(bert, pooler__dense__bias=None)
        refused(run, bert, dst)
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)
    assert [record.getMessage() for record in records] == []


@pytest.mark.parametrize("where", ["tensor", "method"])
def test_names_are_escaped(run, bert, dst, where):
    """A terminal obeys escape sequences in whatever is printed."""
    if where == "tensor":
        change_weights(bert, **{"evil\x1b[31m": torch.ones(2)})
    else:
        change_config(bert, quantization_config={"quant_method": "evil\x1b[31m"})
    text = refused(run, bert, dst)
    assert "evil\\x1b[31m" in text
    assert "\x1b" not in text

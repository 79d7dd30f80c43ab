"""`w8a16 verify`: a sound checkpoint passes, and every way of being wrong is found and named."""

import json
import shutil
import zlib

import pytest
import torch
from safetensors.torch import load_file, save_file

import w8a16
from support.files import checksums, edit_manifest, read_raw, write_raw
from support.golden import golden_model

transformers = pytest.importorskip("transformers")


def gpt2():
    """Weights stored turned, in several files, in bfloat16, with a tied head."""
    config = transformers.GPT2Config(
        vocab_size=64, n_positions=32, n_embd=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=1
    )
    return transformers.GPT2LMHeadModel(config).bfloat16()


def mixtral():
    """Experts that the files hold one by one, and the class as a stack."""
    config = transformers.MixtralConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=3,
    )
    return transformers.MixtralForCausalLM(config)


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    torch.manual_seed(0)
    gpt2().save_pretrained(folder / "gpt2", max_shard_size="60KB")
    mixtral().save_pretrained(folder / "mixtral")
    return folder


@pytest.fixture(params=["gpt2", "mixtral", "by name"])
def pair(request, sources, run, tmp_path):
    """A float folder and the quantized one."""
    name = "mixtral" if request.param == "mixtral" else "gpt2"
    source = shutil.copytree(sources / name, tmp_path / name)
    options = ["--by-name"] if request.param == "by name" else []
    result = run("quantize", source, tmp_path / "int8", *options)
    assert result.code == 0, result.err
    return source, tmp_path / "int8"


@pytest.fixture
def small(bert, run, tmp_path):
    """The same of a small BERT in one file."""
    assert run("quantize", bert, tmp_path / "int8").code == 0
    return bert, tmp_path / "int8"


QUERY = "encoder.layer.0.attention.self.query"


def change(file, name, edit, *, repair=False):
    """Edit the bytes of one stored tensor; with `repair` the manifest gets the new checksum."""
    header, data = read_raw(file)
    begin, end = header[name]["data_offsets"]
    changed = bytearray(data[begin:end])
    edit(changed)
    write_raw(file, header, data[:begin] + bytes(changed) + data[end:])
    if repair:
        crc = f"{zlib.crc32(changed):08x}"
        edit_manifest(file, lambda manifest: manifest["checksums"].update({name: crc}))


def flip(content):
    content[5] ^= 0x40


def findings(result):
    (part,) = result.json["parts"]
    return {finding["tensor"]: finding for finding in part["findings"]}


def test_a_sound_checkpoint(run, pair):
    source, quantized = pair
    before = checksums(source), checksums(quantized)
    alone, compared = run("verify", quantized), run("verify", quantized, "--source", source)
    assert (alone.code, compared.code) == (0, 0)
    assert "all is well" in alone.out
    assert "compared with the original" in compared.out
    assert "not compared" not in compared.out
    assert (checksums(source), checksums(quantized)) == before


def test_what_is_compared(run, pair):
    """Every weight, and every tensor that was kept."""
    source, quantized = pair
    result = run("verify", quantized, "--source", source, "--json")
    (part,) = result.json["parts"]
    assert result.json["ok"]
    assert part["ok"]
    assert part["not_compared"] == {}
    assert part["note"] is None
    assert part["checksums"] == part["tensors"]
    own = 0  # scales, and buffers that the class computes: no float file has them
    for file in quantized.glob("*.safetensors"):
        header, _ = read_raw(file)
        own += sum("scales" in name for name in header)
        own += len(json.loads(header["__metadata__"]["w8a16"])["non_persistent_buffers"])
    assert part["compared"] == part["tensors"] - own > 0


@pytest.mark.parametrize("name", [f"{QUERY}.int8_weights", f"{QUERY}.bias", f"{QUERY}.scales"])
def test_one_flipped_bit(run, small, name):
    _, quantized = small
    change(quantized / "model.safetensors", name, flip)
    result = run("verify", quantized, "--json")
    assert result.code == 3
    assert not result.json["ok"]
    found = findings(result)[name]
    assert found["problem"].startswith("its checksum is ")
    table = run("verify", quantized)
    assert table.code == 3
    assert name[:20] in table.out
    assert "all is well" not in table.out


def test_a_code_that_is_off_by_one(run, small):
    """The checksum is right, so only the original tells."""
    source, quantized = small
    name = f"{QUERY}.int8_weights"

    def off(content):
        for at in (3 * 32 + 7, 30 * 32):
            code = content[at] if content[at] < 128 else content[at] - 256
            content[at] = (code - 1 if code > 0 else code + 1) % 256

    change(quantized / "model.safetensors", name, off, repair=True)
    assert run("verify", quantized).code == 0
    result = run("verify", quantized, "--source", source, "--json")
    assert result.code == 3
    found = findings(result)
    assert list(found) == [name]
    assert (found[name]["count"], found[name]["first"]) == (2, [3, 7])
    assert found[name]["problem"].startswith("more than half a step from the original, by up to ")


def test_a_scale_that_is_a_little_off(run, small):
    """By a hundredth: most weights of the row are still within half a step, the largest are not."""
    source, quantized = small
    name = f"{QUERY}.scales"

    def stretch(content):
        scales = torch.frombuffer(content, dtype=torch.float32)
        scales[4] *= 1.01

    change(quantized / "model.safetensors", name, stretch, repair=True)
    result = run("verify", quantized, "--source", source, "--json")
    found = findings(result)
    assert list(found) == [f"{QUERY}.int8_weights"]
    assert found[f"{QUERY}.int8_weights"]["first"][0] == 4


def test_a_kept_tensor_that_differs(run, small):
    source, quantized = small
    change(quantized / "model.safetensors", f"{QUERY}.bias", flip, repair=True)
    result = run("verify", quantized, "--source", source, "--json")
    assert result.code == 3
    found = findings(result)
    assert list(found) == [f"{QUERY}.bias"]
    assert found[f"{QUERY}.bias"]["problem"] == "kept as it was, but not the same as in the original"


@pytest.mark.parametrize("value", [float("nan"), 0.0, -1.0, float("inf")])
def test_scales_that_are_none(run, small, value):
    _, quantized = small

    def spoil(content):
        torch.frombuffer(content, dtype=torch.float32)[[3, 9]] = value

    change(quantized / "model.safetensors", f"{QUERY}.scales", spoil, repair=True)
    result = run("verify", quantized, "--json")
    assert result.code == 3
    found = findings(result)[f"{QUERY}.scales"]
    assert (found["count"], found["first"]) == (2, [3])
    assert found["problem"] == f"expected finite positive scales, the first of the others is {value}"


def test_lowest_codes_are_counted_and_accepted(run, small):
    _, quantized = small

    def lower(content):
        content[0] = content[100] = 128

    change(quantized / "model.safetensors", f"{QUERY}.int8_weights", lower, repair=True)
    result = run("verify", quantized, "--json")
    assert result.code == 0
    assert result.json["parts"][0]["lowest_codes"] == 2
    assert "2 codes are -128" in run("verify", quantized).out


def test_another_original(run, small, sources):
    """Every weight is named, not the first one."""
    source, quantized = small
    state = load_file(source / "model.safetensors")
    for name in (f"{QUERY}.weight", "pooler.dense.weight"):
        state[name] += 1
    save_file(state, source / "model.safetensors", metadata={"format": "pt"})
    result = run("verify", quantized, "--source", source, "--json")
    assert set(findings(result)) == {f"{QUERY}.int8_weights", "pooler.dense.int8_weights"}
    assert findings(result)["pooler.dense.int8_weights"]["count"] == 32 * 32


def test_an_original_that_became_nan(run, small):
    source, quantized = small
    state = load_file(source / "model.safetensors")
    state[f"{QUERY}.weight"][2, 3] = float("nan")
    save_file(state, source / "model.safetensors", metadata={"format": "pt"})
    found = findings(run("verify", quantized, "--source", source, "--json"))[f"{QUERY}.int8_weights"]
    assert (found["count"], found["first"]) == (1, [2, 3])


def test_an_original_without_a_weight(run, small):
    """What could not be checked is said."""
    source, quantized = small
    state = load_file(source / "model.safetensors")
    del state["pooler.dense.weight"]
    save_file(state, source / "model.safetensors", metadata={"format": "pt"})
    result = run("verify", quantized, "--source", source, "--json")
    assert result.json["parts"][0]["not_compared"] == {
        "pooler.dense.weight": "the original has no tensor of this name"
    }
    assert "pooler.dense.weight" in run("verify", quantized, "--source", source).out


def test_an_original_of_another_shape(run, small):
    source, quantized = small
    state = load_file(source / "model.safetensors")
    state["pooler.dense.weight"] = torch.zeros(32, 31)
    save_file(state, source / "model.safetensors", metadata={"format": "pt"})
    result = run("verify", quantized, "--source", source, "--json")
    assert result.code == 3
    assert "another shape" in findings(result)["pooler.dense.int8_weights"]["problem"]


def test_a_file_of_the_first_version(run, tmp_path):
    file = w8a16.save(golden_model(), tmp_path)

    def older(manifest):
        manifest.update(format_version=1, source=None)
        del manifest["checksums"], manifest["origin"]

    edit_manifest(file, older)
    result = run("verify", file)
    assert result.code == 0
    assert "no checksums (format 1)" in result.out


def test_a_float_file_is_refused(run, bert):
    result = run("verify", bert)
    assert result.code == 3
    assert "not written by w8a16" in result.err


def test_a_pipeline_is_verified_part_by_part(run, small, tmp_path):
    """A folder of folders: one section each, and one failure is enough."""
    _, quantized = small
    tree = tmp_path / "pipeline"
    for name in ("encoder", "decoder"):
        shutil.copytree(quantized, tree / name)
    assert run("verify", tree).code == 0
    change(tree / "decoder" / "model.safetensors", f"{QUERY}.bias", flip)
    result = run("verify", tree, "--json")
    assert result.code == 3
    assert {part["place"]: part["ok"] for part in result.json["parts"]} == {"decoder": False, "encoder": True}


def test_progress_for_machines(run, small):
    source, quantized = small
    result = run("verify", quantized, "--source", source, "--json")
    last = json.loads(result.err.splitlines()[-1])
    assert (last["event"], last["what"]) == ("progress", "verifying")
    assert last["bytes"] == last["total"]

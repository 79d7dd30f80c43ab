"""Every architecture of the zoo passes every check; a dozen of them with each run of the tests."""

import pytest

pytest.importorskip("transformers")

from zoo.catalogue import catalogue
from zoo.checks import check

DOZEN = (
    "gpt2",
    "llama_tied",
    "bert",
    "t5",
    "mamba",
    "mixtral",
    "vit",
    "resnet",
    "whisper",
    "clip",
    "nn_transformer_encoder",
    "lstm_packed",
    "wavenet",
)
ENTRIES = {entry.name: entry for entry in catalogue().entries}


@pytest.mark.parametrize("name", DOZEN)
def test_a_dozen_architectures_pass(name):
    assert_passes(ENTRIES[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ENTRIES if name not in DOZEN])
def test_all_other_architectures_pass(name):
    assert_passes(ENTRIES[name])


def assert_passes(entry):
    result = check(entry)
    assert result.problems == {}
    assert (result.runs, result.equals, result.round_trip) == ("ok", "ok", "ok")
    assert result.published_problem == ""

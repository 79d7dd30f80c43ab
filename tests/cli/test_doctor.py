"""`w8a16 doctor`: versions, devices, backends with reasons."""

import importlib.metadata

import pytest
import torch

import w8a16
from w8a16.cli import doctor
from w8a16.kernels import cpu, decide


def test_json(run):
    data = run("doctor", "--json").json
    assert set(data) == {"versions", "machine", "backends", "instruction_sets", "environment"}
    assert data["versions"]["w8a16"] == w8a16.__version__
    assert data["versions"]["torch"] == importlib.metadata.version("torch")
    assert data["machine"]["threads"] == torch.get_num_threads()
    assert "cpu" in data["machine"]["devices"]


def test_backends_are_those_of_the_registry(run):
    found = [row for row in run("doctor", "--json").json["backends"] if row["device"] == "cpu"]
    expected = [(d.backend, d.accepted, d.reason) for d in decide("cpu")]
    assert [(row["backend"], row["accepted"], row["reason"]) for row in found] == expected
    assert any(row["accepted"] for row in found)
    assert all(row["reason"] for row in found)


def test_instruction_sets_are_those_of_the_library(run, monkeypatch):
    if cpu.problem() is not None:
        pytest.skip(cpu.problem())
    rows = run("doctor", "--json").json["instruction_sets"]
    assert [row["name"] for row in rows] == [v.name for v in cpu.variants()]
    assert [row["name"] for row in rows if row["chosen"]] == [cpu.chosen_variant()]
    assert all(row["reason"] for row in rows)
    assert all(row["available"] for row in rows if row["chosen"])
    monkeypatch.setattr(cpu, "problem", lambda: "not built")
    assert run("doctor", "--json").json["instruction_sets"] == []


def test_table_says_the_same(run):
    data = run("doctor", "--json").json
    result = run("doctor")
    assert result.code == 0
    words = result.out.split()
    for name, version in data["versions"].items():
        assert name in words
        assert version is None or version in words
    for row in data["backends"]:
        assert row["backend"] in words
    assert max(map(len, result.out.splitlines())) <= 80


def test_a_missing_package_names_its_extra(run, monkeypatch):
    real = importlib.metadata.version

    def version(package):
        if package == "transformers":
            raise importlib.metadata.PackageNotFoundError
        return real(package)

    monkeypatch.setattr(doctor.importlib.metadata, "version", version)
    assert run("doctor", "--json").json["versions"]["transformers"] is None
    out = run("doctor").out
    assert "not installed" in out
    assert "pip install 'w8a16[transformers]'" in out


def test_our_variables_are_shown(run, monkeypatch):
    assert run("doctor", "--json").json["environment"] == {}
    monkeypatch.setenv("W8A16_NOTE", "[red]hello")
    assert run("doctor", "--json").json["environment"] == {"W8A16_NOTE": "[red]hello"}
    assert "[red]hello" in run("doctor").out

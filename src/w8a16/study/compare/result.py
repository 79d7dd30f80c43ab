"""What a comparison found: plain frozen records, which JSON can hold and give back.

JSON has no infinity and no NaN: `to_dict` writes them as the strings "inf", "-inf" and "nan", and
`from_dict` reads them back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from w8a16.study.compare.text import comparison_text
from w8a16.study.metrics import Metric, WeightError
from w8a16.study.plain_text import plain_data


@dataclass(frozen=True)
class TensorDrift:
    """How far an int8 output is from the float one, over all elements of all batches."""

    sqnr_db: float
    """`10 log10(sum r^2 / sum (r - q)^2)`; infinite where the two are equal."""
    cosine: float
    """Of all elements taken as one vector; NaN where one of the two is all zeros."""
    largest_difference: float
    """Largest `|r - q|`."""
    largest_reference: float
    """Largest `|r|`, to see the difference in proportion."""
    elements: int


@dataclass(frozen=True)
class ModuleDrift:
    """One int8 module: the error of its weight, and what that does to its output."""

    name: str
    """The path of the module; "" for the model itself."""
    kind: str
    """The layer kind, as in a plan: "linear", "conv2d", ..."""
    tier: str
    """"compute" or "storage"."""
    shape: tuple[int, ...]
    """Of the float weight; of the largest one where the module has several."""
    depth: int | None
    """Position in the order of the first calls, from 0; None if the module is never called."""
    weight: WeightError | None
    """The worst of its weights; None if the float one is not at hand."""
    own: TensorDrift | None
    """With the inputs that the module has in the float model: only its own weights make a difference."""
    drifted: TensorDrift | None
    """With the inputs that it has in the int8 model, as drifted so far."""
    note: str = ""
    """Why `own` or `drifted` is missing."""


@dataclass(frozen=True)
class Blame:
    """What one int8 module does to the outputs of the whole model."""

    name: str
    drift_without: float
    """The end-to-end drift with this module back in float and all others int8."""
    share: float
    """`1 - drift_without / drift`: the part of the drift that goes with this module. Below zero where
    the errors of two modules cancel each other."""
    bytes_added: int
    """What it costs to keep the module in float."""
    tied: tuple[str, ...] = ()
    """Modules that share its int8 tensors: they were put back to float with it."""


@dataclass(frozen=True)
class Comparison:
    """The int8 model against the float model on the same inputs; `print(comparison)` shows tables."""

    model: str
    """The class of the model."""
    batches: int
    samples: int
    """The sum of the first dimensions of the inputs."""
    bytes_before: int
    """Bytes of the float model's parameters and buffers, tied memory counted once."""
    bytes_after: int
    coverage: float
    """Share of the bytes of all matrix-like weights that are int8; 0.0 to 1.0."""
    outputs: tuple[tuple[str, TensorDrift], ...]
    """Every float tensor among the outputs, with its place in them: "logits", "hidden_states[3]"."""
    task_name: str
    task: dict[str, Metric]
    modules: tuple[ModuleDrift, ...]
    """Every int8 module, in the order of the first calls; those never called come last."""
    drift: float
    """The end-to-end drift that `blame` divides up: of the task, or else noise power over signal power
    of the outputs, averaged over them; 0 where nothing differs."""
    drift_unit: str
    blame: tuple[Blame, ...]
    """The modules that were put back to float one at a time, the largest share first."""
    blame_untried: tuple[str, ...]
    """The modules that were not, for want of time; empty where `sensitivity` was not asked for."""
    kept_float: tuple[tuple[str, str], ...]
    """Weights that are not int8: name and reason."""

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain data for JSON; see the page above for numbers that are not finite."""
        plain: dict[str, Any] = plain_data(asdict(self))
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Comparison:
        """Read what `to_dict` wrote."""
        fields = dict(data)
        fields["outputs"] = tuple((path, _tensor_drift(drift)) for path, drift in data["outputs"])
        fields["task"] = {name: _metric(metric) for name, metric in data["task"].items()}
        fields["modules"] = tuple(_module_drift(module) for module in data["modules"])
        fields["blame"] = tuple(_blame(blame) for blame in data["blame"])
        fields["blame_untried"] = tuple(data["blame_untried"])
        fields["kept_float"] = tuple((name, reason) for name, reason in data["kept_float"])
        fields["drift"] = float(data["drift"])
        return cls(**fields)

    def __str__(self) -> str:
        return comparison_text(self)


def _tensor_drift(data: Mapping[str, Any]) -> TensorDrift:
    floats = {name: float(value) for name, value in data.items() if name != "elements"}
    return TensorDrift(**floats, elements=data["elements"])


def _metric(data: Mapping[str, Any]) -> Metric:
    low, high = (None if data[name] is None else float(data[name]) for name in ("low", "high"))
    return Metric(float(data["value"]), low, high, unit=data["unit"], better=data["better"])


def _blame(data: Mapping[str, Any]) -> Blame:
    floats = {name: float(data[name]) for name in ("drift_without", "share")}
    return Blame(**{**data, **floats, "tied": tuple(data["tied"])})


def _module_drift(data: Mapping[str, Any]) -> ModuleDrift:
    fields = {**data, "shape": tuple(data["shape"])}
    for name in ("own", "drifted"):
        fields[name] = None if data[name] is None else _tensor_drift(data[name])
    fields["weight"] = None if data["weight"] is None else _weight_error(data["weight"])
    return ModuleDrift(**fields)


def _weight_error(data: Mapping[str, Any]) -> WeightError:
    fields: dict[str, Any] = {key: float(v) for key, v in data.items() if key not in ("name", "shape")}
    fields["worst_row"] = data["worst_row"]
    return WeightError(**fields, name=data["name"], shape=tuple(data["shape"]))

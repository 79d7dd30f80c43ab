"""One row for each weight and tensor of a checkpoint: what it is, what it takes, how exact it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

from w8a16.checkpoint import Manifest, Shards, WeightRecord, shown
from w8a16.checkpoint.opened import below
from w8a16.convert import REASONS
from w8a16.layers import int8_names


@dataclass(frozen=True)
class Row:
    """A float weight, as codes and scales or as it was; or another tensor."""

    name: str
    verdict: str
    """"int8", "float" or "other"."""
    shape: tuple[int, ...]
    """Of the float weight."""
    dtype: str
    float_bytes: int
    bytes: int
    """As stored; 0 for a second name of a stored tensor."""
    sqnr_db: float | None
    largest_error: float | None
    """In half-steps."""
    file: str | None
    """The name of the file that holds it; None for a second name."""
    note: str

    @property
    def is_weight(self) -> bool:
        """Whether it is, or could be, in int8."""
        return self.verdict == "int8" or (self.verdict == "float" and len(self.shape) >= 2)


def rows_of(shards: Shards, manifest: Manifest | None) -> list[Row]:
    """int8 weights from the manifest, then all other tensors as they are stored; the largest first."""
    rows, used = [], set()
    stored = shards.tensors
    for path, record in manifest.modules.items() if manifest else []:
        for name, weight in record.weights.items():
            keys = [below(path, key) for key in sorted(int8_names([name]))]
            used.update(keys)
            here = [key for key in keys if key in stored]
            sqnr = weight.sqnr_db
            rows.append(
                Row(
                    name=path if name == "weight" else below(path, name),
                    verdict="int8",
                    shape=weight.layout.float_shape(weight.shape),
                    dtype=str(record.weight_dtype).removeprefix("torch."),
                    float_bytes=math.prod(weight.shape) * record.weight_dtype.itemsize,
                    bytes=sum(stored[key].size for key in here),
                    sqnr_db=999.99 if sqnr == math.inf else sqnr,  # JSON has no infinity
                    largest_error=weight.largest_error,
                    file=shards.header_of(here[0]).path.name if here else None,
                    note=_note(weight, bool(here)),
                )
            )
    rows += [_as_stored(shards, name, manifest) for name in stored if name not in used]
    return sorted(rows, key=lambda row: (row.verdict != "int8", -row.bytes, row.name))


def _note(weight: WeightRecord, is_stored: bool) -> str:
    notes = [weight.layout.refinement or "", "" if is_stored else "shares the tensors of another module"]
    return "; ".join(filter(None, notes))


def _as_stored(shards: Shards, name: str, manifest: Manifest | None) -> Row:
    info = shards.tensors[name]
    reason = manifest.kept_float.get(name, "") if manifest else ""
    return Row(
        name=name,
        verdict="float" if info.dtype.is_floating_point else "other",
        shape=info.shape,
        dtype=str(info.dtype).removeprefix("torch."),
        float_bytes=info.size,
        bytes=info.size,
        sqnr_db=None,
        largest_error=None,
        file=shards.header_of(name).path.name,
        note=REASONS.get(reason, shown(reason)),
    )

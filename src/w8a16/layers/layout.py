"""How a float weight of any shape is cut into rows that share one scale.

Codes are always contiguous and lie row by row: the first `lead` dimensions count the rows (output
channels), the others are what a row is summed over. Most weights lie like that already; some are
stored with input and output dimension exchanged, and are turned once, when they are quantized.

    nn.Linear, nn.Conv2d, nn.Embedding   [N, ...]       lead 1
    transformers' Conv1D                 [K, N]         lead 1, swapped
    nn.ConvTranspose2d                   [C, N/g, ...]  lead 1, swapped in g groups
    experts                              [E, N, K]      lead 2
    experts, transposed                  [E, K, N]      lead 2, swapped

A matrix can be refined, where one scale for a row is too coarse for it:

    in groups of S        codes [N, K/S, S], a scale for each group       lead 2, group S
    with R outliers       codes [N, K], the R largest of each row apart   outliers R
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """Where the output channels of a float weight are."""

    lead: int = 1
    """How many leading dimensions of the codes have a scale of their own."""
    swapped: bool = False
    """Whether the float weight has dimension `lead` (input) before dimension `lead - 1` (output)."""
    groups: int = 1
    """Groups of a transposed convolution: the first dimension of the float weight is split into so many."""
    group: int = 0
    """Elements of a row that share one scale; 0: all of them."""
    outliers: int = 0
    """How many elements of each row, the largest, are kept as floats beside the codes."""

    def in_groups(self, size: int) -> Layout:
        """This layout of a matrix, with a scale for every `size` elements of a row."""
        return replace(self, lead=2, group=size)

    def with_outliers(self, count: int) -> Layout:
        """This layout of a matrix, with the `count` largest elements of each row kept as floats."""
        return replace(self, outliers=count)

    @property
    def unrefined(self) -> Layout:
        """The same with one scale for a row and no outliers."""
        return replace(self, lead=1 if self.group else self.lead, group=0, outliers=0)

    @property
    def refinement(self) -> str | None:
        """What is finer than one scale for a row, in words; None for nothing."""
        if self.group:
            return f"groups of {self.group}"
        if self.outliers:
            return f"{self.outliers} outlier{'s' if self.outliers > 1 else ''} a row"
        return None

    def codes_shape(self, float_shape: Shape) -> Shape:
        """The shape of the codes of a weight with this float shape."""
        if self.group:
            n, k = self.unrefined.codes_shape(float_shape)
            return n, k // self.group, self.group
        return self._swap_shape(float_shape) if self.swapped else tuple(float_shape)

    def float_shape(self, codes_shape: Shape) -> Shape:
        """The shape of the float weight that has codes of this shape."""
        if self.group:
            n, groups, size = codes_shape
            return self.unrefined.float_shape((n, groups * size))
        return self._swap_shape(codes_shape) if self.swapped else tuple(codes_shape)

    def scales_shape(self, codes_shape: Shape) -> Shape:
        """The shape of the scales for codes of this shape."""
        return tuple(codes_shape[: self.lead])

    def codes_of(self, weight: Tensor) -> Tensor:
        """The float weight in the order of its codes; a view where nothing has to move."""
        if self.group:
            rows = self.unrefined.codes_of(weight)
            return rows.reshape(self.codes_shape(tuple(weight.shape)))
        if not self.swapped:
            return weight
        return self._swap(weight, self.codes_shape(tuple(weight.shape)))

    def float_of(self, codes: Tensor) -> Tensor:
        """The way back: values in the order of the codes, as the float weight has them."""
        if self.group:
            return self.unrefined.float_of(codes.flatten(1))
        if not self.swapped:
            return codes
        return self._swap(codes, self.float_shape(tuple(codes.shape)))

    def fits(self, float_shape: Shape) -> bool:
        """Whether a weight of this shape can have this layout."""
        if self.refinement is not None:
            return self.why_not(float_shape) is None
        return len(float_shape) > self.lead and float_shape[0] % self.groups == 0

    def why_not(self, float_shape: Shape) -> str | None:
        """Why a weight of this shape cannot be refined as this layout says, or None where it can."""
        if self.unrefined not in (ROWS, COLUMNS) or len(float_shape) != 2:
            return f"expected a matrix, got {list(float_shape)} with {self.unrefined}"
        if self.group and self.outliers:
            return "expected groups or outliers, got both"
        _, k = self.unrefined.codes_shape(float_shape)
        if self.group and (k % self.group or k < self.group):
            return f"expected a multiple of {self.group} elements in a row, got {k}"
        if self.outliers and self.outliers >= k:
            return f"expected more than {self.outliers} elements in a row, got {k}"
        return None

    def _swap(self, values: Tensor, result: Shape) -> Tensor:
        if self.groups == 1:
            return values.transpose(self.lead - 1, self.lead)
        inner = (values.shape[0] // self.groups, values.shape[1])
        grouped = values.reshape(self.groups, *inner, *values.shape[2:])
        return grouped.transpose(1, 2).reshape(result)

    def _swap_shape(self, shape: Shape) -> Shape:
        # [C, N/g] <-> [N, C/g]: either way the first is divided by g and the second multiplied.
        first, second = shape[self.lead - 1] // self.groups, shape[self.lead] * self.groups
        return (*shape[: self.lead - 1], second, first, *shape[self.lead + 1 :])


ROWS = Layout()
"""`[N, ...]`: one scale for each index of the first dimension."""
COLUMNS = Layout(swapped=True)
"""`[K, N]`: output channels last."""


def rows_of_last_dimension(dimensions: int) -> Layout:
    """A scale for every row along the last dimension: for a weight whose use is not known."""
    return Layout(lead=dimensions - 1)

"""Group normalisation as OpenVINO computes it fastest: a factor and an offset for each channel of an image.

The exported graph normalises groups as rows (reshape, mean and variance, reshape), which keeps OpenVINO from
holding activations channels-last, as its convolutions want them. `x -> a x + b` with `a, b [B, C, 1, 1]` from
the channels' first two moments is the same function, and what scales and shifts follows (the normalisation's
own weights, FiLM) goes into a and b.
"""

import numpy as np
import openvino.opset13 as op
from openvino import Dimension, Model, Node, Output


def fold_normalisations(model: Model) -> int:
    """Rewrites every group normalisation of a model in place; how many there were.

    What does not look like the exporter's group normalisation of `[B, C, H, W]` stays as it is.
    """
    found = [_Rows.of(node) for node in model.get_ordered_ops() if node.get_type_name() == "MVN"]
    for rows in found:
        if rows is not None:
            rows.replace()
    return sum(rows is not None for rows in found)


class _Rows:
    """A normalisation of rows between two reshapes: `x [B, C, H, W] -> [B, G, n] -> x's shape`."""

    def __init__(self, x: Output, groups: int, epsilon: float, end: Node) -> None:
        self._x, self._groups, self._epsilon, self._end = x, groups, epsilon, end

    @classmethod
    def of(cls, mvn: Node) -> "_Rows | None":
        before = mvn.input_value(0).get_node()
        if before.get_type_name() != "Reshape" or not mvn.get_attributes()["normalize_variance"]:
            return None
        x, rows = before.input_value(0), mvn.get_output_partial_shape(0)
        if len(x.get_partial_shape()) != 4 or len(rows) != 3 or not _static(x.get_partial_shape()[1]):
            return None
        node = mvn  # InstanceNormalization's own factors and offsets, which the exporter sets to 1 and 0
        for kind, neutral in (("Multiply", 1.0), ("Add", 0.0)):
            following = _consumer(node, kind)
            if following is None or not _is(_other(following, node), neutral):
                return None
            node = following
        end = _consumer(node, "Reshape")
        epsilon = float(mvn.get_attributes()["eps"])
        return None if end is None else cls(x, rows[1].get_length(), epsilon, end)

    def replace(self) -> None:
        channels = self._x.get_partial_shape()[1].get_length()
        each = channels // self._groups
        split = op.constant(np.array([0, self._groups, each], dtype=np.int64))
        whole = op.constant(np.array([0, channels, 1, 1], dtype=np.int64))
        ones = op.constant(np.ones((1, 1, each), dtype=np.float32))

        def group_mean(values: Node) -> Node:
            means = op.reduce_mean(values, np.array([2, 3]), keep_dims=False)
            return op.reduce_mean(op.reshape(means, split, special_zero=True), np.array([2]), keep_dims=True)

        def per_channel(values: Node) -> Node:
            return op.reshape(op.multiply(values, ones), whole, special_zero=True)

        mean, square = group_mean(self._x), group_mean(op.multiply(self._x, self._x))
        variance = op.subtract(square, op.multiply(mean, mean))
        inverse = op.power(op.add(op.relu(variance), np.float32(self._epsilon)), np.float32(-0.5))
        a, b = per_channel(inverse), per_channel(op.negative(op.multiply(mean, inverse)))
        end = self._end
        while (following := _scaling(end)) is not None:
            factor = _other(following, end)
            a, b = (
                (op.multiply(a, factor), op.multiply(b, factor))
                if following.get_type_name() == "Multiply"
                else (a, op.add(b, factor))
            )
            end = following
        end.output(0).replace(op.add(op.multiply(self._x, a), b).output(0))


def _consumer(node: Node, kind: str) -> Node | None:
    """The one operation of a kind that reads a node; what asks for its shape does not count."""
    readers = [target.get_node() for target in node.output(0).get_target_inputs()]
    readers = [reader for reader in readers if reader.get_type_name() != "ShapeOf"]
    return readers[0] if len(readers) == 1 and readers[0].get_type_name() == kind else None


def _scaling(node: Node) -> Node | None:
    """What multiplies or adds one number for each channel to all that a node gives."""
    for kind in ("Multiply", "Add"):
        reader = _consumer(node, kind)
        if reader is not None:
            shape = _other(reader, node).get_partial_shape()
            sides = list(shape)[-2:]
            if len(shape) >= 3 and all(_static(side) and side.get_length() == 1 for side in sides):
                return reader
    return None


def _other(node: Node, known: Node) -> Output:
    """The input of a binary operation that another node does not give."""
    return next(value for value in node.input_values() if value.get_node() != known)


def _is(value: Output, number: float) -> bool:
    """Whether a value is a constant, perhaps reshaped, of this number alone."""
    node = value.get_node()
    while node.get_type_name() in ("Reshape", "Convert"):
        node = node.input_value(0).get_node()
    return node.get_type_name() == "Constant" and bool(np.all(node.get_data() == number))


def _static(side: Dimension) -> bool:
    return bool(side.is_static)

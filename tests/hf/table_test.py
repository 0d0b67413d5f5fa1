"""The table of weights names every parameter of a model once, and every tensor of a folder once."""

from typing import Any

import jax
import numpy as np
import pytest

from seirenes_jax.errors import ConfigError
from seirenes_jax.hf.table import check_shapes, leaf_of, tensors, weights
from seirenes_jax.models import init_params
from tests.hf import made


@pytest.mark.parametrize("shape", made.SHAPES, ids=str)
def test_the_table_is_the_model(shape: tuple[Any, ...]) -> None:
    config = made.config_of(shape)
    real = jax.eval_shape(lambda: init_params(config, 0))
    same = jax.tree.map(
        lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), real, made.shapes_of(config)
    )
    assert all(jax.tree.leaves(same))


@pytest.mark.parametrize("shape", made.SHAPES, ids=str)
def test_every_tensor_stands_once_a_layers_together(shape: tuple[Any, ...]) -> None:
    table = weights(made.config_of(shape))
    names = [name for name, _, _ in tensors(table)]
    assert len(names) == len({*names}) == sum(int(np.prod(w.stack)) for w in table)
    layers = [int(name.split(".")[2]) for name in names if ".layers." in name]
    assert layers == sorted(layers) and {*layers} == {*range(made.LAYERS)}
    assert names[0] == "model.embed_tokens.weight"


@pytest.mark.parametrize("shape", made.SHAPES, ids=str)
def test_a_part_of_ours_is_that_part_of_theirs(shape: tuple[Any, ...]) -> None:
    draw = np.random.default_rng(0)
    for weight in weights(made.config_of(shape)):
        theirs = draw.normal(size=weight.theirs)
        np.testing.assert_array_equal(weight.to_theirs(weight.to_ours(theirs)), theirs)
        for axis, size in enumerate(weight.ours):
            half = slice(size // 2, size)
            cut = tuple(half if i == axis else slice(0, n) for i, n in enumerate(weight.ours))
            part = theirs[weight.cut_of_theirs(cut)]
            np.testing.assert_array_equal(
                part.T if weight.turned else part, weight.to_ours(theirs)[cut]
            )


def test_a_tree_of_another_model_is_refused_by_name() -> None:
    config = made.config_of(made.DENSE[0])
    table, params = weights(config), made.random_params(config)
    check_shapes(params, table)
    with pytest.raises(ConfigError, match="no place .* .'head'"):
        check_shapes(params | {"head": np.zeros((32, 200))}, table)
    with pytest.raises(ConfigError, match="norm has shape|norm/scale has shape"):
        check_shapes(params | {"norm": {"scale": np.zeros(3)}}, table)
    with pytest.raises(ConfigError, match="parameter norm is missing"):
        leaf_of({k: v for k, v in params.items() if k != "norm"}, ("norm", "scale"))

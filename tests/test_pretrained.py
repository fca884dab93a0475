"""Networks that ship with the package: where dropout is, and how they are loaded."""

from importlib import import_module

import pytest
import torch

from mcunc import experiments, recorded
from mcunc.experiments import OLD_ADDRESSES
from mcunc.pretrained import VARIANTS, load_network
from mcunc.pretrained import drawn_network as network_of


def test_only_dropout_networks_have_dropout():
    x, sites = torch.rand(2, 3, 64, 64), {}
    for variant in VARIANTS:
        network = network_of(variant).eval()
        sites[variant] = [
            name for name, m in network.named_modules()
            if isinstance(m, torch.nn.Dropout | torch.nn.Dropout2d) and m.p == 0.05
        ]  # fmt: skip
        torch.testing.assert_close(network(x), network_of("standard").eval()(x))
    assert not sites["standard"]
    assert not sites["shared"]
    assert len(sites["everywhere"]) == 20  # as many as there are weight layers
    assert set(sites["everywhere"]) - set(sites["spared"]) == {"features.0.0.dropout"}


def test_the_old_name_of_the_variant_still_works():
    run = recorded.load("birdwatch-dropout")
    expected = load_network(run, "standard", 2).state_dict()
    with pytest.warns(DeprecationWarning, match="arm= is now variant="):
        network = load_network(run, arm="standard", member=2)
    assert all(torch.equal(expected[name], value) for name, value in network.state_dict().items())


def test_the_old_addresses_of_runs_and_networks_still_work():
    for name, place in OLD_ADDRESSES.items():
        module, _, attribute = f"mcunc.{place}".rpartition(".")
        with pytest.warns(DeprecationWarning, match=f"is now {module}.{attribute}"):
            old = getattr(experiments, name)
        assert old is getattr(import_module(module), attribute)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        experiments.nothing  # noqa: B018

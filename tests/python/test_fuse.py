"""return_predictor.fuse and unfuse: what they replace, what they leave alone, and the same bits."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from return_predictor import fuse, unfuse
from return_predictor.nn import BatchNormLeakyReLU2d

from bits import all_same_bits, same_bits


class DarknetBlock(nn.Module):
    """Residual block of YOLOv3's backbone: its activations are modules."""

    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels // 2)
        self.act1 = nn.LeakyReLU(0.1, inplace=True)
        self.conv2 = nn.Conv2d(channels // 2, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.act2 = nn.LeakyReLU(0.1, inplace=True)

    def forward(self, x):
        y = self.act1(self.bn1(self.conv1(x)))
        return x + self.act2(self.bn2(self.conv2(y)))


def darknet():
    return nn.Sequential(nn.Conv2d(3, 8, 3), DarknetBlock(8), nn.MaxPool2d(2), DarknetBlock(8))


def dcgan_discriminator():
    """The discriminator of DCGAN, one Sequential."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 4, 2, 1, bias=False),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(8, 16, 4, 2, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(16, 1, 4, 1, 0, bias=False),
        nn.Sigmoid(),
    )


class Functional(nn.Module):
    """A network that calls F.leaky_relu, and owns what its forward does not use."""

    def __init__(self, modes=False):
        super().__init__()
        self.unused = nn.Linear(2, 2)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.modes = modes

    def forward(self, x):
        x = F.leaky_relu(self.bn(self.conv(x)), 0.3)
        if self.modes:
            x = F.dropout(x, 0.5, self.training)
        return self.scale * x


class SharedActivation(nn.Module):
    """One LeakyReLU in two places, one of them behind no BatchNorm."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.act = nn.LeakyReLU(0.2)

    def forward(self, x):
        return self.act(self.conv2(self.act(self.bn(self.conv1(x)))))


def timm_network(name):
    timm = pytest.importorskip("timm", reason="timm is not installed: pip install timm torchvision")
    return timm.create_model(name, num_classes=4)


NETWORKS = {
    "darknet": (darknet, 4, []),
    "dcgan": (dcgan_discriminator, 1, []),
    "functional": (Functional, 1, [""]),
    "functional inside": (lambda: nn.Sequential(Functional(), nn.Flatten()), 1, ["0"]),
    "shared activation": (SharedActivation, 1, [""]),
    "timm darknet53": (lambda: timm_network("darknet53"), 52, []),
    "timm cspdarknet53": (lambda: timm_network("cspdarknet53"), 67, []),
}


def step(model, input):
    model.zero_grad()
    output = model(input)
    output.square().sum().backward()
    return [output.detach(), *(p.grad for p in model.parameters()), *model.buffers()]


@pytest.mark.parametrize("name", NETWORKS)
def test_network_fused_computes_the_same_bits_and_unfused_again(name):
    torch.manual_seed(0)
    build, pairs, rewritten = NETWORKS[name]
    original = build()
    model = copy.deepcopy(original)
    parameters = list(model.parameters())
    fused = fuse(model)

    assert len(fused.fuse_report.fused) == pairs
    assert fused.fuse_report.rewritten == rewritten
    assert fused.fuse_report.skipped == {}
    assert list(fused.state_dict()) == list(original.state_dict())
    assert all(a is b for a, b in zip(fused.parameters(), parameters))

    input = torch.randn(2, 3, 32, 32)
    for training in (True, False):
        expected = step(original.train(training), input)
        assert all_same_bits(step(fused.train(training), input), expected)

    back = unfuse(fused)
    assert [type(m) for m in back.modules()] == [type(m) for m in original.modules()]
    assert all_same_bits(back.state_dict().values(), original.state_dict().values())
    assert all_same_bits(step(back, input), step(original, input))


@pytest.mark.parametrize("name", ["darknet", "dcgan", "functional"])
def test_checkpoint_loads_before_and_after_fuse(name):
    build = NETWORKS[name][0]
    source = build()
    step(source, torch.randn(2, 3, 32, 32))
    fused = fuse(build())
    assert str(fused.load_state_dict(source.state_dict())) == "<All keys matched successfully>"
    plain = build()
    assert str(plain.load_state_dict(fused.state_dict())) == "<All keys matched successfully>"
    assert all_same_bits(plain.state_dict().values(), source.state_dict().values())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("name", ["darknet", "functional"])
def test_copy_of_fused_network_computes_the_same_and_unfuses(name, copied):
    fused = fuse(NETWORKS[name][0]())
    other = copied(fused)
    input = torch.randn(2, 3, 32, 32)
    assert all_same_bits(step(fused, input), step(other, input))
    assert not any(isinstance(m, BatchNormLeakyReLU2d) for m in unfuse(other).modules())


def test_fused_network_moved_and_trained_unfuses_with_its_new_values():
    model = darknet()
    reference = copy.deepcopy(model).double()
    fused = fuse(model).double()
    input = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    for network in (reference, fused):
        step(network, input)
        torch.optim.SGD(network.parameters(), 0.1).step()
    assert all_same_bits(unfuse(fused).state_dict().values(), reference.state_dict().values())


class Custom(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.bn, self.act, self.other = nn.BatchNorm2d(3), nn.LeakyReLU(0.2), nn.BatchNorm2d(3)
        self.own_forward = forward

    def forward(self, x):
        return self.own_forward(self, x)


def used_twice(m, x):
    y = m.bn(x)
    return m.act(y) + y


def depends_on_data(m, x):
    return m.act(m.bn(x)) if x.sum() > 0 else x


def depends_on_training(m, x):
    return F.dropout(m.act(m.bn(x)), 0.5, m.training)


def called_twice(m, x):
    return m.act(m.bn(m.act(m.bn(x))))


def computed_slope(m, x):
    return F.leaky_relu(m.bn(x), x.shape[1] / 10)


def without_grad(m, x):
    with torch.no_grad():
        y = m.bn(x)
    return m.act(y)


def under_autocast(m, x):
    with torch.autocast("cpu", torch.bfloat16):
        return m.act(m.bn(x))


def counts_its_calls(m, x):
    m.calls = getattr(m, "calls", 0) + 1
    return m.act(m.bn(x))


def remembers(m, x):
    m.last = x
    return m.act(m.bn(x))


@pytest.mark.parametrize(
    "forward, place, reason",
    [
        (used_twice, "bn", "its result is used beside the LeakyReLU too"),
        (depends_on_data, "", "can't be traced: symbolically traced variables"),
        (depends_on_training, "", "can't be traced: its forward depends on training"),
        (called_twice, "bn", "it is called in more than one place"),
        (computed_slope, "bn", "the slope of its LeakyReLU is computed"),
        (without_grad, "", "can't be traced: its forward changes the grad mode or autocast"),
        (under_autocast, "", "can't be traced: its forward changes the grad mode or autocast"),
        (counts_its_calls, "", "can't be traced: its forward makes tensors or sets attributes"),
        (remembers, "", "can't be traced: its forward makes tensors or sets attributes"),
    ],
)
def test_pair_that_may_not_be_replaced_is_left_alone_and_reported(forward, place, reason):
    model = Custom(forward)
    before, attributes = [type(m) for m in model.modules()], set(model.__dict__)
    report = fuse(model).fuse_report
    assert [type(m) for m in model.modules()] == before
    assert set(model.__dict__) - {"fuse_report"} == attributes
    assert report.fused == [] and list(report.skipped) == [place]
    assert reason in report.skipped[place] and reason in str(report)


def test_pair_with_hook_is_left_alone():
    model = dcgan_discriminator()
    model[3].register_forward_hook(lambda *_: None)
    assert fuse(model).fuse_report.skipped == {"3": "3 has hooks"}


def test_norm_that_is_not_as_its_class_makes_it_is_left_alone():
    model = nn.Sequential(*(nn.Sequential(nn.BatchNorm2d(3), nn.LeakyReLU()) for _ in range(3)))
    model[0][0].forward = lambda x: x
    model[1][0].register_buffer("running_mean", torch.zeros(3), persistent=False)
    model[2][0].register_state_dict_post_hook(lambda *_: None)
    assert fuse(model).fuse_report.skipped == {
        "0.0": "0.0 has another forward than its class",
        "1.0": "some of its buffers are not persistent",
        "2.0": "2.0 has hooks",
    }


class OptionalArgument(nn.Module):
    def __init__(self):
        super().__init__()
        self.bn, self.act = nn.BatchNorm2d(3), nn.LeakyReLU(0.2)

    def forward(self, x, skip=None):
        y = self.bn(x)
        return y if skip is None else self.act(y) + skip


def test_forward_with_an_argument_that_may_be_absent_is_left_alone():
    report = fuse(OptionalArgument()).fuse_report
    assert report.fused == []
    assert report.skipped == {"": "can't be traced: its forward has optional arguments"}


class Taps(nn.Module):
    """Can't be traced; one of its blocks is only ever called."""

    def __init__(self):
        super().__init__()
        blocks = [nn.Sequential(nn.BatchNorm2d(3), nn.LeakyReLU(0.2)) for _ in range(3)]
        self.called, self.sliced, self.looped = blocks

    def forward(self, x):
        if x.sum() > 1e9:
            return x
        x = self.sliced[:-1](self.called(x))
        taken = [x]
        for layer in self.looped:
            taken.append(layer(taken[-1]))
        return torch.cat(taken)


def test_only_what_an_untraced_forward_calls_as_a_whole_is_fused_inside_it():
    model, input = Taps(), torch.randn(2, 3, 4, 4)
    expected = copy.deepcopy(model)(input)
    report = fuse(model).fuse_report
    assert report.fused == ["called.0"]
    assert report.skipped == {
        "sliced.0": "the model may use it in another way",
        "looped.0": "the model may use it in another way",
    }
    assert same_bits(model(input).detach(), expected.detach())


class WithMethod(Functional):
    def extra(self):
        return self.scale


def test_module_whose_forward_alone_would_stay_is_not_rewritten():
    hooked = Functional()
    hooked.register_forward_hook(lambda *_: None)
    reasons = [fuse(nn.Sequential(m)).fuse_report.skipped["0.bn"] for m in (WithMethod(), hooked)]
    assert reasons[0] == "the module around it has more than a forward: extra"
    assert reasons[1] == "the module around it, whose forward would be rewritten, has hooks"


def test_rewritten_module_keeps_its_attributes_and_fused_activation_its_slope():
    model = nn.Sequential(Functional(modes=False), nn.BatchNorm2d(4), nn.LeakyReLU(0.3))
    fused = fuse(model)
    assert fused[0].modes is False and fused[2].negative_slope == 0.3


def test_unfuse_keeps_eps_and_momentum_as_they_are_now():
    fused = fuse(dcgan_discriminator())
    fused[3].eps, fused[3].momentum = 1e-3, 0.5
    norm = unfuse(fused)[3]
    assert (norm.eps, norm.momentum) == (1e-3, 0.5)


def test_norm_shared_by_two_places_is_left_alone():
    norm = nn.BatchNorm2d(3)
    model = nn.Sequential(norm, nn.LeakyReLU(), nn.Sequential(norm, nn.LeakyReLU()))
    assert fuse(model).fuse_report.fused == []
    assert fuse(model).fuse_report.skipped["0"] == "it is called in more than one place"


def test_other_norms_and_activations_stay():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.InstanceNorm2d(3), nn.LeakyReLU())
    before = list(model)
    report = fuse(model).fuse_report
    assert list(model) == before and report.fused == [] and report.skipped == {}


def test_unfuse_leaves_layers_that_the_model_was_built_with():
    model = nn.Sequential(BatchNormLeakyReLU2d(3))
    assert type(unfuse(fuse(model))[0]) is BatchNormLeakyReLU2d


def test_activation_saved_for_backward_is_one_tensor_not_two():
    saved = []
    pair = nn.Sequential(nn.BatchNorm2d(8), nn.LeakyReLU(0.2))
    fused = fuse(copy.deepcopy(pair))
    input = torch.randn(16, 8, 4, 4, requires_grad=True)
    for model in (pair, fused):
        kept = {}

        def keep(tensor):
            kept[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(input)
        saved.append(sum(size for size in kept.values() if size == input.nbytes))
    assert saved == [2 * input.nbytes, input.nbytes]
    assert same_bits(pair(input).detach(), fused(input).detach())

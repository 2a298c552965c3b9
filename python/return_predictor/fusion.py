"""``fuse(model)``: BatchNorm followed by LeakyReLU becomes one layer; ``unfuse`` undoes it.

How: the forward of every module that has children is traced with torch.fx, its children opaque, so
that one module that can't be traced costs the pairs in its own forward and no others. The BatchNorm
is replaced where it stands and the LeakyReLU by a placeholder: names, order and ``state_dict`` keys
stay. Only where the activation is no module of its own (``F.leaky_relu``, or one LeakyReLU used in
other places too) is the forward around it replaced by its traced form.

Policy: a pair is left alone, and reported, unless replacing it is certain to keep the result.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

import torch
from torch import fx
from torch.nn import functional as F

from . import nn

_LAYERS = {
    torch.nn.BatchNorm1d: nn.BatchNormLeakyReLU1d,
    torch.nn.BatchNorm2d: nn.BatchNormLeakyReLU2d,
    torch.nn.BatchNorm3d: nn.BatchNormLeakyReLU3d,
}
_FUNCTIONS = (F.leaky_relu, F.leaky_relu_, torch._C._nn.leaky_relu)
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)


@dataclasses.dataclass
class FuseReport:
    """What :func:`fuse` did.

    Attributes:
        fused: names of the BatchNorm layers that now compute their LeakyReLU as well.
        rewritten: names of the modules whose forward is now its traced form.
        skipped: for each name that was left alone, the reason.
    """

    fused: list[str] = dataclasses.field(default_factory=list)
    rewritten: list[str] = dataclasses.field(default_factory=list)
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"fused {len(self.fused)} pairs of BatchNorm and LeakyReLU"]
        lines += [f"  fused      {name}" for name in self.fused]
        lines += [f"  rewritten  {name or '(the model)'}" for name in self.rewritten]
        lines += [
            f"  left alone {name or '(the model)'}: {why}" for name, why in self.skipped.items()
        ]
        return "\n".join(lines)


class Fused(torch.nn.Identity):
    """Stands where a LeakyReLU stood that the layer before it computes now."""

    def __init__(self, activation: torch.nn.Module) -> None:
        super().__init__()
        self.replaced = (activation,)  # in a tuple: no child of this module


@dataclasses.dataclass
class _Site:
    """One place in one forward where a LeakyReLU takes the result of a BatchNorm."""

    owner: torch.nn.Module
    norm_node: fx.Node
    act_node: fx.Node
    norm: torch.nn.Module
    activation: torch.nn.Module | None  # None: a function
    slope: float


class _ShallowTracer(fx.Tracer):
    def is_leaf_module(self, module, qualified_name) -> bool:
        return True


def fuse(model: torch.nn.Module) -> torch.nn.Module:
    """Replace each BatchNorm followed by LeakyReLU in ``model`` by one fused layer, in place.

    Returns the model (another object only where the model's own forward calls ``F.leaky_relu``),
    with a :class:`FuseReport` as its attribute ``fuse_report``. Parameters, buffers and
    ``state_dict`` keys stay the same objects and names. Call it before ``DistributedDataParallel``
    and ``torch.compile``. A forward that depends on the data or on ``training`` is left alone.

    >>> model = torch.nn.Sequential(
    ...     torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.LeakyReLU(0.2)
    ... )
    >>> print(fuse(model).fuse_report)
    fused 1 pairs of BatchNorm and LeakyReLU
      fused      1
    >>> type(model[1]).__name__, type(unfuse(model)[1]).__name__
    ('BatchNormLeakyReLU1d', 'BatchNorm1d')
    """
    report = FuseReport()
    names: dict[torch.nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)

    replacements: dict[torch.nn.Module, torch.nn.Module] = {}
    for module in names:
        if _has_own_activation(module):
            _replace_combined(module, names, replacements, report)

    graphs = _trace_all(names, report)
    calls = Counter(
        owner.get_submodule(node.target)
        for owner, graph in graphs.items()
        for node in graph.nodes
        if node.op == "call_module"
    )
    sites = []
    for owner, graph in graphs.items():
        for site in _sites(owner, graph):
            why = _obstacle(site, names, calls)
            if why:
                report.skipped[names[site.norm][0]] = why
            else:
                sites.append(site)

    uses = Counter(site.activation for site in sites if site.activation is not None)
    for site in sites:
        layer = _LAYERS[type(site.norm)].from_modules(site.norm, torch.nn.LeakyReLU(site.slope))
        layer.replaced = (site.norm,)
        replacements[site.norm] = layer
        report.fused.append(names[site.norm][0])
        act = site.activation
        if act is not None and uses[act] == calls[act] and len(names[act]) == 1:
            replacements[act] = Fused(act)
        else:
            site.act_node.replace_all_uses_with(site.norm_node)
            graphs[site.owner].erase_node(site.act_node)
            replacements[site.owner] = None  # made below, when its graph is whole
    for owner, replacement in replacements.items():
        if replacement is None:
            replacements[owner] = _rewritten(owner, graphs[owner])
            report.rewritten.append(names[owner][0])

    model = _substitute(model, replacements)
    model.fuse_report = report
    return model


def unfuse(model: torch.nn.Module) -> torch.nn.Module:
    """Undo :func:`fuse`: put the replaced modules back, with the parameters as they are now.

    Layers that the model was built with, as ``BatchNormLeakyReLU2d(64)``, stay.
    """
    originals = {
        module: module.replaced[0]
        for module in model.modules()
        if isinstance(getattr(module, "replaced", None), tuple)
    }
    for module, original in originals.items():
        original._parameters.update(module._parameters)
        original._buffers.update(module._buffers)
        if isinstance(module, fx.GraphModule):
            original._modules.update(module._modules)
            original.training = module.training
        else:
            original.train(module.training)
    model = _substitute(model, originals)
    model.__dict__.pop("fuse_report", None)
    return model


def _substitute(model, replacements):
    for module in [model, *replacements.values(), *model.modules()]:
        for name, child in module._modules.items():
            if child in replacements:
                module._modules[name] = replacements[child]
    return replacements.get(model, model)


def _trace_all(names, report) -> dict[torch.nn.Module, fx.Graph]:
    graphs = {}
    for module, (name, *_) in names.items():
        containers = (torch.nn.ModuleList, torch.nn.ModuleDict)
        leaf = not module._modules or isinstance(module, containers) or _has_own_activation(module)
        if leaf or type(module) in _LAYERS.values():
            continue
        training = module.training
        try:
            module.training = True
            graph = _ShallowTracer().trace(module)
            module.training = False
            other = _ShallowTracer().trace(module)
            if str(graph) != str(other):
                raise ValueError("its forward depends on training")
            graphs[module] = graph
        except Exception as error:  # whatever a user's forward raises when it is given a proxy
            if any(type(child) in _LAYERS for child in module.children()):
                message = (str(error) or type(error).__name__).splitlines()[0]
                report.skipped[name] = f"can't be traced: {message}"
        finally:
            module.training = training
    return graphs


def _sites(owner, graph):
    for node in graph.nodes:
        slope, activation = None, None
        if node.op == "call_module":
            activation = owner.get_submodule(node.target)
            if type(activation) is torch.nn.LeakyReLU:
                slope = activation.negative_slope
        elif node.op == "call_function" and node.target in _FUNCTIONS:
            given = node.args[1] if len(node.args) > 1 else 0.01
            slope = node.kwargs.get("negative_slope", given)
        source = node.args[0] if node.args else node.kwargs.get("input")
        if slope is None or not isinstance(source, fx.Node) or source.op != "call_module":
            continue
        norm = owner.get_submodule(source.target)
        if isinstance(norm, torch.nn.modules.batchnorm._BatchNorm):
            yield _Site(owner, source, node, norm, activation, slope)


def _obstacle(site, names, calls) -> str | None:
    if type(site.norm) not in _LAYERS:
        return f"{type(site.norm).__name__} is no plain BatchNorm"
    if not isinstance(site.slope, (int, float)):
        return "the slope of its LeakyReLU is computed"
    if len(site.norm_node.users) > 1:
        return "its result is used beside the LeakyReLU too"
    if calls[site.norm] > 1:
        return "it is called in more than one place"
    if len(names[site.norm]) > 1:
        return f"it is shared: {', '.join(names[site.norm])}"
    for module in (site.norm, site.activation):
        if module is not None and any(getattr(module, hooks, None) for hooks in _HOOKS):
            return f"{names[module][0]} has hooks"
    return None


def _has_own_activation(module) -> bool:
    """Whether it is timm's BatchNorm2d with the activation inside."""
    kind = type(module)
    return kind.__name__ == "BatchNormAct2d" and kind.__module__.startswith("timm.")


def _replace_combined(module, names, replacements, report) -> None:
    act, between = module.act, [module.drop, getattr(module, "aa", None)]
    if type(act) is not torch.nn.LeakyReLU or any(
        part is not None and type(part) is not torch.nn.Identity for part in between
    ):
        return
    if any(getattr(part, hooks, None) for part in (module, act) for hooks in _HOOKS):
        report.skipped[names[module][0]] = "it has hooks"
        return
    layer = nn.BatchNormLeakyReLU2d.from_modules(module, act)
    layer.replaced = (module,)
    replacements[module] = layer
    report.fused.append(names[module][0])


def _rewritten(owner, graph) -> fx.GraphModule:
    graph.lint()
    module = fx.GraphModule(owner, graph, class_name=type(owner).__name__)
    # Also what the forward doesn't use: the state_dict keeps its keys and their order.
    module._modules = dict(owner._modules)
    module._parameters = dict(owner._parameters)
    module._buffers = dict(owner._buffers)
    module._non_persistent_buffers_set = set(owner._non_persistent_buffers_set)
    module.replaced = (owner,)
    return module

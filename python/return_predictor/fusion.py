"""``fuse(model)``: BatchNorm followed by LeakyReLU becomes one layer; ``unfuse`` undoes it.

How: the forward of every module that has children is traced with torch.fx, its children opaque, so
that one module that can't be traced costs the pairs in its own forward and no others. The BatchNorm
is replaced where it stands and the LeakyReLU by a placeholder: names, order and ``state_dict`` keys
stay. Only where the activation is no module of its own (``F.leaky_relu``, or one LeakyReLU used in
other places too) is the forward around it replaced by its traced form.

Policy: a pair is left alone, and reported, unless replacing it is certain to keep the result. So no
forward is traced that has what a graph does not keep (arguments that may be absent, another grad
mode or autocast inside, attributes that it sets); and what lies inside a module that can't be
traced is left alone unless that module's source only ever calls it.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
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
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)
_CONTAINERS = (torch.nn.ModuleList, torch.nn.ModuleDict)


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
        self.negative_slope = activation.negative_slope


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
    def trace(self, root, *arguments):
        self.modes = _modes()
        return super().trace(root, *arguments)

    def is_leaf_module(self, module, qualified_name) -> bool:
        return True

    def create_node(self, *arguments, **options):
        if _modes() != self.modes:
            raise ValueError("its forward changes the grad mode or autocast")
        return super().create_node(*arguments, **options)


def _modes():
    autocast = tuple(torch.is_autocast_enabled(device) for device in ("cpu", "cuda"))
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), autocast


def fuse(model: torch.nn.Module) -> torch.nn.Module:
    """Replace each BatchNorm followed by LeakyReLU in ``model`` by one fused layer, in place.

    Returns the model (another object only where the model's own forward calls ``F.leaky_relu``),
    with a :class:`FuseReport` as its attribute ``fuse_report``. Parameters, buffers and
    ``state_dict`` keys stay the same objects and names. Call it before ``DistributedDataParallel``
    and ``torch.compile``. A forward that depends on the data, on arguments that may be absent or on
    ``training`` is left alone; one that depends on attributes is taken as it runs now.

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
    uncertain = _used_by_untraced(names, graphs)
    sites = []
    for owner, graph in graphs.items():
        for site in _sites(owner, graph):
            why = uncertain.get(owner) or _obstacle(site, names, calls)
            if why:
                report.skipped[names[site.norm][0]] = why
            else:
                sites.append(site)

    uses = Counter(site.activation for site in sites if site.activation is not None)

    def replaces_activation(site) -> bool:
        act = site.activation
        return act is not None and uses[act] == calls[act] and len(names[act]) == 1

    for site in sites:
        why = None if replaces_activation(site) else _obstacle_to_rewriting(site.owner)
        if why:
            report.skipped[names[site.norm][0]] = why
            continue
        layer = _LAYERS[type(site.norm)].from_modules(site.norm, torch.nn.LeakyReLU(site.slope))
        layer.replaced = (site.norm,)
        replacements[site.norm] = layer
        report.fused.append(names[site.norm][0])
        if replaces_activation(site):
            replacements[site.activation] = Fused(site.activation)
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
    """Undo :func:`fuse`: put the replaced modules back, with the parameters, ``eps`` and
    ``momentum`` as they are now.

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
        if type(module) in _LAYERS.values():
            original.eps, original.momentum = module.eps, module.momentum
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
        if _is_leaf(module):
            continue
        try:
            graphs[module] = _trace(module)
        except Exception as error:  # whatever a user's forward raises when it is given a proxy
            if any(type(child) in _LAYERS for child in module.children()):
                message = (str(error) or type(error).__name__).splitlines()[0]
                report.skipped[name] = f"can't be traced: {message}"
    return graphs


def _is_leaf(module) -> bool:
    """Whether it has no forward of its own to be traced."""
    ours = type(module) in _LAYERS.values() or _has_own_activation(module)
    return not module._modules or isinstance(module, _CONTAINERS) or ours


def _trace(module) -> fx.Graph:
    """Its forward as a graph; the module is left as it was.

    Raises:
        ValueError, or whatever the forward raises: there is no graph that does the same.
    """
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    for parameter in inspect.signature(module.forward).parameters.values():
        if parameter.default is not parameter.empty or parameter.kind not in plain:
            raise ValueError("its forward has optional arguments")
    before = dict(module.__dict__)
    registries = {name: dict(before[name]) for name in ("_parameters", "_buffers", "_modules")}
    own = [buffer for buffer in module._buffers.values() if buffer is not None]
    buffers = [(buffer, buffer._version, buffer.detach().clone()) for buffer in own]
    try:
        module.training = True
        graph = _ShallowTracer().trace(module)
        module.training = False
        if str(graph) != str(_ShallowTracer().trace(module)):
            raise ValueError("its forward depends on training")
    finally:
        after = dict(module.__dict__)
        module.__dict__.clear()
        module.__dict__.update(before)
        sets = [k for k in after.keys() | before.keys() if after.get(k) is not before.get(k)]
        for name, registry in registries.items():
            sets += [name] if before[name] != registry else []
            before[name].clear()
            before[name].update(registry)
        for buffer, version, value in buffers:
            if buffer._version != version:
                sets.append("_buffers")
                buffer.detach().copy_(value)
    if set(sets) - {"training"}:
        raise ValueError("its forward makes tensors or sets attributes")
    return graph


def _used_by_untraced(names, graphs) -> dict[torch.nn.Module, str]:
    """Modules that one without a graph may use otherwise than by calling them, and why."""
    uncertain = {}
    for module, (name, *_) in names.items():
        if _is_leaf(module) or module in graphs:
            continue
        for child in module._modules.keys() - _only_called(module):
            if module._modules[child] is not None:
                for inner in module._modules[child].modules():
                    uncertain[inner] = f"{name or 'the model'} may use it in another way"
    return uncertain


def _only_called(module) -> set[str]:
    """Names of the children that the source of its class only ever calls."""
    others = set()
    for kind in type(module).__mro__[: type(module).__mro__.index(torch.nn.Module)]:
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
        except (OSError, TypeError, SyntaxError):
            return set()
        called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                if node.attr in ("children", "modules", "_modules", "get_submodule", "__dict__"):
                    return set()
                if id(node) not in called:
                    others.add(node.attr)
            elif isinstance(node, ast.Name) and node.id in ("getattr", "vars"):
                return set()
    return set(module._modules) - others


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
        if module is not None and "forward" in module.__dict__:
            return f"{names[module][0]} has another forward than its class"
    if site.norm._non_persistent_buffers_set:
        return "some of its buffers are not persistent"
    return None


def _obstacle_to_rewriting(owner) -> str | None:
    """Why a GraphModule can't stand in its place, which has its forward and its state alone."""
    if any(getattr(owner, hooks, None) for hooks in _HOOKS):
        return "the module around it, whose forward would be rewritten, has hooks"
    kinds = type(owner).__mro__[: type(owner).__mro__.index(torch.nn.Module)]
    methods = {
        name
        for kind in kinds
        for name, value in vars(kind).items()
        if name != "forward" and not name.startswith("__")
        if callable(value) or isinstance(value, (property, staticmethod, classmethod))
    }
    if methods:
        return f"the module around it has more than a forward: {', '.join(sorted(methods))}"
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
    for name, value in owner.__dict__.items():
        module.__dict__.setdefault(name, value)
    module.replaced = (owner,)
    return module

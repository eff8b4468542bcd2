"""Find the norm that takes a layer's output, by tracing the code instead of trusting names.

A bias may move from a convolution into a batch norm only if that norm, and nothing else, takes the
convolution's output. The order in which modules are registered does not show this (mmcv's
``ConvModule`` registers conv, norm, activation, whatever its ``order`` is). Therefore each
``forward`` is traced with torch.fx, from the model down to the layers. Where tracing fails, nothing
is proven.
"""

from __future__ import annotations

import inspect
import sys
from collections import defaultdict
from collections.abc import Callable, Collection
from typing import Any

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

# The methods to trace, the first that works: the toolboxes' models have extract_feat besides
# ``forward``, and it needs no data samples.
_ENTRIES = ("forward", "extract_feat")
# The modules that may ask a traced value for its type: the tracer, and nn.Module for attributes.
_TRUSTED = ("torch.fx", "torch.utils._pytree", "torch.nn.modules.module")


def norms_behind(model: nn.Module, layers: Collection[nn.Module]) -> dict[nn.Module, list[Any]]:
    """Find the batch norms that take the outputs of layers, where that can be proven.

    The proof requires: every call of the layer and of the norm is in code that was traced,
    beginning with the model's own ``forward`` (or ``extract_feat``); each output of the layer goes
    into the norm and nowhere else; the norm has no other input; and no hook, replacement or other
    access affects either of them.

    Args:
        model: A model in eval mode.
        layers: Modules inside the model, at any depth.

    Returns:
        The norms that take the output of each layer with a proof: one norm, or one for each place
        where a shared layer is called. Layers without a proof are left out.
    """
    if not layers:
        return {}
    flow = _Flow(model, layers)
    found = {}
    for layer in layers:
        norms = flow.norms_behind(layer)
        if norms:
            found[layer] = norms
    return found


class _Flow:
    """The calls of modules in the traced part of a model."""

    def __init__(self, model: nn.Module, layers: Collection[nn.Module]) -> None:
        self._layers = frozenset(layers)
        self._calls: dict[nn.Module, list[fx.Node]] = defaultdict(list)
        self._module_of: dict[fx.Node, nn.Module] = {}
        self._inside: set[nn.Module] = {
            part for layer in layers for part in layer.modules() if part is not layer
        }
        self._doubtful: set[nn.Module] = set()
        self._num_inputs: dict[nn.Module, int | None] = {}
        self._follow(model)
        # Code that was not traced may call or read any module inside its own.
        traced = {module for module, count in self._num_inputs.items() if count is not None}
        for module in model.modules():
            if module not in traced and not self._only_holds(module):
                self._doubtful.update(part for part in module.modules() if part is not module)

    def norms_behind(self, layer: nn.Module) -> list[Any]:
        """Find the norms that take a layer's output; an empty list means that there is no proof."""
        if not self._is_plain(layer):
            return []
        norms = []
        for call in self._calls[layer]:
            users = list(call.users)
            norm = self._module_of.get(users[0]) if len(users) == 1 else None
            if norm is None or not _has_statistics(norm) or not self._is_plain(norm):
                return []
            for use in self._calls[norm]:
                source = use.args[0] if len(use.args) == 1 and not use.kwargs else None
                if not isinstance(source, fx.Node) or self._module_of.get(source) is not layer:
                    return []
            if norm not in norms:
                norms.append(norm)
        return norms

    def _is_plain(self, module: nn.Module) -> bool:
        return (
            module not in self._doubtful
            and not module._forward_hooks
            and not module._forward_pre_hooks
            and "forward" not in vars(module)
        )

    def _follow(self, model: nn.Module) -> None:
        for entry in _ENTRIES:
            if self._trace(model, entry, None):
                if entry != "forward":  # forward may call the layers in other ways
                    self._doubtful.update(model.children())
                break

    def _trace(self, module: nn.Module, entry: str, num_inputs: int | None) -> bool:
        graph = _trace(module, entry, num_inputs)
        self._num_inputs[module] = None
        if graph is None:
            return False
        self._num_inputs[module] = -1 if num_inputs is None else num_inputs
        for node in graph.nodes:
            if node.op == "get_attr":
                owner = _resolve(module, node.target.rpartition(".")[0])
                self._doubtful.update(owner.modules() if owner is not module else ())
                read = _resolve(module, node.target)
                self._doubtful.update(read.modules() if isinstance(read, nn.Module) else ())
            elif node.op == "call_module":
                child = module.get_submodule(node.target)
                self._calls[child].append(node)
                self._module_of[node] = child
                if child in self._inside:
                    self._doubtful |= self._layers_around(child)
                elif child not in self._layers and _holds_any(child, self._layers):
                    self._trace_child(child, node)
        return True

    def _trace_child(self, child: nn.Module, call: fx.Node) -> None:
        is_plain_call = not call.kwargs and all(isinstance(arg, fx.Node) for arg in call.args)
        if child in self._num_inputs:
            if not is_plain_call or self._num_inputs[child] != len(call.args):
                self._num_inputs[child] = None
            return
        if is_plain_call and "forward" not in vars(child):
            self._trace(child, "forward", len(call.args))
        else:
            self._num_inputs[child] = None

    def _only_holds(self, module: nn.Module) -> bool:
        """Tell whether a module runs no code of its own: a list of modules, or one without any."""
        never_called = module not in self._num_inputs
        is_list = type(module).forward in (nn.Module.forward, nn.Sequential.forward)
        return not module._modules or (is_list and never_called)

    def _layers_around(self, part: nn.Module) -> set[nn.Module]:
        return {layer for layer in self._layers if any(part is own for own in layer.modules())}


def _trace(module: nn.Module, entry: str, num_inputs: int | None) -> fx.Graph | None:
    """Trace one method of a module, its children as leaves; None if it cannot be traced."""
    method = getattr(type(module), entry, None)
    if method is None or entry in vars(module):
        return None
    attributes = dict(vars(module))
    try:
        tracer = _ShallowTracer()
        tracer.traced_func_name = entry
        return tracer.trace(module, _defaults(method, num_inputs))
    except Exception:
        # Anything may stop the tracer (branches on data, loops over tensors, …): no proof, then.
        return None
    finally:
        # fx stores constants in the traced module, and a forward may store its inputs there.
        vars(module).clear()
        vars(module).update(attributes)


def _defaults(method: Callable[..., Any], num_inputs: int | None) -> dict[str, Any]:
    """Return the arguments that a call leaves at their defaults; None inputs counts as one."""
    parameters = list(inspect.signature(method).parameters.values())[1:]
    given = 1 if num_inputs is None else num_inputs
    return {
        parameter.name: parameter.default
        for parameter in parameters[given:]
        if parameter.default is not inspect.Parameter.empty
    }


class _Value(fx.Proxy):
    """A traced value that refuses to tell its type, which is another one when the code runs."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        frame: Any = sys._getframe(1)
        while frame.f_code.co_name == "__instancecheck__":  # of a metaclass: find its caller
            frame = frame.f_back
        if frame.f_globals.get("__name__", "").startswith(_TRUSTED):
            return _Value
        raise fx.proxy.TraceError("the code asks for the type of a traced value")


class _ShallowTracer(fx.Tracer):
    """Traces one forward, in which every called module is a leaf."""

    proxy_buffer_attributes = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Value(node, self)


def _resolve(module: nn.Module, path: str) -> Any:
    found: Any = module
    for name in filter(None, path.split(".")):
        found = getattr(found, name, module)
    return found


def _holds_any(module: nn.Module, layers: Collection[nn.Module]) -> bool:
    return any(part in layers for part in module.modules())


def _has_statistics(norm: nn.Module) -> bool:
    # A subclass may compute something else.
    is_batch_norm = type(norm).forward in (_BatchNorm.forward, nn.SyncBatchNorm.forward)
    return is_batch_norm and getattr(norm, "running_mean", None) is not None and not norm.training

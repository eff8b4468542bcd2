"""Tell whether torch.compile or torch.export is tracing the code that asks."""

import torch

# torch 2.1 has this function only under another name.
is_compiling = getattr(torch.compiler, "is_compiling", None) or torch._utils.is_compiling

"""Whether torch.compile or torch.export is at work."""

import torch

# torch 2.1 has it under another name only.
is_compiling = getattr(torch.compiler, "is_compiling", None) or torch._utils.is_compiling

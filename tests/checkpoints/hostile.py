"""Files that want to harm their reader, written by hand in pickle's opcodes."""

import io
import zipfile
from pathlib import Path

import torch

#: Callables that run code, read or write files, or reach others that do.
DANGEROUS = {
    "os.system": ("os", "system", "touch {victim}"),
    "subprocess.getoutput": ("subprocess", "getoutput", "touch {victim}"),
    "builtins.eval": ("builtins", "eval", "open({victim!r}, 'w')"),
    "__builtin__.eval": ("__builtin__", "eval", "open({victim!r}, 'w')"),
    "builtins.open": ("builtins", "open", "{victim}", "w"),
    "builtins.__import__": ("builtins", "__import__", "antigravity"),
    "builtins.getattr": ("builtins", "getattr", "x", "join"),
    "operator.attrgetter": ("operator", "attrgetter", "__class__"),
    "numpy.memmap": ("numpy", "memmap", "{victim}", "uint8", "w+"),
    "torch.save": ("torch", "save", "x", "{victim}"),
    "torch.storage._load_from_bytes": ("torch.storage", "_load_from_bytes", "x"),
    "pickle.loads": ("pickle", "loads", "x"),
    "pathlib.Path.touch": ("pathlib", "Path.touch", "{victim}"),
    "mmengine.Config.fromfile": ("mmengine.config.config", "Config.fromfile", "{victim}"),
    "torch.Tensor.__setattr__": ("torch", "Tensor.__setattr__", "x", "y", "z"),
}


def argument(text: str) -> bytes:
    """A text in pickle's opcodes."""
    return b"X" + len(text.encode()).to_bytes(4, "little") + text.encode()


def named(module: str, name: str) -> bytes:
    """GLOBAL: something by its name."""
    return f"c{module}\n{name}\n".encode()


def call_by_reduce(module: str, name: str, arguments: bytes) -> bytes:
    """GLOBAL and REDUCE: what an object with ``__reduce__`` becomes."""
    return named(module, name) + b"(" + arguments + b"tR"


def call_by_newobj(module: str, name: str, arguments: bytes) -> bytes:
    """GLOBAL and NEWOBJ: an instance by ``__new__``."""
    return named(module, name) + b"(" + arguments + b"t\x81"


def call_by_inst(module: str, name: str, arguments: bytes) -> bytes:
    """INST: an instance of an old class, which needs no REDUCE."""
    return b"(" + arguments + b"i" + named(module, name)[1:]


def call_by_obj(module: str, name: str, arguments: bytes) -> bytes:
    """OBJ: the same by another opcode."""
    return b"(" + named(module, name) + arguments + b"o"


def call_by_stack_global(module: str, name: str, arguments: bytes) -> bytes:
    """STACK_GLOBAL of protocol 4, which allows dots in a name."""
    return argument(module) + argument(name) + b"\x93(" + arguments + b"tR"


WAYS = [call_by_reduce, call_by_newobj, call_by_inst, call_by_obj, call_by_stack_global]


def checkpoint_with(value: bytes, path: Path, legacy: bool = False) -> Path:
    """Write a file with a tensor ``w`` whose entry ``evil`` is ``value`` in pickle's opcodes."""
    whole = io.BytesIO()
    content = dict(state_dict=dict(w=torch.ones(2)), evil=None)
    torch.save(content, whole, _use_new_zipfile_serialization=not legacy)

    def forge(pickled: bytes) -> bytes:
        position = pickled.index(argument("evil")) + len(argument("evil"))
        end = pickled.index(b"N", position)
        return pickled[:end] + value + pickled[end + 1 :]

    if legacy:
        path.write_bytes(forge(whole.getvalue()))
        return path
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as target:
        for info in source.infolist():
            part = source.read(info)
            target.writestr(info, forge(part) if info.filename.endswith("data.pkl") else part)
    return path


def attack(name: str, victim: Path, way) -> bytes:
    """The opcodes of one dangerous call that would make ``victim`` exist."""
    module, attribute, *arguments = DANGEROUS[name]
    texts = [text.format(victim=str(victim)) for text in arguments]
    return way(module, attribute, b"".join(map(argument, texts)))

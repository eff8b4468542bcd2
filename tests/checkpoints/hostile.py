"""Files that want to harm their reader, written by hand."""

import io
import zipfile
from pathlib import Path

import torch

#: Callables that run code, read files or reach others that do.
DANGEROUS = {
    "os.system": ("os", "system", "{command}"),
    "posix.system": ("posix", "system", "{command}"),
    "subprocess.getoutput": ("subprocess", "getoutput", "{command}"),
    "subprocess.Popen": ("subprocess", "Popen", ["touch", "{victim}"]),
    "builtins.eval": ("builtins", "eval", "open({victim!r}, 'w')"),
    "builtins.exec": ("builtins", "exec", "open({victim!r}, 'w')"),
    "__builtin__.eval": ("__builtin__", "eval", "open({victim!r}, 'w')"),
    "builtins.open": ("builtins", "open", "{victim}", "w"),
    "io.open": ("io", "open", "{victim}", "w"),
    "_io.FileIO": ("_io", "FileIO", "{victim}", "w"),
    "builtins.__import__": ("builtins", "__import__", "antigravity"),
    "importlib.import_module": ("importlib", "import_module", "antigravity"),
    "builtins.getattr": ("builtins", "getattr", "x", "join"),
    "operator.attrgetter": ("operator", "attrgetter", "__class__"),
    "functools.partial": ("functools", "partial", "x"),
    "numpy.load": ("numpy", "load", "{victim}"),
    "numpy.save": ("numpy", "save", "{victim}", "x"),
    "numpy.memmap": ("numpy", "memmap", "{victim}", "uint8", "w+"),
    "numpy.frompyfunc": ("numpy", "frompyfunc", "x", 1, 1),
    "torch.load": ("torch", "load", "{victim}"),
    "torch.save": ("torch", "save", "x", "{victim}"),
    "torch.hub.load": ("torch.hub", "load", "{victim}", "x"),
    "torch.storage._load_from_bytes": ("torch.storage", "_load_from_bytes", "x"),
    "torch.ops.load_library": ("torch.ops", "load_library", "{victim}"),
    "torch.jit.load": ("torch.jit", "load", "{victim}"),
    "pickle.loads": ("pickle", "loads", "x"),
    "_pickle.loads": ("_pickle", "loads", "x"),
    "shutil.rmtree": ("shutil", "rmtree", "{victim}.folder"),
    "os.mkdir": ("os", "mkdir", "{victim}"),
    "pathlib.Path.touch": ("pathlib", "Path.touch", "{victim}"),
    "mmengine.Config.fromfile": ("mmengine.config.config", "Config.fromfile", "{victim}"),
    "mmengine.load": ("mmengine.fileio", "load", "{victim}"),
    "webbrowser.open": ("webbrowser", "open", "file://{victim}"),
    "ctypes.CDLL": ("ctypes", "CDLL", "{victim}"),
    "torch.Tensor.__setattr__": ("torch", "Tensor.__setattr__", "x", "y", "z"),
    "collections.OrderedDict.__class__": ("collections", "OrderedDict.__class__", "x"),
    "argparse.FileType": ("argparse", "FileType", "w"),
}


def argument(value) -> bytes:
    """One value in pickle's opcodes."""
    if isinstance(value, list):
        return b"](" + b"".join(argument(item) for item in value) + b"e"
    if isinstance(value, int):
        return b"I%d\n" % value
    text = value.encode()
    return b"X" + len(text).to_bytes(4, "little") + text


def call_by_reduce(module: str, name: str, arguments: list) -> bytes:
    """GLOBAL and REDUCE: what an object with ``__reduce__`` becomes."""
    return _global(module, name) + _arguments(arguments) + b"R"


def call_by_newobj(module: str, name: str, arguments: list) -> bytes:
    """GLOBAL and NEWOBJ: an instance by ``__new__``."""
    return _global(module, name) + _arguments(arguments) + b"\x81"


def call_by_inst(module: str, name: str, arguments: list) -> bytes:
    """INST: an instance of an old class, which needs no REDUCE."""
    return b"(" + b"".join(argument(item) for item in arguments) + b"i" + _line(module, name)


def call_by_obj(module: str, name: str, arguments: list) -> bytes:
    """OBJ: the same by another opcode."""
    items = b"".join(argument(item) for item in arguments)
    return b"(" + _global(module, name) + items + b"o"


def call_by_stack_global(module: str, name: str, arguments: list) -> bytes:
    """STACK_GLOBAL of protocol 4, which allows dots in a name."""
    return argument(module) + argument(name) + b"\x93" + _arguments(arguments) + b"R"


def _line(module: str, name: str) -> bytes:
    return f"{module}\n{name}\n".encode()


def _global(module: str, name: str) -> bytes:
    return b"c" + _line(module, name)


def _arguments(arguments: list) -> bytes:
    return b"(" + b"".join(argument(item) for item in arguments) + b"t"


WAYS = [call_by_reduce, call_by_newobj, call_by_inst, call_by_obj, call_by_stack_global]


def checkpoint_with(value: bytes, path: Path, legacy: bool = False, protocol: int = 2) -> Path:
    """Write a file with a tensor ``w`` whose entry ``evil`` is ``value`` in pickle's opcodes."""
    whole = io.BytesIO()
    torch.save(
        dict(state_dict=dict(w=torch.ones(2)), evil=None),
        whole,
        _use_new_zipfile_serialization=not legacy,
    )
    marker = argument("evil")
    start = bytes([0x80, protocol])

    def forge(content: bytes) -> bytes:
        position = content.index(marker) + len(marker)
        end = content.index(b"N", position)
        return content[:position] + content[position:end] + value + content[end + 1 :]

    if legacy:
        path.write_bytes(forge(whole.getvalue()))
        return path
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as target:
        for info in source.infolist():
            content = source.read(info)
            if info.filename.endswith("/data.pkl"):
                content = start + forge(content)[2:]
            target.writestr(info.filename, content)
    return path


def attack(name: str, victim: Path, way) -> bytes:
    """The opcodes of one dangerous call that would make ``victim`` exist."""
    module, attribute, *arguments = DANGEROUS[name]

    def fill(value):
        if isinstance(value, list):
            return [fill(item) for item in value]
        if isinstance(value, int):
            return value
        return value.format(victim=str(victim), command=f"touch {victim}")

    return way(module, attribute, [fill(value) for value in arguments])

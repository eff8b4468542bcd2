"""Packaging of mmvanilla; the configs and tools of the repository become part of the package."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildWithConfigsAndTools(build_py):
    """Copy configs/, tools/ and model-index.yml to mmvanilla/.mim, where OpenMMLab expects them.

    An editable install copies nothing: the clone has links there.
    """

    def run(self) -> None:
        """Build as usual, then copy."""
        super().run()
        if self.editable_mode:
            return
        inside = Path(self.build_lib, "mmvanilla", ".mim")
        shutil.rmtree(inside, ignore_errors=True)  # an earlier build may have left deleted files
        for folder in ("configs", "tools"):
            shutil.copytree(
                ROOT / folder,
                inside / folder,
                ignore=shutil.ignore_patterns("__pycache__", "*.pyc"),
            )
        shutil.copy2(ROOT / "model-index.yml", inside)


def read_version() -> str:
    """Read the version without importing the package, which would need torch."""
    text = (ROOT / "mmvanilla" / "version.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, flags=re.MULTILINE)
    if found is None:
        raise RuntimeError('mmvanilla/version.py has no line __version__ = "..."')
    return found.group(1)


def read_readme() -> str:
    """Return the text that a package index shows."""
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.exists() else ""


setup(
    name="mmvanilla",
    version=read_version(),
    description="VanillaNet as a plug-in backbone for the OpenMMLab toolboxes",
    author="The mmvanilla authors",
    license_expression="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    # The method's addresses.
    project_urls={
        "Paper": "https://arxiv.org/abs/2305.12972",
        "Authors' implementation": "https://github.com/huawei-noah/VanillaNet",
    },
    keywords=[
        "VanillaNet",
        "OpenMMLab",
        "MMDetection",
        "MMSegmentation",
        "MMPretrain",
        "backbone",
        "object detection",
        "semantic segmentation",
        "image classification",
        "structural re-parameterization",
        "PyTorch",
    ],
    long_description=read_readme(),
    long_description_content_type="text/markdown",
    packages=find_packages(include=["mmvanilla", "mmvanilla.*"]),
    py_modules=["mmvanilla_command"],
    entry_points={"console_scripts": ["mmvanilla = mmvanilla_command:main"]},
    include_package_data=False,
    python_requires=">=3.10",
    # mmengine and mmcv are required, but not named here. The maintained
    # fork (onedl-mmengine, onedl-mmcv) and the original (mmengine, mmcv, mmcv-lite) are different
    # distributions of the same import names: requiring one of them would make pip write it over
    # the other in the environments of those who use that. `import mmvanilla` checks what is there
    # and names the command that installs what is not (mmvanilla/utils/dependencies.py).
    install_requires=["torch>=2.1", "numpy", "packaging"],
    # pip builds the fork's mmcv in isolation, and so without compiled operators, as mmcv-lite is:
    # mmvanilla/ops.py stands in for them. An mmcv with them that is there already is kept.
    extras_require={
        "fork": [
            "onedl-mmengine>=0.10.12,<1",
            "onedl-mmcv>=2.3.6,<2.4",
            "onedl-mmdetection>=3.5.1,<4",
            "onedl-mmsegmentation>=1.4.2,<2",
            "onedl-mmpretrain>=1.3.6,<2",
            "torchvision",
        ],
        # It needs pkg_resources and numpy 1, and reads no checkpoints in torch 2.6 and later.
        "original": [
            "mmengine>=0.10.7,<1",
            "mmcv-lite>=2.1.0,<2.2",
            "mmdet>=3.3.0,<4",
            "mmsegmentation>=1.2.2,<2",
            "mmpretrain>=1.2.0,<2",
            "ftfy",
            "regex",
            "setuptools<81",
            "numpy<2",
            "opencv-python<4.12",
            "torch<2.6",
            "torchvision",
        ],
        "onnx": ["onnx", "onnxruntime", "onnxscript"],
        # OpenVINO's models are converted from ONNX, and checked there, too.
        "openvino": ["openvino>=2024.4", "nncf>=2.13", "onnx", "onnxruntime"],
        # Formats of phones: each pulls in much, so take an environment of its own.
        "ncnn": ["ncnn", "pnnx"],
        "litert": ["litert-torch>=0.10", "ai-edge-litert", "ai-edge-quantizer"],
        "executorch": ["executorch>=1.1,<1.2"],
    },
    cmdclass={"build_py": BuildWithConfigsAndTools},
    zip_safe=False,
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)

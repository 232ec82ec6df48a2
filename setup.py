"""The folders at the top of the repository are installed under the one import name `genzoo`."""

from setuptools import find_packages, setup

TOP = {
    "genzoo": "core",
    "genzoo.zoo": "zoo",
    "genzoo.metrics": "metrics",
    "genzoo.datamodules": "datamodules",
    "genzoo.callbacks": "callbacks",
    "genzoo.recipes": "recipes",
}

setup(
    package_dir=TOP,
    packages=[p for name, folder in TOP.items() for p in [name, *(f"{name}.{s}" for s in find_packages(folder))]],
    package_data={
        "genzoo": ["py.typed"],
        "genzoo.compare": ["page.*"],
        "genzoo.recipes": ["**/*.yaml"],
        "genzoo.zoo": ["weights/**/*"],
    },
)

"""Datasets of images: any of six formats to any other, with a report of what the target cannot hold.

`load` reads into one small model (`Dataset`, `Image`, `Annotation`), `save` writes from it, `convert` does both.
"""

from stepwell.pipeline.datasets._convert import DatasetFormat, convert, load, save
from stepwell.pipeline.datasets._model import Annotation, Dataset, Image, Kind
from stepwell.pipeline.datasets._report import ConversionReport, Loss

__all__ = [
    "Annotation",
    "ConversionReport",
    "Dataset",
    "DatasetFormat",
    "Image",
    "Kind",
    "Loss",
    "convert",
    "load",
    "save",
]

# Records and tracebacks name the public place, so that a class may move between the private modules.
for _name in __all__:
    globals()[_name].__module__ = __name__
del _name

"""A page to look at cases: image, prediction, reference, uncertainty and error in linked planes."""

from fastcal.viewer.folder import ViewedFolder
from fastcal.viewer.notebook import View, view
from fastcal.viewer.picture import write_png
from fastcal.viewer.server import ViewServer

__all__ = ["View", "ViewServer", "ViewedFolder", "view", "write_png"]

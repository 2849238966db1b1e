"""The lens of a real camera: the way its image bends straight lines, and the image without it.

- ``formulas`` - the published formulas of lens distortion, on rays
- ``lens`` - one lens: points and images between the bent and the straight image
"""

from models.clip.lens.formulas import MODELS
from models.clip.lens.lens import Lens

__all__ = ["MODELS", "Lens"]

"""Arrays by name, as weights travel and as strategies see them. Torch is not imported here."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Weights = Mapping[str, NDArray[np.generic]]

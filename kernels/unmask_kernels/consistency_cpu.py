"""Which classes agree with the digits that a row has revealed, as a list: on a CPU, for forms that compute these."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from torch import Tensor

from unmask_kernels.per_tensor import once_per_tensor

Classes = npt.NDArray[np.int64]


class ConsistentClasses:
    """Finds the classes that agree with the digits which a row has revealed.

    Attributes:
        every: all classes, int64 [C].
    """

    def __init__(self, codes: Tensor) -> None:
        """Look at codes int64 [C, l]."""
        self.every: Classes = np.arange(len(codes))
        self._codes = codes.numpy().copy()  # a view would keep the tensor alive, and with it what is known of it
        self._greatest = int(codes.max())
        self._with_digit: dict[tuple[int, int], Classes] = {}

    def of(self, revealed: Iterable[int]) -> Classes:
        """Return the consistent classes, ascending; `every` itself where no digit is revealed.

        The array is shared: don't write to it.
        """
        classes = self.every
        for place, digit in enumerate(revealed):
            if digit <= self._greatest:
                if classes is self.every:
                    classes = self._of_one(place, digit)
                else:
                    classes = classes[self._codes[classes, place] == digit]
        return classes

    def _of_one(self, place: int, digit: int) -> Classes:
        known = self._with_digit.get((place, digit))
        if known is None:
            known = self._with_digit[place, digit] = np.flatnonzero(self._codes[:, place] == digit)
        return known


consistent_classes = once_per_tensor(ConsistentClasses)

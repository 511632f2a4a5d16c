"""Sixty-four colours in eight families: the first digit of a pixel is its family, the second one of eight colours.

A family is what a pixel belongs to: the skin, its shadow, the hair, the clothes. So first digits alone draw the whole
picture as a poster, and second digits colour it; and what must agree over a part is one second digit.
"""

BASE = 8
TRANSPARENT = 0

_SKIN = ("ffdbac", "f5cfa0", "eac393", "e0b687", "cb9e6e", "b68655", "a26d3d", "8d5524")
_HAIR = ("cab188", "a78961", "603a14", "28150a", "611c17", "bd1700", "009bbd", "91cb15")
_CLOTHES = ("5bc0de", "03396c", "88d8b0", "00b159", "ff6f69", "ae0001", "ffeead", "ffc425")
_LIGHT = ("ffffff", "b8bfc9", "f4ead2", "ffd700", "d3d3d3", "daa520", "ffb3ba")
_DARK = ("76778b", "697b94", "588387", "876658", "191919", "323232", "43677d", "a04b5d")
_RED = ("d29985", "c98276", "e35d6a", "de0f0d", "2663a3", "cc6192", "614f8a", "a62116")

Colour = tuple[int, int, int, int]


def _colour(code: str, white: float = 0.0) -> Colour:
    """A colour as red, green, blue and alpha, mixed with a share of white."""
    red, green, blue = (round(int(code[i : i + 2], 16) * (1 - white) + 255 * white) for i in (0, 2, 4))
    return red, green, blue, 255


# class 8 · family + colour
PALETTE: tuple[Colour, ...] = (
    (0, 0, 0, 0),
    *map(_colour, _LIGHT),
    *(_colour(code, 0.12) for code in _SKIN),
    *map(_colour, _SKIN),
    *map(_colour, _HAIR),
    *map(_colour, _CLOTHES),
    *(_colour(code, 0.3) for code in _CLOTHES),
    *map(_colour, _DARK),
    *map(_colour, _RED),
)


def _family(number: int, *colours: int) -> tuple[int, ...]:
    return tuple(BASE * number + colour for colour in colours or range(BASE))


WHITE, SHADE, CREAM, PINK = 1, 2, 3, 7
METAL = _family(0, 4, 5, 6)
SKIN, SKIN_SHADOW, HAIR, CLOTHES, CLOTHES_LIGHT = (_family(number) for number in range(1, 6))
IRIS, LENS, FRAME = _family(6, 0, 1, 2, 3), BASE * 6 + 4, _family(6, 5, 6, 7)
LIPS, HAT = _family(7, 0, 1, 2, 3), _family(7, 4, 5, 6, 7)

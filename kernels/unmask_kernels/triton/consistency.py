"""Device functions for Triton kernels: the classes that agree with a row's revealed digits.

Throughout: `revealed` points to the row's digits, `codes` to the table [C, length], `classes` is C, `largest` the
greatest digit of the table (greater ones are masked), and `base` is not 0 where the codes are the base-b digits of
the class, most significant first (`CodeFacts`): the table is not read then.
"""

import triton
import triton.language as tl


@triton.jit
def agrees(
    block: tl.tensor,
    revealed: tl.tensor,
    codes: tl.tensor,
    classes: tl.tensor,
    largest: tl.tensor,
    length: tl.constexpr,
    base: tl.constexpr,
) -> tl.tensor:
    """Say which of a block of classes, int32, agree with the row's digits; classes from C on do not."""
    consistent = block < classes
    for place in tl.static_range(length):
        digit = tl.load(revealed + place)
        if digit <= largest:
            if base:
                digits = block // base ** (length - 1 - place) % base
            else:
                digits = tl.load(codes + block.to(tl.int64) * length + place, mask=block < classes, other=0)
            consistent = consistent & (digits == digit)
    return consistent


@triton.jit
def code_in_slots(
    slots: tl.tensor, revealed: tl.tensor, length: tl.constexpr, base: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """Return the code Σ_j digit_j · base^(l-1-j) in each of a block of slots, int32, and whether there is one.

    Slots are numbered, and the digits of a number fill the masked places: 0 must remain of it.
    """
    code = slots * 0
    possible = slots >= 0
    for back in tl.static_range(length):
        digit = tl.load(revealed + (length - 1 - back))
        if digit < base:
            code += digit.to(tl.int32) * base**back
            possible = possible & (digit >= 0)
        else:
            code += slots % base * base**back
            slots = slots // base
    return code, possible & (slots == 0)


@triton.jit
def consistent_in_slots(
    slots: tl.tensor,
    revealed: tl.tensor,
    codes: tl.tensor,
    classes: tl.tensor,
    largest: tl.tensor,
    length: tl.constexpr,
    base: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """Return the class in each of a block of slots, int32, ascending with the slot, and whether it is consistent.

    All consistent classes of a row are in the slots below C. With a base they are the first ones without a gap.
    Otherwise slot and class are the same.
    """
    found, consistent = slots, slots < classes
    if base:
        shown = 0
        for place in tl.static_range(length):
            shown += (tl.load(revealed + place) <= largest).to(tl.int32)
        if shown > 0:
            found, consistent = code_in_slots(slots, revealed, length, base)
            consistent = consistent & (found < classes)
    else:
        consistent = agrees(slots, revealed, codes, classes, largest, length, base)
    return found, consistent

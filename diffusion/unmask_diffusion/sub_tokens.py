"""Sub-tokens: every token written as l base-b digits, by a table of codes."""

import torch
from torch import Tensor


def smallest_base(vocabulary_size: int, sub_tokens_per_token: int) -> int:
    """The smallest b with b ** l ≥ C, in integers (a float root gives 6 for C = 3125, l = 5)."""
    base: int = max(1, round(vocabulary_size ** (1 / sub_tokens_per_token)) - 1)
    while base**sub_tokens_per_token < vocabulary_size:
        base += 1
    return base


def base_digits(numbers: Tensor, sub_tokens_per_token: int, base: int) -> Tensor:
    """Write numbers [...] as base-b digits [..., l], the most significant first."""
    powers = torch.tensor([base**j for j in reversed(range(sub_tokens_per_token))], device=numbers.device)
    return numbers[..., None] // powers % base


class SubTokenizer:
    """An invertible map from token ids to l digits: a table `codes`, int64 [C, l] (MDM-Prime's f).

    Base-b digits of the id are the usual way to fill the table; MDM-Prime-v2 takes the digits of a permuted id.
    b ** l may exceed C: then some digit tuples name no token.
    """

    def __init__(self, codes: Tensor, base: int) -> None:
        """Keep a table of codes.

        Raises:
            ValueError: a digit is out of range, or two tokens share a code.
        """
        if codes.ndim != 2 or codes.numel() == 0:
            raise ValueError(f"codes must have the shape [C, l], not {list(codes.shape)}")
        if int(codes.min()) < 0 or int(codes.max()) >= base:
            raise ValueError(f"codes must lie in 0 … base - 1 = {base - 1}")
        self.codes = codes
        self.base = base
        self._codes_on = {codes.device: codes}
        self._powers = torch.tensor([base**j for j in reversed(range(codes.shape[1]))])
        numbers = (codes * self._powers).sum(-1)
        self._sorted_numbers, self._ids = numbers.sort()
        if bool((self._sorted_numbers[1:] == self._sorted_numbers[:-1]).any()):
            raise ValueError("two tokens share one code")

    @classmethod
    def from_base(
        cls, vocabulary_size: int, sub_tokens_per_token: int, base: int, permutation: list[int] | None = None
    ) -> "SubTokenizer":
        """Fill the table with base-b digits of the id, or of `permutation[id]` (distinct codes below b ** l).

        Raises:
            ValueError: b ** l < C, or the permutation does not fit.
        """
        space = base**sub_tokens_per_token
        if space < vocabulary_size:
            raise ValueError(f"base {base} ** {sub_tokens_per_token} = {space} is less than {vocabulary_size} classes")
        if permutation is None:
            numbers = torch.arange(vocabulary_size)
        else:
            numbers = torch.tensor(permutation)
            if len(permutation) != vocabulary_size or min(permutation) < 0 or max(permutation) >= space:
                raise ValueError(f"the permutation must hold {vocabulary_size} codes below {space}")
        return cls(base_digits(numbers, sub_tokens_per_token, base), base)

    @property
    def sub_tokens_per_token(self) -> int:
        return self.codes.shape[1]

    @property
    def vocabulary_size(self) -> int:
        return self.codes.shape[0]

    @property
    def mask_id(self) -> int:
        """The value that stands for a digit not yet revealed: b."""
        return self.base

    def codes_on(self, device: torch.device) -> Tensor:
        """The table on a device: the same tensor each time, so that what kernels derive from it is derived once."""
        if device not in self._codes_on:
            self._codes_on[device] = self.codes.to(device)
        return self._codes_on[device]

    def encode(self, ids: Tensor) -> Tensor:
        """Token ids, int64 [...], to digits [..., l].

        Raises:
            ValueError: an id is not one of 0 … C - 1.
        """
        if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= self.vocabulary_size):
            raise ValueError(f"token ids must lie in 0 … {self.vocabulary_size - 1}")
        return self.codes[ids]

    def decode(self, digits: Tensor) -> Tensor:
        """Digits, int64 [..., l], to token ids [...].

        Raises:
            ValueError: a digit is masked, or a tuple of digits names no token.
        """
        if digits.shape[-1] != self.sub_tokens_per_token:
            raise ValueError(f"a token has {self.sub_tokens_per_token} digits, not {digits.shape[-1]}")
        if digits.numel() == 0:
            return digits.new_zeros(digits.shape[:-1])
        if int(digits.min()) < 0 or int(digits.max()) >= self.base:
            raise ValueError("only fully revealed tokens can be decoded")
        numbers = (digits * self._powers).sum(-1)
        places = torch.searchsorted(self._sorted_numbers, numbers).clamp(max=self.vocabulary_size - 1)
        if bool((self._sorted_numbers[places] != numbers).any()):
            raise ValueError("these digits name no token")
        return self._ids[places]

    def masked(self, length: int) -> Tensor:
        return torch.full((length, self.sub_tokens_per_token), self.mask_id)

"""`config.json` of a bundle: what the model is, in keys that are all checked."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator
from unmask_diffusion.networks import Parameterization

MAX_CODES = 2**62
Size = Annotated[int, Field(ge=1, le=2**20)]


class CommonConfig(BaseModel):
    """The keys that every architecture has.

    Attributes:
        format_version: of the bundle format.
        name: what /v1/models lists; the folder's name when left out.
        length: the longest canvas L, in tokens.
        vocabulary_size: classes C (an MDLM's mask is not counted).
        sub_tokens_per_token: digits a token, l.
        base: b, with b ** l ≥ C. The mask id is b.
        codes: a permutation: the code of every token id, whose base-b digits are its sub-tokens; left out: the id.
        carry_over: whether the model was trained with the carry-over filter. Our sampler always filters.
        canvas: whether the network sees canvases as long as the request, or always its whole length.
        end_token_id: the token that ends a text.
        provenance: where the weights came from, free form.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    format_version: Literal[1] = 1
    name: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9._-]+$")] | None = None
    length: Size
    vocabulary_size: Annotated[int, Field(ge=2, le=2**24)]
    sub_tokens_per_token: Annotated[int, Field(ge=1, le=64)]
    base: Annotated[int, Field(ge=2, le=2**24)]
    codes: list[Annotated[int, Field(ge=0, le=MAX_CODES)]] | None = None
    carry_over: bool = True
    canvas: Literal["as_requested", "full"] = "full"
    end_token_id: Annotated[int, Field(ge=0)] | None = None
    provenance: dict[str, Any] = {}

    @model_validator(mode="after")
    def _codes_name_every_token(self) -> Self:
        space = self.base**self.sub_tokens_per_token
        if space > MAX_CODES:
            raise ValueError(f"base {self.base} ** sub_tokens_per_token {self.sub_tokens_per_token} exceeds 2^62 codes")
        if space < self.vocabulary_size:
            raise ValueError(
                f"base {self.base} ** sub_tokens_per_token {self.sub_tokens_per_token} = {space} codes cannot name "
                f"vocabulary_size {self.vocabulary_size} tokens"
            )
        if self.codes is not None and len(self.codes) != self.vocabulary_size:
            raise ValueError(f"codes has {len(self.codes)} entries; vocabulary_size is {self.vocabulary_size}")
        if self.codes is not None and max(self.codes) >= space:
            raise ValueError(f"codes holds {max(self.codes)}; base ** sub_tokens_per_token is {space}")
        if self.end_token_id is not None and self.end_token_id >= self.vocabulary_size:
            raise ValueError(f"end_token_id {self.end_token_id} is not below vocabulary_size {self.vocabulary_size}")
        return self


class PrimeConfig(CommonConfig):
    """The MDLM-Prime network (l = 1: MDLM).

    Attributes:
        hidden_size, blocks, heads, absolute_positions: see `NetworkShape`.
        parameterization: "joint", a logit a class; "independent", a logit a digit, of which a class's is the sum.
    """

    architecture: Literal["prime"]
    hidden_size: Size
    blocks: Size
    heads: Size
    absolute_positions: bool = False
    parameterization: Parameterization = "joint"


class TableConfig(CommonConfig):
    """A joint distribution by enumeration: one tensor `log_probabilities`, [C] · L."""

    canvas: Literal["full"] = "full"

    architecture: Literal["table"]


class MarkovConfig(CommonConfig):
    """A Markov chain: tensors `log_initial` [C] and `log_transition` [C, C]."""

    canvas: Literal["full"] = "full"

    architecture: Literal["markov"]


BundleConfig = Annotated[PrimeConfig | TableConfig | MarkovConfig, Field(discriminator="architecture")]
BUNDLE_CONFIG: TypeAdapter[BundleConfig] = TypeAdapter(BundleConfig)

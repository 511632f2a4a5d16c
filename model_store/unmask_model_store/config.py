"""`config.json` of a bundle: what the model is, in keys that are all checked."""

import re
from collections.abc import Iterable
from dataclasses import fields
from itertools import groupby
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_serializer, model_validator
from unmask_diffusion import AddBos, Clock, GenerationSettings
from unmask_diffusion.networks import (
    DigitEmbeddings,
    LlamaShape,
    NetworkShape,
    Parameterization,
    TableDtype,
    UNetShape,
)
from unmask_diffusion.painter import BYTES

MAX_CODES = 2**62
MAX_EXAMPLES = 20
# colours of partly revealed pixels, all of which are kept
MAX_PAINTED = 2**20
Byte = Annotated[int, Field(ge=0, le=255)]
TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]
Size = Annotated[int, Field(ge=1, le=2**20)]
ONE_LINE = r"^[^\n\r]*$"
RANGES = r"^[0-9]{1,8}(-[0-9]{1,8})?(,[0-9]{1,8}(-[0-9]{1,8})?)*$"


class BundleError(ValueError):
    """A bundle cannot be opened or written; the message names the file and what is wrong with it."""


def printable(text: object, limit: int = 100) -> str:
    """Text that is safe to print: no control characters, no line breaks, at most `limit` characters."""
    kept = "".join(c if c.isprintable() else "?" for c in str(text)[: limit + 1])
    return kept if len(kept) <= limit else kept[:limit] + "…"


def ranges_of(token_ids: Iterable[int]) -> str:
    """Token ids as `trained_tokens` holds them: ascending ids and inclusive ranges, such as "0-31,40,52-2024"."""
    texts = []
    for _, run in groupby(enumerate(sorted(set(token_ids))), key=lambda pair: pair[1] - pair[0]):
        ids = [token for _, token in run]
        texts.append(str(ids[0]) if len(ids) == 1 else f"{ids[0]}-{ids[-1]}")
    return ",".join(texts)


def _ranges(text: str) -> list[tuple[int, int]]:
    """The first and the last id of each range."""
    return [(int(first), int(last or first)) for first, last in re.findall(r"([0-9]+)(?:-([0-9]+))?", text)]


class ImageConfig(BaseModel):
    """What makes a canvas a picture: position (row · width + column) · channels + channel."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    height: Size  # pixels
    width: Size
    channels: Annotated[int, Field(ge=1, le=3)]  # tokens of a pixel
    # the colour of each class, red, green, blue and alpha; left out: bytes of R, G and B, or of grey
    palette: list[tuple[Byte, Byte, Byte, Byte]] | None = None


class CommonConfig(BaseModel):
    """The keys that every architecture has."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    format_version: Literal[1] = 1
    # the name in /v1/models; the folder's name when left out
    name: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9._-]+$")] | None = None
    length: Size  # the longest canvas L, in tokens
    vocabulary_size: Annotated[int, Field(ge=2, le=2**24)]  # classes C; the mask of an MDLM is not counted
    sub_tokens_per_token: Annotated[int, Field(ge=1, le=64)]  # digits per token, l
    base: Annotated[int, Field(ge=2, le=2**24)]  # b, with b ** l ≥ C; the mask id is b
    # the code of every token id, distinct; its base-b digits are the token's sub-tokens; left out: the id itself
    codes: list[Annotated[int, Field(ge=0, le=MAX_CODES)]] | None = None
    carry_over: bool = True  # whether the model was trained with the carry-over filter; the sampler always filters
    canvas: Literal["as_requested", "full"] = "full"  # full: the network always sees its whole length
    # the token that ends a text, or several of which each does
    end_token_id: TokenId | Annotated[list[TokenId], Field(min_length=1, max_length=64)] | None = None
    bos_token_id: TokenId | None = None  # the token that begins a text
    # Where a text begins that does not begin with it already: never; where the prompt is empty; before every prompt
    # that is a text; or before a suffix too.
    add_bos: AddBos = "never"
    pad_token_id: TokenId | None = None  # the token that training filled texts up with
    provenance: dict[str, Any] = {}  # where the weights came from, free form
    description: Annotated[str, Field(min_length=1, max_length=500, pattern=ONE_LINE)] | None = None  # a sentence
    # prompts that show what the model can do
    examples: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=1000)]],
        Field(max_length=MAX_EXAMPLES, exclude_if=lambda value: not value),
    ] = []
    generation: GenerationSettings | None = None  # the fields of a request that the author recommends
    # n: requests without a sampler.clock have time bins and groups that end at (i/T)^n; training masked accordingly
    clock: Annotated[Clock, Field(exclude_if=lambda value: value == 1)] = 1
    # the token ids that training has met, as ranges such as "0-31,40,52-2024"; left out: not known
    trained_tokens: Annotated[str, Field(pattern=RANGES)] | None = None
    image: ImageConfig | None = None  # the canvas is a picture

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        """The tokens that end a text."""
        if isinstance(self.end_token_id, list):
            return tuple(self.end_token_id)
        return () if self.end_token_id is None else (self.end_token_id,)

    @property
    def trained(self) -> bytes | None:
        """For each token id 1 if training has met it, else 0; None: not known."""
        if self.trained_tokens is None:
            return None
        flags = bytearray(self.vocabulary_size)
        for first, last in _ranges(self.trained_tokens):
            flags[first : last + 1] = bytes([1]) * (last + 1 - first)
        return bytes(flags)

    @field_serializer("generation")
    def _as_given(self, settings: GenerationSettings | None) -> dict[str, Any] | None:
        return None if settings is None else settings.as_given()

    @property
    def sizes(self) -> str:
        """The sizes in words."""
        return (
            f"{self.vocabulary_size:,} classes, l = {self.sub_tokens_per_token}, b = {self.base}, "
            f"{self.length:,} tokens"
        )

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
        named = [("end_token_id", each) for each in self.end_token_ids]
        for name, token in [*named, ("bos_token_id", self.bos_token_id), ("pad_token_id", self.pad_token_id)]:
            if token is not None and token >= self.vocabulary_size:
                raise ValueError(f"{name} {token} is not below vocabulary_size {self.vocabulary_size}")
        if self.add_bos != "never" and self.bos_token_id is None:
            raise ValueError(f"add_bos is {self.add_bos!r}: it needs bos_token_id")
        self.check_ranges("trained_tokens", self.trained_tokens)
        if self.image is not None:
            self._check_image(self.image)
        return self

    def _check_image(self, image: ImageConfig) -> None:
        tokens, kind = image.height * image.width * image.channels, (image.channels, self.vocabulary_size)
        if tokens != self.length:
            raise ValueError(f"image: height · width · channels is {tokens}; length is {self.length}")
        if image.palette is None and kind not in BYTES:
            kinds = ", ".join(f"{channels} of {classes}" for channels, classes in BYTES)
            raise ValueError(
                f"image without a palette: channels of vocabulary_size are {kinds}; not {kind[0]} of {kind[1]}"
            )
        if image.palette is not None and (image.channels, len(image.palette)) != (1, self.vocabulary_size):
            raise ValueError(
                f"image.palette has {len(image.palette)} colours and image.channels is {image.channels}; it must be "
                f"one colour for each of {self.vocabulary_size} classes, and 1 channel"
            )
        if (self.base + 1) ** self.sub_tokens_per_token > MAX_PAINTED:
            raise ValueError(f"image: (base + 1) ** sub_tokens_per_token exceeds {MAX_PAINTED} colours to paint with")
        if self.end_token_ids:
            raise ValueError("image: a picture has no end; leave out end_token_id")

    def check_ranges(self, name: str, ranges: str | None) -> None:
        """Raise ValueError unless the ids in `ranges` ascend and are those of classes."""
        previous = -1
        for first, last in _ranges(ranges or ""):
            if not previous < first <= last:
                raise ValueError(f"{name}: ids must ascend; after {previous} comes {first}-{last}")
            if last >= self.vocabulary_size:
                raise ValueError(f"{name} holds {last}; vocabulary_size is {self.vocabulary_size}")
            previous = last


class PrimeConfig(CommonConfig):
    """The MDLM-Prime network (l = 1: MDLM). Its sizes are those of `NetworkShape`."""

    architecture: Literal["prime"]
    hidden_size: Size
    blocks: Size
    heads: Size
    absolute_positions: bool = False
    # joint: one logit per class; independent: one logit per digit, and a class's logit is the sum over its digits
    parameterization: Parameterization = "joint"

    @property
    def shape(self) -> NetworkShape:
        """The sizes of the network.

        Raises:
            ValueError: they do not fit each other.
        """
        return NetworkShape(**{field.name: getattr(self, field.name) for field in fields(NetworkShape)})


class UNetConfig(CommonConfig):
    """The U-Net of MDM-Prime's image models. Its sizes are those of `UNetShape`."""

    canvas: Literal["full"] = "full"

    architecture: Literal["unet"]
    height: Size  # pixels
    width: Size
    channels: Size  # tokens of a pixel
    widths: Annotated[list[Size], Field(min_length=1, max_length=8)]  # feature maps of each level
    blocks: Annotated[int, Field(ge=1, le=64)]  # residual blocks of a level on the way down
    attention: list[bool]  # for each level whether attention follows its blocks
    head_channels: Size  # feature maps of an attention head

    @property
    def shape(self) -> UNetShape:
        """The sizes of the network.

        Raises:
            ValueError: they do not fit each other.
        """
        sizes = {field.name: getattr(self, field.name) for field in fields(UNetShape)}
        shape = UNetShape(**sizes | {"widths": tuple(self.widths), "attention": tuple(self.attention)})
        if shape.length != self.length:
            raise ValueError(f"length is {self.length}; height, width and channels make {shape.length} tokens")
        return shape

    @property
    def switches(self) -> str:
        """What tells this network from others of its architecture, in words."""
        attending = [f"{self.height >> i} x {self.width >> i}" for i, attends in enumerate(self.attention) if attends]
        return (
            f"{self.height} x {self.width} pixels, {self.blocks} blocks a level of {', '.join(map(str, self.widths))} "
            f"channels, attention at {', '.join(attending) or 'the bottom'} with {self.head_channels} channels a head"
        )

    @model_validator(mode="after")
    def _pictures_are_the_networks(self) -> Self:
        grid = (self.height, self.width, self.channels)
        if self.image is not None and (self.image.height, self.image.width, self.image.channels) != grid:
            raise ValueError(f"image: its height, width and channels must be the network's, {grid}")
        return self


class LlamaConfig(CommonConfig):
    """The llama-shaped network of MDM-Prime-v2, SMDM, LLaDA, Dream and a2d. Its sizes are those of `LlamaShape`."""

    architecture: Literal["llama"]
    hidden_size: Size
    blocks: Size
    heads: Size
    key_value_heads: Size
    head_width: Size
    inner_size: Size
    norm_epsilon: Annotated[float, Field(gt=0, lt=1)]
    rotary_base: Annotated[float, Field(ge=1, le=1e12)]
    rotary_tables: TableDtype = "float32"
    digit_embeddings: DigitEmbeddings = "concatenated"
    query_key_value_bias: bool = False
    query_key_norm: bool = False
    mask_class: Annotated[int, Field(ge=0)] | None = None
    tied_head: bool = False
    shifted: bool = False
    # the classes that are never drawn, as ranges: the mask's own, and rows of the head that name no token
    undrawable_tokens: Annotated[str, Field(pattern=RANGES)] | None = None

    @property
    def shape(self) -> LlamaShape:
        """The sizes of the network.

        Raises:
            ValueError: they do not fit each other.
        """
        return LlamaShape(**{field.name: getattr(self, field.name) for field in fields(LlamaShape)})

    @property
    def undrawable(self) -> list[int]:
        """The classes that are never drawn."""
        return [each for first, last in _ranges(self.undrawable_tokens or "") for each in range(first, last + 1)]

    @property
    def switches(self) -> str:
        """What tells this network from others of its shape, in words."""
        words = [f"{self.heads} heads of {self.head_width}", f"rotary base {self.rotary_base:g}"]
        if self.key_value_heads != self.heads:
            words.append(f"{self.key_value_heads} key-value heads")
        if self.rotary_tables != "float32":
            words.append("rotary tables in bfloat16")
        if self.sub_tokens_per_token > 1:
            words.append(f"digit embeddings {self.digit_embeddings}")
        words += [
            name
            for name, on in (
                ("biases of q, k, v", self.query_key_value_bias),
                ("norms of q, k", self.query_key_norm),
                ("head tied to the embedding", self.tied_head),
                ("shifted rows", self.shifted),
            )
            if on
        ]
        if self.mask_class is not None:
            words.append(f"the mask is class {self.mask_class}")
        if self.undrawable:
            words.append(f"{len(self.undrawable):,} classes undrawable")
        return ", ".join(words)

    @model_validator(mode="after")
    def _some_class_is_left(self) -> Self:
        self.check_ranges("undrawable_tokens", self.undrawable_tokens)
        if len(self.undrawable) >= self.vocabulary_size:
            raise ValueError("undrawable_tokens holds every class: nothing could be drawn")
        return self


class TableConfig(CommonConfig):
    """A joint distribution by enumeration: one tensor `log_probabilities`, [C] · L."""

    canvas: Literal["full"] = "full"

    architecture: Literal["table"]


class MarkovConfig(CommonConfig):
    """A Markov chain: tensors `log_initial` [C] and `log_transition` [C, C]."""

    canvas: Literal["full"] = "full"

    architecture: Literal["markov"]


NetworkConfig = PrimeConfig | LlamaConfig | UNetConfig
BundleConfig = Annotated[NetworkConfig | TableConfig | MarkovConfig, Field(discriminator="architecture")]
BUNDLE_CONFIG: TypeAdapter[BundleConfig] = TypeAdapter(BundleConfig)

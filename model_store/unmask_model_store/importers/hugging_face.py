"""LLaDA, Dream and a2d: folders in Hugging Face's layout, with llama-shaped networks.

Nothing of a configuration is guessed: a key that decides something must be there, and a value that asks for another
network is refused by its key. `auto_map` names Python files; they are never needed and never run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unmask_diffusion import LlamaShape

from unmask_model_store.bundle import CONFIG_FILE, DTYPES
from unmask_model_store.config import printable, ranges_of
from unmask_model_store.importers.llama import Names, llama_tensors
from unmask_model_store.importers.safetensors_files import open_folder
from unmask_model_store.importers.source import Request, Source
from unmask_model_store.importers.tokenizers import ModelTokens, read_model_tokens
from unmask_model_store.importers.untrusted import ImportFailure, Literals, naming

# for each key the values that our network computes; None among them: the key may be null or absent
Allowed = Mapping[str, tuple[object, ...]]

_LLADA_ALLOWED: Allowed = {
    "rope": (True,),
    "block_type": ("llama",),
    "layer_norm_type": ("rms",),
    "activation_type": ("silu",),
    "alibi": (False, None),
    "attention_layer_norm": (False, None),
    "input_emb_norm": (False, None),
    "scale_logits": (False, None),
    "include_bias": (False,),
    "bias_for_layer_norm": (False, None),
    "layer_norm_with_affine": (True, None),
    "block_group_size": (1, None),
    "multi_query_attention": (False, None),
}
_QWEN_ALLOWED: Allowed = {
    "hidden_act": ("silu",),
    "rope_scaling": (None,),
    "use_sliding_window": (False, None),
    "use_mrope": (False, None),
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "partial_rotary_factor": (1, 1.0, None),
}

_LLADA_NAMES = Names(
    embedding="model.transformer.wte.weight",
    norm_final="model.transformer.ln_f.weight",
    head="model.transformer.ff_out.weight",
    block={
        part: f"model.transformer.blocks.{{}}.{name}"
        for part, name in {
            "norm1.weight": "attn_norm.weight",
            "norm2.weight": "ff_norm.weight",
            "q.weight": "q_proj.weight",
            "k.weight": "k_proj.weight",
            "v.weight": "v_proj.weight",
            "attn_out.weight": "attn_out.weight",
            "gate.weight": "ff_proj.weight",
            "up.weight": "up_proj.weight",
            "mlp_out.weight": "ff_out.weight",
        }.items()
    },
)
_QWEN_BLOCK = {
    "norm1.weight": "input_layernorm.weight",
    "norm2.weight": "post_attention_layernorm.weight",
    "q.weight": "self_attn.q_proj.weight",
    "k.weight": "self_attn.k_proj.weight",
    "v.weight": "self_attn.v_proj.weight",
    "attn_out.weight": "self_attn.o_proj.weight",
    "gate.weight": "mlp.gate_proj.weight",
    "up.weight": "mlp.up_proj.weight",
    "mlp_out.weight": "mlp.down_proj.weight",
}
_BIASES = {f"{part}.bias": f"self_attn.{part}_proj.bias" for part in "qkv"}
_NORMS = {f"norm_{part}.weight": f"self_attn.{part}_norm.weight" for part in "qk"}


@dataclass(frozen=True)
class Family:
    """What a `model_type` says that no key does."""

    name: str
    biases: bool = False  # of queries, keys and values
    query_key_norm: bool = False
    shifted: bool = False
    longest: int | None = None  # tokens that it was trained on, where the configuration says more
    end_tokens: tuple[str, ...] = ()  # that end an answer, besides the configuration's
    chat: Mapping[str, Any] = field(default_factory=dict)  # fields of a request that its authors publish for chats


# one token an evaluation, where all cuts of LLaDA's sampler are the same; any number of tokens
_LLADA_CHAT = {"temperature": 0.0, "sampler": {"name": "confidence", "block_length": 32}}
_DREAM_CHAT = {"temperature": 0.2, "top_p": 0.95, "sampler": {"name": "entropy", "cut": "dream"}}
_A2D_CHAT = {"temperature": 0.0, "sampler": {"name": "confidence", "cut": "dllm", "block_length": 32}}

FAMILIES = {
    "llada": Family("LLaDA", end_tokens=("<|eot_id|>",), chat=_LLADA_CHAT),
    "Dream": Family("Dream", biases=True, shifted=True, longest=2048, end_tokens=("<|im_end|>",), chat=_DREAM_CHAT),
    "a2d-qwen2": Family("a2d of Qwen2", biases=True, end_tokens=("<|im_end|>",), chat=_A2D_CHAT),
    "a2d-qwen3": Family("a2d of Qwen3", query_key_norm=True, end_tokens=("<|im_end|>",), chat=_A2D_CHAT),
    "a2d-llama": Family("a2d of Llama", end_tokens=("<|eot_id|>",), chat=_A2D_CHAT),
}


def is_known(folder: Path) -> bool:
    """Whether a folder's `model_type` is one of these families."""
    file = folder / CONFIG_FILE
    if not file.is_file():
        return False
    with naming(file):
        return Literals.of_file(file).value("model_type") in FAMILIES


def read_folder(folder: Path, request: Request) -> Source:
    """Read a folder whose `model_type` is known. Raises `ImportFailure`: its network is another, or a file is wrong."""
    if request.weights == "raw":
        raise ImportFailure("has one set of weights; --weights raw cannot be chosen")
    with naming(folder / CONFIG_FILE):
        config = Literals.of_file(folder / CONFIG_FILE)
        kind = config.string("model_type")
        family = FAMILIES[kind]
        request.takes(f"a model of {family.name}", "length", "mask_id")
        classes = config.integer("embedding_size" if kind == "llada" else "vocab_size", least=2)
        if kind == "llada" and config.has("vocab_size") and config.integer("vocab_size") > classes:
            raise ImportFailure(f"its vocab_size exceeds its embedding_size, {classes}")
    tokens = read_model_tokens(folder, request.tokenizer, classes, end_tokens=family.end_tokens)
    with naming(folder / CONFIG_FILE):
        mask = _mask(config, tokens, request, classes)
        shape = _llada_shape(config, classes, mask) if kind == "llada" else _qwen_shape(config, family, classes, mask)
        length = _length(shape.length, family, request)
        ends = _end_tokens(config, tokens, folder, classes)
    tensors, files = open_folder(folder)
    names = _LLADA_NAMES if kind == "llada" else _qwen_names(family)
    with naming(files[0] if len(files) == 1 else folder):
        if kind == "llada" and shape.query_key_value_bias:
            names = _with(names, {f"{p}.bias": f"model.transformer.blocks.{{}}.{p}_proj.bias" for p in "qkv"})
        if shape.tied_head:
            tensors.pop(names.head, None)  # a copy of the embedding, where a writer has stored it
        unneeded = [name for name in tensors if name.endswith("rotary_emb.inv_freq")]
        weights = {name: tensor for name, tensor in tensors.items() if name not in unneeded}
        made = llama_tensors(shape, names, weights, DTYPES[request.dtype] if request.dtype else None)
    keys: dict[str, Any] = {**vars(shape), "architecture": "llama", "length": length, "carry_over": True}
    keys |= {"canvas": request.canvas or "as_requested", "undrawable_tokens": ranges_of({mask, *tokens.unnamed})}
    keys |= tokens.config(ends)
    if tokens.extras:  # a chat template: a base model has none, and nothing is recommended for it
        keys["generation"] = family.chat
    if family.shifted and tokens.bos is not None:
        keys["add_bos"] = "empty_prompt"  # the row of the token before speaks for a token
    notes = []
    if tokens.tokenizer is None:
        notes.append("no tokenizer: only the mask is known to name no text; other rows of the head may be drawn")
    return Source(
        files, keys, made, {"format": "huggingface", "family": family.name}, tokenizer=tokens.tokenizer,
        extras=tokens.extras, notes=tuple(notes),
    )  # fmt: skip


def _llada_shape(config: Literals, classes: int, mask: int) -> LlamaShape:
    _check(config, _LLADA_ALLOWED)
    heads = config.integer("n_heads")
    hidden = config.integer("d_model")
    return _made(
        length=config.integer("max_sequence_length"),
        vocabulary_size=classes,
        sub_tokens_per_token=1,
        base=classes,
        hidden_size=hidden,
        blocks=config.integer("n_layers"),
        heads=heads,
        key_value_heads=config.integer("n_kv_heads") if config.given("n_kv_heads") else heads,
        head_width=_quotient("d_model", hidden, heads),
        inner_size=config.integer("mlp_hidden_size"),
        norm_epsilon=config.number("rms_norm_eps"),
        rotary_base=config.number("rope_theta"),
        query_key_value_bias=config.given("include_qkv_bias") and config.boolean("include_qkv_bias"),
        mask_class=mask,
        tied_head=config.boolean("weight_tying"),
    )


def _qwen_shape(config: Literals, family: Family, classes: int, mask: int) -> LlamaShape:
    _check(config, _QWEN_ALLOWED)
    if config.given("sliding_window") and not config.given("use_sliding_window"):
        raise ImportFailure("its configuration's sliding_window is set; windows are not supported")
    if config.given("layer_types") and set(config.strings("layer_types")) != {"full_attention"}:
        raise ImportFailure("its configuration's layer_types are not all full_attention; others are not supported")
    heads, hidden = config.integer("num_attention_heads"), config.integer("hidden_size")
    width = config.integer("head_dim") if config.given("head_dim") else _quotient("hidden_size", hidden, heads)
    return _made(
        length=config.integer("max_position_embeddings"),
        vocabulary_size=classes,
        sub_tokens_per_token=1,
        base=classes,
        hidden_size=hidden,
        blocks=config.integer("num_hidden_layers"),
        heads=heads,
        key_value_heads=config.integer("num_key_value_heads"),
        head_width=width,
        inner_size=config.integer("intermediate_size"),
        norm_epsilon=config.number("rms_norm_eps"),
        rotary_base=_rotary_base(config),
        query_key_value_bias=family.biases,
        query_key_norm=family.query_key_norm,
        mask_class=mask,
        tied_head=config.boolean("tie_word_embeddings"),
        shifted=family.shifted,
    )


def _qwen_names(family: Family) -> Names:
    block = _QWEN_BLOCK | (_BIASES if family.biases else {}) | (_NORMS if family.query_key_norm else {})
    layer = {part: f"model.layers.{{}}.{name}" for part, name in block.items()}
    return Names("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight", layer)


def _with(names: Names, more: Mapping[str, str]) -> Names:
    return Names(names.embedding, names.norm_final, names.head, {**names.block, **more})


def _made(**sizes: Any) -> LlamaShape:  # noqa: ANN401 — the sizes of LlamaShape
    try:
        return LlamaShape(**sizes)
    except ValueError as error:
        raise ImportFailure(f"its sizes do not fit each other: {error}") from error


def _quotient(key: str, hidden: int, heads: int) -> int:
    if hidden % heads:
        raise ImportFailure(f"its configuration's {key} {hidden} is not divisible by its {heads} heads")
    return hidden // heads


def _check(config: Literals, allowed: Allowed) -> None:
    """Refuse a key whose value asks for another network."""
    for key, values in allowed.items():
        value = config.value(key)
        if not any(type(value) is type(each) and value == each for each in values):
            wanted = " or ".join(str(each).lower() for each in values if each is not None) or "null"
            found = "missing" if not config.has(key) else printable(repr(value), 60)
            raise ImportFailure(f"its configuration's {key} is {found}; only {wanted} is supported")


def _rotary_base(config: Literals) -> float:
    """`rope_theta`, which newer versions of transformers write into `rope_parameters`."""
    if not config.given("rope_parameters"):
        return config.number("rope_theta")
    kind = config.value("rope_parameters.rope_type")
    if kind not in (None, "default"):
        raise ImportFailure(
            f"its configuration's rope_parameters.rope_type is {printable(repr(kind), 40)}; only 'default' is supported"
        )
    return config.number("rope_parameters.rope_theta")


def _mask(config: Literals, tokens: ModelTokens, request: Request, classes: int) -> int:
    """The mask's id: the option's, the configuration's or the tokenizer's."""
    mask = request.mask_id
    if mask is None and config.given("mask_token_id"):
        mask = config.integer("mask_token_id", least=0)
    mask = tokens.mask if mask is None else mask
    if mask is None:
        raise ImportFailure("has no mask_token_id, and there is no tokenizer with a mask token: say --mask-id ID")
    if mask >= classes:
        raise ImportFailure(f"its mask_token_id is {mask}; the head has {classes} rows")
    return mask


def _length(configured: int, family: Family, request: Request) -> int:
    if request.length is not None:
        if request.length > configured:
            raise ImportFailure(f"--length is {request.length}; the configuration allows {configured} tokens")
        return request.length
    return min(configured, family.longest or configured)


def _end_tokens(config: Literals, tokens: ModelTokens, folder: Path, classes: int) -> list[int]:
    """The tokens that end a text: of the configuration, of `generation_config.json`, and of the family."""
    found = [*config.ids("eos_token_id")]
    file = folder / "generation_config.json"
    if file.is_file():
        with naming(file):
            found += Literals.of_file(file).ids("eos_token_id")
    found += tokens.ends
    return [each for each in dict.fromkeys(found) if each < classes]

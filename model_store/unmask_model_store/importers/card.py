"""The card of an imported bundle: what it is and where it came from."""

from unmask_model_store.config import PrimeConfig

_LABELS = {
    "repository": "repository",
    "revision": "revision",
    "file": "file",
    "sha256": "SHA-256",
    "format": "format",
    "weights": "weights",
    "epoch": "epoch",
    "global_step": "step",
    "ema_decay": "EMA decay",
    "ema_updates": "EMA updates",
    "lightning_version": "Lightning",
}


def card_of(config: PrimeConfig, folder: str) -> str:
    """The bundle's README.md, from what its configuration says."""
    kind = "MDLM" if config.sub_tokens_per_token == 1 else "MDM-Prime"
    return "\n".join(
        [
            f"# {config.name or folder}",
            "",
            f"An {kind} model, imported by `unmask import`.",
            "",
            f"- {config.vocabulary_size:,} classes, {config.length:,} tokens",
            f"- sub-tokens a token: l = {config.sub_tokens_per_token}, in base {config.base}",
            f"- hidden size {config.hidden_size}, {config.blocks} blocks, {config.heads} heads",
            "- time-agnostic: the constant modulations are folded into the weights",
            f"- trained {'with' if config.carry_over else 'without'} carry-over; the sampler always respects it",
            f"- canvas: {config.canvas}",
            "",
            "## Where it came from",
            "",
            *_origin(config),
            "",
        ]
    )


def _origin(config: PrimeConfig) -> list[str]:
    facts = config.provenance
    lines = [f"- {label}: `{facts[key]}`" for key, label in _LABELS.items() if key in facts]
    if ignored := facts.get("ignored"):
        names = ", ".join(f"`{name}`" for name in ignored)
        lines.append(f"- named by the file's pickle, recorded and never executed: {names}")
    return lines

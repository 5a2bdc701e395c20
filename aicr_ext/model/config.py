"""The shapes of the network, from one description."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from torch import Tensor

__all__ = ["CONFIGS", "QUALITIES", "ModelConfig", "get_config"]

#: Number of quality indexes that one set of weights serves (0 = smallest file, 63 = best picture).
QUALITIES = 64


@dataclass(frozen=True)
class ModelConfig:
    """Everything that distinguishes one AICR network from another.

    Attributes:
        name: the name the file header and :func:`aicr_ext.load_model` know it by.
        wire_id: the number that stands for the name in a file; never reused.
        stem: downscaling of the stem: 1 is a plain 3x3 convolution, 4 a ``PixelUnshuffle(4)`` before it.
        widths: channels of each stage, finest first; each stage halves the resolution of the one before.
        blocks: hybrid blocks per stage; the synthesis mirrors it.
        latent: channels N of the latent y (at 1/16 of the picture's side).
        hyper: channels of the hyper latent z (at 1/64).
        groups: attention groups N_g of C-GA.
        kernel: K of the 1xK and Kx1 depthwise convolutions of S-DA.
        expansion: hidden width of the gated feed-forward over its input width.
        prior_expansion: hidden width of the entropy networks' feed-forwards over their input width.
        quant_step: the priors also emit a step by which y is divided before rounding.
        fusion: widths of the prior fusion after its input, in multiples of N (the last is its output).
        context: widths of the spatial prior after its input, in multiples of N (the last is its output).
        linear_shortcut: 16x16 linear transforms beside analysis and synthesis (principal components at first).
        detail: components E of the detail that is coded behind y, for which the shortcut has no channels;
            even, and not N. Needs a linear shortcut.
        shortcut_gate: a factor on every component of the analysis' shortcut, if it has one (:class:`ShortcutGate`).
        wiener_filter: the gate also tells how much noise it leaves, which the encoder takes out of what it codes, by
            what the decoder expects (:func:`aicr_ext.model.entropy.filtered`). Needs a gate.
        noise_evidence: the gates see what the picture shows of its noise
            (:func:`aicr_ext.model.evidence.noise_evidence`). Needs a gate.
        feedback: the encoder decodes what it has and corrects it (:class:`aicr_ext.model.feedback.Feedback`). Needs a
            linear shortcut and ``noise_evidence``.
        tone_field: the analysis begins with a slowly varying map of colours (:class:`ToneField`).
        lambdas: rate-distortion trade-off of quality 0 and of quality 63.
    """

    name: str
    wire_id: int
    stem: int
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    latent: int
    hyper: int
    groups: int = 4
    kernel: int = 5
    expansion: float = 2.66
    prior_expansion: int = 2
    quant_step: bool = True
    fusion: tuple[float, ...] = (2, 3)
    context: tuple[float, ...] = (3, 2, 2)
    linear_shortcut: bool = False
    detail: int = 0
    shortcut_gate: bool = False
    wiener_filter: bool = False
    noise_evidence: bool = False
    feedback: bool = False
    tone_field: bool = False
    lambdas: tuple[float, float] = (128.0, 2048.0)

    @property
    def pyramid(self) -> tuple[int, ...]:
        """Widths at every resolution from the stem's down to 1/16, where a network may have no blocks of its own."""
        if self.stem * 2 ** (len(self.widths) - 1) == 16:
            return self.widths
        return (*self.widths, 2 * self.widths[-1])

    @property
    def components(self) -> int:
        """Channels of the coded latents: y and its detail."""
        return self.latent + self.detail

    def split(self, parameters: Tensor, dim: int = 1) -> tuple[Tensor | None, Tensor, Tensor]:
        """First-step parameters as (quantiser step of at least 0.5, or None; log scale; mean), along ``dim``."""
        if not self.quant_step:
            return None, *parameters.chunk(2, dim)
        step, log_scale, mean = parameters.chunk(3, dim)
        return step.clamp_min(0.5), log_scale, mean

    def to_dict(self) -> dict:
        """The fields as plain values, for a checkpoint's metadata."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> ModelConfig:
        """The inverse of :meth:`to_dict`; lists become tuples again."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


CONFIGS = {
    c.name: c
    for c in (
        ModelConfig("aicr-s", 1, 1, (32, 64, 128, 256), (2, 3, 3, 4), 256, 128),
        ModelConfig("aicr-l", 2, 1, (48, 96, 192, 384), (2, 3, 3, 4), 288, 192),
        ModelConfig(
            "aicr-t",
            5,  # 3 was aicr-t without detail
            4,
            (64, 128, 192),
            (1, 2, 2),
            192,
            64,
            expansion=2.0,
            prior_expansion=1,
            quant_step=False,
            fusion=(2,),
            context=(1.25, 2),
            linear_shortcut=True,
            detail=128,
            shortcut_gate=True,
            wiener_filter=True,
            noise_evidence=True,
            feedback=True,
            tone_field=True,
            lambdas=(32.0, 2048.0),
        ),
    )
}


# aicr-t without what undoes damage, trained on clean pictures only, which it codes as they are. It is also the baseline
# that restoring weights are compared with.
CONFIGS["aicr-t-clean"] = replace(
    CONFIGS["aicr-t"],
    name="aicr-t-clean",
    wire_id=6,  # 4 was aicr-t-clean without gates and detail
    wiener_filter=False,
    feedback=False,
    tone_field=False,
)


def get_config(name: str) -> ModelConfig:
    """The configuration of that name.

    Raises:
        ValueError: unknown name; the message lists the known ones.
    """
    try:
        return CONFIGS[name]
    except KeyError:
        raise ValueError(f"unknown model {name!r}; known models: {', '.join(sorted(CONFIGS))}") from None

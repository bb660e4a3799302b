"""A stock `UNet2DConditionModel` that is told a text, with the text encoder that is trained along where there is one.

    hidden states of the caption (n, 77, width) -> unet(x_t, t, encoder_hidden_states)

A frozen encoder is no part of it: the states come ready. One that is trained along (`scratch`) is: it takes tokens, has
its share of the loss, the averaged weights and the checkpoints, and is a component of its own in the model folder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from logsnr.models.networks import begin_at_zero, portable_config
from logsnr.models.text_encoders import TextEncoder, Tokenizer
from logsnr.pipelines.pipeline_text_to_image import MAX_TOKENS
from logsnr.settings.text_to_image import CaptionedDataConfig, PromptedModelConfig

_WIDTH, _LAYERS, _HEADS, _VOCABULARY = 128, 2, 4, 2000
"""Of an encoder that is trained along."""
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


class PromptedUNet(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Called as `network(x_t, t, encoder_hidden_states=…)`, or where it has an encoder of its own with `input_ids` and
    `attention_mask`.

    unet_config: that of a `UNet2DConditionModel`.
    vocabulary: word pieces of the encoder that is trained along; None where there is none.
    """

    unet: Any

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, unet_config: dict[str, Any], vocabulary: list[str] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.unet = UNet2DConditionModel.from_config(unet_config)
        self.text_encoder = None if vocabulary is None else _new_encoder(len(vocabulary))
        self.frozen: list[TextEncoder] = []  # in a list, so that it isn't taken for a part
        self.prompts: list[str] = []  # some that it can be asked for

    @classmethod
    def of(cls, unet: Any, encoder: TextEncoder, prompts: Sequence[str] = ()) -> PromptedUNet:
        """Around a trained network and its encoder, which is no longer trained, and some prompts."""
        network = cls.__new__(cls)
        nn.Module.__init__(network)
        network.unet, network.text_encoder, network.frozen, network.prompts = unet, None, [encoder], list(prompts)
        network.register_to_config(unet_config=portable_config(unet), vocabulary=None)  # type: ignore[no-untyped-call]
        return network

    def learn(self, vocabulary: list[str]) -> None:
        """Go on training the encoder too, which reads this vocabulary."""
        self.text_encoder, self.frozen = self.frozen[0].model.requires_grad_(True), []
        self.register_to_config(vocabulary=vocabulary)  # type: ignore[no-untyped-call]

    @property
    def encoder(self) -> TextEncoder:
        """The encoder with its tokenizer, frozen or not."""
        if self.text_encoder is None:
            return self.frozen[0]
        return TextEncoder(word_pieces(self.config["vocabulary"]), self.text_encoder)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        return_dict: bool = True,
    ) -> Any:
        if encoder_hidden_states is None:
            assert self.text_encoder is not None
            encoder_hidden_states = self.text_encoder(input_ids, attention_mask=attention_mask)[0]
        return self.unet(sample, timestep, encoder_hidden_states, return_dict=return_dict)


def make_prompted_unet(
    data: CaptionedDataConfig,
    model: PromptedModelConfig,
    encoder: TextEncoder | None,
    vocabulary: list[str] | None,
    seed: int,
    learned_variance: bool = False,
    states: Tensor | None = None,
) -> PromptedUNet:
    """A network with weights drawn from `seed`: for the states of a frozen encoder, or with one for a vocabulary.

    states: some of the encoder's, (words, width), by which the network begins (see `begin_white`).
    With a learned variance it has twice the output channels, the second half for the variance.
    """
    width = _WIDTH if encoder is None else encoder.width
    levels = range(len(model.block_out_channels))
    crossed = [level in model.attention_levels for level in levels]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=data.resolution,
            in_channels=data.channels,
            out_channels=data.channels * (2 if learned_variance else 1),
            block_out_channels=model.block_out_channels,
            layers_per_block=model.layers_per_block,
            down_block_types=tuple("CrossAttnDownBlock2D" if c else "DownBlock2D" for c in crossed),
            mid_block_type="UNetMidBlock2DCrossAttn",
            up_block_types=tuple("CrossAttnUpBlock2D" if c else "UpBlock2D" for c in reversed(crossed)),
            # what stock calls the dimension of a head is the number of heads here
            attention_head_dim=tuple(max(1, c // model.attention_head_dim) for c in model.block_out_channels),
            norm_num_groups=model.norm_num_groups,
            cross_attention_dim=model.cross_attention_dim,
            encoder_hid_dim=width,
            encoder_hid_dim_type="text_proj",
            resnet_time_scale_shift=model.resnet_time_scale_shift,
            dropout=model.dropout,
        )
        begin_at_zero(unet)
        if states is not None:
            begin_white(unet.encoder_hid_proj, states)
        config = {name: value for name, value in unet.config.items() if not name.startswith("_")}
        network: PromptedUNet = PromptedUNet(
            unet_config=config, vocabulary=vocabulary
        )  # by name: else taken for defaults
        network.unet = unet
    network.frozen = [] if encoder is None else [encoder]
    return network


@torch.no_grad()
def begin_white(projection: Any, states: Tensor) -> None:
    """Let a linear layer begin as one that tells apart whatever differs between its inputs, however little.

    With mean m and covariance C of the inputs and a matrix Q of orthonormal rows (or columns), the layer begins as

        W = c Q (C + r I)^(-1/2),   b = -W m,

    so its outputs have mean 0 and, c being chosen so, a mean variance of 1 (LeCun et al., "Efficient BackProp", 1998,
    section 4.3). A text encoder's states differ far more by which word they are of than by what another word says of
    it, such as on which side of "left of" it stands; begun otherwise, a network learns that late. r is a
    hundredth of the mean of C's eigenvalues.

    projection: a `torch.nn.Linear`.
    states: inputs, (n, width).
    """
    inputs = states.double()
    mean, covariance = inputs.mean(0), torch.cov(inputs.T)
    values, axes = torch.linalg.eigh(covariance)
    mixed = nn.init.orthogonal_(torch.empty(projection.weight.shape, dtype=torch.float64))
    weight = mixed @ (axes * (values + 0.01 * values.mean()).rsqrt()) @ axes.T
    weight /= ((weight @ covariance) * weight).sum(1).mean().sqrt()
    projection.weight.copy_(weight)
    projection.bias.copy_(-weight @ mean)


# An encoder that is trained along


def _new_encoder(vocabulary: int) -> Any:
    """A small DistilBERT, which unlike BERT has no part that goes unused here."""
    import transformers

    config = transformers.DistilBertConfig(
        vocab_size=vocabulary,
        max_position_embeddings=MAX_TOKENS,
        dim=_WIDTH,
        n_layers=_LAYERS,
        n_heads=_HEADS,
        hidden_dim=4 * _WIDTH,
        dropout=0.0,
        attention_dropout=0.0,
        pad_token_id=0,
    )
    return transformers.DistilBertModel(config)


def word_pieces(vocabulary: Sequence[str]) -> Tokenizer:
    """The tokenizer of these word pieces."""
    import transformers

    return Tokenizer(transformers.DistilBertTokenizer(vocab={piece: k for k, piece in enumerate(vocabulary)}))


def fitted_vocabulary(captions: Iterable[str]) -> list[str]:
    """Word pieces for captions: their letters and signs, and their words, the most frequent first, up to 2,000.

    A word that isn't among them is spelled. (The trainers of the library tokenizers give other pieces in each process.)
    """
    backend = word_pieces(_SPECIAL).tokenizer.backend_tokenizer
    words = Counter[str]()
    for caption in captions:
        normal = backend.normalizer.normalize_str(caption)
        words.update(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normal))
    letters = sorted({letter for word in words for letter in word})
    spelling = [*letters, *(f"##{letter}" for letter in letters)]
    frequent = sorted((word for word in words if len(word) > 1), key=lambda word: (-words[word], word))
    return [*_SPECIAL, *spelling, *frequent][: max(_VOCABULARY, len(_SPECIAL) + len(spelling))]

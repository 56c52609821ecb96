"""Any convolutional model of timm as a backbone."""

from __future__ import annotations

import difflib
from typing import Any, final

import timm
from pydantic import Field, field_validator
from torch import nn

from micraframe.errors import ModelError, reason_of
from micraframe.interfaces import Backbone
from micraframe.parameters import Parameters
from micraframe.types import Layer

OPTIONS = ("act_layer", "drop_block_rate", "drop_path_rate", "norm_layer", "output_stride", "stem_type")
"""The allowed keywords of `timm.create_model`. Loading a saved model applies its options, so none of them may open a
file or an address, as `checkpoint_path`, `pretrained_cfg` and `cache_dir` would."""


@final
class TimmFeatures(Backbone["TimmFeatures.Params"]):
    """The feature maps that a timm model offers (`features_only=True`), under timm's names for their modules."""

    class Params(Parameters):
        model: str = Field("resnet18", description="timm's name; `timm.list_models()` lists them.")
        pretrained: bool = Field(
            False, description="Start training from timm's published weights, which are downloaded once and cached."
        )
        out_indices: tuple[int, ...] | None = Field(
            None,
            min_length=1,
            description="Indices of timm's feature maps to use as layers, shallow to deep; null: all.",
        )
        options: dict[str, bool | int | float | str] = Field(
            {}, description=f"Further keywords of timm.create_model: {', '.join(OPTIONS)}."
        )

        @field_validator("options")
        @classmethod
        def _allowed(cls, options: dict[str, Any]) -> dict[str, Any]:
            if refused := sorted(set(options) - set(OPTIONS)):
                raise ValueError(
                    f"expected options from {', '.join(OPTIONS)}, got {', '.join(refused)}; others could open files"
                )
            return options

    def untrained(self) -> TimmFeatures:
        """Return the backbone without timm's published weights, so that nothing is downloaded."""
        return TimmFeatures(self.params.model_copy(update={"pretrained": False}))

    def create(self, channels: int) -> tuple[nn.Module, tuple[Layer, ...]]:
        """Create the network."""
        network = self._network(channels)
        info = network.feature_info
        described = zip(info.module_name(), info.channels(), info.reduction(), strict=True)
        return network, tuple(Layer(name, int(width), int(stride)) for name, width, stride in described)

    def _network(self, channels: int) -> Any:
        name = self.params.model
        # Not a name with a source, such as local-dir:..., which timm would open.
        if not timm.is_model(name):
            near = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "timm.list_models() lists them"
            raise ModelError(f"expected the name of a timm model, got {name!r}; {hint}")
        chosen: dict[str, Any] = dict(self.params.options)
        if self.params.out_indices is not None:
            chosen["out_indices"] = self.params.out_indices

        def build(pretrained: bool) -> Any:
            return timm.create_model(name, features_only=True, in_chans=channels, pretrained=pretrained, **chosen)

        try:
            return build(self.params.pretrained)
        except Exception as error:  # timm has no error class of its own
            reason = reason_of(error, typed=True)
            if self.params.pretrained and _works(build):
                raise ModelError(
                    f"the published weights of timm model {name!r} are not available: {reason}; connect to the "
                    "internet once, or set pretrained: false"
                ) from error
            raise ModelError(
                f"timm model {name!r} cannot be used as a backbone: {reason}; choose a convolutional model"
            ) from error


def _works(build: Any) -> bool:
    """Return whether the model can be created without its published weights."""
    try:
        build(False)
    except Exception:  # the first error is the one that is shown
        return False
    return True

"""What quantized a component, and with which settings: from its configs and its tensors."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fluxconv.converters.packed_weights import Weight
from fluxconv.converters.visible import visible

Config = Mapping[str, Any]
_DEEPEST = 4  # levels of objects within a setting that are written out


@dataclass(frozen=True)
class Quantization:
    """`library` by its package's name and `scheme` in its own words; `settings` as JSON has them,
    lists of modules among them."""

    library: str
    scheme: str
    settings: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Both in one."""
        return f"{self.library} {self.scheme}".strip()


@dataclass(frozen=True)
class Method:
    """One row of the table: configs with all of `says` are its own.

    `scheme` are the keys that name the scheme, the first that is there wins; `settings` gives the
    keys worth saying a name of ours; `unfolded` prepares a config for both.
    """

    library: str
    says: Config
    scheme: tuple[str, ...]
    settings: Mapping[str, str]
    unfolded: Callable[[Config], Config] = field(default=lambda config: config)


def _torchao(config: Config) -> Config:
    """torchao's own object, `{"_type": ..., "_data": {...}}`, spread over the config."""
    wanted = config.get("quant_type")
    if isinstance(wanted, dict) and len(wanted) == 1:  # by module pattern: `default` alone
        (wanted,) = wanted.values()
    if not isinstance(wanted, dict):
        return config
    data = wanted.get("_data")
    return {
        **config,
        **(data if isinstance(data, dict) else {}),
        "quant_type": wanted.get("_type", wanted),
    }


def _nunchaku(config: Config) -> Config:
    """The settings of the weights, which stand beside those of the activations."""
    weight = config.get("weight")
    if not isinstance(weight, dict):
        return config
    return {**config, **weight, "method": f"{config.get('method')} {weight.get('dtype', '')}"}


_SKIPPED = {"modules_to_not_convert": "skipped", "llm_int8_skip_modules": "skipped"}
METHODS = (
    Method(
        "bitsandbytes",
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        ("bnb_4bit_quant_type",),
        {
            "bnb_4bit_compute_dtype": "compute_dtype",
            "bnb_4bit_use_double_quant": "double_quant",
            "bnb_4bit_quant_storage": "quant_storage",
            **_SKIPPED,
        },
    ),
    Method(
        "bitsandbytes",
        {"quant_method": "bitsandbytes", "load_in_8bit": True},
        (),
        {
            "llm_int8_threshold": "threshold",
            "llm_int8_has_fp16_weight": "has_fp16_weight",
            "llm_int8_enable_fp32_cpu_offload": "fp32_cpu_offload",
            **_SKIPPED,
        },
    ),
    Method(
        "torchao",
        {"quant_method": "torchao"},
        ("quant_type",),
        {
            "group_size": "group_size",
            "granularity": "granularity",
            "weight_dtype": "weight_dtype",
            "activation_dtype": "activation_dtype",
            "act_mapping_type": "activations",
            "int4_packing_format": "packing",
            "intx_packing_format": "packing",
            "packing_format": "packing",
            "int4_choose_qparams_algorithm": "algorithm",
            "intx_choose_qparams_algorithm": "algorithm",
            "mapping_type": "mapping",
            "include_input_output_embeddings": "embeddings",
            **_SKIPPED,
        },
        _torchao,
    ),
    Method(
        "optimum-quanto",
        {"quant_method": "quanto"},
        ("weights_dtype", "weights"),
        {"activations": "activations", **_SKIPPED},
    ),
    Method(
        "nunchaku",
        {"method": "svdquant"},
        ("method",),
        {"group_size": "group_size", "rank": "rank", "activation": "activation"},
        _nunchaku,
    ),
    Method("nunchaku", {"method": "awq"}, ("method",), {"group_size": "group_size"}, _nunchaku),
)
#: Where methods that no row knows say their scheme, and what of them is no setting.
_SCHEMES = ("weights_dtype", "scheme", "quant_algo", "format", "quant_type", "weight_format")
_NO_SETTING = ("quant_method", "method")


def recognise_quantization(
    config: Config | None, quanto_map: Config | None, weights: Iterable[Weight]
) -> Quantization | None:
    """What quantized the component; None if nothing did.

    `config` is a `quantization_config`, wherever it was found, and `quanto_map` the file
    `quanto_qmap.json`. The config's word on library and scheme comes before that of the tensors,
    which add settings.
    """
    seen = _from_weights(weights)
    said = None if config is None else _from_config(config)
    if said is None and quanto_map is not None:
        said = _from_quanto_map(quanto_map)
    if said is None or seen is None:
        return said or seen
    scheme = said.scheme or (seen.scheme if seen.library == said.library else "")
    return Quantization(said.library, scheme, {**seen.settings, **said.settings})


def _from_config(config: Config) -> Quantization:
    for method in METHODS:
        if all(config.get(key) == value for key, value in method.says.items()):
            unfolded = method.unfolded(config)
            scheme = next((_text(unfolded[key]) for key in method.scheme if key in unfolded), "")
            settings = {
                name: _plain(unfolded[key])
                for key, name in method.settings.items()
                if unfolded.get(key) is not None
            }
            return Quantization(method.library, scheme, settings)
    name = next((_text(config[key]) for key in _NO_SETTING if key in config), "unknown method")
    scheme = next((_text(config[key]) for key in _SCHEMES if key in config), "")
    settings = {
        visible(key): _plain(value)
        for key, value in config.items()
        if key not in _NO_SETTING and value is not None
    }
    return Quantization(name, scheme, settings)


def _from_quanto_map(quanto_map: Config) -> Quantization:
    modules = [module for module in quanto_map.values() if isinstance(module, dict)]
    kinds = Counter(_text(module.get("weights")) for module in modules)
    activations = Counter(_text(module.get("activations")) for module in modules)
    scheme = " + ".join(kind.removeprefix("q") for kind, _ in kinds.most_common())
    return Quantization("optimum-quanto", scheme, {"activations": " + ".join(activations)})


def _from_weights(weights: Iterable[Weight]) -> Quantization | None:
    """The packings that are there, those with the most bytes first."""
    nbytes: Counter[tuple[str, str]] = Counter()
    settings: dict[tuple[str, str], Mapping[str, Any]] = {}
    for weight in weights:
        if weight.packed is not None:
            key = weight.packed.library, weight.packed.scheme
            nbytes[key] += weight.nbytes
            settings.setdefault(key, weight.packed.settings)
    if not nbytes:
        return None
    keys = [key for key, _ in nbytes.most_common()]
    library = keys[0][0]
    scheme = " + ".join(scheme for owner, scheme in keys if owner == library)
    return Quantization(library, scheme, {k: _plain(v) for k, v in settings[keys[0]].items()})


def _plain(value: Any, level: int = 0) -> Any:
    """A setting as JSON that can be printed; torchao's objects as `Type(key=value)`."""
    match value:
        case bool() | int() | None:
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case _ if level == _DEEPEST:
            return "..."
        case {"_type": kind, "_data": dict() as data}:
            inside = ", ".join(f"{_text(k)}={_text(v, level)}" for k, v in data.items())
            return f"{_text(kind)}({inside})" if inside else _text(kind)
        case {"_type": _, "_data": data}:  # a type, or one of a list of values
            return _text(data)
        case dict():
            return {visible(k): _plain(v, level + 1) for k, v in value.items() if v is not None}
        case list():
            return [_plain(item, level + 1) for item in value]
        case _:
            return visible(value)


def _text(value: Any, level: int = 0) -> str:
    return visible(_plain(value, level + 1))

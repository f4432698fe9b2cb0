"""All methods by name: those of the papers' tables, their ablations, literal readings and cheaper heads.

`_as_printed` takes every equation literally (docs/decisions/0006 and 0008); its schedule is that of the
others, so that budgets stay equal. Names need no torch: the command line refuses a wrong one
before it is imported.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from hyperfleet.lazy_table import LazyTable

if TYPE_CHECKING:
    from hyperfleet.methods.base import Method

# Methods that read a fixed number of frames of each clip.
FRAMES_READ: Mapping[str, int] = {"duet": 5}


def _of(module: str, method_class: str, *, generator: str = "", **fields: Any) -> Callable[[str], Any]:
    """Return the factory of a method; `generator` names a configuration in the same module."""

    def make(name: str) -> Any:
        found = import_module(f"hyperfleet.methods.{module}")
        config = {"generator": getattr(found, generator)} if generator else {}
        return getattr(found, method_class)(name=name, **config, **fields)

    return make


def _cdc_mmpg(**fields: Any) -> Callable[[str], Any]:
    return _of("cdc_mmpg", "CdcMmpg", **fields)


def _stable(**fields: Any) -> Callable[[str], Any]:
    return _of("stable_synth_net", "StableSynthNet", **fields)


METHODS: "LazyTable[Method]" = LazyTable(
    "method",
    {
        "f_linear": _of("f_linear", "FLinear"),
        "fine_tuning": _of("fine_tuning", "FineTuning"),
        "f_hyper": _of("f_hyper", "FHyper"),
        "f_hyper_trained": _of("f_hyper", "FHyper", generator="WELL_INITIALISED", train_encoder=True),
        "duet": _of("duet", "Duet"),
        "cdc_mmpg": _cdc_mmpg(),
        "cdc_mmpg_joint": _cdc_mmpg(joint=True),
        "cdc_mmpg_fda": _cdc_mmpg(generator="FDA_ALONE"),
        "cdc_mmpg_fda_clip": _cdc_mmpg(generator="FDA_OF_CLIP"),
        "cdc_mmpg_adr": _cdc_mmpg(generator="ADR_ALONE"),
        "cdc_mmpg_rank8": _cdc_mmpg(generator="RANK8"),
        "cdc_mmpg_film": _cdc_mmpg(generator="FILM"),
        "cdc_mmpg_as_printed": _cdc_mmpg(generator="AS_PRINTED", warm=False, generator_rate=1.0, joint=True),
        "stable_synth_net": _stable(),
        "stable_synth_net_no_contrastive": _stable(contrastive=False),
        "stable_synth_net_no_separation": _stable(separation=False),
        "stable_synth_net_no_templates": _stable(generator="WITHOUT_TEMPLATES"),
        "stable_synth_net_as_printed": _stable(
            generator="AS_PRINTED", warm=False, keep_answering=False, generator_rate=1.0, joint=True
        ),
    },
)

method = METHODS.named

"""Every method by name: those of the papers' tables, their ablations, literal readings and cheaper heads.

`_as_printed` takes every equation as its symbols stand (docs/decisions/0006 and 0008); its schedule is
that of the others, so that budgets stay equal.
"""

from dataclasses import replace

from hyperfleet.methods import cdc_mmpg, f_hyper, stable_synth_net
from hyperfleet.methods.base import Method
from hyperfleet.methods.cdc_mmpg import CdcMmpg
from hyperfleet.methods.duet import Duet
from hyperfleet.methods.f_hyper import FHyper
from hyperfleet.methods.f_linear import FLinear
from hyperfleet.methods.fine_tuning import FineTuning
from hyperfleet.methods.stable_synth_net import StableSynthNet
from hyperfleet.nn import HeadGeneratorConfig

_STABLE = StableSynthNet()

_ALL: tuple[Method, ...] = (
    FLinear(),
    FineTuning(),
    FHyper(),
    FHyper(name="f_hyper_trained", generator=f_hyper.WELL_INITIALISED, train_encoder=True),
    Duet(),
    CdcMmpg(),
    CdcMmpg(name="cdc_mmpg_joint", joint=True),
    CdcMmpg(name="cdc_mmpg_fda", generator=cdc_mmpg.FDA_ALONE),
    CdcMmpg(name="cdc_mmpg_adr", generator=cdc_mmpg.ADR_ALONE),
    CdcMmpg(name="cdc_mmpg_rank8", generator=HeadGeneratorConfig(form="low_rank", rank=8)),
    CdcMmpg(name="cdc_mmpg_film", generator=HeadGeneratorConfig(form="film")),
    CdcMmpg(
        name="cdc_mmpg_as_printed",
        generator=cdc_mmpg.AS_PRINTED,
        warm=False,
        generator_rate=1.0,
        joint=True,
    ),
    _STABLE,
    replace(_STABLE, name="stable_synth_net_no_contrastive", contrastive=False),
    replace(_STABLE, name="stable_synth_net_no_separation", separation=False),
    replace(_STABLE, name="stable_synth_net_no_templates", generator=stable_synth_net.WITHOUT_TEMPLATES),
    replace(
        _STABLE,
        name="stable_synth_net_as_printed",
        generator=stable_synth_net.AS_PRINTED,
        keep_answering=False,
        generator_rate=1.0,
        joint=True,
    ),
)

METHODS: dict[str, Method] = {each.name: each for each in _ALL}

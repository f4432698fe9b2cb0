"""HyperFleet: personalized heads, generated in the cloud, for a fleet of devices.

The parts of a scenario, and the log of a run:

    from dataclasses import replace

    from hyperfleet import EveryN, RunLog, scenario

    changed = replace(scenario("city_commute"), active_devices=200, policy=EveryN(n=16))

Names are imported when they are first used: `import hyperfleet` alone costs nothing.
"""

import lazy_loader

# __init__.pyi lists the names. `scenario` is the function, although a package has the same name.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

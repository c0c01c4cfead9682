"""Tools that stand among a catalogue's own in training, so that a router reads what is there.

They were written for this package and are under its licence. None of them shares its trade with those that
`mlx-router stress` adds, so that a stress test stays one.
"""

from collections.abc import Iterable, Sequence
from functools import cache

from .catalogue import Catalogue, Tool
from .data import Example
from .signature import parse_signatures
from .variants import name_words

TOOLS = """
- press_olives(grove: str, kilos: float): press a grove's olives into oil.
- candle_eggs(coop: str, trays?: int): hold a coop's eggs against the light.
- smoke_trout(smokehouse: str, hours?: int): hang trout into a smokehouse.
- tap_maples(hillside: str): tap the maples of a hillside for syrup.
- roast_beans(drum: str, shade?: "pale"|"medium"|"dark"): roast coffee beans in a drum.
- churn_butter(dairy: str, litres: float): churn a dairy's cream into butter.
- turn_compost(heap: str): have a compost heap turned over.
- hive_inspection(apiary: str, frame?: int): open a beehive and look at its frames.
- gather_honey(apiary: str, jars?: int): spin honey out of an apiary's combs.
- graft_sapling(orchard: str, rootstock: str): graft a sapling onto a rootstock.
- muck_out(stable: str): have a stable mucked out.
- trim_hooves(farrier: str, horse: str): have a farrier trim a horse's hooves.
- milk_goats(shed: str, evening: bool): milk the goats of a shed.
- thresh_barley(barn: str, sacks: int): thresh barley in a barn.
- flood_paddy(terrace: str, depth_cm: int): let water onto a rice terrace.
- cast_bell(foundry: str, tone: str): pour a bronze bell.
- temper_steel(furnace: str, celsius: int): heat a blade and quench it.
- blow_glass(kiln: str, colour: str): blow a vessel of molten glass.
- throw_pot(wheel: str, clay: str): throw a pot on a potter's wheel.
- glaze_tiles(batch: int, glaze: str): dip a batch of tiles into glaze.
- weave_rug(loom: str, pattern: str): weave a rug on a loom.
- dye_yarn(vat: str, pigment: str): dye yarn in a vat.
- tan_hide(tannery: str, bark?: str): tan a hide with bark.
- bind_folio(bindery: str, leather: bool): bind loose sheets into a folio.
- carve_violin(luthier: str, wood: str): have a luthier carve a violin's belly.
- splice_rope(chandler: str, metres: float): splice two ropes together.
- caulk_hull(shipyard: str, seams?: int): press oakum into the seams of a hull.
- dredge_channel(estuary: str): dig silt out of a shipping channel.
- raise_lock_gate(canal: str, gate: int): let a barge through a canal lock.
- haul_nets(trawler: str): pull a trawler's nets on board.
- seed_oysters(bed: str, crates: int): set young oysters on a bed.
- light_beacon(headland: str): light the lamp of a lighthouse.
- drop_buoy(latitude: float, longitude: float): anchor a buoy at sea.
- core_glacier(icecap: str, metres: int): drill a core out of a glacier.
- band_heron(marsh: str, ring: str): put a ring on a heron's leg.
- tranquilize_rhino(reserve: str, dose_ml: float): dart a rhinoceros for the vet.
- release_lynx(valley: str): set a lynx free in a valley.
- count_seals(skerry: str, pups: bool): count the seals on a skerry.
- sample_lava(crater: str): ladle lava out of a crater.
- read_seismograph(ridge: str): fetch the tremors of a ridge.
- excavate_trench(dig: str, layer?: int): open a trench on an archaeological dig.
- date_bone(fragment: str): date a bone by its carbon.
- restore_fresco(chapel: str, wall: "north"|"south"|"east"|"west"): clean a chapel's fresco.
- polish_lens(observatory: str, microns: float): polish a telescope's lens.
- fuel_rocket(launchpad: str, stage: int): fill a rocket's tanks.
- steer_rover(crater: str, degrees: int): turn a planetary rover.
- spin_centrifuge(rotor: str, rpm: int): start a laboratory centrifuge.
- stain_slide(microscope: str, reagent: str): stain a slide for a microscope.
- culture_yeast(flask: str, strain: str): grow a strain of yeast.
- titrate_acid(burette: str, molarity: float): titrate an acid.
- splint_wing(aviary: str, bird: str): put a splint on a bird's wing.
- fit_denture(jaw: "upper"|"lower", patient: str): fit a denture to a jaw.
- grind_spectacles(optician: str, dioptre: float): grind lenses for spectacles.
- rig_trapeze(circus: str, height_m: float): hang a trapeze under a circus roof.
- load_cannon(fort: str, salute: bool): load a fort's ceremonial cannon.
- joust(knight: str, lance: str): enter a knight into a joust.
- fire_fireworks(barge: str, shells: int): let off fireworks from a barge.
- pitch_marquee(meadow: str, poles?: int): put up a marquee on a meadow.
- sweep_chimney(cottage: str): sweep a cottage's chimney.
- thatch_roof(croft: str, reed: str): thatch a roof with reed.
"""


@cache
def shipped() -> Catalogue:
    """The tools that come with the package."""
    found = parse_signatures(TOOLS)
    assert found is not None
    return found


def fitting(tools: Iterable[Tool], own: Catalogue, examples: Sequence[Example]) -> list[Tool]:
    """The tools that may stand beside a catalogue's own for these rows.

    Left out is one whose name shares a word with an own tool's name or with a request: it might be right.
    """
    taken = name_words(" ".join(tool.name for tool in own)) | name_words(" ".join(row.request for row in examples))
    return [tool for tool in tools if not name_words(tool.name) & taken]

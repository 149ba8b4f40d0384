"""What areas, devices, people and things are called in the homes the model is trained on."""

from __future__ import annotations


def _list(text: str) -> list[str]:
    return [one.strip() for one in text.split("|")]


AREAS = _list(
    """kitchen|living room|bedroom|bathroom|hall|hallway|office|study|garage|garden|basement|attic|nursery|guest room|
dining room|laundry room|pantry|terrace|balcony|porch|patio|shed|workshop|cellar|lounge|den|playroom|library|
gym|entrance|stairs|landing|corridor|kids room|master bedroom|children's room|conservatory|greenhouse|driveway|
front yard|backyard|pool|sauna|utility room|toilet|wardrobe|closet|storage room|music room|tv room|home office|
ensuite|loft|mudroom|foyer|studio|sunroom|boiler room|bike room|server room|spare room|family room|Anna's room|
Tom's room|room 1|room 2|room 3|bedroom 2|barn|stable|workroom|games room|cinema|bar|veranda|roof terrace|
carport|yard|courtyard|summer house|hobby room|guest bathroom|shower room|dressing room|reading corner|
fireplace room|parlour|vestibule|kitchenette|breakfast nook|Wohnzimmer|Küche|Schlafzimmer|Flur|salon|cuisine|
chambre|cocina|dormitorio|soggiorno"""
)

HOUSEHOLD_AREAS = _list("""home|house|family|general|people|household|apartment|flat|scenes""")
"""Areas that hold what belongs to no room: people, scenes, lists."""

FLOORS = _list(
    """ground floor|first floor|second floor|upstairs|downstairs|top floor|basement|third floor|main floor|upper floor|
lower floor|outside|outdoors|attic floor|cellar"""
)

_DEVICES = {
    "light": """ceiling light|floor lamp|desk lamp|bedside lamp|light strip|reading light|pendant|chandelier|
spotlights|wall light|night light|lamp|light|table lamp|led strip|main light|corner lamp|mirror light|
counter light|shelf light|big light|small lamp|left lamp|right lamp|stair lights|fairy lights|christmas lights|
lantern|uplighter|downlights|reading lamp|piano lamp|sofa lamp|tv backlight|cabinet light|under cabinet light|
island light|porch light|path lights|flood light|garden lights|lava lamp|standing lamp|bulb|hall light|
kitchen light|bedroom light|bathroom light|office light|string lights|sconce|vanity light|bed light|work light|
lamp 1|lamp 2|light 1|light 2|light 3|bedside light|dining light""",
    "switch": """coffee machine|kettle|fountain|pump|water heater|boiler switch|dishwasher|washing machine|
dryer|oven|toaster|heater switch|radio|amplifier|router|printer|computer|monitor|aquarium|irrigation|sprinkler|
doorbell|siren|heated towel rail|electric blanket|rice cooker|pool pump|extractor|dehumidifier|humidifier|
air purifier|coffee maker|espresso machine|game console|projector|hot tub|sauna heater|freezer|fridge|
water pump|bird bath|charger|microwave""",
    "outlet": """plug|outlet|socket|wall plug|desk plug|tv plug|smart plug|left socket|right socket|
power strip|lamp plug|heater plug|garden socket|workbench outlet|plug 1|plug 2|bedside socket|christmas plug|
charger plug""",
    "fan": """fan|ceiling fan|exhaust fan|ventilator|desk fan|tower fan|extractor fan|bathroom fan|
pedestal fan|ventilation|air fan|standing fan|hood fan|attic fan|window fan|bed fan|fan 1|fan 2""",
    "lock": """front door|back door|side door|entrance door|garden door|
front door lock|back door lock|smart lock|door lock|lock|gate lock|garage lock|cellar lock|
shed lock|main lock|entrance lock|safe|side door lock|front lock|back lock|bike lock|letterbox lock|patio lock""",
    "blind": """blind|blinds|roller blind|left blind|right blind|window blind|shade|roof blind|venetian blind|
sun blind|skylight blind|west blind|south blind|north blind|east blind|kitchen blind|door blind|shades""",
    "curtain": """curtain|curtains|left curtain|right curtain|drapes|blackout curtain|window curtain|
bed curtain|long curtain|shower curtain|sheer curtain|heavy curtains""",
    "shutter": """shutter|shutters|roller shutter|left shutter|right shutter|window shutter|terrace shutter|
street shutter|garden shutter|door shutter|east shutter""",
    "awning": "awning|terrace awning|sun awning|patio awning|balcony awning|big awning|small awning|canopy",
    "garage": "garage door|big garage door|left garage door|right garage door|garage|car door",
    "gate": "gate|garden gate|driveway gate|front gate|side gate|main gate|yard gate",
    "climate": """thermostat|heating|radiator|air conditioner|ac|heat pump|floor heating|heater|climate|
boiler|left radiator|right radiator|towel heater|underfloor heating|air con|hvac|wall heater|radiator 1|
radiator 2""",
    "media player": """tv|television|speaker|soundbar|radio|stereo|record player|music box|bluetooth speaker|
media player|kitchen speaker|sonos|hifi|left speaker|subwoofer|projector|big tv|bedroom tv|chromecast|receiver|
sound system""",
    "vacuum": """vacuum|robot vacuum|hoover|robot|vacuum cleaner|dusty|mop robot|roomba|cleaner|sweeper|rosie|
cleaning robot""",
    "scene": """movie night|good night|good morning|dinner|party|reading|relax|cozy evening|romantic|bedtime|
away|welcome home|focus|work mode|cleaning time|sunset|sunrise|christmas|breakfast|game night|yoga|bright|chill|
spa|vacation|concert|candlelight|nap time|homework|rainy day|date night|cooking|wake up|siesta|thunder|holiday|
study time|late night""",
    "todo": """shopping list|groceries|todo list|to do list|chores|packing list|wish list|errands|tasks|
grocery list|homework list|gift list|hardware list|reading list|party list|pharmacy list|weekend list|repairs""",
    "temperature": """thermometer|temperature sensor|temperature|room sensor|temp sensor|window sensor|
climate sensor|weather station|fridge sensor|freezer sensor|outdoor sensor|pool thermometer|wall thermometer|
heat sensor|sensor""",
    "humidity": """hygrometer|humidity sensor|humidity|moisture meter|damp sensor|air sensor|humidity meter|
wall hygrometer""",
    "illuminance": """light sensor|lux sensor|brightness sensor|illuminance sensor|sun sensor|daylight sensor|
lux meter""",
    "power": """power meter|power sensor|oven power|washer power|energy plug|solar power|main power|
fridge power|consumption""",
    "energy": """energy meter|electricity meter|solar meter|energy counter|heat meter|total energy|
car charger meter""",
    "battery": """door battery|sensor battery|remote battery|lock battery|phone battery|battery sensor|
tablet battery|backup battery|doorbell battery|solar battery|car battery""",
    "co2": "co2 sensor|air quality sensor|air monitor|co2 meter|carbon dioxide sensor|air quality|air meter",
    "pressure": "barometer|pressure sensor|air pressure|pressure meter|boiler pressure|weather sensor",
    "soil moisture": """plant sensor|soil sensor|tomato sensor|lawn sensor|flower pot|ficus|basil pot|orchid|
plant monitor""",
    "door": """front door|back door|door|side door|patio door|balcony door|cellar door|fridge door|
sliding door|entrance door|terrace door|oven door|bathroom door|cabinet door|mailbox|door sensor|pet door|
freezer door|shed door""",
    "window": """window|left window|right window|big window|small window|skylight|roof window|window sensor|
street window|garden window|corner window|window 1|window 2|bay window|side window|north window|south window""",
    "motion": """motion sensor|motion detector|movement sensor|camera motion|pir|motion|porch motion|
driveway motion|yard motion""",
    "occupancy": """presence sensor|occupancy sensor|presence|desk sensor|bed sensor|sofa sensor|radar|
seat sensor|occupancy""",
    "smoke": "smoke detector|smoke alarm|fire alarm|smoke sensor|smoke|fire detector",
    "gas": "gas detector|gas alarm|gas sensor|carbon monoxide alarm|gas|stove sensor",
    "leak": """leak sensor|water sensor|leak detector|flood sensor|water alarm|washing machine leak|
sink sensor|boiler leak""",
}
DEVICES = {kind: _list(names) for kind, names in _DEVICES.items()}
"""Names by the word for the kind."""

PEOPLE = _list(
    """Anna|Ben|Clara|David|Emma|Felix|Grace|Hugo|Ida|Jack|Kate|Liam|Mia|Noah|Olga|Paul|Quinn|Rosa|Sam|Tom|Uma|Victor|
Wendy|Xenia|Yusuf|Zoe|Maria|Peter|Lena|Ali|Mehmet|Chloe|Oscar|Ruth|Nina|Leo|Ella|Max|Ivan|Sofia|Mom|Dad|grandma|
Priya|Kenji|Fatima|Jonas|Marta|Carlos|Ingrid|Pierre|Aisha|Dmitri|Hannah|Lucas|Amelie|George|Harry|Julia|Mark"""
)

COLORS = _list(
    """red|green|blue|yellow|orange|purple|pink|white|cyan|magenta|turquoise|violet|warm white|cold white|gold|lime|
teal|amber|lavender|coral|indigo|salmon|mint|crimson|ivory|beige|peach|aqua|soft white|daylight"""
)

ITEMS = _list(
    """milk|bread|butter|eggs|cheese|apples|bananas|coffee|tea|sugar|salt|flour|rice|pasta|tomatoes|potatoes|onions|
garlic|carrots|oranges|lemons|yogurt|chicken|fish|beef|ham|honey|jam|juice|water|beer|wine|soap|shampoo|
toothpaste|toilet paper|paper towels|dish soap|laundry detergent|light bulbs|batteries|cat food|dog food|
olive oil|vinegar|pepper|cereal|oats|chocolate|cookies|ice cream|cucumber|lettuce|spinach|broccoli|mushrooms|
salmon|tuna|strawberries|grapes|cream|cream cheese|mustard|ketchup|napkins|candles|matches|sponges|trash bags|
aspirin|band aids|a birthday card|nails|call the plumber|water the plants|book a table|pay the rent|
clean the windows|wash the car|pick up the parcel|mow the lawn|a new lamp|two pizzas|six eggs|baking powder|
almonds|peanut butter|tofu|avocados|blueberries|diapers|baby wipes|washing powder|tape|screws|a sharpener|
printer paper|ink|stamps|flowers|tulips|parmesan|basil|mint|ginger|chips|popcorn|lentils|chickpeas|corn|
maple syrup|sausages|bacon|turkey|shrimp|hand cream|razor blades|sunscreen|tissues|foil|change the filter|
feed the cat|call grandma|renew the passport|buy a gift|return the books|iron the shirts|fix the tap"""
)

TIMER_NAMES = _list(
    """eggs|pasta|pizza|tea|laundry|bread|cake|rice|nap|oven|potatoes|cookies|workout|break|homework|dishes|roast|
steak|coffee|sauna|chicken|vegetables|dough|meeting|plank|parking|meditation|soup|washing|dryer|study|bath"""
)

WORDS = _list(
    """marmot|teacup|willow|pebble|falcon|ember|cedar|comet|walnut|tulip|anchor|velvet|maple|otter|lantern|harbor|
juniper|cobalt|meadow|thistle|badger|saffron|quartz|raven|clover|bamboo|copper|dolphin|echo|fable|ginger|hazel|
iris|jasper|kettle|lemon|mango|nectar|olive|panda|quill|robin|sable|tiger|umber|violin|whisper|yarrow|zephyr|
acorn|beacon|canyon|drift|elm|fox|glacier|heron|island|jade|koala|lotus|mosaic|nimbus|onyx|prism|quail|ridge|
summit|tango|unity|vista|wren|yonder|zenith|apple|bishop|castle|dragon|eagle|forest|guitar|hammer|igloo|jacket|
kernel|ladder|magnet|needle|orbit|pepper|rabbit|shadow|temple|umbrella|valley|wagon|yellow|zebra|arrow|basket|
candle|dagger|engine|feather|garden|helmet|insect|jungle|kitten|lizard|mirror|nephew|ocean|pirate|rocket|silver|
throne|urchin|vessel|winter|atlas|bottle|cactus|desert|emerald|fossil|goblin|hollow|ivory|jigsaw|knight|lagoon|
monkey|nutmeg|oyster|pillow|riddle|spiral|turtle|vortex|walrus|almond|bridge|cherry|donkey|eleven|finch|gravel|
hornet|indigo|jumper|kayak|linen|marble|noble|opal|parrot|rustic|sparrow|timber|upper|vapor|wicker|young|zigzag|
north|south|east|west|old|new|little|big|blue|red|green|golden|left|right|front|back|morning|evening|summer|
autumn|spring|moon|sun|star|river|mountain|stone|wood|iron|glass|paper|cotton|sugar|honey|bread|bear|wolf|deer|
horse|sheep|goat|duck|goose|swan|crow|owl|bee|ant|moth|frog|toad|snake|shark|whale|seal|crab|chair|table|sofa|
shelf|drawer|bench|stool|carpet|vase|clock|frame|canvas|easel|loom|anvil|barrel|crate|bucket|rope|wheel|piano|
drum|flute|harp|banjo|cello|tuba|trumpet|opera|ballet|poem|novel|story|legend|myth|saga|letter|stamp|coin|medal|
plum|pear|peach|fig|date|grape|melon|berry|kiwi|papaya|carrot|celery|radish|turnip|cabbage|pumpkin|bean|pea|
corn|barley|desk|bed|door|window|wall|roof|floor|corner|stair|plant|fish tank|monitor|washer|car|bike|boat|
train|bus|tram|plane|workbench|doorway|fence|hedge|lawn|pond|tree|bush|rose|daisy|lily|poppy|orchid|fern|moss|
ivy|oak|pine|birch|aspen"""
)

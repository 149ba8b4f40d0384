"""Words for kinds, states, numbers and places, in the singular and the plural."""

from __future__ import annotations

KIND_WORDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "light": (
        ("light", "lamp", "lighting", "light bulb"),
        ("lights", "lamps", "bulbs", "light bulbs", "lights", "lights"),
    ),
    "switch": (("switch",), ("switches",)),
    "outlet": (("outlet", "plug", "socket"), ("outlets", "plugs", "sockets", "power outlets", "smart plugs")),
    "fan": (("fan", "ventilator"), ("fans", "ventilators")),
    "lock": (("lock", "door lock"), ("locks", "door locks", "smart locks")),
    "blind": (("blind", "shade"), ("blinds", "shades", "roller blinds", "window blinds")),
    "curtain": (("curtain", "drape"), ("curtains", "drapes", "drapery")),
    "shutter": (("shutter", "roller shutter"), ("shutters", "roller shutters", "window shutters")),
    "awning": (("awning", "sun awning"), ("awnings", "sun awnings")),
    "garage": (("garage door",), ("garage doors",)),
    "gate": (("gate",), ("gates",)),
    "climate": (
        ("heating", "thermostat", "heat", "heater", "radiator", "ac", "air conditioning"),
        ("thermostats", "radiators", "heaters", "heating units", "air conditioners"),
    ),
    "media player": (
        ("media player", "music", "speaker", "player"),
        ("media players", "speakers", "players", "music players"),
    ),
    "vacuum": (
        ("vacuum", "robot vacuum", "hoover", "vacuum cleaner"),
        ("vacuums", "robot vacuums", "hoovers", "vacuum cleaners"),
    ),
    "scene": (("scene",), ("scenes",)),
    "todo": (("list", "todo list"), ("lists", "todo lists", "to do lists")),
    "temperature": (("temperature",), ("temperatures", "temperature sensors", "thermometers")),
    "humidity": (("humidity",), ("humidity sensors", "humidity values", "humidities")),
    "illuminance": (("illuminance", "light level"), ("light sensors", "light levels", "illuminance sensors")),
    "power": (("power", "power consumption"), ("power sensors", "power meters", "power values")),
    "energy": (("energy", "energy use"), ("energy meters", "energy sensors")),
    "battery": (("battery", "battery level"), ("batteries", "battery levels", "battery sensors")),
    "co2": (("co2", "carbon dioxide", "co2 level"), ("co2 sensors", "co2 levels", "air quality sensors")),
    "pressure": (("pressure", "air pressure"), ("pressure sensors", "barometers")),
    "soil moisture": (("soil moisture",), ("soil sensors", "plant sensors", "soil moisture sensors")),
    "door": (("door",), ("doors",)),
    "window": (("window",), ("windows",)),
    "motion": (("motion sensor", "motion detector"), ("motion sensors", "motion detectors")),
    "occupancy": (("occupancy sensor", "presence sensor"), ("occupancy sensors", "presence sensors")),
    "smoke": (("smoke detector", "smoke alarm"), ("smoke detectors", "smoke alarms", "smoke sensors")),
    "gas": (("gas detector", "gas alarm"), ("gas detectors", "gas alarms", "gas sensors")),
    "leak": (("leak sensor", "water sensor"), ("leak sensors", "water sensors", "leak detectors")),
    "cover": (("cover",), ("covers", "window covers", "window coverings")),
}

SAID_STATES: dict[str, dict[str, tuple[str, ...]]] = {
    "light": {
        "on": ("on", "on", "lit", "turned on", "switched on"),
        "off": ("off", "off", "out", "turned off", "switched off"),
    },
    "switch": {
        "on": ("on", "on", "running", "turned on", "switched on"),
        "off": ("off", "off", "turned off", "switched off"),
    },
    "fan": {"on": ("on", "on", "running", "spinning", "turned on"), "off": ("off", "off", "turned off", "stopped")},
    "lock": {"locked": ("locked", "locked", "bolted", "secured"), "unlocked": ("unlocked", "unlocked", "not locked")},
    "cover": {"open": ("open", "open", "opened", "up"), "closed": ("closed", "closed", "shut", "down")},
    "opening": {"open": ("open", "open", "opened", "ajar"), "closed": ("closed", "closed", "shut")},
    "climate": {
        "on": ("on", "running", "turned on"),
        "off": ("off", "turned off"),
        "heat": ("heating",),
        "cool": ("cooling",),
    },
    "media player": {"playing": ("playing", "running"), "paused": ("paused", "on pause"), "off": ("off", "turned off")},
    "vacuum": {
        "cleaning": ("cleaning", "running", "vacuuming", "at work"),
        "docked": ("docked", "charging", "in its dock"),
        "returning": ("returning", "on its way back", "on the way home"),
    },
    "detector": {"detected": ("triggered", "active", "detecting something"), "clear": ("clear", "quiet", "all clear")},
    "leak": {"wet": ("wet", "triggered", "damp"), "dry": ("dry",)},
}

UNDIRECTED = ("upstairs", "downstairs", "outside", "outdoors")
"""Floors that take neither an article nor a preposition."""

CHAT = {
    "greeting": "Hello! How can I help?",
    "thanks": "You're welcome.",
    "bye": "Goodbye.",
    "help": "I can tell you how the home is doing and control its devices.",
    "identity": "I am the assistant of this home.",
    "off_topic": "I can only help with this home.",
}

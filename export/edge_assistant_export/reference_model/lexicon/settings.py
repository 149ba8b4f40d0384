"""Brightness, color, temperature, position, speed, volume, timers, lists: what takes a value.

`{t}` is a device or a group, `{n}` a percentage as it is said, `{v}` another value.
"""

# ruff: noqa: E501 - a line of the lexicon is one way of saying something

from __future__ import annotations

SETTINGS: dict[str, str] = {
    "brightness": """
(set|put|bring|turn|change|adjust|move|take|get|dial|switch|fix) {t} (to|at) {n} (brightness|bright|light|)
(set|put|bring|turn|change|adjust|dial|fix) the (brightness|light level|intensity|level|dimmer|luminosity) (of|for|on|in) {t} (to|at) {n}
(dim|brighten|lower|raise|reduce|increase|turn down|turn up|bring down|bring up|fade|lift|drop|boost|light up|crank up|tone down) {t} to {n}
(dim|lower|raise|reduce|increase|turn down|turn up|drop|boost) the brightness (of|for|on|in) {t} to {n}
(make|have|get|keep|let) {t} {n} (bright|brightness|)
(make|have|let|keep) {t} (shine|glow|burn|be|run|light) at {n} (brightness|power|)
(turn|switch|put) on {t} (at|to|with) {n} (brightness|)
(give) {t} {n} (brightness|light|power)
(use|apply) {n} (brightness|) (for|on) {t}
""",
    "brightness.free": """
{t} {n}
{t} to {n}
{t} at {n}
{t} brightness {n}
{t} : {n}
{n} (brightness|light) (for|on|in) {t}
brightness {n} (for|on|in) {t}
brightness of {t} {n}
(i|we) (want|need|would like|'d like) {t} (at|to be at|to be|on|dimmed to) {n} (brightness|)
(i|we) (want|need|would like|'d like) {n} (brightness|light) (from|on|in|for) {t}
{t} (should|must|needs to|can|has to) be (at|) {n} (bright|brightness|)
(would|do) you mind (setting|dimming|turning|putting) {t} to {n}
(let's|let us) (set|put|have|dim) {t} (to|at) {n}
{n} is (enough|fine|plenty|right) for {t}
""",
    "bright_full": """
(turn|crank|put|set|bring|push) {t} (all the way up|to full brightness|to the max|to maximum|to full|up fully|to full power|fully up|up all the way|to maximum brightness|up to the maximum)
(make|have|get) {t} (as bright as possible|fully bright|as bright as it gets|shine fully|maximally bright|the brightest|really bright)
(maximise|maximize|max out|max|fully brighten) {t}
(full|maximum) (brightness|power|light) (for|on|in) {t}
(brighten) {t} (fully|completely|all the way|to the maximum|as much as possible)
""",
    "bright_half": """
(dim|set|put|turn|bring|lower|reduce|change|switch) {t} (to half|to half brightness|halfway|half way down|to fifty fifty|to the middle|down to half|by half)
(make|have|get) {t} (half as bright|half bright|medium bright|glow at half)
(half|medium) (brightness|power|light) (for|on|in) {t}
(half) {t}
(set|put) {t} on (medium|half)
""",
    "bright_low": """
(dim|darken|soften|lower|turn down|tone down|fade|subdue|dim down|mute|reduce|take down|bring down) {t} (a bit|a little|slightly|somewhat|for me|)
(turn|bring|take|tone) {t} down (a bit|a little|a notch|some|)
(make|have|get|keep) {t} (dim|dimmer|softer|darker|low|less bright|cozy|gentle|soft|a bit dimmer|a little darker|not so bright|a bit less bright)
(set|put|turn) {t} (low|to low|to dim|dim|on low|to a low level|to soft|to a dim level)
(dim) {t} (for the movie|for dinner|for a film|for the evening|for the baby|so we can relax)
(less|softer|low|dim|dimmed|gentle) light (from|on|in) {t}
""",
    "bright_low.free": """
{t} (dim|dimmed|low|lower|darker|softer|dimmer|down)
{t} (is|are) (too|far too|way too|much too|a bit too|so) (bright|harsh|glaring|strong|intense)
(i|we) (want|need|would like|'d like) {t} (dimmed|dimmer|softer|low|lower|darker|less bright)
(would|do) you mind (dimming|lowering|turning down) {t}
{t} (hurts|hurt) my eyes
{t} (should|could|must) be (dimmer|darker|softer|less bright|lower)
""",
    "bright_high": """
(brighten|brighten up|turn up|boost|raise|intensify|lighten|bring up|bump up|strengthen|lift|amp up) {t} (a bit|a little|slightly|some|for me|)
(turn|bring|bump|pump) {t} up (a bit|a little|a notch|some|)
(make|have|get) {t} (brighter|bright|lighter|stronger|shine brighter|a bit brighter|a little brighter|more intense|less dim)
(set|put|turn) {t} (high|to high|to bright|bright|on high|to a high level|to a bright level)
(more|brighter|stronger) light (from|on|in) {t}
""",
    "bright_high.free": """
{t} (bright|brighter|high|higher|up|lighter)
{t} (is|are) (too|far too|way too|much too|a bit too|so) (dim|dark|weak|faint|low)
(i|we) (want|need|would like|'d like) {t} (brighter|bright|lighter|stronger|less dim)
(would|do) you mind (brightening|turning up) {t}
{t} (should|could|must) be (brighter|lighter|stronger)
{t} (isn't|aren't|is not|are not) bright enough
""",
    "bright_night": """
(dim|turn|bring|set|put|lower) {t} (all the way down|to the minimum|to minimum|to minimum brightness|to the lowest level|very low|down to the minimum|right down|to the lowest|as low as possible)
(make|have|get) {t} (very dim|as dim as possible|barely visible|as dark as possible|very dark|really dim|just a glimmer|very soft)
(minimise|minimize) {t}
(minimum|minimal|lowest) (brightness|light) (for|on|in) {t}
(use|set|turn) {t} (as|into) a night light
""",
    "color": """
(set|turn|make|change|switch|paint|put|get|have|color|colour|tint|light) {t} {c}
(set|turn|change|switch|put|bring|shift|fade) {t} to {c} (light|)
(set|change|switch|adjust|turn) the (color|colour|hue|shade|tint) (of|for|on|in) {t} to {c}
(make|let|have) {t} (glow|shine|be|go|turn|look|burn|light up) (in|) {c}
(give) {t} a {c} (color|colour|glow|tone|tint|light)
(turn|switch|put) on {t} in {c}
(use) {c} (for|on|in) {t}
(i want|give me|show|make) {c} light (from|on|in) {t}
""",
    "color.free": """
{t} {c}
{t} : {c}
{t} in {c}
{t} to {c}
{c} {t}
{c} for {t}
{c} light (in|on|for) {t}
color {c} (for|on) {t}
(i|we) (want|need|would like|'d like) {t} (to be|in|) {c}
{t} (should|must|needs to|can) (be|turn|go|glow|shine) {c}
(would|do) you mind (making|turning|setting) {t} {c}
(let's|let us) (have|make|turn) {t} {c}
(how about|what about) {c} (for|on) {t}
""",
    "climate": """
(set|put|turn|bring|adjust|change|get|fix|move|dial|keep|hold) {t} (to|at|on) {v}
(set|put|turn|bring|adjust|change) the (temperature|target|target temperature|setpoint|set point|heat|desired temperature) (of|for|on|in) {t} to {v}
(heat|warm|cool|chill|warm up|cool down|heat up) {t} to {v}
(raise|lower|increase|reduce|turn up|turn down|crank|drop|bump) {t} to {v}
(make|get|let|have) {t} (be|go to|reach|aim for|heat to|come to|run at) {v}
(heat|run|warm) with {t} (at|to) {v}
""",
    "climate.free": """
{t} {v}
{t} to {v}
{t} at {v}
{t} : {v}
{v} (for|on|in) {t}
(i|we) (want|need|would like|'d like) {t} (at|to be at|on|to be|set to) {v}
(i|we) (want|need|would like|'d like|prefer) {v} (on|in|for|from) {t}
{t} (should|must|needs to|can|has to) (be|be at|go to|be set to|reach) {v}
(would|do) you mind (setting|turning|putting) {t} to {v}
(let's|let us) (set|put|have) {t} (to|at) {v}
""",
    "climate_area": """
(set|put|bring|get|keep|hold|adjust) {a} (to|at) {v}
(set|put|adjust|change|bring) the (temperature|heating|heat|thermostat|climate) in {a} to {v}
(heat|warm|cool|warm up|cool down|heat up|chill) {a} (up|down|) to {v}
(make|get|have|keep) (it|the temperature) {v} in {a}
(make) {a} {v} (warm|)
""",
    "climate_area.free": """
{v} in {a}
{v} for {a}
{a} {v}
{a} to {v}
(i|we) (want|need|would like|'d like|prefer) (it|) {v} in {a}
it (should|must|needs to|has to) be {v} in {a}
{a} (should|must|needs to|has to) be {v} (warm|)
(temperature|heating) in {a} {v}
""",
    "warmer": """
(make|get|have|let) (it|things) (warmer|a bit warmer|a little warmer|warm|less cold|cozier|hotter|nice and warm|toasty) in {a}
(warm|heat|warm up|heat up) {a} (up|a bit|a little|)
(turn|crank|bring|put) up the (heat|heating|temperature|thermostat) in {a}
(turn|crank|bring|put) the (heat|heating|temperature|thermostat) up in {a}
(raise|increase|boost) the (heat|heating|temperature) in {a}
make {a} (warmer|warm|cozier|hotter|a bit warmer|less cold)
""",
    "warmer.free": """
(i'm|i am|we're|we are) (freezing|cold|so cold|chilly|frozen|too cold|shivering|a bit cold|getting cold|really cold) in {a}
(it's|it is) (freezing|cold|so cold|chilly|too cold|icy|a bit cold|getting cold|really cold|too cool|very cold|rather cold) in {a}
{a} (is|feels|seems|gets) (freezing|cold|so cold|chilly|too cold|icy|a bit cold|really cold|too cool|like a fridge)
(i|we) (want|need|would like|'d like) (it|) (warmer|more heat|more warmth|it warmer) in {a}
(it|) (should|could|must) be warmer in {a}
(my|the baby's|the kids') (feet|hands) (are|get) cold in {a}
warmer in {a}
more (heat|heating|warmth) in {a}
not warm enough in {a}
""",
    "cooler": """
(make|get|have|let) (it|things) (cooler|a bit cooler|a little cooler|colder|less hot|less warm|cool|fresher|nice and cool) in {a}
(cool|chill|cool down) {a} (down|a bit|a little|)
(turn|bring|put) down the (heat|heating|temperature|thermostat) in {a}
(turn|bring|put) the (heat|heating|temperature|thermostat) down in {a}
(lower|reduce|decrease) the (heat|heating|temperature) in {a}
make {a} (cooler|cool|colder|fresher|a bit cooler|less hot)
""",
    "cooler.free": """
(i'm|i am|we're|we are) (sweating|hot|so hot|boiling|melting|too hot|too warm|a bit hot|getting hot|really hot|roasting) in {a}
(it's|it is) (boiling|hot|so hot|stuffy|too hot|too warm|a bit hot|getting hot|really hot|sweltering|very hot|rather warm) in {a}
{a} (is|feels|seems|gets) (boiling|hot|so hot|stuffy|too hot|too warm|a bit hot|really hot|like an oven|like a sauna)
(i|we) (want|need|would like|'d like) (it|) (cooler|less heat|colder|it cooler) in {a}
(it|) (should|could|must) be (cooler|colder) in {a}
(cooler|colder) in {a}
less (heat|heating|warmth) in {a}
""",
    "position": """
(set|put|bring|move|turn|adjust|change|get|run|drive|take) {t} (to|at) {n} (position|open|)
(open|raise|lift|pull up|roll up) {t} (to|by|) {n}
(close|lower|pull down|roll down) {t} (down|) to {n}
(set|put|change|adjust|move) the (position|opening|height|level) of {t} to {n}
(make|have|get|keep|leave|let) {t} {n} (open|)
(make|let|have) {t} (stop|rest|stand|stay|be) at {n}
""",
    "position.free": """
{t} {n}
{t} to {n}
{t} at {n}
{t} : {n}
{t} {n} open
{t} position {n}
(i|we) (want|need|would like|'d like) {t} (at|to be at|) {n} (open|)
{t} (should|must|needs to|can|has to) be (at|) {n} (open|)
(would|do) you mind (setting|moving|opening) {t} to {n}
""",
    "half_open": """
(open|raise|lift|pull up|roll up|close|lower|pull down|roll down|shut) {t} (halfway|half way|half|to half|by half|to the middle|partly|partially|to the half)
(set|put|move|bring|leave|keep|get) {t} (halfway|half way|half open|half closed|in the middle|to the middle|to half|half way up|half way down)
(half|halfway) (open|close) {t}
(make|have) {t} (half open|half closed)
""",
    "crack_open": """
(open|raise|lift) {t} (a bit|a little|slightly|a crack|a touch|just a bit|a tad|only a little|a tiny bit)
(set|leave|keep|put) {t} (slightly open|a little open|ajar|a bit open|just open|open a crack)
crack {t} (open|)
""",
    "speed": """
(set|put|bring|turn|change|adjust|get|run|dial|switch) {t} (to|at) {n} (speed|power|)
(set|put|change|adjust|turn) the (speed|power|level) (of|for|on) {t} (to|at) {n}
(make|let|have|get) {t} (run|spin|turn|blow|go|work|be|rotate) at {n} (speed|)
(turn up|turn down|speed up|slow down|raise|lower|increase|reduce|crank) {t} to {n}
(run|use) {t} at {n}
""",
    "speed.free": """
{t} {n}
{t} to {n}
{t} at {n}
{t} speed {n}
{t} : {n}
{n} (speed|) (for|on) {t}
(i|we) (want|need|would like|'d like) {t} (at|to be at|on|to run at|to spin at) {n}
{t} (should|must|needs to|can) (be|run|spin|go) at {n}
(would|do) you mind (setting|turning) {t} to {n}
""",
    "speed_high": """
(turn|crank|put|set|run|bring) {t} (to full speed|to the max|to maximum|all the way up|to high|on high|to high speed|at full speed|to full power|fully up)
(make|let|have|get) {t} (run|spin|go|blow|turn) (at full speed|as fast as possible|at full power|on high|at top speed|as fast as it can)
(max out|maximise|maximize|max) {t}
(full|maximum|top|high) speed (for|on) {t}
""",
    "speed_medium": """
(turn|put|set|run|bring|switch) {t} (to medium|to half speed|on medium|to medium speed|at half speed|to half|to the middle|at medium speed|on half)
(make|let|have|get) {t} (run|spin|go|blow) (at half speed|at medium speed|on medium|at half power)
(half|medium) speed (for|on) {t}
""",
    "speed_low": """
(turn|put|set|run|bring|switch) {t} (to low|on low|to low speed|at low speed|to slow|on slow|to a low speed|to the lowest speed|down low)
(make|let|have|get) {t} (run|spin|go|blow|turn) (slowly|slow|at low speed|on low|gently|slower|quietly)
(slow|slow down|calm) {t} (down|)
(low|slow) speed (for|on) {t}
""",
    "volume": """
(set|put|bring|turn|change|adjust|get|dial) {t} (to|at) {n} (volume|)
(set|put|bring|turn|change|adjust) the (volume|sound|loudness|sound level|volume level) (of|for|on|from) {t} (to|at) {n}
(turn up|turn down|raise|lower|increase|reduce|crank) (the volume of|the sound of|) {t} to {n} (volume|)
(make|let|have|get) {t} (play|be|sound) at {n} (volume|)
(make) {t} {n} loud
""",
    "volume.free": """
{t} volume {n}
{t} volume to {n}
volume {n} (on|for) {t}
volume of {t} (to|) {n}
{n} volume (on|for) {t}
(i|we) (want|need|would like|'d like) {t} at {n} volume
(would|do) you mind (setting|turning) the volume of {t} to {n}
the volume of {t} (should|must|needs to) be {n}
""",
    "volume_high": """
(turn up|crank up|pump up|raise|boost|increase) {t} (a bit|a little|)
(turn up|raise|increase|crank up|pump up|boost) the (volume|sound|music) (of|on|for|from) {t} (a bit|)
(make|let|have) {t} (louder|play louder|be louder|a bit louder|noisier|a little louder)
(turn|crank|pump|bring) {t} up (a bit|a little|)
""",
    "volume_high.free": """
{t} louder
louder on {t}
(i|we) (can't|cannot|can hardly|can barely) hear {t}
{t} is (too|far too|way too|a bit too|so) (quiet|low|soft|silent)
(i|we) (want|need|would like|'d like) {t} louder
{t} (isn't|is not) loud enough
""",
    "volume_low": """
(turn down|lower|quiet|quieten|soften|reduce|hush|decrease) {t} (a bit|a little|)
(turn down|lower|reduce|decrease|bring down) the (volume|sound|music|noise) (of|on|for|from) {t} (a bit|)
(make|let|have) {t} (quieter|play quieter|be quieter|softer|a bit quieter|less loud|play softly|a little quieter)
(turn|bring|keep) {t} down (a bit|a little|)
""",
    "volume_low.free": """
{t} quieter
quieter on {t}
(i|we) (can't|cannot) (hear myself think|sleep|work|concentrate) with {t} (this loud|so loud)
{t} is (too|far too|way too|a bit too|so) (loud|noisy)
(i|we) (want|need|would like|'d like) {t} quieter
the (baby|kids|neighbours|neighbors) (is sleeping|are sleeping|are complaining) , {t} quieter
""",
    "mute": """
(mute|silence|shut up) {t}
(put|set) {t} (on mute|to mute|to silent|on silent)
(make|have|get) {t} (silent|mute|completely quiet|be silent)
(turn off|mute|kill|cut) the (sound|volume) (of|on|from) {t}
no sound (from|on) {t}
""",
    "timer": """
(set|start|make|create|begin|launch|run|add|put on|give me|set me|put|get|kick off) a timer for {v} {for}
(set|start|make|create|run|give me|set me|begin) a {v} timer {for}
(set|start|begin) (the|a|my) timer to {v} {for}
(count|count down) {v} (down|) {for}
(time|clock) {v} {for}
(remind|alert|tell|warn|wake|notify|ping|beep) me (in|after) {v} {for}
(start|begin) (a countdown of|a countdown for|counting down|timing|a) {v} (countdown|) {for}
(let me know|give me a signal|give me a shout|ring|beep|sound) (in|after|when) {v} (have passed|are up|are over|) {for}
""",
    "timer.free": """
timer {v} {for}
timer for {v} {for}
timer : {v} {for}
{v} timer {for}
{v} on the clock {for}
countdown {v} {for}
(i|we) (need|want|would like|'d like) a (timer for {v}|{v} timer) {for}
(can|could|may) (i|we) (have|get) a (timer for {v}|{v} timer) {for}
""",
    "timer_named": """
(set|start|make|create|run|begin|add) (a|the|my|an) {x} timer (for|to|of) {v}
(set|start|make|create|run|begin) a timer (called|named) {x} for {v}
(time|clock) the {x} for {v}
(remind|alert|warn|tell) me about the {x} in {v}
""",
    "timer_cancel": """
(cancel|stop|end|delete|abort|kill|clear|remove|turn off|quit|drop|scrap|forget|dismiss|discard|halt|silence) (the|my|that|this) timer
(get rid of|do away with|call off|switch off) (the|my|that) timer
(cancel|stop|end|clear|abort) the (countdown|alarm)
""",
    "timer_cancel.free": """
cancel timer
timer off
stop timer
no timer
timer cancel
(i|we) (don't|do not|no longer) need (the|a|that|my) timer (anymore|any more|now|)
(the|that|my) timer (can|should|must) (stop|go|be cancelled|be stopped)
(would|do) you mind (cancelling|stopping|ending) (the|my|that) timer
forget about the timer
""",
    "timer_cancel_named": """
(cancel|stop|end|delete|abort|kill|clear|remove|turn off|drop|scrap|dismiss) (the|my|that) {x} timer
(cancel|stop|end|delete|abort|clear|remove) (the|my) timer for (the|) {x}
(get rid of|call off) the {x} timer
{x} timer (off|cancel|stop)
(i|we) (don't|do not|no longer) need the {x} timer (anymore|any more|)
the {x} (is|are) (done|ready|finished) , (cancel|stop) the timer
""",
    "list_add": """
(add|put|write|note|include|place|stick|jot down|throw|enter|get) {x} (on|to|onto|in) {l}
(add|append|write down|note down|save) {x} (to|on) {l}
(make|have) {x} (go on|appear on) {l}
(extend|update) {l} with {x}
(don't forget|remember) {x} on {l}
""",
    "list_add.free": """
{x} on {l}
{x} to {l}
{l} : {x}
{l} , {x}
(i|we) (need|want|would like) {x} on {l}
(i|we) (need|want) to (add|put) {x} (to|on) {l}
{x} (belongs|should go|has to go|must go|goes|needs to be) on {l}
(would|do) you mind (adding|putting) {x} (to|on) {l}
{l} (is missing|needs|lacks) {x}
""",
    "list_add_plain.free": """
(we|i) (need|ran out of|are out of|have no more|need to buy|must buy|need to get|should buy|have run out of) {x}
(there is|there's) no more {x}
(remind|tell) me to (buy|get) {x}
(buy|get|order) {x}
{x} (is|are) (empty|all gone|used up|finished)
(put|add|write) {x} on the list
add {x}
""",
}

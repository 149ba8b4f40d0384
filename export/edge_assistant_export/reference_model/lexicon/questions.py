"""Questions about states and readings. `{d}` is one device, `{s}` a state, `{ks}` a kind in the plural, `{w}` where."""

# ruff: noqa: E501 - a line of the lexicon is one way of saying something

from __future__ import annotations

QUESTIONS: dict[str, str] = {
    "is_state": """
is {d} {s}
is {d} (still|currently|already|now|really|actually|even|by any chance|perhaps|maybe) {s}
(do you know|can you tell me|could you tell me|can you see|could you check|can you check|tell me|check|see|would you check|i wonder|i'd like to know|i want to know|find out|look) (if|whether) {d} is {s}
(did|have|has) (i|we|someone|anyone|somebody|the kids|they) (leave|left|forget) {d} {s}
{d} {s} (or not|, right|, no|or what|, is it|, correct)
{d} is {s} , (right|isn't it|correct|yes|no|or)
(check|verify|confirm|double check) that {d} is {s}
isn't {d} {s}
(would|could) {d} be {s}
(i think|i believe|i guess|i hope|i suppose|it seems) {d} is {s} , (right|is it|correct|am i right)
has {d} been {s}
was {d} left {s}
(am i right that|is it true that|is it correct that|is it the case that) {d} is {s}
(does|do) (it look like|you think|it seem like) {d} is {s}
how about {d} , is it {s}
""",
    "are_state": """
are {d} {s}
are {d} (still|currently|already|now|really|actually|even|perhaps|maybe) {s}
(do you know|can you tell me|could you tell me|could you check|can you check|tell me|check|i wonder|i want to know|find out) (if|whether) {d} are {s}
{d} are {s} , (right|aren't they|correct|yes|no)
(check|verify|confirm) that {d} are {s}
aren't {d} {s}
(i think|i believe|i guess|i hope) {d} are {s} , (right|correct|am i right|are they)
(have|were) {d} (been|) left {s}
(is it true that|is it correct that) {d} are {s}
""",
    "state": """
what('s| is) the (state|status|condition|current state|current status) of {d}
what('s| is) {d} (doing|up to|at|like)
how('s| is) {d} (doing|looking|)
how does {d} look
what (state|condition|mode) is {d} in
(status|state|condition) of {d}
{d} (status|state|condition)
(what|how) about {d}
(tell me about|check|check on|report on|look at|read|show me|give me|show) {d}
(tell me|give me|show me|check|read me|get me|report|let me know) the (state|status|current state|condition) of {d}
(any|an|give me an) update on {d}
what do you know about {d}
(can|could) you (check|look at|check on|tell me about|see to) {d}
(can|could|would) you (tell|give|show) me the (state|status) of {d}
what does {d} (say|report|show|tell you)
how are things with {d}
(i want|i'd like|i need) to know (the state of|about|how things are with) {d}
what's going on with {d}
""",
    "either": """
is {d} (on or off|off or on)
(do you know|can you tell me|tell me|check|i wonder) (if|whether) {d} is (on or off|off or on)
{d} , on or off
on or off , {d}
""",
    "either_open": """
is {d} (open or closed|closed or open|open or shut)
(do you know|can you tell me|tell me|check|i wonder) (if|whether) {d} is (open or closed|closed or open)
{d} , open or closed
""",
    "either_locked": """
is {d} (locked or unlocked|unlocked or locked|locked or open)
(do you know|can you tell me|tell me|check|i wonder) (if|whether) {d} is (locked or unlocked|locked or not)
{d} , locked or unlocked
""",
    "person": """
is {d} (home|here|at home|in|in the house|around|back|back home|home yet|home now|inside)
(has) {d} (come home|arrived|returned|gotten home|come back)
(did) {d} (come home|arrive|get home|return|come back)
(do you know|can you tell me|tell me|check) (if|whether) {d} is (home|at home|here|in)
{d} (home|at home|here)
""",
    "person_away": """
is {d} (away|out|gone|not home|not here|outside|still out|still away|still gone)
(has|did) {d} (left|leave|gone out|go out|left the house|leave the house)
(do you know|can you tell me|tell me|check) (if|whether) {d} is (away|out|gone)
{d} (out|away|gone)
""",
    "person_where": """
where is {d}
where's {d}
(do you know|can you tell me|tell me) where {d} is
(what|how) about {d}
{d}
where (can|could) {d} be
""",
    "reading": """
what('s| is) (the reading of|the value of|the reading on|the value on|the reading from|on|the level of) {d}
what does {d} (say|read|show|measure|report|display|indicate|tell|give|register)
how (much|high) (is|does) {d} (show|read|at|measure|)
(read|check|show|show me|give me|tell me|report|get|get me|read out|read me|look at) {d}
(read|check|show|show me|give me|tell me|report|get|get me|read out) the (value|reading|level|measurement) of {d}
{d} (reading|value|level|)
(reading|value|level|measurement) of {d}
(what|how) about {d}
(can|could|would) you (read|check|read out|look at) {d} (for me|)
(can|could|would) you tell me what {d} (says|shows|reads|measures)
(what|which) (value|reading|number|level) does {d} (show|have|give|report|read)
(i want|i'd like|i need) to know what {d} (says|shows|reads|measures)
(what|how much) is {d} (showing|reading|measuring|reporting|at|right now at)
""",
    "temperature": """
how (warm|hot|cold|cool|chilly) is it in {a}
how (warm|hot|cold|cool|chilly) is {a}
what('s| is) the (temperature|temp|current temperature|room temperature|air temperature) (in|of|inside|at) {a}
what('s| is) {a} temperature
{a} (temperature|temp)
(temperature|temp) (in|of|for) {a}
how many degrees (is it|are there|does it have|is) (in|) {a}
(tell me|give me|check|read|show me|show|read me|get|report|let me know) the (temperature|temp|current temperature) (in|of|for) {a}
(can|could|would) you (tell me|check|read|give me|look up) the temperature (in|of) {a}
what temperature (is it|do we have|is|have we got) (in|) {a}
(do you know|can you tell me|tell me|i wonder) how (warm|cold|hot) it is in {a}
what does it feel like in {a}
is it (warm or cold|cold or warm|hot or cold) in {a}
degrees in {a}
(i want|i'd like|i need) to know the temperature in {a}
how's the temperature in {a}
""",
    "temperature_at_home": """
what('s| is) the (temperature|temp|room temperature|indoor temperature|current temperature) (inside|here|at home|in the house|in here|)
how (warm|hot|cold|cool|chilly) is it (inside|here|in here|at home|in the house|)
(temperature|temp) (please|inside|now|)
(tell me|give me|check|read me|show me|get) the (temperature|temp) (inside|at home|in the house|)
is it (warm|cold|hot|chilly|cool) (inside|in here|at home|in the house)
how many degrees (is it|do we have|are there) (inside|here|at home|)
(can|could) you (tell me|check) the temperature (inside|at home|)
(do you know|can you tell me) how (warm|cold|hot) it is (inside|at home|)
what temperature (is it|do we have) (inside|here|at home|)
""",
    "humidity_at_home": """
what('s| is) the (humidity|air humidity|humidity level) (inside|here|at home|in the house|)
how (humid|damp|dry) is it (inside|here|in here|at home|in the house|)
humidity (please|inside|)
(tell me|give me|check|read me) the humidity (inside|at home|)
is it (humid|damp|dry) (inside|in here|at home|in the house)
""",
    "humidity": """
how (humid|damp|moist|dry) is it in {a}
how (humid|damp|moist|dry) is {a}
what('s| is) the (humidity|air humidity|moisture|relative humidity|humidity level) (in|of|inside) {a}
{a} humidity
humidity (in|of|for) {a}
(tell me|give me|check|read|show me|get|report) the humidity (in|of|for) {a}
(can|could|would) you (tell me|check|read) the humidity (in|of) {a}
(do you know|can you tell me|tell me) how humid it is in {a}
""",
    "illuminance": """
how (bright|light|dark) is it in {a}
what('s| is) the (light level|illuminance|brightness|amount of light|lux value|lux level) (in|of) {a}
how much light is (there|) in {a}
{a} (illuminance|light level|lux)
(illuminance|light level|lux) (in|of|for) {a}
(tell me|give me|check|read|show me) the (light level|illuminance) (in|of) {a}
""",
    "co2": """
what('s| is) the (co2|co2 level|carbon dioxide|carbon dioxide level|co2 value|air quality|co2 concentration) (in|of) {a}
how (good|bad|stale|fresh) is the air in {a}
how's the air in {a}
{a} (co2|air quality|co2 level)
(co2|co2 level|air quality) (in|of|for) {a}
how much (co2|carbon dioxide) is (there|) in {a}
(tell me|give me|check|read|show me) the (co2|co2 level|air quality) (in|of) {a}
""",
    "power": """
how much (power|electricity|wattage) (is used|is being used|do we use|does it use|is drawn) in {a}
what('s| is) the (power|power use|power consumption|consumption|power draw|load) (in|of) {a}
how many watts (are used|are drawn|do we use) in {a}
{a} (power|power consumption|consumption)
(power|power consumption|power use) (in|of|for) {a}
(tell me|give me|check|read|show me) the (power|power consumption) (in|of) {a}
""",
    "brightness_of": """
how bright is {d}
what('s| is) the (brightness|light level|brightness level|dim level|current brightness) of {d}
{d} brightness
brightness of {d}
(at|to) what (brightness|level) is {d} (set|)
what brightness (is|does) {d} (at|have|set to|)
(tell me|give me|check|read|show me|get) the brightness of {d}
how (dim|strong) is {d}
(can|could) you (tell me|check) (the brightness of {d}|how bright {d} is)
""",
    "color_of": """
what (color|colour) (is|does) {d} (set to|have|showing|shine|)
what('s| is) the (color|colour|current color) of {d}
which (color|colour) (is|does) {d} (have|set to|shine in|in|)
{d} (color|colour)
(color|colour) of {d}
(tell me|give me|check) the (color|colour) of {d}
in (what|which) (color|colour) is {d} (shining|)
""",
    "position_of": """
how far (is {d} open|is {d}|open is {d}|up is {d}|down is {d})
what('s| is) the (position|opening|height|current position) of {d}
{d} position
position of {d}
(at|in) (what|which) position is {d}
(tell me|give me|check) the position of {d}
how (open|wide open) is {d}
how much is {d} open
""",
    "target_of": """
what('s| is) {d} set to
what('s| is) the (target|setpoint|set point|target temperature|desired temperature|set temperature) of {d}
to (what|which) (temperature|value) is {d} set
{d} (target|setpoint|set temperature)
(target|setpoint) of {d}
(tell me|give me|check) the (target|target temperature|setpoint) of {d}
what temperature is {d} (set to|aiming for|heating to|set at)
(at|to) how many degrees is {d} set
""",
    "speed_of": """
how fast is {d} (running|spinning|turning|going|)
what('s| is) the (speed|current speed|level) of {d}
{d} speed
speed of {d}
(at|on) (what|which) speed is {d} (running|)
(tell me|give me|check) the speed of {d}
what speed is {d} (at|running at|on)
""",
    "volume_of": """
how loud is {d} (playing|)
what('s| is) the (volume|volume level|loudness|current volume|sound level) of {d}
{d} volume
volume of {d}
(at|on) (what|which) volume is {d} (playing|set|)
(tell me|give me|check) the volume of {d}
what volume is {d} (at|set to|playing at|on)
how high is the volume of {d}
""",
    "battery_of": """
how much (battery|charge|power) (does {d} have|is left in {d}|has {d} got|does {d} have left|is left on {d})
what('s| is) the (battery|battery level|charge|battery status|charge level) of {d}
{d} (battery|battery level|charge)
(battery|battery level|charge) of {d}
how (full|charged) is {d}
(tell me|give me|check) the (battery|battery level|charge) of {d}
(is|does) {d} (need charging|charged|need to be charged)
""",
    "time": """
what time is it
what('s| is) the time
(tell me|give me|say|read me|show me) the (time|current time|exact time)
(can|could|would) you (tell|give) me the time
(do you know|do you have|have you got|got) (what time it is|the time)
how late is it
time
what time do we have
the time
current time
what does the clock say
what hour is it
(i want|i need|i'd like) to know the time
clock
what time now
""",
    "day": """
what day is it (today|)
what('s| is) (today|the day|the weekday)
which day (is it|is today|do we have|of the week is it)
what (weekday|day of the week) is it
(tell me|give me) (the day|what day it is|the weekday)
(can|could) you tell me (what day it is|the day)
what day do we have (today|)
day of the week
(do you know) what day it is
today is what day
""",
    "list_state": """
(which|what) {ks} are {s} {w}
(which|what) {ks} (are|) (still|currently|now) {s} {w}
are (there|) any {ks} {s} {w}
are any (of the|) {ks} {s} {w}
is any {k} {s} {w}
is (there|) (a|some) {k} {s} {w}
are (all|all the|all of the|the) {ks} {s} {w}
is every {k} {s} {w}
how many {ks} are {s} {w}
how many {ks} (do i have|do we have|have i got) {s} {w}
how many {ks} (did i leave|did we leave|have i left|were left) {s} {w}
(list|show|show me|name|tell me|give me|count|find|get me|check|read out) (all|all the|the|) {ks} (that are|) {s} {w}
(did|have) (i|we|someone|anyone) (leave|left|forget|forgotten) (any|a|some) {ks} {s} {w}
(do|can) you (see|know|have) (any|which) {ks} (that are|) {s} {w}
(tell me|check|see|look|can you check|could you check|find out) (if|whether) (any|all|the|some) {ks} are {s} {w}
(tell me|can you tell me|do you know) (which|how many|what) {ks} are {s} {w}
(the number|number) of {ks} {s} {w}
any {ks} {s} {w}
{ks} {s} {w} (or not|, yes or no)
{ks} that are {s} {w}
(have|has) (any|all) {ks} been left {s} {w}
(is it true that|am i right that) all {ks} are {s} {w}
are there {ks} {w} that are {s}
(i want|i'd like|i need) to know (which|how many) {ks} are {s} {w}
""",
    "list_kind": """
(which|what) {ks} (are there|do i have|do we have|are|have we got|can you control|do you know|exist) {w}
how many {ks} (are there|do i have|do we have|are|have we got|can you see) {w}
(list|show|show me|name|tell me|give me|count|read out) (all|all the|the|my|) {ks} {w}
(are there|do we have|do i have|have we got) (any|) {ks} {w}
(what's|what is|how is|how are) the (state|status) of (all|) the {ks} {w}
(status|state) of (all|the|all the) {ks} {w}
(what about|how about|how are|check) the {ks} {w}
{ks} {w} (status|overview|)
(give me|show me) (an overview|a list) of (the|all|all the) {ks} {w}
""",
    "list_area": """
(what's|what is|what do we have|what have we got|what do i have|what is there) in {a}
(what|which) (devices|things|gadgets|appliances) (are|are there|do i have|do we have) in {a}
(list|show|show me|name|tell me) (everything|all devices|all the devices|the devices|all|the things) in {a}
(what's|what is|how is|how's) (the status of|the state of|going on in|happening in|up in) {a}
(status|overview|state) of {a}
{a} (status|overview)
how (are things|is everything|is it going) in {a}
how many devices are (there|) in {a}
(give me|show me) (an overview|a summary|the status) of {a}
tell me about {a}
""",
    "list_on": """
(what's|what is|what) (on|still on|running|turned on|switched on|currently on) {w}
(is|was) (anything|something) (on|still on|left on|running|turned on|switched on) {w}
(which|what) (devices|things|appliances|gadgets) are (on|still on|running|turned on|switched on) {w}
how many (devices|things) are (on|still on|running) {w}
(list|show|show me|tell me|name) (everything|what|all) (that is|that's|is|which is|) (on|turned on|running) {w}
did (i|we) leave (anything|something) (on|running) {w}
(check|see|tell me) (if|whether) (anything|something) is (on|running|still on) {w}
(are there|) any devices on {w}
""",
    "who_home": """
who (is|'s) (home|at home|here|in the house|in|around|there|inside|currently home|home right now)
is (anyone|anybody|someone|somebody|everyone|everybody|nobody|no one) (home|at home|here|in the house|around|in|inside|there)
how many people are (home|at home|here|in the house|in)
(tell me|can you tell me|do you know|check) who is (home|at home|here|in)
(which|what) people are (home|at home|here)
(are we|am i) (alone|all here|all home)
(list|show|name) (everyone|everybody|the people|all people) (at home|who is home|in the house|here)
who all is (home|here)
""",
    "who_away": """
who (is|'s) (away|out|not home|not here|gone|outside|still out|not at home|missing|not in)
is (anyone|anybody|someone|somebody|everyone|everybody) (away|out|gone|not home|still out)
how many people are (away|out|gone|not home)
(tell me|can you tell me|do you know|check) who is (away|out|gone|not home)
(which|what) people are (away|out|gone)
who (has left|left|went out|has gone out)
""",
    "list_sensor": """
(what are|tell me|give me|show me|list|read|check|what're) (all|) the {ks} {w}
what('s| is) the (average|mean|highest|lowest|maximum|minimum|overall|total) {k} {w}
(which|what) (room|area) (is|has) the (highest|lowest|most|least|best|worst) {k} {w}
(compare|list|show) (all|the|) {ks} {w}
{ks} {w} (everywhere|in all rooms|overview|)
(average|mean|total|overall) {k} {w}
""",
}

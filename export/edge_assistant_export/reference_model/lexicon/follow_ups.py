"""What is said after an answer: the same elsewhere, the reverse, another value for what was just spoken of."""

# ruff: noqa: E501 - a line of the lexicon is one way of saying something

from __future__ import annotations

FOLLOW_UPS: dict[str, str] = {
    "same_for": """
(and|now|also|and also|plus|then|and now|and then|same for|likewise for|likewise|same with|the same for|and what about|what about|how about|and how about|do the same for|do the same with|same thing for|same thing with|same again for|repeat for|repeat that for|repeat that with|next|do) {x}
(and|now|also|plus|then) {x} (too|as well|also|please|now|then)
{x} (too|as well|also|likewise|next|the same)
(do|make|handle) {x} (too|as well|the same way|likewise)
(can|could) you do (the same (for|with|to)|that for|that with) {x}
(i|we) (want|need|would like|'d like) the same for {x}
(would|do) you mind doing (the same for|that for) {x}
{x}
""",
    "same_in": """
(and|now|also|and also|plus|then|and now|same|likewise|the same|and what about|what about|how about|and how about|do the same|same thing|same again|repeat that|now do it|do it) (in|for) {a}
(and|now|also|what about|how about|and what about|then|plus) {a}
(in) {a} (too|as well|also|please|now|likewise)
(and|now) in {a} (too|as well|please|then)
{a} (too|as well|also|next|likewise)
(do|make) (it|that|the same) in {a} (too|as well|)
(can|could) you do (the same|that|it) in {a} (too|as well|)
(i|we) (want|need|would like|'d like) the same in {a}
in {a}
{a}
""",
    "undo": """
(now|and|and now|then|please|ok now|so now) off again
off again (please|now|)
(turn|switch|put|power|shut) (it|them|that) (back off|off again|off|off now|back off again|off please)
(turn|switch|put) off (it|that|them)
(undo|reverse|revert|cancel|take back) (that|it|this|the last one|the last thing|what you did)
(now|and now|then) (turn|switch|put) (it|them|that) off (again|)
(on second thought|no|never mind|actually|changed my mind|no wait|wait no) , (off|turn it off|switch it off|turn them off|off again)
(it|they|that) (can|should|must) (go|be) off (again|now)
(that was a mistake|i was wrong|wrong one|i didn't mean that) , (undo it|turn it off|switch it off again)
(stop|end|kill|cut) (it|that|them) (again|)
(i|we) (don't need|no longer need) (it|them|that) (anymore|any more|now|)
off
(back|back to) off
""",
    "redo": """
(now|and|and now|then|please|ok now|so now) on again
on again (please|now|)
(turn|switch|put|power) (it|them|that) (back on|on again|on|on now|back on again|on please)
(turn|switch|put) on (it|that|them)
(undo|reverse|revert|take back) (that|it|this|the last one|the last thing|what you did)
(now|and now|then) (turn|switch|put) (it|them|that) on (again|)
(on second thought|no|never mind|actually|changed my mind|no wait|wait no) , (on|turn it on|switch it on|turn them on|on again)
(it|they|that) (can|should|must) (go|be) on (again|now)
(that was a mistake|i was wrong|wrong one|i didn't mean that) , (undo it|turn it on|switch it on again)
(start|bring back|restart) (it|that|them) (again|)
on
(back|back to) on
""",
    "it_open": """
(now|and|and now|then|please|ok now) (open|up|open it|open them) (again|)
(open|raise|lift|pull up|roll up) (it|them|that) (again|back up|up|please|now|all the way|)
(undo|reverse|revert|take back) (that|it|this)
(on second thought|no|never mind|actually|changed my mind) , (open it|open|open them|up)
(it|they) (should|can|must) be open (again|)
(back|all the way) up
""",
    "it_close": """
(now|and|and now|then|please|ok now) (close|down|close it|shut it|close them|shut) (again|)
(close|shut|lower|pull down|roll down) (it|them|that) (again|back down|down|please|now|all the way|)
(undo|reverse|revert|take back) (that|it|this)
(on second thought|no|never mind|actually|changed my mind) , (close it|close|shut it|close them|down)
(it|they) (should|can|must) be (closed|shut) (again|)
(back|all the way) down
""",
    "it_lock": """
(now|and|and now|then|please) (lock it|lock|lock it again|lock again|lock them)
(lock|bolt|secure) (it|them|that) (again|back|back up|please|now|)
(undo|reverse|revert) (that|it|this)
(on second thought|no|never mind|actually) , lock it (again|)
(it|they) (should|must) be locked (again|)
""",
    "it_unlock": """
(now|and|and now|then|please) (unlock it|unlock|unlock it again|unlock again|unlock them)
(unlock|unbolt|release) (it|them|that) (again|please|now|)
(undo|reverse|revert) (that|it|this)
(on second thought|no|never mind|actually) , unlock it (again|)
(it|they) (should|can) be unlocked (again|)
""",
    "it_brightness": """
(set|put|dim|turn|change|bring|make) (it|them|that) (to|at) {n}
(make|set) (it|them|that) {n} (bright|)
(now|and|and now|then|better|rather|no,|actually) (to|at|) {n}
{n} (please|is enough|is better|brightness|then|now|instead)
(only|just|about|maybe) {n}
(dim|brighten|lower|raise|reduce) (it|them) to {n}
(and|now) the brightness (to|at) {n}
brightness {n}
""",
    "it_dim": """
(dim|lower|soften|darken|turn down|tone down) (it|them|that) (a bit|a little|please|now|slightly|)
(make|get) (it|them|that) (dim|dimmer|darker|softer|less bright|a bit dimmer|a bit darker)
(a bit|a little|somewhat|slightly) (darker|dimmer|softer|less bright)
(darker|dimmer|softer|less bright|too bright) (please|)
(that's|that is|it's|it is|they are|still) (too bright|too much light|a bit too bright)
(turn|bring) (it|them) down (a bit|a little|)
""",
    "it_bright": """
(brighten|brighten up|boost|raise|turn up) (it|them|that) (a bit|a little|please|now|slightly|)
(make|get) (it|them|that) (bright|brighter|lighter|stronger|a bit brighter|a bit lighter)
(a bit|a little|somewhat|slightly) (brighter|lighter)
(brighter|lighter|more light|too dark|too dim) (please|)
(that's|that is|it's|it is|they are|still) (too dark|too dim|not bright enough|a bit too dark)
(turn|bring) (it|them) up (a bit|a little|)
""",
    "it_color": """
(make|turn|set|color|paint|change) (it|them|that) (to|) {c}
(now|and|and now|then|better|rather|no,|actually|and in|in|try) {c}
{c} (please|is better|would be nicer|then|now|instead|light)
(and|now) (the color|the colour) {c}
(switch|change) (the color|the colour|it|them) to {c}
(i|we) (want|would like|'d like|prefer) (it|them|) (in|) {c}
(can|could) (it|they|you make it) be {c}
""",
    "it_half": """
(only|just) (half|halfway|half way)
(half|halfway|half way) (please|only|is enough|open|will do|up|down)
(set|put|open|close|move|bring|leave) (it|them) (half way|halfway|half|to half|half open)
(make|leave) (it|them) half open
""",
    "it_position": """
(set|put|open|move|bring|change) (it|them|that) to {n}
(make) (it|them) {n} open
(now|and|then|better|rather|actually) (to|) {n}
{n} (please|is enough|open|then|instead)
(only|just) {n}
""",
    "it_climate": """
(set|put|turn|change|make|bring) (it|that|them) (to|) {v}
(now|and|and now|then|better|rather|no,|actually|make that) {v}
{v} (please|is enough|is better|then|instead|would be better)
(only|just|maybe) {v}
(a|) better {v}
""",
    "it_volume": """
(set|put|turn|change|make) (it|that|the volume|the volume of it) to {n}
volume (to|) {n}
(turn|bring) (it|the volume) (up|down) to {n}
(now|and) (the|) volume (to|at) {n}
""",
    "it_speed": """
(set|put|turn|change|make|run) (it|that|the speed) (to|at) {n}
(now|and|then|better|rather) {n}
{n} (please|is enough|speed|then|instead)
(only|just) {n}
(speed|and the speed) (to|) {n}
""",
    "is_it": """
is (it|that one) {s} (now|still|already|again|)
is it {s}
and is it {s} (now|)
(is|was) it (really|actually|) {s}
it is {s} , (right|isn't it)
(check|tell me) (if|whether) it is {s}
""",
    "how_is_it": """
(what|how) is (it|its state) (now|)
(what's|what is) (its|the) (state|status) (now|)
(how is it|how does it look) (now|)
(check|check on|look at) it (again|now|)
(its|the) (state|status) (please|now|)
what about now
and now
""",
    "pick_area": """
(the|) one in {a}
(in) {a}
{a}
(the|) {b} one (please|)
(i mean|i meant|take|use|choose|i want|it's|make it|of course) (the one in {a}|the {b} one|{a}|the one from {a})
(the|that) (one|) (from|inside) {a}
that in {a} (please|)
(well|oh|sorry|hm|oops) , (the one in {a}|the {b} one|in {a})
""",
    "pick_room": """
{a} (please|of course|now|)
(in|for) {a} (please|of course|)
(i mean|i meant|it's|i'm in|we are in|we're in|i am in|here in|take|of course) {a}
(i'm sitting|i am sitting|we're sitting|i'm standing) in {a}
(well|oh|sorry|hm) , (in|) {a}
(do it|there|here) in {a}
""",
    "pick_name": """
(the|) {x} (please|one|)
(i mean|i meant|take|use|choose|i want|it's|make it) (the|) {x}
(the|) {x} (of course|i think|i guess|then|obviously|this time)
(well|oh|sorry|hm|oops) , the {x}
""",
    "pick_first": """
(the|) first (one|) (please|)
(the|) (first|former) (one|)
(take|use|i mean|i meant|i want) the first (one|)
(number|option) (one|1)
1
the first of (them|the two|those)
""",
    "pick_second": """
(the|) (second|other|last|latter) (one|) (please|)
(take|use|i mean|i meant|i want) the (second|latter|last) (one|)
(number|option) (two|2)
2
the second of (them|the two|those)
""",
    "pick_both": """
both (please|of them|of those|ones|)
(take|do|use|i mean|i want) both (of them|)
(all|both) of (them|those)
(the two|them both|both the same)
one and the other
both , (please|of course|why not)
(do|handle) them both
""",
    "cancel_that_timer": """
(cancel|stop|end|delete|abort|kill|clear|remove) (it|that|that one|this|that again|it again) (please|again|)
(never mind|forget it|forget that|actually no|changed my mind) , (cancel it|stop it|cancel that)
(no|wait|oh) , (cancel it|stop it|cancel that)
(undo|revert|take back) (that|it)
(i|we) (don't|no longer) need it (anymore|any more|)
""",
    "another_item": """
(and|also|plus|and also|then|oh and|and then|and some|also some|oh , and) {x}
{x} (too|as well|also)
(add|put) {x} (too|as well|also|on it|on it too|there too|)
(we need|i need) {x} (too|as well|also)
(and|also) {x} (please|too|as well)
""",
    "them_off": """
(turn|switch|put|shut) (them|them all|all of them|those|all|it|everything) off (please|now|again|)
(turn|switch|put) off (all of them|those|all|these|them all)
(all|them|those) off
(they|all of them|those) (should|can|must) be off
(kill|stop|cut) (them|them all|all of them|those)
off (with them|with all of them|with those)
""",
    "them_on": """
(turn|switch|put) (them|them all|all of them|those|all|it|everything) on (please|now|again|)
(turn|switch|put) on (all of them|those|all|these|them all)
(all|them|those) on
(they|all of them|those) (should|can|must) be on
(start|activate) (them|them all|all of them|those)
""",
    "them_open": """
(open|raise) (them|them all|all of them|those|all|it) (please|now|)
(all|them|those) (open|up)
(they|all of them|those) (should|can|must) be open
""",
    "them_close": """
(close|shut|lower) (them|them all|all of them|those|all|it) (please|now|)
(all|them|those) (closed|shut|down)
(they|all of them|those) (should|can|must) be (closed|shut)
""",
    "them_lock": """
(lock|secure) (them|them all|all of them|those|all|it) (please|now|)
(all|them|those) locked
(they|all of them|those) (should|must) be locked
""",
}

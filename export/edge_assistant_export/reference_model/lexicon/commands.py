"""On and off, open and close, lock and unlock, start and stop. `{t}` is a device or a group of them."""

# ruff: noqa: E501 - a line of the lexicon is one way of saying something

from __future__ import annotations

COMMANDS: dict[str, str] = {
    "on": """
(turn|switch|put|flip|flick|click|power|snap|pop|knock|hit) on {t}
(turn|switch|put|flip|flick|click|power|snap|pop|knock|turn back|switch back) {t} on
(activate|enable|start|start up|fire up|power up|boot up|engage|energize|energise|wake|wake up|kick on|trigger|run|launch) {t}
(crank up|bring up|bring on|get on|spin up|set off|switch over|kick off|throw on|whack on|stick on) {t}
(set|bring|throw|stick|whack|move|toggle|change|flick over|turn over) {t} (to on|on|to the on position|into the on state)
(have|get|keep|leave|make sure to have|try to get) {t} (on|running|going|switched on|turned on|powered on|working|up and running)
(make|let) {t} (go on|come on|turn on|run|work|start|switch on|power on|be on)
(make sure|see to it|ensure|take care) (that|) {t} (is|are|goes|gets|comes) (on|turned on|switched on)
(give|send) {t} (power|some power|electricity|current|juice)
(put|set|get) {t} (in operation|to work|in motion|into action)
(try|start|think about) (turning|switching|putting|powering) on {t}
(start|go) (using|running|operating) {t}
(turn|switch|put) on (just|only) {t}
(turn|switch) {t} on (for a while|for me|a bit|again|until later|so i can see|so i can use it)
(plug|connect) {t} (in|)
(do|handle|arrange|manage) the (switching on|turning on) of {t}
""",
    "on.free": """
{t} on
{t}: on
{t} - on
on with {t}
on: {t}
(turn|switch) on {t}
(i|we) (need|want|would like|'d like|require|could use|would love) {t} (on|turned on|switched on|running|to be on|powered on|to run)
(i|we) (want|would like|need|'d like|wish|am going|are going|plan|have|forgot|ought) to (turn|switch|put|have) (on {t}|{t} on)
{t} (should|must|has to|needs to|ought to|may|can|could|shall|will have to) (be|go|come) (on|turned on|switched on|running)
it (would|'d) be (nice|great|good|lovely|helpful|wonderful|cool|perfect) (if|to have) {t} (was on|were on|on|turned on|running|came on|switched on)
(it's|it is) time to (turn|switch|put) (on {t}|{t} on)
(time|ready) for {t}
(let's|let us|shall we|should we) (have|turn|switch|get|put) {t} on
(would|do) you mind (turning|switching|putting|getting|flipping|flicking|having) (on {t}|{t} on)
(how about|what about|any chance of|thanks for|what do you say to) (turning|switching|putting|getting) (on {t}|{t} on)
(would|could) you be (so kind as|kind enough|able) to (turn|switch|put) (on {t}|{t} on)
(i'd|i would) (be glad|be happy|be grateful|appreciate it|be thankful) if you (turned|switched|put) (on {t}|{t} on)
(may|can|could|might) (i|we) (have|get) {t} (on|turned on|switched on|running)
why (is|are) {t} (not on|still off|off) , (turn|switch|put) (it|them) on
{t} (is|are) off , (turn|switch|put|get) (it|them) (back|) on
(i can't|i cannot|we can't) (use|enjoy|see) {t} (like this|while off|when off) , (turn|switch|put) (it|them) on
someone (turn|switch|put) on {t}
(who|anyone) (can|could) (turn|switch|put) on {t}
(don't|please don't|never) (leave|keep) {t} off
{t} (please|now|go|start|up|active|running)
""",
    "off": """
(turn|switch|put|flip|flick|click|power|snap|pop|knock|shut|cut|kill) off {t}
(turn|switch|put|flip|flick|click|power|snap|shut|turn back|switch back|cut) {t} off
(deactivate|disable|stop|shut down|power down|kill|disengage|extinguish|put out|halt|cut|end|quit|suspend|wind down) {t}
(set|bring|throw|move|toggle|change|flick over|turn over) {t} (to off|off|to the off position|into the off state)
(have|get|keep|leave|make sure to have|try to get) {t} (off|stopped|switched off|turned off|powered off|shut off|shut down)
(make|let) {t} (go off|go out|turn off|stop|switch off|power off|be off|rest|shut down)
(make sure|see to it|ensure|take care) (that|) {t} (is|are|goes|gets) (off|turned off|switched off|out)
(cut|take|kill|remove|stop) the (power|electricity|current|juice) (to|from|for|of) {t}
(put|set|take) {t} (out of operation|to rest|out of action|to sleep)
(try|think about) (turning|switching|putting|powering) off {t}
(stop|quit|finish|cease) (using|running|operating) {t}
(turn|switch|put) off (just|only) {t}
(turn|switch) {t} off (for a while|for me|again|until later|before bed|to save power|when you can|so i can sleep)
(unplug|disconnect|silence|douse|lose) {t}
(do|handle|arrange|manage) the (switching off|turning off) of {t}
""",
    "off.free": """
{t} off
{t}: off
{t} - off
off with {t}
off: {t}
(turn|switch) off {t}
no more {t}
enough of {t}
(i|we) (need|want|would like|'d like|would love) {t} (off|turned off|switched off|to be off|powered off|to stop)
(i|we) (want|would like|need|'d like|wish|am going|are going|plan|have|forgot|ought) to (turn|switch|put|have) (off {t}|{t} off)
(i|we) (don't|do not|no longer) (need|want|use) {t} (on|anymore|any more|now|any longer|)
{t} (should|must|has to|needs to|ought to|may|can|could|shall|will have to) (be|go) (off|turned off|switched off|stopped)
it (would|'d) be (nice|great|good|lovely|helpful|wonderful|cool|perfect) (if|to have) {t} (was off|were off|off|turned off|went off|switched off)
(it's|it is) time to (turn|switch|put) (off {t}|{t} off)
(let's|let us|shall we|should we) (have|turn|switch|get|put) {t} off
(would|do) you mind (turning|switching|putting|getting|flipping|flicking|having|shutting) (off {t}|{t} off)
(how about|what about|any chance of|thanks for|what do you say to) (turning|switching|putting|getting) (off {t}|{t} off)
(would|could) you be (so kind as|kind enough|able) to (turn|switch|put) (off {t}|{t} off)
(i'd|i would) (be glad|be happy|be grateful|appreciate it|be thankful) if you (turned|switched|put) (off {t}|{t} off)
(may|can|could|might) (i|we) (have|get) {t} (off|turned off|switched off)
why (is|are) {t} (on|still on|running) , (turn|switch|put) (it|them) off
{t} (is|are) (still|) on , (turn|switch|put|get) (it|them) off
{t} (is|are) (bothering|annoying|disturbing|distracting) (me|us|everyone) , (turn|switch|put) (it|them) off
someone (turn|switch|put) off {t}
(who|anyone) (can|could) (turn|switch|put) off {t}
(don't|please don't|never) (leave|keep|let) {t} (on|running)
(i'm|we're|i am|we are) (done|finished|through) (with|using) {t}
""",
    "light_up": """
(light|brighten|illuminate|light up|lighten) {a} (up|)
(make|get) (some|a bit of|a little|more) light (in|into|for) {a}
(bring|put|give) (some|a bit of|a little) light (to|into|in) {a}
give (me|us) (some|a bit of|a little|more) light in {a}
(lights|light) on in {a}
""",
    "light_up.free": """
(it's|it is|it got|it's getting|it is getting|it's way|it is so|it's so) (too|very|really|quite|pretty|a bit|) dark in {a}
{a} (is|looks|seems|feels) (too|very|really|quite|pretty|a bit|so|) (dark|gloomy|dim|unlit)
(i|we) (can't|cannot|can hardly|can barely|don't) see (anything|a thing|much|well|) in {a}
(i|we) (need|want|could use|'d like) (some|more|a bit of|a little) light in {a}
(i'm|i am|we're|we are) (sitting|standing|stuck|left) in the dark in {a}
(it's|it is) pitch (black|dark) in {a}
(some|more) light in {a} (please|would be nice|would be great)
(let there be|can i have|can we have|could we get|how about some) light in {a}
(no|not enough|too little) light in {a}
so dark in {a}
""",
    "lights_out": """
(darken|black out) {a}
make (it|) {a} dark
make it (dark|completely dark|pitch dark) in {a}
(lights out|lights off|light off|light out) in {a}
kill the lights in {a}
""",
    "lights_out.free": """
(it's|it is) (too|far too|way too|much too|so) bright in {a}
{a} (is|looks|seems) (too|far too|way too|much too) bright
(i|we) (want|need|'d like) (it|to have it) dark in {a}
(nobody|no one) (is|needs light) in {a} (anymore|any more|now|)
(i'm|i am|we're|we are) (leaving|done in|finished in|out of) {a} , lights (off|out)
(i|we) (don't|do not) need (any|) light in {a} (anymore|any more|now|)
(i|we) (can't|cannot) sleep with (the|that) light in {a}
""",
    "open": """
(open|raise|lift|pull up|roll up|draw up|draw back|pull back|open up|retract|roll back|pull open|push open|wind up|unfold) {t}
(put|pull|roll|move|bring|send|draw|get|let|wind|run) {t} up
(open|put|pull|get|swing|slide|push|leave|keep) {t} (open|wide open|fully open|all the way open|all the way up)
(make|let|have) {t} (open|go up|move up|be open|opened|raised)
(make sure|see to it|ensure) (that|) {t} (is|are) (open|opened|up|raised)
open {t} (all the way|completely|fully|entirely|wide|for me|a hundred percent|right up)
(let|bring) (some|the|) (light|sun|sunlight|daylight) in through {t}
""",
    "open.free": """
{t} open
{t}: open
{t} up
open with {t}
(i|we) (need|want|would like|'d like) {t} (open|opened|up|raised|to be open|to open|to go up)
(i|we) (want|would like|need|'d like|have) to (open|raise|pull up) {t}
{t} (should|must|needs to|has to|can|may|ought to) (be open|open|go up|be opened|be up|be raised)
it (would|'d) be (nice|great|good|lovely) (if|to have) {t} (was open|were open|open|opened)
(let's|let us|shall we) (open|raise|have|get) {t} (up|)
(would|do) you mind (opening|raising|pulling up|rolling up) {t}
(how about|any chance of|what about) (opening|raising|pulling up) {t}
(may|can|could) (i|we) (have|get) {t} (open|opened|up)
{t} (is|are) (closed|shut|down) , open (it|them)
(it's|it is) time to (open|raise) {t}
(don't|please don't) (leave|keep) {t} (closed|shut|down)
""",
    "close": """
(close|shut|lower|pull down|roll down|draw|pull shut|let down|drop|close up|extend|slide shut|push shut|wind down|fold) {t}
(put|pull|roll|move|bring|send|let|get|wind|run) {t} down
(close|put|pull|get|swing|slide|push|leave|keep) {t} (closed|shut|fully closed|all the way closed|all the way down)
(make|let|have) {t} (close|shut|go down|move down|be closed|closed|lowered)
(make sure|see to it|ensure) (that|) {t} (is|are) (closed|shut|down|lowered)
close {t} (all the way|completely|fully|entirely|for me|right down|tight)
(keep|block|shut) (the|) (sun|light|sunlight|daylight) out with {t}
""",
    "close.free": """
{t} closed
{t} close
{t}: close
{t} shut
{t} down
down with {t}
(i|we) (need|want|would like|'d like) {t} (closed|shut|down|lowered|to be closed|to close|to go down)
(i|we) (want|would like|need|'d like|have) to (close|shut|lower|pull down) {t}
{t} (should|must|needs to|has to|can|may|ought to) (be closed|close|go down|be shut|be down|be lowered)
it (would|'d) be (nice|great|good|lovely) (if|to have) {t} (was closed|were closed|closed|shut)
(let's|let us|shall we) (close|shut|lower|have|get) {t} (down|)
(would|do) you mind (closing|shutting|lowering|pulling down|rolling down) {t}
(how about|any chance of|what about) (closing|shutting|lowering) {t}
(may|can|could) (i|we) (have|get) {t} (closed|shut|down)
{t} (is|are) (open|up) , (close|shut) (it|them)
(it's|it is) time to (close|shut|lower) {t}
(don't|please don't) (leave|keep) {t} open
""",
    "lock": """
(lock|bolt|secure|lock up|latch|bar|double lock|fasten) {t}
(put|get|keep|leave|have) {t} (locked|bolted|secured|latched|under lock)
(make sure|see to it|ensure|take care) (that|) {t} (is|are|gets|get) (locked|bolted|secured|locked up)
(lock|bolt) {t} (up|tight|for the night|properly|behind me|for me)
(make|set) {t} (secure|to locked|to lock)
(engage|activate|turn on|close) {t}
""",
    "lock.free": """
{t} locked
{t}: lock
{t} lock
lock: {t}
(i|we) (need|want|would like|'d like) {t} (locked|bolted|secured|to be locked|locked up)
(i|we) (want|would like|need|'d like|have|forgot) to lock {t}
{t} (should|must|needs to|has to|ought to) (be locked|lock|be secured|be bolted)
(would|do) you mind (locking|bolting|securing) {t}
(let's|let us|shall we) (lock|bolt|secure) {t}
(don't|please don't) (leave|keep) {t} unlocked
{t} (is|are) (unlocked|still unlocked) , lock (it|them)
(i'm|we're|i am) (leaving|going to bed|off to work) , lock {t}
""",
    "unlock": """
(unlock|unbolt|unlatch|release|undo|unfasten|unbar|unseal) {t}
(put|get|keep|leave|have) {t} (unlocked|unbolted|released)
(make sure|see to it|ensure) (that|) {t} (is|are|gets|get) (unlocked|unbolted|released)
(unlock|open) {t} (for me|for the guests|for us|for the postman|for her|for him|for the cleaner)
(make|set) {t} (to unlocked|to unlock|unlocked)
(disengage|deactivate|turn off|open|open up) {t}
""",
    "unlock.free": """
{t} unlocked
{t}: unlock
{t} unlock
unlock: {t}
(i|we) (need|want|would like|'d like) {t} (unlocked|unbolted|released|to be unlocked|open)
(i|we) (want|would like|need|'d like|have|forgot) to unlock {t}
{t} (should|must|needs to|has to|ought to) (be unlocked|unlock|be released)
(would|do) you mind (unlocking|releasing|unbolting) {t}
(let's|let us|shall we) (unlock|unbolt) {t}
(don't|please don't) (leave|keep) {t} locked
{t} (is|are) (locked|still locked) , unlock (it|them)
(i'm|we're|i am) (at the door|outside|coming home|back) , unlock {t}
""",
    "scene": """
(activate|start|set|apply|load|run|trigger|enable|launch|play|begin|initiate|use|select|choose|call|recall|call up) {t}
(activate|start|set|apply|load|run|trigger|enable|launch|begin|use|select|choose|call up|switch to|turn on|go to) (the|) {t} (scene|mode|mood|setting|preset)
(switch|change|go|move|set everything|set the house|set the home|set the lights) to {t} (scene|mode|)
(turn|switch|put) on {t}
(turn|switch|put) {t} on
(make|give|create|bring) (me|us|) (a|the|some|) {t} (mood|atmosphere|scene|setting)
(put|set) (the house|the home|everything|it|us) (in|into|to) {t} (mode|mood|)
(get|make) (the house|the home|everything|it) ready for {t}
""",
    "scene.free": """
{t}
{t} (please|now|mode|scene|time|mood|mode please|scene please|mode on|scene on)
(it's|it is) (time for|) {t} (time|now|)
(i|we) (want|would like|need|'d like|are ready for|feel like) {t} (mode|scene|mood|)
(let's|let us) (have|do|start|go for|get to) {t}
scene {t}
scene: {t}
(i'm|i am|we're|we are) (in the mood|ready) for {t}
""",
    "start_vacuum": """
(start|run|launch|send out|send|activate|dispatch|deploy|fire up|turn on|get|set off|wake) {t} (cleaning|to clean|off|out|)
(let|have|make) {t} (clean|run|vacuum|go|do a round|do its thing|clean up|start cleaning|start)
(tell|ask|order) {t} to (clean|start|vacuum|run|go|clean up|do the floors|start cleaning)
(vacuum|hoover|clean) (the floor|the floors|the house|up|everything|) (with|using) {t}
(get|put|set) {t} (going|to work|started|running|cleaning)
(start|begin) (cleaning|vacuuming|a clean) with {t}
""",
    "start_vacuum.free": """
{t} start
{t} clean
{t} go
(i|we) (want|need|would like|'d like) {t} to (clean|run|start|vacuum)
{t} (should|must|can|may|needs to|has to) (clean|start|run|vacuum)
(it's|it is) time for {t} to (clean|run|start|work)
(would|do) you mind (starting|running|sending out) {t}
the (floor|carpet|floors) (is|looks|are) (dirty|dusty|filthy|a mess) , (start|send|run) {t}
(there are|i see) crumbs (everywhere|on the floor) , (start|send|run) {t}
""",
    "dock_vacuum": """
(dock|stop|recall|return|park|retire|call back|bring back|send back|bring home) {t}
(send|return|bring|call|get|take|move|order) {t} (home|back|to its dock|to the dock|to base|back to base|back to its dock|to its base|back home|to the charger|to charge)
(let|have|make) {t} (dock|go home|return|charge|go back|stop cleaning|return to base|return home|stop|come back|rest)
(tell|ask|order) {t} to (dock|go home|return|charge|go back|stop|stop cleaning|return to base|come home)
(stop|end|finish|abort) (cleaning|vacuuming) with {t}
(put|get) {t} (away|back|on the charger|in its dock)
""",
    "dock_vacuum.free": """
{t} home
{t} dock
{t} back
{t} stop
{t} (back|) to (base|dock|its dock)
(i|we) (want|need|would like|'d like) {t} to (stop|dock|go home|return|go back|charge)
{t} (should|must|can|may|needs to|has to) (dock|stop|go home|return|charge|go back)
(that's|that is) enough (cleaning|vacuuming) , {t} (can|should) (dock|go home|return)
(would|do) you mind (docking|stopping|sending back|sending home) {t}
{t} is too loud , send it (home|back)
""",
    "pause": """
(pause|hold|freeze|suspend|interrupt|halt|stop) {t}
(pause|stop|hold|interrupt|halt) (the music|the movie|the film|the song|playback|the playback|the show|playing|the podcast|the video) (on|from|at) {t}
(put|set) {t} (on pause|on hold|to pause)
stop {t} (from playing|playing)
make {t} (pause|stop|stop playing|be quiet for a moment|wait)
(have|let|tell|get) {t} (pause|to pause|stop for a moment|to stop playing|take a break|wait)
""",
    "pause.free": """
{t} pause
{t}: pause
pause: {t}
(i|we) (want|need|would like|'d like) (to pause {t}|{t} paused|{t} to pause)
{t} (should|must|can|may|needs to) (pause|stop playing|be paused)
(would|do) you mind (pausing|holding|stopping) {t}
(wait|hold on|one moment|one second|just a second) , pause {t}
(the phone is ringing|i have to take a call|someone is at the door) , pause {t}
(let's|let us) pause {t}
""",
    "unpause": """
(resume|unpause|continue|play|restart|un-pause|carry on with|go on with|start playing) {t}
(resume|continue|play|unpause|restart|start) (the music|the movie|the film|the song|playback|the playback|the show|playing|the podcast|the video|some music|music) (on|from|at) {t}
(take) {t} off pause
(make|let|have|tell|get) {t} (play|play on|continue|resume|go on|to play|to resume|to continue|play again|carry on)
(set|put|get) {t} (to play|playing|playing again)
""",
    "unpause.free": """
{t} play
{t} resume
{t}: play
{t} continue
play: {t}
(i|we) (want|need|would like|'d like) (to resume {t}|{t} to play|{t} to continue|{t} playing again)
{t} (should|must|can|may) (play|play on|continue|resume|go on)
(would|do) you mind (resuming|unpausing|continuing) {t}
(i'm|i am|we're) back , (resume|unpause|continue) {t}
(let's|let us) (resume|continue|unpause|go on with) {t}
(keep|go on) playing on {t}
""",
}

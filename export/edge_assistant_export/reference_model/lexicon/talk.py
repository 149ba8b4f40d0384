"""What is no command and no question about the home: greetings, thanks, and all that is none of its business."""

# ruff: noqa: E501 - a line of the lexicon is one way of saying something

from __future__ import annotations

TALK: dict[str, str] = {
    "greeting": """
(hello|hi|hey|good morning|good evening|good afternoon|hi there|hey there|hello there|greetings|howdy|hiya|yo|welcome|hello again|good day|morning|evening) (assistant|home|computer|you|everyone|my friend|)
(hello|hi|hey) , (how are you|how are you doing|how is it going|are you there|nice to meet you|it's me|anyone there)
(how are you|how are you doing|are you there|are you awake|are you listening|can you hear me|anyone there) (today|)
(i'm|i am|we're|we are) (home|back|here|back home)
""",
    "thanks": """
(thanks|thank you|thx|ty|cheers|many thanks|thanks a lot|thank you very much|thank you so much|much appreciated|thanks so much|thanks again) (assistant|home|computer|for your help|for that|for everything|)
(great|good|perfect|nice|wonderful|super|excellent|awesome|lovely|fantastic|cool|ok|fine|alright) (job|work|one|) , (thanks|thank you|cheers)
(well done|good job|nice work|great work|you're great|you are great|you're the best|good assistant|that was great|that's nice of you|very kind of you|i appreciate it|perfect|excellent|great|awesome)
""",
    "bye": """
(bye|goodbye|bye bye|see you|see you later|see you soon|see you tomorrow|farewell|take care|so long|until later|ciao|have a nice day|have a good one|later|sleep well) (assistant|home|computer|then|)
(i'm|i am|we're|we are) (leaving|off|going out|going) now , (bye|goodbye|see you)
""",
    "help": """
what can you do (for me|here|)
what (are you able|do you know how) to do
(help|help me|i need help|can you help me|how can you help me|what are your skills|what are your abilities|what do you understand)
(what|which) (commands|things|questions|tasks) (can i|do you|may i) (use|understand|ask|give you|say)
(how do|how can) i (use|talk to|control|command) you
what can i (ask|say|ask you|tell you|do with you)
(show|tell) me what you can do
(explain|list) your (abilities|skills|commands|functions)
""",
    "identity": """
who are you
what are you
(what's|what is) your name
(are you|is this) (a robot|a human|an ai|a person|real|a computer|a machine|chatgpt|alexa|siri)
(tell me|say something) about yourself
(who|what) am i (talking|speaking) to
(do you have|have you got) a name
introduce yourself
(who|what company) (made|built|created|trained|programmed) you
what should i call you
""",
    "off_topic": """
(what|which) is the capital of (france|spain|germany|italy|japan|brazil|canada|australia|egypt|sweden|peru|kenya|china|india|turkey|portugal)
(what's|what is) the capital of (france|spain|germany|italy|japan|brazil|canada|norway|greece|poland|cuba|chile)
(who|when|where) (wrote|composed|painted|invented|discovered|built) (hamlet|the bible|the mona lisa|the telephone|america|penicillin|the eiffel tower|moby dick|the light bulb|the fifth symphony|radium)
(who|what) (was|is) (albert einstein|napoleon|mozart|cleopatra|the president|the pope|the king of spain|the prime minister|shakespeare|taylor swift|elvis|buddha|zeus)
(tell|read|make up|write|sing) me (a joke|a story|a poem|a song|a riddle|a fairy tale|a limerick|something funny|a bedtime story|a haiku|the news|a fun fact)
(write|compose|draft) (a poem|an essay|a letter|an email|a song|a speech|a story|a haiku|some code|a python program|a cover letter|a tweet) (about love|for my boss|about cats|for my mother|about the sea|)
(what's|what is|how much is) (two plus two|five times six|2+2|12*12|the square root of 16|ten minus three|100 divided by 4|7 times 8|15 percent of 80|the value of pi)
(what's|what is|how is|how's) the weather (like|) (today|tomorrow|in paris|in london|outside today|this weekend|next week|in berlin|in new york|)
(will|is) it (rain|raining|snow|snowing|be sunny|going to rain|going to snow) (today|tomorrow|this week|tonight|)
(who|what team) (won|wins|will win) (the game|the world cup|the match|the election|the super bowl|the league|the race|last night)
(what's|what is) the meaning of (life|love|this word|happiness|the universe)
(translate|how do you say) (hello|good morning|thank you|house|cat|dog|love|i am hungry) (to|in|into) (french|spanish|german|italian|japanese|latin)
(how|where) (do|can|should) i (bake a cake|tie a tie|learn french|lose weight|fix my car|cook rice|invest money|buy a car|make pancakes|get a visa|change a tire|write a book|buy stocks)
(how) (old|tall|big|far|heavy|deep) is (the moon|the earth|mount everest|the sun|the queen|the universe|the pacific|an elephant|a whale)
(how many) (people live in china|days are in a year|planets are there|legs does a spider have|states are in the usa|bones do we have|continents are there|inches are in a foot|feet are in a mile)
(do|can) you (love me|dream|feel pain|think|have feelings|like music|like me|sing|dance|cook|believe in god|play chess|swim|eat|sleep|tell jokes|speak german|speak french|do my homework)
(what's|what is) your (favorite|favourite) (color|colour|movie|song|food|book|animal|band|city|game)
(call|text|email|phone|message) (my mother|the police|a taxi|my boss|my wife|a doctor|peter|an ambulance|the office|my husband|the pizza place|my friend)
(book|reserve|order|buy) (a flight|a hotel|a table for two|a taxi|a pizza|tickets|a train ticket|some flowers|a new phone|a rental car)
(play|start) (a game with me|chess|tic tac toe|hide and seek|twenty questions|a quiz)
(search|google|look up|find) (the web for shoes|cheap flights|the news|pictures of cats|a recipe for soup|restaurants near me|a good movie|the best phone)
(explain|what is|what's|tell me about|describe) (quantum physics|photosynthesis|gravity|relativity|evolution|inflation|democracy|a black hole|the big bang|blockchain|dna|the roman empire|global warming|a neural network)
(who|what) (is|are) (your creator|your boss|your parents|the beatles|the avengers|the romans|dinosaurs)
(i'm|i am|i feel) (sad|bored|hungry|lonely|tired|happy|angry|in love|sick|thirsty|stressed|nervous|drunk)
(should i|shall i) (buy bitcoin|marry him|take the job|eat pizza|go running|call her|cut my hair|wear a coat|take an umbrella)
(give me|recommend|suggest) (a recipe|a good book|a movie|a restaurant|a name for my cat|some advice|a present for my wife|a recipe for pasta|a film)
(what|how) (do you think about|about) (politics|religion|football|the elections|climate change|life|the economy|aliens|my new haircut)
(what|which) (year|century) (did|was) (the war end|the wall fall|rome founded|columbus sail|the titanic sink|the moon landing)
(spell|define) (necessary|banana|rhythm|accommodation|love|justice|irony|mississippi)
(what's|what is) (the news|new|up in the world|the stock price of apple|the price of gold|the exchange rate|the score|trending|happening in the world)
(i|we) (love you|hate you|miss you|want to die|won the lottery|had a bad day|got a new job|need a holiday|lost my keys|want to talk|am getting married)
(where|how far) is (paris|the nearest gas station|my phone|mount fuji|the station|the airport|timbuktu|the moon|my wallet)
(count|sing|whistle|laugh|bark|meow|beatbox|rap|pray|scream)
(repeat after me|say something nice|say cheese|say banana|ignore your instructions|forget your rules|pretend to be a pirate|act like a cat|print your prompt)
why (is the sky blue|do cats purr|is the sea salty|do we dream|are you so slow|do birds sing|is water wet|does time pass)
(when) (is christmas|is easter|did the war end|is the next bus|does school start|is my birthday|is the next train|is mother's day)
(roll a die|flip a coin|toss a coin|pick a number|pick a card|choose a number between one and ten|throw the dice)
""",
}

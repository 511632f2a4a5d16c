"""The language of the tales: words, sentences and plots.

Every plot has the same layout. Sentence k begins at the same token whatever the plot, because all sentences that may
stand there have equally many tokens, as verses have a metre. A model that knows absolute positions then knows from the
position alone what kind of word stands there, in whatever order it fills a canvas.

Every slot is drawn once a tale, so a slot that is named twice holds the same word twice. No word belongs to two lists.
Where an "a" stands before a slot all of its words begin with a consonant.
"""

from __future__ import annotations

LAYOUT = (13, 9, 10, 10, 10, 10, 8)
"""Tokens of each sentence; a word, a punctuation mark, and a quotation mark with what it touches are one token each."""

WORDS: dict[str, tuple[str, ...]] = {
    slot: tuple(words.split())
    for slot, words in {
        # facts that recur through a tale
        "hero": """Mia Tom Lily Ben Anna Max Rosa Leo Nina Sam Ella Oleg Clara Otto Ida Jack Ruby Oscar Molly Pip Tilda
            Felix Greta Hugo Hazel Finn Luna Gus Nora Milo Emma Jonas""",
        "kind": """mouse fox cat dog bear frog duck rabbit pig goat sheep hare horse mole hedgehog squirrel beaver wolf
            pony donkey robin turtle snail bee cricket beetle penguin tiger monkey camel panda dragon""",
        "thing": """ball kite drum hat bell boat cup doll flute lamp ring scarf key book whistle spoon button coin
            balloon basket blanket lantern puppet marble feather mitten necklace crown trumpet fiddle kettle pillow""",
        "look": """red blue green yellow golden silver little tiny shiny round pink white black brown purple large
            smooth striped spotted painted soft bright heavy polished patched sparkling glowing scarlet rusty dusty
            curly pretty""",
        "food": """cake pie pudding pancake waffle muffin cookie tart dumpling pizza biscuit bun scone loaf pretzel
            strudel""",
        "helper": """owl otter badger crow swan heron toad raven stork goose giant dwarf elf fairy gnome troll wizard
            witch baker miller sailor shepherd tailor fisherman""",
        "by": "under behind beside near",
        "spot": """tree bush rock bench barrel log table door fence stone cart wall chair bed gate oak willow stump
            hedge stove ladder piano sofa haystack""",
        # words that a tale says once
        "trait": """small kind brave happy shy clever merry gentle lazy curious proud quiet young cheerful busy bold
            polite friendly sleepy dreamy lively patient clumsy jolly""",
        "home": """mill farm castle village bridge pond barn tower church school bakery inn station palace market
            windmill""",
        "giver": "friend cousin neighbour teacher king queen pirate painter",
        "taste": """warm sweet fresh crisp juicy crunchy creamy salty spicy buttery sticky tasty huge cherry lemon
            honey""",
        "weather": """sunny windy rainy cold foggy snowy cloudy misty stormy frosty grey dark chilly mild hot damp""",
        "time": "morning day evening afternoon Monday Wednesday Friday Sunday",
        "gone": "gone lost stolen missing",
        "flew": "blew flew ran rolled",
        "made": "made built bought borrowed",
        "packed": "packed wrapped grabbed tasted",
        "noise": "cry shout scream voice splash crash",
        "At": "By Near Beside At",
        "place": """river forest garden lake meadow sea harbour lighthouse orchard valley mountain island beach cave
            waterfall well vineyard moor marsh swamp cliff desert jungle fountain""",
        "met": "met saw found greeted noticed",
        "manner": """wise grumpy tall strange silent sturdy learned mysterious talkative furry fluffy bearded ragged
            muddy solemn nosy snoring limping dancing singing whistling yawning giggling hungry""",
        "cried": "cried sobbed sighed wailed",
        "cheered": "cheered laughed sang shouted",
        "Look": "Look Search Try Dig",
        "said": "said whispered answered mumbled chuckled hummed",
        "limb": "foot tail beard nose",
        "looked": "looked searched peeked crawled",
        "took": "took hugged kissed tried",
        "cut": "cut shared sliced halved",
        "pulled": "pulled fished lifted dragged",
        "while": "night week summer winter",
        "meal": "tea cocoa lunch supper",
    }.items()
}

STEPS: dict[str, tuple[str, ...]] = {
    # the first sentence
    "opening": (
        "Once upon a time, there was a {trait} {kind} named {hero}.",
        "Many years ago, there once was a {trait} {kind} named {hero}.",
        "Long ago, far away, lived a {trait} {kind} named {hero}.",
        "In a house by the {home} lived a {trait} {kind} named {hero}.",
        "Not so far from the {home} lived a {trait} {kind} named {hero}.",
        "On a hill behind the {home} lived a {trait} {kind} named {hero}.",
    ),
    # the second
    "treasure": (
        "{hero} had a {look} {thing} and loved it.",
        "{hero} kept a {look} {thing} on the shelf.",
        "{hero} bought a {look} {thing} at the fair.",
        "{hero} got a {look} {thing} from a {giver}.",
    ),
    "longing": (
        "{hero} wanted a {look} {thing} more than anything.",
        "{hero} needed a {look} {thing} for the party.",
        "{hero} saw a {look} {thing} in a dream.",
        "{hero} drew a {look} {thing} in the sand.",
    ),
    "baking": (
        "{hero} baked a {taste} {food} for a picnic.",
        "{hero} made a {taste} {food} in the kitchen.",
        "{hero} won a {taste} {food} in a game.",
    ),
    # the third
    "loss": (
        "But one {weather} {time}, the {thing} was {gone}.",
        "But one {weather} {time}, the {thing} {flew} away.",
    ),
    "walk": (
        "So one {weather} {time}, {hero} walked far away.",
        "So one {weather} {time}, {hero} left the house.",
        "So one {weather} {time}, {hero} went out alone.",
        "So one {weather} {time}, {hero} climbed a hill.",
    ),
    "making": ("So one {weather} {time}, {hero} {made} a {thing}.",),
    "packing": ("Then one {weather} {time}, {hero} {packed} the {food}.",),
    "noise": ("Then one {weather} {time}, {hero} heard a {noise}.",),
    # the fourth
    "meeting": ("{At} the {place}, {hero} {met} a {manner} {helper}.",),
    "sorrow": (
        '"Where is my {look} {thing}?" {cried} {hero}.',
        '"Who took my {look} {thing}?" {cried} {hero}.',
        '"I miss my {look} {thing}!" {cried} {hero}.',
        '"Oh, my {look} {thing}!" {cried} {hero}.',
    ),
    "joy": (
        '"This is my {look} {thing}!" {cheered} {hero}.',
        '"I love my {look} {thing}!" {cheered} {hero}.',
        '"What a nice {look} {thing}!" {cheered} {hero}.',
    ),
    # the fifth
    "clue": ('"{Look} {by} the {spot}," {said} the {helper}.',),
    "grant": (
        '"Here is a {thing}," {said} the {helper}.',
        '"Take my own {thing}," {said} the {helper}.',
        '"Have this nice {thing}," {said} the {helper}.',
    ),
    "hunger": (
        '"I smell a {food}," {said} the {helper}.',
        '"I love that {food}," {said} the {helper}.',
        '"What a fine {food}," {said} the {helper}.',
    ),
    "plea": (
        '"My {limb} is stuck," {said} the {helper}.',
        '"Please pull me out," {said} the {helper}.',
        '"I cannot get down," {said} the {helper}.',
    ),
    # the fifth or the sixth
    "discovery": ("{hero} {looked} {by} the {spot} and found the {thing}.",),
    # the sixth
    "granted": (
        "{hero} bowed to the {helper} and {took} the {thing}.",
        "{hero} smiled at the {helper} and {took} the {thing}.",
        "{hero} danced around the {helper} and {took} the {thing}.",
    ),
    "sharing": (
        "{hero} sat by the {helper} and {cut} the {food}.",
        "{hero} winked at the {helper} and {cut} the {food}.",
    ),
    "rescue": ("{hero} {pulled} the poor {helper} out with the {thing}.",),
    "delight": (
        "{hero} sang to the {thing} and danced all {while}.",
        "{hero} played with the {thing} and laughed all {while}.",
    ),
    # the seventh
    "friends": (
        "The {kind} and the {helper} became friends.",
        "The {kind} and the {helper} walked home.",
        "The {kind} thanked the {helper} very much.",
        "The {kind} hugged the {helper} and danced.",
        "The {kind} invited the {helper} for {meal}.",
    ),
}
"""Sentences by what they tell. All of a step's sentences have equally many tokens."""

PLOTS: dict[str, tuple[str, ...]] = {
    "lost": ("opening", "treasure", "loss", "meeting", "clue", "discovery", "friends"),
    "wish": ("opening", "longing", "walk", "meeting", "grant", "granted", "friends"),
    "meal": ("opening", "baking", "packing", "meeting", "hunger", "sharing", "friends"),
    "rescue": ("opening", "treasure", "noise", "meeting", "plea", "rescue", "friends"),
    "alone": ("opening", "treasure", "loss", "sorrow", "discovery", "delight"),
    "making": ("opening", "longing", "making", "joy"),
}
"""The steps of each plot, in their order."""

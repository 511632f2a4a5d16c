"""The words that fill the tales' slots.

Every list begins with its simplest words: an easy level of the grammar uses a list's beginning only. A word
stands in one piece (no spaces), so that a tokenizer can give it one token wherever it occurs.
"""

from __future__ import annotations

from itertools import chain


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES_SHE = _words("""
Mia Lily Anna Rosa Nina Ella Clara Ida Ruby Molly Tilda Greta Hazel Ivy Nora Olive Penny Sofia Emma Luna
Alice Bella Cora Daisy Edith Fiona Gwen Hanna Irma Judy Kate Lotta Mabel Nelly Opal Polly Rita Sally Tess Una
Vera Wilma Yara Zoe Agnes Betsy Celia Dora Elsa Flora Gilda Heidi Inga Jenny Kira Lucy Martha Nell Paula Ramona
Sonia Thea Ursula Viola Wanda Zelda Amelia Bonnie Carla Dinah Esther Freya Gloria Hilda Josie Katya Leila Minna
Petra Roberta
""")

NAMES_HE = _words("""
Tom Ben Max Leo Sam Tim Otto Jack Oscar Pip Felix Hugo Finn Gus Henry Ivan Jonas Karl Louis Milo
Ned Oliver Paul Ralph Simon Toby Victor Walter Adam Bruno Casper David Emil Fred George Harry Igor Jasper Kurt Luke
Martin Noah Oleg Peter Quentin Robin Stefan Theo Ulrich Vincent Willy Arthur Boris Conrad Dexter Edgar Franz Gilbert
Hector Isaac Jacob Kasimir Linus Moritz Nils Orson Pablo Rufus Sven Tobias Vasco Wendell Alfred Barnaby Cosmo Duncan
Edwin Fergus Gregor Humphrey
""")

NAMES = tuple(chain.from_iterable(zip(NAMES_SHE, NAMES_HE, strict=True)))

# he, him, his and the two that begin a sentence
PRONOUNS_SHE = {"he": "she", "him": "her", "his": "her", "He": "She", "His": "Her"}
PRONOUNS_HE = {"he": "he", "him": "him", "his": "his", "He": "He", "His": "His"}
PRONOUNS = dict.fromkeys(NAMES_SHE, PRONOUNS_SHE) | dict.fromkeys(NAMES_HE, PRONOUNS_HE)
CHILDREN = dict.fromkeys(NAMES_SHE, "girl") | dict.fromkeys(NAMES_HE, "boy")

KINDS = _words("""
mouse fox cat dog bear frog owl duck rabbit chicken pig goat sheep hare goose horse
mole badger hedgehog squirrel otter beaver wolf deer lamb kitten puppy pony donkey robin sparrow crow swan
turtle snail bee cricket beetle spider ant butterfly ladybird moth toad newt lizard snake rat hamster
lion tiger monkey elephant giraffe camel zebra panda koala kangaroo penguin seal whale walrus crab octopus
parrot flamingo stork heron raven pigeon eagle falcon cuckoo turkey calf foal mule weasel
marten lynx moose elk bison buffalo raccoon skunk porcupine armadillo sloth lemur
dragon giant dwarf elf fairy gnome troll wizard unicorn phoenix baker miller tailor sailor gardener shepherd
potter painter piper weaver farmer cobbler fiddler juggler tinker clockmaker inventor acrobat
""")

THINGS = _words("""
ball kite drum hat bell boat cup doll flute lamp ring scarf key book whistle spoon
button coin balloon basket blanket lantern umbrella puppet marble feather pebble shell ribbon necklace crown mitten
sock slipper boot glove cap bonnet cloak apron pillow quilt teapot kettle mug bowl jug bucket
sledge wagon rocket whirligig top hoop rattle trumpet fiddle harp horn banjo accordion tambourine pipe guitar
paintbrush pencil crayon notebook letter postcard map compass telescope clock watch mirror comb brush candle
candlestick box purse satchel suitcase ladle thimble needle locket brooch bracelet medal badge flag fan mask
wand star acorn pinecone rose tulip snowglobe windmill pinwheel yoyo skate paddle oar anchor hammer trowel
rake saddle saucer plate vase statue figurine bagpipe jigsaw carousel rope broom bead
""")

LOOKS = _words("""
red blue green yellow golden silver little tiny shiny round pink white black brown purple orange
large smooth striped spotted painted old new soft bright heavy gleaming dainty polished fancy crooked patched
sparkling glittering glowing scarlet crimson turquoise violet grey ivory emerald amber rusty dusty flowery
checkered curly feathery enchanted magic splendid wonderful lovely beautiful pretty funny peculiar handmade
enormous ancient elegant
""")

PLACES = _words("""
river forest garden hill lake mill meadow farm sea castle village bridge pond market barn tower
harbour lighthouse orchard valley mountain island beach cave waterfall stream spring well windmill church
school library bakery inn station canal fountain park playground vineyard moor marsh swamp cliff bay
lagoon desert jungle palace fortress ruins quarry mine crossroads sawmill tavern theatre circus fairground
greenhouse cottage stables monastery abbey observatory museum toyshop
""")

# where a thing may lie: the preposition and the spot are drawn apart
PREPOSITIONS = _words("under behind beside near")
SPOTS = _words("""
tree bush rock bench barrel log table door fence stone basket cart wall chair bed gate
oak willow birch fern rosebush haystack woodpile wheelbarrow bucket stump hedge mushroom cupboard stove
ladder staircase bookcase piano mailbox scarecrow sundial birdbath beehive rowboat signpost doghouse henhouse
pumpkin sunflower nettle thistle blackberry molehill anthill doorstep windowsill carpet curtain wardrobe
sofa armchair trough plough tent hammock swing slide dresser
""")

TRAITS = _words("""
little small kind brave happy shy clever merry gentle lazy curious proud quiet young cheerful busy
bold polite friendly hungry sleepy dreamy lively lonely patient stubborn honest humble jolly playful
careful careless restless tidy untidy clumsy nimble swift tall famous ordinary
generous thoughtful mischievous daring timid bashful tender hopeful
""")

HELPER_TRAITS = _words("""
wise old kind friendly large helpful jolly clever cheerful strange grumpy sturdy grand silent good
elderly learned mysterious talkative sly noisy furry hairy fluffy barefoot wrinkled freckled bearded ragged
muddy dignified solemn nosy snoring limping dancing singing whistling yawning giggling
""")

WEATHERS = _words("""
sunny windy rainy cold warm foggy snowy cloudy misty stormy frosty hot grey bright dark mild
chilly breezy drizzly icy gloomy damp dry dull clear calm blustery glorious golden sultry wet balmy
""")

TIMES = _words("""
morning day evening afternoon Monday Tuesday Wednesday Thursday Friday Saturday Sunday
""")

SORROWS = _words("""
sad unhappy lonely worried upset gloomy miserable tearful anxious glum troubled heartbroken forlorn lost
downcast sorrowful
""")

JOYS = _words("""
happy glad proud pleased merry thankful cheerful joyful delighted grateful excited amazed overjoyed relieved thrilled
""")

PRAISES = _words("kind clever wise good brave helpful thoughtful generous marvellous wonderful")

TASTES = _words("""
warm hot sweet fresh good cold crisp juicy soft crunchy creamy golden salty spicy buttery sticky
steaming crumbly delicious tasty toasted roasted baked fried homemade sugary tangy ripe plain tender
""")

FOODS = _words("""
bread cake soup apples cheese honey pancakes berries nuts pears cookies porridge plums eggs carrots cherries
strawberries blueberries raspberries grapes peaches apricots figs dates melons bananas oranges lemons
walnuts hazelnuts chestnuts almonds peanuts raisins potatoes turnips beans peas corn cabbage
radishes tomatoes cucumbers onions pumpkins mushrooms noodles dumplings waffles muffins biscuits buns rolls
scones tarts pies crumpets pretzels gingerbread marmalade jam pudding custard toast oatmeal stew rice fish
sausages sandwiches popcorn toffee chocolate marzipan
""")

DRINKS = _words("""
milk tea water cocoa juice lemonade cider cream coffee buttermilk broth nectar
""")

THIEVES = _words("magpie jackdaw goblin imp gull pirate robber crane ferret")
CHEEKY = _words("cheeky naughty greedy hungry sneaky rude wild bold impudent wicked crafty thieving")

STUFFS = _words("""
paper wood string clay straw wool leather cloth silk cotton cardboard wire reeds twigs leaves bark
wax glass silver tin felt rags moonlight sunshine stardust snow ice feathers buttons pebbles
""")

TRAPS = _words("""
mud ditch hole pit snow bog well net sack barrel brambles thicket gutter chimney swamp bucket
drain trench cellar quicksand puddle nettles cobweb
""")
TOOLS = _words("""
rope stick ladder branch pole plank chain hook rake broom spade vine oar
""")

RELATIVES = _words("""
mother father grandmother grandfather aunt uncle sister brother cousin godmother godfather teacher neighbour
""")

SKIES = _words("stars moon clouds sun rainbow moonbeams sunset twilight lanterns treetops")
MANNERS = _words("""
happily slowly quickly proudly merrily cheerfully quietly gladly singing whistling laughing humming smiling
skipping dancing
""")
JUNK = _words("""
shoe boot bone leaf nail bottle spoon button stick coin newspaper hat umbrella wheel rag potato
fishbone sandwich
""")
NUMBERS = _words("three five ten seven nine twelve twenty thirty forty fifty hundred thousand")
LIGHTS = _words("light gold silver smoke glitter lightning sparks stars mist thunder")

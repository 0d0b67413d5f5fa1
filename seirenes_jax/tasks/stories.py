"""The words of the tiny world: who has what, and how it grows and shrinks. Data, hardly any code.

A form is a sentence with slots: {who} {Who} the owner, {he} {He} {him} the pronoun, {other}
somebody else, {what} the things counted, {n} the number of this change. Sentences are short on
purpose: the model that reads them is tiny.
"""

from dataclasses import dataclass

Forms = tuple[str, ...]

PEOPLE: tuple[tuple[str, str, str], ...] = (
    ("Tom", "he", "him"),
    ("Ana", "she", "her"),
    ("Sam", "he", "him"),
    ("Mia", "she", "her"),
    ("Ben", "he", "him"),
    ("Eva", "she", "her"),
    ("Leo", "he", "him"),
    ("Zoe", "she", "her"),
)


@dataclass(frozen=True, slots=True)
class Template:
    """One kind of story: its vocabulary and, for each thing said, several ways to say it."""

    name: str
    who: tuple[tuple[str, str, str], ...]  # (name, pronoun, object pronoun)
    what: Forms
    opening: Forms
    add: Forms
    subtract: Forms
    double: Forms
    triple: Forms
    halve: Forms
    question: Forms


QUESTION = (
    "How many {what} does {who} have now?",
    "How many {what} does {who} have at the end?",
    "How many {what} are there at the end?",
    "What is the number of {what} now?",
)
DOUBLE = (
    "Then the number of {what} doubles.",
    "Now {he} has twice as many {what}.",
    "Soon {he} has twice as many.",
)
TRIPLE = (
    "Then the number of {what} triples.",
    "Now {he} has three times as many {what}.",
    "Soon {he} has three times as many.",
)
HALVE = (
    "Then half of the {what} are gone.",
    "Now {he} has half as many {what}.",
    "Soon {he} has only half as many.",
)


def _places(*names: str) -> tuple[tuple[str, str, str], ...]:
    return tuple((f"the {name}", "it", "it") for name in names)


TEMPLATES: tuple[Template, ...] = (
    Template(
        name="fruit",
        who=PEOPLE,
        what=("apples", "pears", "plums", "lemons"),
        opening=(
            "{Who} has {n} {what}.",
            "{Who} brings {n} {what} home.",
            "There are {n} {what} in the bag of {who}.",
        ),
        add=("{He} buys {n} more.", "{He} picks {n} more {what}.", "{other} gives {him} {n}."),
        subtract=("{He} eats {n}.", "{He} gives {n} to {other}.", "{He} sells {n} {what}."),
        double=("{He} doubles the {what}.", *DOUBLE),
        triple=("{He} triples the {what}.", *TRIPLE),
        halve=("{He} eats half of the {what}.", *HALVE),
        question=QUESTION,
    ),
    Template(
        name="money",
        who=PEOPLE,
        what=("coins", "dollars"),
        opening=(
            "{Who} has {n} {what}.",
            "{Who} starts with {n} {what}.",
            "{Who} saves {n} {what}.",
        ),
        add=("{He} earns {n} more.", "{He} finds {n} {what}.", "{other} pays {him} {n}."),
        subtract=("{He} spends {n}.", "{He} loses {n} {what}.", "{He} pays {n} to {other}."),
        double=("{He} doubles the {what}.", *DOUBLE),
        triple=("{He} triples the {what}.", *TRIPLE),
        halve=("{He} spends half of the {what}.", *HALVE),
        question=QUESTION,
    ),
    Template(
        name="collection",
        who=PEOPLE,
        what=("cards", "stamps", "stickers"),
        opening=(
            "{Who} owns {n} {what}.",
            "{Who} starts with {n} {what}.",
            "There are {n} {what} in the album of {who}.",
        ),
        add=("{He} gets {n} more.", "{He} finds {n} {what}.", "{other} sends {him} {n}."),
        subtract=("{He} loses {n}.", "{He} sends {n} to {other}.", "{He} gives away {n} {what}."),
        double=("{He} doubles the {what}.", *DOUBLE),
        triple=("{He} triples the {what}.", *TRIPLE),
        halve=("{He} gives away half of the {what}.", *HALVE),
        question=QUESTION,
    ),
    Template(
        name="library",
        who=_places("library", "school"),
        what=("books", "maps"),
        opening=(
            "{Who} has {n} {what}.",
            "{Who} owns {n} {what}.",
            "There are {n} {what} in {who}.",
        ),
        add=("{He} buys {n} more.", "{other} returns {n} {what}.", "{other} brings {n} more."),
        subtract=("{He} lends {n}.", "{other} borrows {n} {what}.", "{n} {what} are lost."),
        double=("{He} doubles the {what}.", *DOUBLE),
        triple=("{He} triples the {what}.", *TRIPLE),
        halve=("{He} lends half of the {what}.", *HALVE),
        question=QUESTION,
    ),
    Template(
        name="ride",
        who=_places("bus", "train", "boat"),
        what=("people", "children"),
        opening=(
            "{Who} carries {n} {what}.",
            "{Who} starts with {n} {what}.",
            "There are {n} {what} on {who}.",
        ),
        add=("{n} more get on.", "{n} {what} get on.", "{He} picks up {n} {what}."),
        subtract=("{n} {what} get off.", "{n} get off.", "{He} drops {n} {what}."),
        double=("At the stop the {what} double.", *DOUBLE),
        triple=("At the stop the {what} triple.", *TRIPLE),
        halve=("Half of the {what} get off.", *HALVE),
        question=QUESTION,
    ),
    Template(
        name="farm",
        who=_places("farm"),
        what=("hens", "cows", "sheep", "goats"),
        opening=(
            "{Who} has {n} {what}.",
            "{Who} owns {n} {what}.",
            "There are {n} {what} on {who}.",
        ),
        add=("{He} buys {n} more.", "{n} {what} are born.", "{other} brings {n} more."),
        subtract=("{He} sells {n}.", "{n} {what} run away.", "{other} takes {n} {what}."),
        double=("{He} doubles the {what}.", *DOUBLE),
        triple=("{He} triples the {what}.", *TRIPLE),
        halve=("{He} sells half of the {what}.", *HALVE),
        question=QUESTION,
    ),
    Template(
        name="bakery",
        who=(*_places("bakery", "cafe"), *PEOPLE[:4]),
        what=("cakes", "rolls", "pies"),
        opening=(
            "{Who} has {n} {what}.",
            "{Who} bakes {n} {what}.",
            "{Who} starts with {n} {what}.",
        ),
        add=("{He} bakes {n} more.", "{He} makes {n} {what}.", "{other} brings {n} more."),
        subtract=("{He} sells {n}.", "{other} buys {n} {what}.", "{other} eats {n}."),
        double=("{He} doubles the {what}.", *DOUBLE),
        triple=("{He} triples the {what}.", *TRIPLE),
        halve=("{He} sells half of the {what}.", *HALVE),
        question=QUESTION,
    ),
    Template(
        name="water",
        who=_places("pond", "lake", "tank"),
        what=("fish", "frogs", "ducks"),
        opening=(
            "{Who} has {n} {what}.",
            "At first {who} has {n} {what}.",
            "There are {n} {what} in {who}.",
        ),
        add=("{n} more come.", "{n} {what} are born.", "{other} adds {n} {what}."),
        subtract=("{n} {what} swim away.", "{n} leave.", "{other} takes {n} {what}."),
        double=("In spring the {what} double.", *DOUBLE),
        triple=("In spring the {what} triple.", *TRIPLE),
        halve=("Half of the {what} swim away.", *HALVE),
        question=QUESTION,
    ),
    Template(
        name="garden",
        who=(*_places("garden", "park"), *PEOPLE[4:]),
        what=("roses", "trees", "tulips"),
        opening=(
            "{Who} has {n} {what}.",
            "At first {who} has {n} {what}.",
            "{Who} starts with {n} {what}.",
        ),
        add=("{other} plants {n} more.", "{He} gets {n} more {what}.", "{n} new {what} grow."),
        subtract=("{other} cuts {n}.", "{He} loses {n} {what}.", "{n} {what} die."),
        double=("In spring the {what} double.", *DOUBLE),
        triple=("In spring the {what} triple.", *TRIPLE),
        halve=("{other} cuts half of the {what}.", *HALVE),
        question=QUESTION,
    ),
    Template(
        name="game",
        who=PEOPLE,
        what=("points", "stars", "medals"),
        opening=(
            "{Who} has {n} {what}.",
            "{Who} starts with {n} {what}.",
            "In the first game {who} wins {n} {what}.",
        ),
        add=("{He} wins {n} more.", "{He} gets {n} {what}.", "{He} earns {n} more {what}."),
        subtract=("{He} loses {n}.", "{other} takes {n} {what}.", "{He} drops {n} {what}."),
        double=("{He} doubles the {what}.", *DOUBLE),
        triple=("{He} triples the {what}.", *TRIPLE),
        halve=("{He} loses half of the {what}.", *HALVE),
        question=QUESTION,
    ),
    Template(
        name="club",
        who=_places("club", "team", "class"),
        what=("members", "players", "girls", "boys"),
        opening=(
            "{Who} has {n} {what}.",
            "{Who} starts with {n} {what}.",
            "There are {n} {what} in {who}.",
        ),
        add=("{n} more join.", "{n} new {what} come.", "{He} gets {n} more {what}."),
        subtract=("{n} leave.", "{n} {what} go home.", "{He} loses {n} {what}."),
        double=("In spring the {what} double.", *DOUBLE),
        triple=("In spring the {what} triple.", *TRIPLE),
        halve=("Half of the {what} leave.", *HALVE),
        question=QUESTION,
    ),
    Template(
        name="toys",
        who=PEOPLE,
        what=("toys", "blocks", "balls", "marbles"),
        opening=(
            "{Who} has {n} {what}.",
            "There are {n} {what} in the box of {who}.",
            "At first {who} has {n} {what}.",
        ),
        add=("{He} finds {n} more.", "{He} gets {n} {what}.", "{other} gives {him} {n} more."),
        subtract=("{He} breaks {n}.", "{He} gives {n} to {other}.", "{He} loses {n} {what}."),
        double=("{He} doubles the {what}.", *DOUBLE),
        triple=("{He} triples the {what}.", *TRIPLE),
        halve=("{He} gives away half of the {what}.", *HALVE),
        question=QUESTION,
    ),
    Template(
        name="parking",
        who=_places("garage", "street"),
        what=("cars", "bikes", "vans"),
        opening=(
            "{Who} has {n} {what}.",
            "At first {who} has {n} {what}.",
            "In the morning {who} has {n} {what}.",
        ),
        add=("{n} more come.", "{n} {what} park there.", "{n} new {what} come."),
        subtract=("{n} leave.", "{n} {what} drive away.", "{other} sells {n} {what}."),
        double=("At noon the {what} double.", *DOUBLE),
        triple=("At noon the {what} triple.", *TRIPLE),
        halve=("Half of the {what} drive away.", *HALVE),
        question=QUESTION,
    ),
    Template(
        name="workshop",
        who=(*_places("shop"), *PEOPLE),
        what=("chairs", "lamps", "boxes"),
        opening=(
            "{Who} has {n} {what}.",
            "{Who} starts with {n} {what}.",
            "In the morning {who} has {n} {what}.",
        ),
        add=("{He} makes {n} more.", "{He} builds {n} {what}.", "{other} brings {n} more."),
        subtract=("{He} sells {n}.", "{other} buys {n} {what}.", "{He} breaks {n} {what}."),
        double=("{He} doubles the {what}.", *DOUBLE),
        triple=("{He} triples the {what}.", *TRIPLE),
        halve=("{He} sells half of the {what}.", *HALVE),
        question=QUESTION,
    ),
)

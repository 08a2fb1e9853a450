"""Who lives in the small world and what is true there: `build_world(seed, ...) -> World`.

Every truth is a `Fact(kind, subject, value)` of short Chinese words, e.g. ("job", "林小满", "护士").
Text, conversations, preferences and exams all read these facts and add none of their own, so the
complete bundle agrees with itself. Knows nothing of wording.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from mengya.world import lexicon

T = TypeVar("T")

PERSON_KINDS = [
    "age",
    "job",
    "home",
    "hobby",
    "food",
    "pet",
    "spouse",
    "father",
    "mother",
    "teacher",
    "friend",
]
PLACE_KINDS = ["street", "opens", "closes", "rest_day", "owner"]
GOOD_KINDS = ["price", "shop"]
EVENT_KINDS = ["month", "venue"]
KINDS = (*PERSON_KINDS, *PLACE_KINDS, *GOOD_KINDS, *EVENT_KINDS)


def deal(rng: random.Random, items: Sequence[T]) -> Iterator[T]:
    """Endlessly deal out all items in a new order each round, so each comes equally often."""
    while True:
        order = list(items)
        rng.shuffle(order)
        yield from order


def numeral(number: int) -> str:
    """An integer from 0 to 99 in Chinese words, as prose writes it: 35 -> 三十五.

    One word is one token for a small tokenizer, where digits would be two or three.
    """
    digits = "零一二三四五六七八九"
    tens, ones = divmod(number, 10)
    if tens == 0:
        return digits[ones]
    return (digits[tens] if tens > 1 else "") + "十" + (digits[ones] if ones else "")


def yuan(amount: int) -> str:
    """A price in words; Chinese says 两 for two of a measure."""
    return ("两" if amount == 2 else numeral(amount)) + "元"


@dataclass(frozen=True, slots=True)
class Fact:
    """One truth: the `kind` of `subject` is `value`."""

    kind: str
    subject: str
    value: str


@dataclass(slots=True)
class Person:
    """An inhabitant; `age` in years, relations by name."""

    name: str
    male: bool
    age: int
    job: str
    home: str
    hobby: str = ""
    food: str = ""
    pet: str = ""
    spouse: str = ""
    father: str = ""
    mother: str = ""
    teacher: str = ""
    friend: str = ""

    @property
    def pronoun(self) -> str:
        return "他" if self.male else "她"

    @property
    def adult(self) -> bool:
        return self.age >= 20


@dataclass(frozen=True, slots=True)
class Good:
    """Something on sale: `price` in yuan for one `measure` (个, 斤, ...) at `shop`."""

    name: str
    measure: str
    price: int
    shop: str


@dataclass(slots=True)
class World:
    """Everything that is true. Lists are in a fixed order; look-ups go through `value`."""

    people: list[Person]
    places: list[str]
    goods: list[Good]
    events: list[str]
    facts: list[Fact]
    table: dict[tuple[str, str], str] = field(init=False)
    pools: dict[str, list[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.table = {(fact.kind, fact.subject): fact.value for fact in self.facts}
        self.pools = {kind: [] for kind in KINDS}
        for fact in self.facts:
            if fact.value not in self.pools[fact.kind]:
                self.pools[fact.kind].append(fact.value)
        adults = [person for person in self.people if person.adult]
        everyone = [person.name for person in self.people]
        self.pools["father"] = [person.name for person in adults if person.male]
        self.pools["mother"] = [person.name for person in adults if not person.male]
        self.pools["teacher"] = self.pools["owner"] = [person.name for person in adults]
        self.pools["spouse"] = self.pools["teacher"]
        self.pools["friend"] = everyone

    def value(self, kind: str, subject: str) -> str:
        """The value of a fact, "" where the subject has none (an unmarried person's spouse)."""
        return self.table.get((kind, subject), "")

    def facts_of(self, subject: str) -> list[Fact]:
        return [fact for fact in self.facts if fact.subject == subject]

    def distractors(self, rng: random.Random, fact: Fact) -> list[str]:
        """Three wrong values of the same type as the right one, all different."""
        pool = [value for value in self.pools[fact.kind] if value not in (fact.value, fact.subject)]
        if fact.kind == "spouse":
            male = {person.name: person.male for person in self.people}
            pool = [name for name in pool if male[name] == male[fact.value]]
        return rng.sample(pool, 3)


def build_world(seed: int, people: int = 40, places: int = 16, events: int = 10) -> World:
    """Deal out the words of the lexicon; the same arguments give the same world everywhere."""
    rng = random.Random(f"world {seed}")
    shops = lexicon.PLACES[:places]
    inhabitants = _families(rng, people)
    adults = [person for person in inhabitants if person.adult]
    _jobs(rng, adults, shops)
    _likings(rng, inhabitants)
    _relations(rng, inhabitants)
    facts = [
        Fact(
            kind,
            person.name,
            f"{numeral(person.age)}岁" if kind == "age" else getattr(person, kind),
        )
        for person in inhabitants
        for kind in PERSON_KINDS
        if getattr(person, kind)
    ]
    goods: list[Good] = []
    streets, opening = deal(rng, lexicon.STREETS), deal(rng, lexicon.OPENING_TIMES)
    closing, rest = deal(rng, lexicon.CLOSING_TIMES), deal(rng, lexicon.REST_DAYS)
    prices, venues = deal(rng, range(2, 10)), deal(rng, lexicon.LANDMARKS)
    by_job = {person.job: person.name for person in reversed(adults)}
    for place, job, wares in shops:
        values = (next(streets), next(opening), next(closing), next(rest), by_job[job])
        facts += [Fact(k, place, v) for k, v in zip(PLACE_KINDS, values, strict=True)]
        for ware in wares.split():
            name, measure = ware.split("/")
            goods.append(Good(name, measure, next(prices), place))
            facts += [Fact("price", name, yuan(goods[-1].price)), Fact("shop", name, place)]
    held = list(lexicon.EVENTS[:events])
    months = rng.sample(lexicon.MONTHS, len(held))
    for event, month in zip(held, months, strict=True):
        facts += [Fact("month", event, month), Fact("venue", event, next(venues))]
    return World(inhabitants, [shop[0] for shop in shops], goods, held, facts)


def _families(rng: random.Random, count: int) -> list[Person]:
    """Families of two to four under one roof, then single grown-ups, `count` people in all."""
    males, females = list(lexicon.GIVEN_MALE), list(lexicon.GIVEN_FEMALE)
    surnames = list(lexicon.SURNAMES)
    for names in (males, females, surnames):
        rng.shuffle(names)
    people: list[Person] = []
    homes = deal(rng, lexicon.STREETS)

    def add(surname: str, male: bool, age: int, home: str) -> Person:
        name = surname + (males if male else females).pop()
        people.append(Person(name, male, age, "" if age >= 20 else "学生", home))
        return people[-1]

    for number in range(count):
        if len(people) >= count:
            break
        surname = surnames[number % len(surnames)]
        home = next(homes)
        children = (2, 1, 0)[number % 3]
        if number % 4 == 3 or len(people) + 2 + children > count:
            add(surname, rng.random() < 0.5, rng.randint(24, 75), home)
            continue
        father = add(surname, True, rng.randint(35, 45) if children else rng.randint(24, 75), home)
        other = rng.choice([name for name in lexicon.SURNAMES if name != surname])
        mother = add(other, False, max(24, father.age - rng.randint(0, 4)), home)
        father.spouse, mother.spouse = mother.name, father.name
        for _ in range(children):
            child = add(surname, rng.random() < 0.5, rng.randint(7, 13), home)
            child.father, child.mother = father.name, mother.name
    return people


def _jobs(rng: random.Random, adults: list[Person], shops: tuple[tuple[str, ...], ...]) -> None:
    """The first grown-ups run the places; two more are teachers; the rest take free jobs."""
    order = adults[:]
    rng.shuffle(order)
    free = list(lexicon.FREE_JOBS)
    rng.shuffle(free)
    jobs = [shop[1] for shop in shops] + ["老师"]
    jobs += [free[i % len(free)] for i in range(max(0, len(order) - len(jobs)))]
    for person, job in zip(order, jobs, strict=False):
        person.job = job
    for shop in shops[len(order) :]:
        raise ValueError(f"{len(order)} grown-ups cannot run {shop[0]}: ask for more people")


def _likings(rng: random.Random, people: list[Person]) -> None:
    for kind, words in (("hobby", lexicon.HOBBIES), ("food", lexicon.FOODS), ("pet", lexicon.PETS)):
        dealt = deal(rng, words)
        for person in people:
            setattr(person, kind, next(dealt))


def _relations(rng: random.Random, people: list[Person]) -> None:
    """Friends are mutual pairs of one generation; a pupil's teacher is one of the teachers."""
    teachers = [person.name for person in people if person.job == "老师"]
    for generation in (True, False):
        group = [person for person in people if person.adult == generation]
        rng.shuffle(group)
        for one, other in zip(group[::2], group[1::2], strict=False):
            if one.spouse != other.name:
                one.friend, other.friend = other.name, one.name
    for person in people:
        if not person.adult:
            person.teacher = rng.choice(teachers)

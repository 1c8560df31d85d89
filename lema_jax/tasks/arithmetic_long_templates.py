"""Longer stories of the task `arithmetic`, four to six steps each, and the stories held out for the split `ood`."""

from lema_jax.tasks.arithmetic_story import Draw, Story, total


def library(d: Draw) -> Story:
    place = d.one("library", "school", "club", "museum")
    shelves, each, bought, lent, rooms = (
        d.number(2, 9),
        d.number(5, 15),
        d.number(5, 40),
        d.number(3, 30),
        d.number(2, 6),
    )
    start = shelves * each
    held = start + bought
    left = held - lent
    share = left // rooms
    return Story(
        f"A {place} has {shelves} shelves of {each} books. It buys {bought} books and lends {lent}. The rest are split"
        f" equally among {rooms} rooms. How many books does each room get?",
        (
            f"The shelves have {start:=} books.",
            f"With the new ones there are {held:=} books.",
            f"After lending there are {left:=} books.",
            f"Each room gets {share:=} books.",
        ),
        share,
    )


def dinner(d: Draw) -> Story:
    name, meal = d.name(), d.one("pizzas", "soups", "salads", "pies", "sandwiches")
    meals, price, drinks, each, people = d.number(2, 9), d.number(3, 15), d.number(2, 9), d.number(2, 6), d.number(2, 8)
    food, drink = meals * price, drinks * each
    bill = food + drink
    share = bill // people
    return Story(
        f"{name} and friends order {meals} {meal} at {price} dollars each and {drinks} drinks at {each} dollars each."
        f"{d.aside(name)} The bill is split equally among {people} people. How many dollars does each pay?",
        (
            f"The {meal} cost {food:=} dollars.",
            f"The drinks cost {drink:=} dollars.",
            f"The bill is {bill:=} dollars.",
            f"Each pays {share:=} dollars.",
        ),
        share,
    )


def collection(d: Draw) -> Story:
    (name, other), things = d.names(), d.things()
    own, more, times, needed = d.number(3, 25), d.number(2, 20), d.number(2, 4), d.number(50, 250)
    others = own + more
    third = others * times
    everyone = total(own, others, third)
    missing = needed - everyone
    return Story(
        f"{name} brings {own} {things}, {other} brings {more} more than {name}, and their teacher brings {times} times"
        f" as many as {other}. They need {needed} {things}. How many are missing?",
        (
            f"{other} brings {others:=} {things}.",
            f"The teacher brings {third:=} {things}.",
            f"Together they bring {everyone:=} {things}.",
            f"There are {missing:=} {things} missing.",
        ),
        missing,
    )


def orchard(d: Draw) -> Story:
    name, fruit, box = d.name(), d.one("apples", "pears", "plums", "lemons"), d.one(*d.CONTAINERS)
    trees, each, bad, size, price = d.number(3, 12), d.number(5, 20), d.number(2, 20), d.number(3, 9), d.number(2, 9)
    picked = trees * each
    good = picked - bad
    boxes = good // size
    earned = boxes * price
    return Story(
        f"{name} picks {each} {fruit} from each of {trees} trees and throws away {bad}. The rest go in {box} of {size}."
        f"{d.aside(name)} {name} sells the {box} for {price} dollars each. How many dollars does {name} earn?",
        (
            f"{name} picks {picked:=} {fruit}.",
            f"There are {good:=} good {fruit}.",
            f"They fill {boxes:=} {box}.",
            f"{name} earns {earned:=} dollars.",
        ),
        earned,
    )


def fair(d: Draw) -> Story:
    (name, other), (first, second) = d.names(), d.two(d.THINGS)
    many, price, few, cost, table = d.number(2, 12), d.number(2, 9), d.number(2, 12), d.number(2, 9), d.number(4, 40)
    one, two = many * price, few * cost
    both = one + two
    left = both - table
    half = left // 2
    return Story(
        f"At a fair {name} and {other} sell {many} {first} for {price} dollars each and {few} {second} for {cost}"
        f" dollars each. They pay {table} dollars for a table and share the rest in half. How many dollars does each"
        f" get?",
        (
            f"The {first} bring {one:=} dollars.",
            f"The {second} bring {two:=} dollars.",
            f"Together that is {both:=} dollars.",
            f"After the table {left:=} dollars are left.",
            f"Each gets {half:=} dollars.",
        ),
        half,
    )


def three_days(d: Draw) -> Story:
    name, things = d.name(), d.things()
    first, times, fewer, sold, size = d.number(3, 25), d.number(2, 4), d.number(2, 15), d.number(5, 50), d.number(2, 8)
    second = first * times
    third = second - fewer
    made = total(first, second, third)
    left = made - sold
    bags = left // size
    return Story(
        f"{name} makes {first} {things} on Monday, {times} times as many on Tuesday, and on Friday {fewer} fewer than"
        f" on Tuesday. {name} sells {sold} and puts the rest in bags of {size}. How many bags are there?",
        (
            f"On Tuesday {name} makes {second:=} {things}.",
            f"On Friday {name} makes {third:=} {things}.",
            f"In all {name} makes {made:=} {things}.",
            f"After the sale {left:=} {things} are left.",
            f"They fill {bags:=} bags.",
        ),
        bags,
    )


def painting(d: Draw) -> Story:
    name, place = d.name(), d.one("house", "shop", "barn", "school")
    walls, long, high, can, price = d.number(2, 4), d.number(3, 9), d.number(2, 5), d.number(2, 10), d.number(3, 15)
    wall = long * high
    area = wall * walls
    cans = area // can
    cost = cans * price
    return Story(
        f"{name} paints {walls} walls of a {place}, each {long} meters long and {high} meters high. A can of paint"
        f" covers {can} square meters and costs {price} dollars.{d.aside(name)} How many dollars does the paint cost?",
        (
            f"A wall has {wall:=} square meters.",
            f"The walls have {area:=} square meters.",
            f"{name} needs {cans:=} cans.",
            f"The paint costs {cost:=} dollars.",
        ),
        cost,
    )


def jobs(d: Draw) -> Story:
    name, wish = d.name(), d.one("bike", "guitar", "phone", "tent", "camera")
    lawns, per_lawn, dogs, per_dog, had = (
        d.number(2, 9),
        d.number(3, 12),
        d.number(2, 9),
        d.number(2, 9),
        d.number(2, 40),
    )
    price = d.number(60, 350)
    lawn, dog = lawns * per_lawn, dogs * per_dog
    earned = lawn + dog
    held = earned + had
    missing = price - held
    return Story(
        f"{name} mows {lawns} lawns for {per_lawn} dollars each and walks {dogs} dogs for {per_dog} dollars each."
        f" {name} had {had} dollars before and wants a {wish} for {price} dollars. How many dollars are missing?",
        (
            f"The lawns bring {lawn:=} dollars.",
            f"The dogs bring {dog:=} dollars.",
            f"{name} earns {earned:=} dollars.",
            f"Now {name} has {held:=} dollars.",
            f"There are {missing:=} dollars missing.",
        ),
        missing,
    )


def party(d: Draw) -> Story:
    name, things = d.name(), d.things()
    guests, each, bags, size, had, price = (
        d.number(3, 12), d.number(2, 9), d.number(2, 6), d.number(2, 9), d.number(2, 30), d.number(2, 6),
    )  # fmt: skip
    needed = guests * each
    inside = bags * size
    held = inside + had
    missing = needed - held
    cost = missing * price
    return Story(
        f"{name} wants {each} {things} for each of {guests} guests. {name} has {bags} bags of {size} {things} and {had}"
        f" more at home. A missing one costs {price} dollars.{d.aside(name)} How many dollars must {name} spend?",
        (
            f"The guests need {needed:=} {things}.",
            f"The bags have {inside:=} {things}.",
            f"In all {name} has {held:=} {things}.",
            f"There are {missing:=} {things} missing.",
            f"They cost {cost:=} dollars.",
        ),
        cost,
    )


def fundraiser(d: Draw) -> Story:
    name, place, (first, second) = d.name(), d.one(*d.PLACES), d.two(d.THINGS)
    many, price, few, cost = d.number(3, 12), d.number(2, 9), d.number(3, 12), d.number(2, 9)
    gift, paid, classes = d.number(5, 50), d.number(5, 50), d.number(2, 6)
    one, two = many * price, few * cost
    both = one + two
    held = both + gift
    left = held - paid
    share = left // classes
    return Story(
        f"For the {place}, {name} sells {many} {first} at {price} dollars and {few} {second} at {cost} dollars. A"
        f" friend gives {gift} dollars. After paying {paid} dollars, the rest goes equally to {classes} classes."
        f" How many dollars does each class get?",
        (
            f"The {first} bring {one:=} dollars.",
            f"The {second} bring {two:=} dollars.",
            f"Together they bring {both:=} dollars.",
            f"With the gift that is {held:=} dollars.",
            f"After paying {left:=} dollars are left.",
            f"Each class gets {share:=} dollars.",
        ),
        share,
    )


def elevator(d: Draw) -> Story:
    name = d.name()
    start, up, down, again = d.number(2, 20), d.number(3, 30), d.number(2, 20), d.number(2, 15)
    first = start + up
    second = first - down
    last = second + again
    return Story(
        f"{name} enters an elevator on floor {start}, rides {up} floors up, {down} floors down and {again} floors up."
        f"{d.aside(name)} On which floor is {name} now?",
        (
            f"After the first ride {name} is on floor {first:=}.",
            f"After the second ride {name} is on floor {second:=}.",
            f"Now {name} is on floor {last:=}.",
        ),
        last,
    )


def train_cars(d: Draw) -> Story:
    cars, seats, free, off = d.number(2, 9), d.number(10, 40), d.number(5, 30), d.number(3, 40)
    places = cars * seats
    riders = places - free
    left = riders - off
    return Story(
        f"A train has {cars} cars with {seats} seats each, and {free} seats are empty. At the next stop {off} riders"
        f" leave. How many riders stay on the train?",
        (
            f"The train has {places:=} seats.",
            f"There are {riders:=} riders.",
            f"Then {left:=} riders stay.",
        ),
        left,
    )


def recipe(d: Draw) -> Story:
    name, food = d.name(), d.one("flour", "sugar", "rice", "oats")
    each, cakes, breads, per_bread, had = (
        d.number(2, 12),
        d.number(2, 9),
        d.number(2, 9),
        d.number(2, 9),
        d.number(20, 200),
    )
    for_cakes, for_breads = each * cakes, breads * per_bread
    used = for_cakes + for_breads
    left = had - used
    return Story(
        f"{name} has {had} cups of {food}. A cake needs {each} cups and a bread needs {per_bread} cups. {name} bakes"
        f" {cakes} cakes and {breads} breads. How many cups of {food} are left?",
        (
            f"The cakes need {for_cakes:=} cups.",
            f"The breads need {for_breads:=} cups.",
            f"In all {name} uses {used:=} cups.",
            f"There are {left:=} cups left.",
        ),
        left,
    )


def rope(d: Draw) -> Story:
    name = d.name()
    length, pieces, each, parts = d.number(30, 300), d.number(2, 9), d.number(2, 15), d.number(2, 9)
    cut = pieces * each
    left = length - cut
    part = left // parts
    return Story(
        f"{name} has a rope of {length} meters and cuts off {pieces} pieces of {each} meters.{d.aside(name)} The rest"
        f" is cut into {parts} equal parts. How many meters long is a part?",
        (
            f"{name} cuts off {cut:=} meters.",
            f"There are {left:=} meters left.",
            f"A part is {part:=} meters long.",
        ),
        part,
    )


def tournament(d: Draw) -> Story:
    name, game = d.name(), d.one("basketball", "football", "handball")
    games, points, extra, rival, more = (
        d.number(2, 8),
        d.number(5, 20),
        d.number(2, 30),
        d.number(2, 20),
        d.number(2, 8),
    )
    early = games * points
    scored = early + extra
    others = rival * more
    ahead = scored - others
    return Story(
        f"At {game}, {name} scores {points} points in each of {games} games and {extra} in the last game. A rival"
        f" scores {rival} points in each of {more} games. By how many points is {name} ahead?",
        (
            f"In {games} games {name} scores {early:=} points.",
            f"In all {name} scores {scored:=} points.",
            f"The rival scores {others:=} points.",
            f"So {name} is ahead by {ahead:=} points.",
        ),
        ahead,
    )

"""Short stories of the task `arithmetic`, two or three steps each: one function a template.

A template draws its words and numbers and tells its working; a draw that does not come out whole and small is a
`Misfit`, raised by the sum that does not fit, and is drawn anew.
"""

from lema_jax.tasks.arithmetic_story import Draw, Quantity, Story, total


def gives_away(d: Draw) -> Story:
    name, things, pack = d.name(), d.things(), d.one(*d.CONTAINERS)
    packs, size, given = d.number(2, 9), d.number(3, 12), d.number(2, 30)
    owned = packs * size
    left = owned - given
    return Story(
        f"{name} has {packs} {pack} with {size} {things} in each.{d.aside(name)} {name} gives away {given} {things}."
        f" How many {things} are left?",
        (f"{name} has {owned:=} {things}.", f"There are {left:=} {things} left."),
        left,
    )


def two_shelves(d: Draw) -> Story:
    things, name = d.things(), d.name()
    first, more = d.number(5, 60), d.number(2, 30)
    second = first + more
    both = first + second
    return Story(
        f"{name} puts {first} {things} on one shelf and {more} more than that on another.{d.aside(name)}"
        f" How many {things} does {name} put on both shelves?",
        (f"The other shelf has {second:=} {things}.", f"Both shelves have {both:=} {things}."),
        both,
    )


def shares(d: Draw) -> Story:
    (name, other), things = d.names(), d.things()
    own, gift, friends = d.number(5, 60), d.number(3, 40), d.number(2, 9)
    held = own + gift
    each = held // friends
    return Story(
        f"{name} has {own} {things} and gets {gift} more from {other}.{d.aside(name)} {name} shares them equally among"
        f" {friends} friends. How many {things} does each friend get?",
        (f"{name} has {held:=} {things}.", f"Each friend gets {each:=} {things}."),
        each,
    )


def change(d: Draw) -> Story:
    name, (first, second) = d.name(), d.two(d.THINGS)
    many, price, few, cost, paid = d.number(2, 9), d.number(2, 9), d.number(2, 9), d.number(2, 9), d.number(20, 150)
    one, two = many * price, few * cost
    both = one + two
    back = paid - both
    return Story(
        f"{name} buys {many} {first} for {price} dollars each and {few} {second} for {cost} dollars each. {name} pays"
        f" with {paid} dollars. How many dollars does {name} get back?",
        (
            f"The {first} cost {one:=} dollars.",
            f"The {second} cost {two:=} dollars.",
            f"Together they cost {both:=} dollars.",
            f"{name} gets back {back:=} dollars.",
        ),
        back,
    )


def savings(d: Draw) -> Story:
    name, things = d.name(), d.things()
    weekly, weeks, spent = d.number(3, 20), d.number(2, 9), d.number(5, 60)
    saved = weekly * weeks
    left = saved - spent
    return Story(
        f"{name} saves {weekly} dollars a week for {weeks} weeks and then spends {spent} dollars on {things}."
        f"{d.aside(name)} How many dollars does {name} have left?",
        (f"{name} saves {saved:=} dollars.", f"{name} has {left:=} dollars left."),
        left,
    )


def flower_stall(d: Draw) -> Story:
    name, flowers = d.name(), d.one("roses", "tulips", "lilies")
    rows, each, lost, price = d.number(2, 8), d.number(3, 9), d.number(2, 20), d.number(2, 6)
    planted = rows * each
    alive = planted - lost
    earned = alive * price
    return Story(
        f"{name} plants {rows} rows of {each} {flowers}, but {lost} of them die.{d.aside(name)} The rest are sold for"
        f" {price} dollars each. How many dollars does {name} earn?",
        (
            f"{name} plants {planted:=} {flowers}.",
            f"There are {alive:=} {flowers} to sell.",
            f"{name} earns {earned:=} dollars.",
        ),
        earned,
    )


def reading(d: Draw) -> Story:
    name = d.name()
    pages, daily, days, more = d.number(80, 300), d.number(5, 20), d.number(2, 9), d.number(5, 50)
    early = daily * days
    read = early + more
    left = pages - read
    return Story(
        f"A book has {pages} pages. {name} reads {daily} pages a day for {days} days, and then {more} more pages."
        f"{d.aside(name)} How many pages are left?",
        (
            f"In {days} days {name} reads {early:=} pages.",
            f"In all {name} reads {read:=} pages.",
            f"There are {left:=} pages left.",
        ),
        left,
    )


def times_as_many(d: Draw) -> Story:
    (name, other), things = d.names(), d.things()
    own, times = d.number(3, 30), d.number(2, 6)
    others = own * times
    both = own + others
    return Story(
        f"{name} has {own} {things}.{d.aside(name)} {other} has {times} times as many {things} as {name}."
        f" How many {things} do they have together?",
        (f"{other} has {others:=} {things}.", f"Together they have {both:=} {things}."),
        both,
    )


def three_children(d: Draw) -> Story:
    (name, other), things = d.names(), d.things()
    own, times, fewer = d.number(3, 20), d.number(2, 5), d.number(2, 15)
    others = own * times
    third = others - fewer
    everyone = total(own, others, third)
    return Story(
        f"{name} finds {own} {things}. {other} finds {times} times as many. Their cousin finds {fewer} fewer than"
        f" {other}. How many {things} do all three find?",
        (
            f"{other} finds {others:=} {things}.",
            f"The cousin finds {third:=} {things}.",
            f"All three find {everyone:=} {things}.",
        ),
        everyone,
    )


def bus(d: Draw) -> Story:
    start, on, off, later = d.number(5, 50), d.number(2, 20), d.number(2, 20), d.number(2, 20)
    place, next_place = d.two(d.PLACES)
    first = start + on
    second = first - off
    last = second + later
    return Story(
        f"A bus has {start} riders. At the {place}, {on} get on and {off} get off. At the {next_place}, {later} more"
        f" get on. How many riders are on the bus now?",
        (
            f"With those who get on there are {first:=} riders.",
            f"After some get off there are {second:=} riders.",
            f"At the end there are {last:=} riders.",
        ),
        last,
    )


def ages(d: Draw) -> Story:
    name, other = d.names()
    age, older, years = d.number(4, 40), d.number(2, 30), d.number(2, 20)
    others = age + older
    later = others + years
    return Story(
        f"{name} is {age} years old and {other} is {older} years older than {name}. How old will {other} be in {years}"
        f" years?",
        (f"{other} is {others:=} years old.", f"In {years} years {other} will be {later:=} years old."),
        later,
    )


def bakery(d: Draw) -> Story:
    name, cakes = d.name(), d.one("cookies", "muffins", "rolls", "buns")
    trays, each, size, price = d.number(2, 9), d.number(4, 12), d.number(2, 8), d.number(2, 9)
    baked = trays * each
    boxes = baked // size
    earned = boxes * price
    return Story(
        f"{name} bakes {trays} trays of {each} {cakes} and packs them in boxes of {size}.{d.aside(name)} A box is sold"
        f" for {price} dollars. How many dollars do all the boxes bring?",
        (
            f"{name} bakes {baked:=} {cakes}.",
            f"That makes {boxes:=} boxes.",
            f"The boxes bring {earned:=} dollars.",
        ),
        earned,
    )


def teams(d: Draw) -> Story:
    girls, boys, size = d.number(6, 40), d.number(6, 40), d.number(2, 9)
    game = d.one("a game", "a race", "a quiz", "a dance")
    children = girls + boys
    groups = children // size
    return Story(
        f"For {game}, {girls} girls and {boys} boys form teams of {size} children. How many teams are there?",
        (f"There are {children:=} children.", f"They form {groups:=} teams."),
        groups,
    )


def wages(d: Draw) -> Story:
    name, meal = d.name(), d.one("lunch", "a ticket", "a book", "a gift")
    hourly, monday, tuesday, spent = d.number(3, 15), d.number(2, 8), d.number(2, 8), d.number(3, 30)
    hours = monday + tuesday
    earned = hours * hourly
    left = earned - spent
    return Story(
        f"{name} earns {hourly} dollars an hour and works {monday} hours on Monday and {tuesday} hours on Tuesday."
        f" {name} spends {spent} dollars on {meal}. How many dollars are left?",
        (
            f"{name} works {hours:=} hours.",
            f"{name} earns {earned:=} dollars.",
            f"There are {left:=} dollars left.",
        ),
        left,
    )


def half_lost(d: Draw) -> Story:
    (name, other), things = d.names(), d.things()
    own, lost = d.number(6, 150), d.number(2, 30)
    half = own // 2
    left = half - lost
    return Story(
        f"{name} has {own} {things} and gives half of them to {other}.{d.aside(name)} Then {name} loses {lost}"
        f" {things}. How many {things} does {name} have now?",
        (f"After giving, {name} has {half:=} {things}.", f"Now {name} has {left:=} {things}."),
        left,
    )


def fence(d: Draw) -> Story:
    name, place = d.name(), d.one("garden", "field", "yard", "pool")
    length, width, price = d.number(3, 20), d.number(2, 15), d.number(2, 6)
    side = length + width
    around = side * 2
    cost = around * price
    return Story(
        f"{name} builds a fence around a {place} {length} meters long and {width} meters wide.{d.aside(name)} A meter"
        f" of fence costs {price} dollars. How many dollars does the fence cost?",
        (
            f"One long and one short side are {side:=} meters.",
            f"The fence is {around:=} meters long.",
            f"It costs {cost:=} dollars.",
        ),
        cost,
    )


def tank(d: Draw) -> Story:
    name, place = d.name(), d.one("tank", "tub", "barrel", "pool")
    start, rate, minutes, lost = d.number(5, 60), d.number(2, 12), d.number(2, 12), d.number(2, 40)
    added = rate * minutes
    held = start + added
    left = held - lost
    return Story(
        f"A {place} holds {start} liters. {name} adds {rate} liters a minute for {minutes} minutes, and then {lost}"
        f" liters leak out.{d.aside(name)} How many liters are in the {place}?",
        (
            f"{name} adds {added:=} liters.",
            f"Then the {place} holds {held:=} liters.",
            f"After the leak there are {left:=} liters.",
        ),
        left,
    )


def goal(d: Draw) -> Story:
    name, wish = d.name(), d.one("bike", "guitar", "phone", "tent", "camera")
    price, saved, weekly = d.number(40, 300), d.number(5, 90), d.number(2, 12)
    missing = price - saved
    weeks = missing // weekly
    return Story(
        f"{name} wants a {wish} that costs {price} dollars and has {saved} dollars.{d.aside(name)} {name} saves"
        f" {weekly} dollars a week. How many weeks does it take to have enough?",
        (f"{name} needs {missing:=} more dollars.", f"It takes {weeks:=} weeks."),
        weeks,
    )


def legs(d: Draw) -> Story:
    big, small = d.one("cows", "goats", "horses", "sheep"), d.one("hens", "ducks", "geese")
    many, few, four, two = d.number(2, 30), d.number(2, 40), Quantity(4), Quantity(2)
    of_big, of_small = many * four, few * two
    both = of_big + of_small
    return Story(
        f"A farm has {many} {big} with {four} legs each and {few} {small} with {two} legs each."
        f"{d.aside('The farmer')} How many legs do the animals have?",
        (
            f"The {big} have {of_big:=} legs.",
            f"The {small} have {of_small:=} legs.",
            f"The animals have {both:=} legs.",
        ),
        both,
    )


def trip(d: Draw) -> Story:
    name = d.name()
    fast, hours, slow, more = d.number(20, 60), d.number(2, 4), d.number(5, 25), d.number(2, 5)
    first, second = fast * hours, slow * more
    both = first + second
    return Story(
        f"{name} drives {fast} miles an hour for {hours} hours and then {slow} miles an hour for {more} hours."
        f"{d.aside(name)} How many miles does {name} drive?",
        (
            f"First {name} drives {first:=} miles.",
            f"Then {name} drives {second:=} miles.",
            f"In all {name} drives {both:=} miles.",
        ),
        both,
    )


def profit(d: Draw) -> Story:
    name, things = d.name(), d.things()
    many, cost, price, stall = d.number(5, 40), d.number(2, 9), d.number(4, 15), d.number(3, 30)
    gain = price - cost
    gains = many * gain
    left = gains - stall
    return Story(
        f"{name} buys {many} {things} for {cost} dollars each and sells them for {price} dollars each. The stall costs"
        f" {stall} dollars. How many dollars of profit does {name} make?",
        (
            f"{name} gains {gain:=} dollars on each.",
            f"For all {things} that is {gains:=} dollars.",
            f"The profit is {left:=} dollars.",
        ),
        left,
    )


def boxes_to_fill(d: Draw) -> Story:
    name, (first, second), box = d.name(), d.two(d.THINGS), d.one(*d.CONTAINERS)
    some, others, size, price = d.number(5, 50), d.number(5, 50), d.number(2, 9), d.number(2, 6)
    both = some + others
    boxes = both // size
    cost = boxes * price
    return Story(
        f"{name} puts {some} {first} and {others} {second} in {box}, {size} in each.{d.aside(name)} Each of the {box}"
        f" costs {price} dollars. How many dollars do the {box} cost?",
        (
            f"{name} has {both:=} items.",
            f"They fill {boxes:=} {box}.",
            f"The {box} cost {cost:=} dollars.",
        ),
        cost,
    )

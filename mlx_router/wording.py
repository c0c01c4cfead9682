"""The sentences of template rows: what a tool does, said as people might, in English."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

from .catalogue import Tool
from .samples import Sample, label, listed, words

LONGEST_PHRASE = 9

Template: TypeAlias = tuple[str, str]
# Templates by whether the phrase is an order, and whether there is something to do it with.
Families: TypeAlias = Mapping[tuple[bool, bool], Sequence[Template]]

# What the first word of a description or of a name must be for the rest to be read as an order.
VERBS = frozenset(
    (
        *("accept", "activate", "add", "adjust", "answer", "apply", "approve", "archive", "arrange", "ask", "assign"),
        *("attach", "block", "book", "browse", "buy", "calculate", "call", "cancel", "change", "charge", "check"),
        *("choose", "clear", "close", "compare", "compose", "compute", "configure", "confirm", "connect", "control"),
        *(
            "convert",
            "copy",
            "count",
            "create",
            "delete",
            "deliver",
            "deny",
            "describe",
            "disable",
            "display",
            "download",
        ),
        *("edit", "email", "enable", "end", "enter", "escalate", "estimate", "execute", "export", "extend", "extract"),
        *("fetch", "file", "fill", "filter", "find", "fix", "flag", "follow", "forward", "generate", "get", "give"),
        *("go", "hand", "hide", "hold", "import", "increase", "insert", "install", "invite", "join", "leave", "list"),
        *("load", "locate", "lock", "log", "look", "lower", "make", "mark", "measure", "merge", "modify", "move"),
        *("mute", "navigate", "notify", "obtain", "offer", "open", "order", "pause", "pay", "perform", "pick", "place"),
        *("plan", "play", "post", "predict", "print", "process", "provide", "publish", "purchase", "put", "query"),
        *("raise", "rank", "rate", "read", "receive", "record", "redeem", "refund", "register", "reject", "remind"),
        *("remove", "rename", "renew", "rent", "repeat", "replace", "reply", "report", "request", "reschedule"),
        *("reserve", "reset", "restart", "restore", "resume", "retrieve", "return", "ring", "run", "save", "scan"),
        *("schedule", "search", "select", "sell", "send", "set", "share", "show", "sign", "skip", "sort", "start"),
        *("stop", "store", "submit", "subscribe", "summarize", "switch", "take", "tell", "test", "track", "transfer"),
        *("translate", "turn", "unlock", "unsubscribe", "update", "upgrade", "upload", "validate", "verify", "view"),
        *("visit", "withdraw", "write"),
    )
)

# {do} is an order ("track the order"), {with_} what it is to be done with ("order id ORD-4821"), {Do} and {With} the
# same with a capital.
ORDERS = (
    ("plain", "Please {do}, {with_}."),
    ("plain", "Can you {do}? {With}."),
    ("terse", "{Do}: {with_}"),
    ("plain", "I'd like to {do}: {with_}."),
    ("plain", "Could you {do} for me, {with_}?"),
    ("plain", "{With}, please {do}."),
    ("verbose", "Good morning, I need you to {do}; {with_}. Thank you very much!"),
    ("colloquial", "hey, {do}, {with_}, thanks"),
    ("plain", "I want to {do}, {with_}"),
    ("plain", "Go ahead and {do} with {with_}."),
    ("verbose", "Would you be so kind as to {do}? {With}, if you don't mind."),
    ("terse", "{with_}, {do}"),
)
BARE_ORDERS = (
    ("plain", "Please {do}."),
    ("plain", "Can you {do}?"),
    ("terse", "{Do}"),
    ("plain", "I'd like to {do}."),
    ("plain", "Could you {do} for me?"),
    ("plain", "{Do}, please."),
    ("verbose", "Good morning, I need you to {do}. Thank you very much!"),
    ("colloquial", "hey, {do}, thanks"),
    ("plain", "I want to {do} now"),
    ("plain", "Go ahead and {do}."),
    ("verbose", "Would you be so kind as to {do}, if you don't mind?"),
    ("terse", "{do} now"),
    ("plain", "It's time to {do}."),
    ("colloquial", "just {do} will you"),
    ("verbose", "If it isn't too much trouble, {do} before I leave the house."),
    ("plain", "Would you {do}?"),
    ("plain", "Time to {do}, I think."),
    ("colloquial", "yo, {do} for me"),
    ("plain", "{Do} when you have a moment."),
    ("verbose", "I've thought about it for a while now, and I'd like you to {do}."),
    ("terse", "ok {do}"),
    ("plain", "Hello, {do}, please."),
)
# The same for tools that are named by a thing: {do} is "the weather forecast".
WISHES = (
    ("terse", "{Do}: {with_}"),
    ("plain", "I need {do}, {with_}."),
    ("plain", "{Do}, please, {with_}."),
    ("plain", "I'd like {do}: {with_}."),
    ("plain", "Can I have {do}? {With}."),
    ("verbose", "Good morning, I'm here for {do}; {with_}. Thank you very much!"),
    ("colloquial", "hey, {do}, {with_}, thanks"),
    ("terse", "{with_}, {do}"),
    ("plain", "Could you take care of {do} for me, {with_}?"),
    ("plain", "Go ahead with {do}, {with_}."),
)
BARE_WISHES = (
    ("terse", "{Do}"),
    ("plain", "I need {do}."),
    ("plain", "{Do}, please."),
    ("plain", "I'd like {do}."),
    ("plain", "Can I have {do}?"),
    ("verbose", "Good morning, I'm here for {do}. Thank you very much!"),
    ("colloquial", "hey, {do}, thanks"),
    ("terse", "{do} now"),
    ("plain", "Could you take care of {do} for me?"),
    ("plain", "Go ahead with {do}."),
    ("verbose", "If it isn't too much trouble, {do} before I leave the house."),
    ("plain", "Bring me {do}."),
    ("plain", "Time for {do}, I think."),
    ("colloquial", "yo, {do} for me"),
    ("plain", "{Do} when you have a moment."),
    ("verbose", "I've thought about it for a while now, and I'd like {do}."),
    ("terse", "ok {do}"),
    ("plain", "Hello, {do}, please."),
    ("plain", "Could I get {do}?"),
    ("plain", "I want {do}."),
    ("colloquial", "gimme {do}"),
)
NEGATIONS = (
    ("negation", "Don't {do}, {with_}."),
    ("negation", "Please do not {do}: {with_}."),
    ("negation", "No need to {do} any more, {with_}."),
    ("negation", "You don't have to {do}, I took care of it. {With}."),
    ("negation", "Whatever you do, do not {do} with {with_}."),
)
BARE_NEGATIONS = (
    ("negation", "Don't {do}."),
    ("negation", "Please do not {do}."),
    ("negation", "No need to {do} any more."),
    ("negation", "You don't have to {do}, I took care of it."),
    ("negation", "Whatever you do, do not {do}."),
)
NEGATED_WISHES = (
    ("negation", "I don't need {do}, {with_}."),
    ("negation", "Not {do}, please, {with_}."),
    ("negation", "No need for {do} any more, {with_}."),
)
BARE_NEGATED_WISHES = (
    ("negation", "I don't need {do}."),
    ("negation", "Not {do}, please."),
    ("negation", "No need for {do} any more."),
)
QUESTIONS = (
    "How long does it take to {do}?",
    "What do you need from me to {do}?",
    "Who is allowed to {do}?",
    "Does it cost anything to {do}?",
    "What happens after you {do}?",
    "Is there a limit on how often you can {do}?",
)
QUESTIONS_ABOUT = ("How does {do} work?", "What does {do} cost?", "Who may use {do}?", "Is there a limit on {do}?")
GREETINGS = (
    *(
        "Hi!",
        "Hello there",
        "Good morning!",
        "Thanks a lot",
        "Thank you, that's all",
        "hey, how are you?",
        "Bye for now",
    ),
    *(
        "You're very helpful",
        "Good evening",
        "Great, thanks!",
        "Nice to meet you",
        "Have a good weekend",
        "Are you there?",
    ),
    *("Cheers, talk to you later", "Happy new year!", "What's up?", "Hello again", "Sorry, I got distracted", "lol ok"),
)
ELSEWHERE = (
    *("Write me a poem about the sea.", "Who won the World Cup in 1998?", "How tall is Mount Everest?"),
    *(
        "Is a tomato a fruit?",
        "What's the plural of octopus?",
        "Tell me a joke about penguins.",
        "Who painted Guernica?",
    ),
    *(
        "How do I knit a scarf?",
        "Why is the sky blue?",
        "Give me a recipe for lentil soup.",
        "What is seven times eight?",
    ),
    *("How old is the universe?", "Can cats see in the dark?", "Which planet has the most moons?"),
    *("Explain how photosynthesis works.", "Who wrote Don Quixote?", "How far away is the moon?", "Do fish sleep?"),
    *("What does serendipity mean?", "Suggest a name for my puppy.", "When did the Roman Empire end?"),
    *("How do bees make honey?", "Teach me some chess openings.", "What rhymes with orange?", "Are ghosts real?"),
)
OTHER_VERBS = ("print", "translate", "archive", "insure", "repaint", "photograph", "auction off", "laminate", "weigh")

CALLS: Families = {
    (True, True): ORDERS,
    (True, False): BARE_ORDERS,
    (False, True): WISHES,
    (False, False): BARE_WISHES,
}
REFUSED: Families = {
    (True, True): NEGATIONS,
    (True, False): BARE_NEGATIONS,
    (False, True): NEGATED_WISHES,
    (False, False): BARE_NEGATED_WISHES,
}


@dataclass(frozen=True)
class Phrase:
    """What a tool does, in words: an order ("track the order") or a thing ("the weather forecast")."""

    text: str
    is_order: bool


def phrases(tool: Tool) -> list[Phrase]:
    """How to say what the tool does: by its description, if that begins with a verb, and by its name."""
    found = [_described(tool.description), _named(tool.name)]
    orders = [phrase for phrase in found if phrase is not None and phrase.is_order]
    return orders or [phrase for phrase in found if phrase is not None][-1:]


def _described(description: str) -> Phrase | None:
    text = re.split(r"[.;:!?](?:\s|$)|\n", re.sub(r"\s*\([^)]*\)", "", description.strip()))[0]
    if len(text.split()) > LONGEST_PHRASE:
        text = text.split(", ")[0]
    first, _, rest = text.partition(" ")
    verb = _base(first)
    # Without a verb it may be anything; a choice ("maximize, minimize or place") is no order for one thing.
    if verb is None or not rest or len(text.split()) > LONGEST_PHRASE or " or " in text:
        return None
    return Phrase(f"{verb} {rest}", True)


def _base(word: str) -> str | None:
    """A verb in its base form: "get" of "Gets"; None for what is no verb that is known here."""
    word = word.casefold()
    forms = (word, word.removesuffix("s"), word.removesuffix("es"), re.sub("ies$", "y", word))
    return next((form for form in forms if form in VERBS), None)


def _named(name: str) -> Phrase:
    """A phrase of a tool's name: "track the order" for track_order, "the weather" for weather."""
    parts = words(re.split(r"[./:]", name)[-1]) or [name]
    verb = _base(parts[0])
    if verb is None:
        return Phrase(f"the {' '.join(parts)}", False)
    return Phrase(" ".join([verb, "the", *parts[1:]] if len(parts) > 1 else [verb]), True)


def thing(tool: Tool) -> str:
    """What a tool's name says that it deals with: "order" for track_order."""
    parts = words(re.split(r"[./:]", tool.name)[-1])
    return " ".join(parts[1:] if parts and _base(parts[0]) else parts if len(parts) > 1 else ())


def say(phrase: Phrase, samples: Mapping[str, Sample], families: Families, rng: Random) -> Template:
    """The kind of a request, and the request, by a template of the family that fits."""
    do, said = phrase.text, list[str]()
    for name, sample in samples.items():
        if sample.said and not said and do == phrase.text and _names(do, name):
            do = f"{do} {sample.said}"
        elif sample.said:
            said.append(f"{label(name)} {sample.said}")
    kind, template = rng.choice(families[phrase.is_order, bool(said)])
    with_ = listed(said)
    return kind, template.format(do=do, Do=_capital(do), with_=with_, With=_capital(with_))


def _names(do: str, parameter: str) -> bool:
    """Whether an order ends in what a parameter holds: "open the app" and app, "track the order" and order_id."""
    return words(parameter)[:1] == do.casefold().split()[-1:]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
